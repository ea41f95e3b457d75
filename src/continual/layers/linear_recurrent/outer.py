"""Cores of layers whose state is a matrix: sums of outer products of keys and values, with a decay or with the delta rule."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .diagonal import diagonal

BLOCK = 16  # frames whose scores are computed for each pair


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
    broken, (k, v, log_decay) = without_nan(k, v, log_decay)
    length, single = v.shape[1], log_decay.shape[-1] == 1
    q, k, v, log_decay = (_blocks(t, 4 * BLOCK if single else BLOCK) for t in (q, k, v, log_decay))  # (B, blocks, H, L, …)
    between = _sums_between(log_decay)
    if single:
        scores = (q @ k.transpose(-1, -2)) * between.squeeze(-1).exp()
    else:
        scores = torch.einsum("nchtk,nchsk,nchtsk->nchts", q, k, between.exp())
    added = (k * between[..., -1, :, :].exp()).transpose(-1, -2) @ v
    states, last = diagonal(log_decay.sum(-2).exp().unsqueeze(-1), added, start)
    before = torch.cat((start.unsqueeze(1), states[:, :-1]), 1)
    y = scores @ v + (q * log_decay.cumsum(-2).exp()) @ before
    return _frames(y, length) + broken, last + broken[:, -1].unsqueeze(-1)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """A memory that is corrected at each step: ``S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ`` and ``y_t = S_tᵀ q_t``.

    Within a block the corrections ``u`` solve ``u_t + beta_t sum_{s<t} (k_t · k_s) u_s = beta_t (v_t - Sᵀ k_t)``, a triangular system of
    the keys alone, which is inverted for all blocks at once.
    Source: Yang et al. (2024), Parallelizing Linear Transformers with the Delta Rule, section 3.

    Args:
        q, k: queries and keys ``(B, T, H, K)``, for a single step ``(B, H, K)``; keys have the length 1.
        v: values ``(B, T, H, V)`` or ``(B, H, V)``.
        beta: how much is corrected, from 0 to 1, ``(B, T, H, 1)`` or ``(B, H, 1)``.
        start: the state before, ``(B, H, K, V)``.

    Returns:
        The outputs, shaped as ``v``, and the last state.
    """
    q, k, v, beta = (t.to(start.dtype) for t in (q, k, v, beta))
    if v.ndim == start.ndim - 1:
        state = torch.addcmul(start, k.unsqueeze(-1), (beta * (v - _read(k, start))).unsqueeze(-2))
        return _read(q, state), state
    broken, (k, v, beta) = without_nan(k, v, beta)
    length = v.shape[1]
    q, k, v, beta = (_blocks(t, BLOCK) for t in (q, k, v, beta))  # (B, blocks, H, L, …)
    across = k.transpose(-1, -2)
    solved = _inverse_of_unit_lower(beta * (k @ across))
    wanted, seen = solved @ (beta * v), solved @ (beta * k)
    states, corrections = [start], []
    for u, w, keys in zip(wanted.unbind(1), seen.unbind(1), across.unbind(1), strict=True):
        corrections.append(u - w @ states[-1])
        states.append(states[-1] + keys @ corrections[-1])
    y = q @ torch.stack(states[:-1], 1) + (q @ across).tril() @ torch.stack(corrections, 1)
    return _frames(y, length) + broken, states[-1] + broken[:, -1].unsqueeze(-1)


def _inverse_of_unit_lower(lower: Tensor) -> Tensor:
    """``(1 + N)⁻¹`` where ``N`` is what of ``(…, L, L)`` is below the diagonal: by halves, from pairs of rows to all."""
    place = torch.arange(lower.shape[-1], device=lower.device)
    row, column, span = place.unsqueeze(1), place, 1
    found = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device).expand_as(lower)
    while span < lower.shape[-1]:
        corner = (row // (2 * span) == column // (2 * span)) & (row // span > column // span)
        found = found - found @ torch.where(corner, lower, 0) @ found
        span *= 2
    return found


def _sums_between(x: Tensor) -> Tensor:
    """For each pair of frames ``(t, s)`` the sum of ``x`` behind ``s`` up to ``t``, ``(…, L, L, K)``; -inf where ``s`` is later.

    It is summed for each ``s``: the difference of two sums from the start would lose the digits of the smaller one.
    """
    later = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool, device=x.device).tril(-1).unsqueeze(-1)
    sums = torch.where(later, x.unsqueeze(-2), 0).cumsum(-3)
    return sums.masked_fill(later.transpose(0, 1), float("-inf"))


def without_nan(*tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same tensors ``(B, T, H, …)`` with 0 for what is not finite, and what to add to outputs: NaN from the first such frame on.

    Products over a block have zeros for the frames that come later, and 0 times NaN is NaN.
    """
    found = sum((t.detach() * 0).sum(-1, keepdim=True) for t in tensors)
    return torch.as_tensor(found).cumsum(1), [torch.nan_to_num(t, 0.0, 0.0, 0.0) for t in tensors]


def _blocks(x: Tensor, size: int) -> Tensor:
    """``(B, T, H, N)`` in blocks ``(B, blocks, H, L, N)``, the last one filled with zeros, which change no state."""
    size = min(size, x.shape[1])
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size))
    return x.unflatten(1, (-1, size)).transpose(2, 3)


def _frames(y: Tensor, length: int) -> Tensor:
    """Blocks as ``(B, T, H, N)`` again."""
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def _read(q: Tensor, state: Tensor) -> Tensor:
    """What a state ``(B, H, K, V)`` holds for queries ``(B, H, K)``."""
    return (q.unsqueeze(-2) @ state).squeeze(-2)
