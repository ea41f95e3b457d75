"""Scaled dot-product attention in float32: scores, softmax and the sum of the values of some rows at once, in the first cache.

Takes half of the time of torch's, whose products are MKL's, on an AMD processor (measured in docs/performance.md).
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.tracing_guard import is_tracing
from . import build
from .build import FLOAT, LONG, POINTER
from .conditions import usable

SOURCE = Path(__file__).with_suffix(".cpp")
ALONE = 1 << 19  # products, below which a second thread costs more than it does
LEAST = 1 << 19  # products, below which the call from Python costs more than is gained


@functools.cache
def library() -> build.Kernel | None:
    """The kernel; ``None`` where there is no compiler, or with ``CONTINUAL_NATIVE=0``."""
    return build.kernel(SOURCE, [POINTER] * 7 + [FLOAT, LONG, POINTER, LONG], LONG)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.functional.scaled_dot_product_attention``, by the kernel where that is the faster one."""
    if not dropout_p and runs(query, key, value, attn_mask):
        return attend(query, key, value, attn_mask, is_causal, scale).transpose(1, 2)
    more = {"enable_gqa": True} if enable_gqa else {}
    return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)


def runs(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether the kernel computes this, on as many threads as torch would."""
    if q.ndim != 4 or v.ndim != 4 or q.shape[2] == 1 or _products(q, k, v) < LEAST:  # single queries are many calls: at once
        return False
    if torch.is_grad_enabled() or is_tracing() or not fits(q, k, v, mask):
        return False
    if not usable(q, k, None) or not usable(v, v, None):
        return False
    if mask is not None and not usable(mask, mask, None) and not (mask.dtype == torch.bool and mask.is_cpu):
        return False
    kernel = library()
    return kernel is not None and (kernel.parallel is not None or torch.get_num_threads() == 1)


def fits(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether the shapes are ones for the kernel: heads ``(B, H, n, D)``, as many of queries as of keys, none empty."""
    if not q.ndim == k.ndim == v.ndim == 4 or k.shape[:3] != v.shape[:3] or q.shape[:2] != k.shape[:2]:
        return False
    if q.shape[3] != k.shape[3] or 0 in (*q.shape, *v.shape):
        return False
    if mask is None:
        return True
    wanted = (*q.shape[:3], k.shape[2])[4 - mask.ndim :] if 1 < mask.ndim <= 4 else ()
    return len(wanted) == mask.ndim and all(a in (1, b) for a, b in zip(mask.shape, wanted, strict=True))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """Attention of heads ``(B, H, n, D)`` by the kernel, ``(B, n, H, E)``. A mask is added to the scores, or tells which are seen."""
    kernel = library()
    if kernel is None:
        raise AssertionError("asked for before")
    (batch, heads, rows, size), (keys, features) = q.shape, v.shape[2:]
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    strides = [*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], 0, 0, 0]
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=torch.float32, device="cpu").masked_fill_(~mask, -math.inf)
        mask = mask.expand(batch, heads, rows, keys)
        mask = mask if mask.stride(3) == 1 else mask.contiguous()
        strides[9:] = mask.stride()[:3]
    y = torch.empty((batch, rows, heads, features), dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads() if _products(q, k, v) >= ALONE else 1
    done = kernel.run(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if mask is None else mask.data_ptr(),
        y.data_ptr(),
        (LONG * 6)(batch, heads, rows, keys, size, features),
        (LONG * 12)(*strides),
        size**-0.5 if scale is None else scale,
        int(causal),
        kernel.parallel,
        threads,
    )
    if not done:
        raise MemoryError(f"attention of {rows} queries to {keys} keys of {size} numbers: no memory for their panels")
    return y


def _products(q: Tensor, k: Tensor, v: Tensor) -> int:
    return q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * (q.shape[3] + v.shape[3])
