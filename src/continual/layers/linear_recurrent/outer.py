"""Cores of layers whose state is a matrix: sums of outer products of keys and values, with a decay or with the delta rule."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16  # frames whose decays are computed for each pair, where each key channel has its own


def gated_outer(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Linear attention with a decay: ``S_t = exp(log_decay_t) S_{t-1} + k_t v_tᵀ`` and ``y_t = S_tᵀ q_t``.

    A chunk is computed in blocks: within a block as attention whose scores are weighted by the decays between each pair of frames, and
    what came before it by its state. Decays are sums of logarithms between the two frames, never quotients of products, so nothing
    underflows that counts. Source: Yang et al. (2024), Gated Linear Attention, section 4; Dao and Gu (2024), section 6, for one decay.

    Args:
        q, k: queries and keys ``(B, T, H, K)``, for a single step ``(B, H, K)``.
        v: values ``(B, T, H, V)`` or ``(B, H, V)``.
        log_decay: logarithms of the decays, at most 0, ``(B, T, H, K)``, or ``(…, 1)`` for one in each head.
        start: the state before, ``(B, H, K, V)``.

    Returns:
        The outputs, shaped as ``v``, and the last state.
    """
    q, k, v, log_decay = (t.to(start.dtype) for t in (q, k, v, log_decay))
    if v.ndim == start.ndim - 1:
        state = torch.addcmul(k.unsqueeze(-1) * v.unsqueeze(-2), log_decay.exp().unsqueeze(-1), start)
        return _read(q, state), state
    q, k, v, log_decay = (t.transpose(1, 2) for t in (q, k, v, log_decay))
    block, outs = BLOCK if log_decay.shape[-1] > 1 else 4 * BLOCK, []
    for a, b, c, d in zip(*(t.split(block, 2) for t in (q, k, v, log_decay)), strict=True):
        y, start = _gated_block(a, b, c, d, start)
        outs.append(y)
    return torch.cat(outs, 2).transpose(1, 2), start


def _gated_block(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """A block ``(B, H, L, …)``."""
    broken, (k, v, log_decay) = without_nan(k, v, log_decay)
    between = _sums_between(log_decay)
    if log_decay.shape[-1] > 1:
        scores = torch.einsum("bhtk,bhsk,bhtsk->bhts", q, k, between.exp())
    else:
        scores = (q @ k.transpose(-1, -2)) * between.squeeze(-1).exp()
    y = scores @ v + (q * log_decay.cumsum(2).exp()) @ start
    whole = log_decay.sum(2).exp().unsqueeze(-1)
    state = torch.addcmul((k * between[:, :, -1].exp()).transpose(-1, -2) @ v, whole, start)
    return y + broken, state + broken[:, :, -1:]


def without_nan(*given: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same tensors ``(B, H, L, …)`` with 0 for what is not finite, and what to add to outputs: NaN from the first such frame on.

    Products over a block have zeros for the frames that come later, and 0 times NaN is NaN.
    """
    found = sum((t.detach() * 0).sum(-1, keepdim=True) for t in given)
    return torch.as_tensor(found).cumsum(2), [torch.nan_to_num(t, 0.0, 0.0, 0.0) for t in given]


def _sums_between(x: Tensor) -> Tensor:
    """For each pair of frames ``(t, s)`` the sum of ``x`` behind ``s`` up to ``t``, ``(B, H, L, L, K)``; -inf where ``s`` is later.

    It is summed for each ``s``: the difference of two sums from the start would lose the digits of the smaller one.
    """
    length = x.shape[2]
    later = torch.ones(length, length, dtype=torch.bool, device=x.device).tril(-1).unsqueeze(-1)
    sums = torch.where(later, x.unsqueeze(3), 0).cumsum(2)
    return sums.masked_fill(later.transpose(0, 1), float("-inf"))


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """A memory that is corrected at each step: ``S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ`` and ``y_t = S_tᵀ q_t``.

    Within a block all corrections follow from the block's keys by a triangular system, which is solved row after row.
    Source: Yang et al. (2024), Parallelizing Linear Transformers with the Delta Rule, section 3.

    Args:
        q, k: queries and keys ``(B, T, H, K)``, for a single step ``(B, H, K)``; keys have the length 1.
        v: values ``(B, T, H, V)`` or ``(B, H, V)``.
        beta: how much is corrected, from 0 to 1, ``(B, T, H, 1)`` or ``(B, H, 1)``.
        start: the state before, ``(B, H, K, V)``.

    Returns:
        The outputs, shaped as ``v``, and the last state.
    """
    if v.ndim == start.ndim - 1:
        state = torch.addcmul(start, k.unsqueeze(-1), (beta * (v - _read(k, start))).unsqueeze(-2))
        return _read(q, state), state
    q, k, v, beta = (t.transpose(1, 2) for t in (q, k, v, beta))
    outs = []
    for a, b, c, d in zip(*(t.split(BLOCK, 2) for t in (q, k, v, beta)), strict=True):
        y, start = _delta_block(a, b, c, d, start)
        outs.append(y)
    return torch.cat(outs, 2).transpose(1, 2), start


def _delta_block(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """A block ``(B, H, L, …)``: the corrections ``u`` solve ``u_t + beta_t sum_{s<t} (k_t · k_s) u_s = beta_t (v_t - Sᵀ k_t)``."""
    broken, (k, v, beta) = without_nan(k, v, beta)
    overlap = beta * (k @ k.transpose(-1, -2))
    wanted = beta * (v - k @ start)
    u = wanted[:, :, :1]
    for t in range(1, k.shape[2]):
        u = torch.cat((u, wanted[:, :, t : t + 1] - overlap[:, :, t : t + 1, :t] @ u), 2)
    scores = (q @ k.transpose(-1, -2)).tril()
    return q @ start + scores @ u + broken, start + k.transpose(-1, -2) @ u + broken[:, :, -1:]


def _read(q: Tensor, state: Tensor) -> Tensor:
    """What a state ``(B, H, K, V)`` holds for queries ``(B, H, K)``."""
    return (q.unsqueeze(-2) @ state).squeeze(-2)
