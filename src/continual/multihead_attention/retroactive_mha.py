"""`RetroactiveMultiheadAttention`: the import path of continual-inference, and its attention as two pure functions.

New code takes the class: its softmax subtracts the largest logit, and its outputs do not drift.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..layers.attention.multihead import RetroactiveMultiheadAttention

__all__ = ["RetroactiveMultiheadAttention"]

Memory = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _scaled_dot_product_attention_default_state(
    batch_size: int,
    sequence_len: int,
    embed_dim: int,
    num_heads: int,
    init_fn: Callable[..., Tensor] = torch.zeros,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Memory:
    """The memory of a window of N tokens before the first one, heads among the rows: B·H rows of E/H channels.

    Returns:
        The sums of weights (B·H, N-1, 1), weighted values (B·H, N-1, E/H) and scaled queries (B·H, N-1, E/H) of
        the newest N-1 queries; the N newest keys (B·H, E/H, N) and values (B·H, N, E/H).
    """
    rows, width, older = batch_size * num_heads, embed_dim // num_heads, sequence_len - 1
    shapes = ((older, 1), (older, width), (older, width), (width, sequence_len), (sequence_len, width))
    a, b, c, d, e = (init_fn((rows, *shape), dtype=dtype, device=device) for shape in shapes)
    return a, b, c, d, e


def _scaled_dot_product_attention_step(
    prev_state: Memory, q_step: Tensor, k_step: Tensor, v_step: Tensor
) -> tuple[Tensor, Memory]:
    """Attention of all tokens of the window to each other, updated by one token (B, E).

    The oldest key leaves the sums of each query that stays and the newest enters them: O(N·E) rather than O(N²·E).

    Returns:
        The updated outputs (B, N, E), and the next memory.

    Source:
        Hedegaard et al., "Continual Transformers: Redundancy-Free Attention for Online Inference", ICLR 2023.
    """
    sums, weighted, queries, keys, values = prev_state
    query = q_step.unsqueeze(1) / math.sqrt(q_step.shape[-1])
    gone = (queries @ keys[:, :, :1]).exp()
    new = (queries @ k_step.unsqueeze(-1)).exp()
    sums = sums - gone + new
    weighted = weighted - gone * values[:, :1] + new * v_step.unsqueeze(1)

    keys = torch.cat((keys[:, :, 1:], k_step.unsqueeze(-1)), dim=2)
    values = torch.cat((values[:, 1:], v_step.unsqueeze(1)), dim=1)
    weights = (query @ keys).exp()
    sums = torch.cat((sums, weights.sum(-1, keepdim=True)), dim=1)
    weighted = torch.cat((weighted, weights @ values), dim=1)
    queries = torch.cat((queries, query), dim=1)
    return weighted / sums, (sums[:, 1:], weighted[:, 1:], queries[:, 1:], keys, values)
