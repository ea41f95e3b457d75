"""Attention over a sliding band of keys, for chunks of any length: work and memory grow with the chunk, not with its square."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import NotStreamable

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def band_attention(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, offset: int, behind: int, ahead: int, slopes: Tensor | None = None
) -> Tensor:
    """Attend from every query to the keys from ``behind`` tokens before it to ``ahead`` after it.

    Args:
        attend: attention of heads with a mask, merged: ``(B, H, n, D) → (B, n, E)``.
        q: queries ``(B, H, n, D)``.
        k: keys ``(B, H, m, D)``: all that there are in the bands.
        v: values ``(B, H, m, D)``.
        offset: which key is the first query's own token.
        behind: keys before a query that it sees.
        ahead: keys after a query that it sees.
        slopes: for each head ``(H,)``, what is subtracted from a score for each token of distance (ALiBi).
    """
    count, size = q.shape[2], k.shape[2]
    if count == 1 and slopes is None and offset <= behind and size - 1 - offset <= ahead:
        return attend(q, k, v, None)
    if are_finite(k, v):
        return _masked(attend, q, k, v, offset, behind, ahead, slopes)
    # a hidden key has the weight 0, and 0 * NaN is NaN: so what is not finite is left out, and put back where it is seen
    broken = ~(k.isfinite().all(-1) & v.isfinite().all(-1))
    k, v = (t.masked_fill(broken.unsqueeze(-1), 0.0) for t in (k, v))
    y = _masked(attend, q, k, v, offset, behind, ahead, slopes)
    left, reach = behind - offset, behind + ahead + 1
    around = F.pad(broken.to(q.dtype), (left, count + reach - 1 - left - size))
    seen = F.max_pool1d(around, reach, 1).bool()  # (B, H, n)
    return y.masked_fill(seen.transpose(1, 2).repeat_interleave(v.shape[3], 2), torch.nan)


def are_finite(k: Tensor, v: Tensor) -> bool:
    """Whether all values are known to be finite. They are read on the CPU alone: elsewhere that would wait for the device."""
    if torch.compiler.is_compiling() or not k.is_cpu:
        return False
    with torch.no_grad():
        return math.isfinite(float(k.sum() + v.sum()))


def _masked(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, offset: int, behind: int, ahead: int, slopes: Tensor | None
) -> Tensor:
    count, size = q.shape[2], k.shape[2]
    block = max(behind + ahead + 1, 16)
    if count <= 2 * block:
        return attend(q, k, v, _mask(_distances(count, size, offset, q), behind, ahead, slopes))
    return _in_blocks(attend, q, k, v, offset, behind, ahead, slopes, block)


def _in_blocks(
    attend: Attend, q: Tensor, k: Tensor, v: Tensor, offset: int, behind: int, ahead: int, slopes: Tensor | None, block: int
) -> Tensor:
    """Blocks of queries as a batch, each with the keys of its bands."""
    batch, _, count, _ = q.shape
    blocks = -(-count // block)
    reach = block + behind + ahead
    q = F.pad(q, (0, 0, 0, blocks * block - count))
    left = behind - offset  # the first block's keys begin so many tokens before those that there are
    right = (blocks - 1) * block + reach - left - k.shape[2]
    q = q.unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
    k, v = (F.pad(t, (0, 0, left, right)).unfold(2, reach, block).permute(0, 2, 1, 4, 3).flatten(0, 1) for t in (k, v))
    exists = torch.zeros(blocks * block + behind + ahead, dtype=torch.bool, device=q.device)
    exists[left : exists.shape[0] - right] = True
    seen = exists.unfold(0, reach, block)
    distances = _distances(block, reach, behind, q)
    band = (distances >= -behind) & (distances <= ahead)
    allowed = band & seen.unsqueeze(1)
    allowed |= ~allowed.any(-1, keepdim=True)  # queries that pad the last block: something to see, else NaN in their gradients
    mask = allowed.unsqueeze(1)
    if slopes is not None:
        mask = _sloped(distances, slopes).masked_fill(~mask, -torch.inf)
    y = attend(q, k, v, mask.repeat(batch, 1, 1, 1))
    return y.unflatten(0, (batch, blocks)).flatten(1, 2)[:, :count]


def _distances(queries: int, keys: int, offset: int, like: Tensor) -> Tensor:
    """How many tokens after its query each key is: ``(queries, keys)``."""
    i, j = torch.arange(queries, device=like.device), torch.arange(keys, device=like.device)
    return j - (i + offset).unsqueeze(1)


def _mask(distances: Tensor, behind: int, ahead: int, slopes: Tensor | None) -> Tensor:
    allowed = (distances >= -behind) & (distances <= ahead)
    return allowed if slopes is None else _sloped(distances, slopes).masked_fill(~allowed, -torch.inf)


def _sloped(distances: Tensor, slopes: Tensor) -> Tensor:
    """What ALiBi adds to the scores: ``(H, queries, keys)``."""
    return -(slopes.view(-1, 1, 1) * distances.abs().to(slopes.dtype))


def alibi_slopes(heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The slope of each head: ``2 ** (-8 h / H)`` for a power of two; otherwise those of the next lower one, and every other of
    those of the next higher one.

    Source: Press, Smith and Lewis, Train short, test long (2022), and its published code for other numbers of heads.
    """
    return _slopes.__wrapped__(heads, dtype, device) if torch.compiler.is_compiling() else _slopes(heads, dtype, device)


@lru_cache(maxsize=64)  # not while a graph is traced: its tensors are none
def _slopes(heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    slopes += [2 ** (-8 * (2 * h + 1) / (2 * power)) for h in range(heads - power)]
    with torch.inference_mode(False):
        return torch.tensor(slopes, dtype=dtype, device=device)


def alibi_row(heads: int, count: int, ahead: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What ALiBi adds to the scores of one query with ``count`` keys in the order of time: ``(H, 1, count)``."""
    made = _row.__wrapped__ if torch.compiler.is_compiling() else _row
    return made(heads, count, ahead, dtype, device)


@lru_cache(maxsize=64)
def _row(heads: int, count: int, ahead: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        distances = (torch.arange(count, device=device) - (count - 1 - ahead)).unsqueeze(0)
        return _sloped(distances, alibi_slopes(heads, dtype, device))


def band_of(mask: Tensor, sequence_len: int | None) -> tuple[int, int]:
    """The window and the look-ahead of a mask ``(T, T)`` as ``torch.nn`` means it: ``True`` or ``-inf`` hides.

    Raises:
        NotStreamable: a mask that is not a band, or hides nothing that comes later.
        ValueError: a mask whose band has another length than ``sequence_len``, or none.
    """
    size = mask.shape[-1]
    if mask.ndim != 2 or mask.shape[0] != size:
        raise NotStreamable(f"a mask of tokens is (T, T), got {tuple(mask.shape)}; masks for each row or head can't be streamed")
    visible = ~mask if mask.dtype == torch.bool else mask == 0
    distances = _distances(size, size, 0, mask)
    seen = distances[visible]
    ahead, behind = (int(seen.max()), -int(seen.min())) if seen.numel() else (-1, -1)
    whole_band = bool((visible == ((distances >= -behind) & (distances <= ahead))).all())
    if mask.dtype != torch.bool:
        whole_band &= bool((visible | (mask == -torch.inf)).all())
    if not whole_band or ahead < 0 or behind < 0 or (ahead == size - 1 and size > 1):
        raise NotStreamable(
            "the mask is not a causal band: every token has to see the same number of tokens before it and after it, and not all that "
            "come. Other masks are representable within a window: causal=False, mask (sequence_len, sequence_len)"
        )
    if behind == size - 1:  # the clip was too short for the band to end
        if sequence_len is None:
            raise ValueError(f"the mask lets its last token see all {size} tokens, so it tells no window: give sequence_len=…")
        return sequence_len, ahead
    if sequence_len not in (None, behind + ahead + 1):
        raise ValueError(f"the mask is a band of {behind + ahead + 1} tokens, sequence_len says {sequence_len}")
    return behind + ahead + 1, ahead
