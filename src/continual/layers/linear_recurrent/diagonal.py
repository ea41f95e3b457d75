"""The core of layers whose state is carried by a diagonal linear map: `h = a * h + b`, with other `a` and `b` at each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALL = 1024  # numbers of a state up to which blocks are faster than one step after another, on CPUs
ON_DEVICE = 1 << 16  # the same on other devices, where a small operation costs its launch (not measured)


def diagonal(decay: Tensor, inputs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The states ``h_t = decay_t * h_{t-1} + inputs_t``.

    Large states are computed one after another, which reads and writes each number once. For small ones the calls count: the frames are
    put in blocks, which run side by side from a state of zeros, and what came before a block is added. Products of decays are only
    multiplied, so that what becomes too small to be represented becomes 0.

    Args:
        decay: ``(B, T, *S)``, for a single step ``(B, *S)``. Dimensions of 1 broadcast, time too.
        inputs: ``(B, T, *S)`` or ``(B, *S)``.
        start: the state before, ``(B, *S)``.

    Returns:
        The states of all steps, shaped as ``inputs``, and the last one.
    """
    if inputs.ndim == start.ndim:
        h = torch.addcmul(inputs, decay, start)
        return h, h
    length = inputs.shape[1]
    decay = decay.expand(-1, length, *decay.shape[2:])
    rows = start.shape[0] if isinstance(start.shape[0], int) else 1  # in a program that is exported: any number
    small = rows * math.prod(start.shape[1:]) <= (SMALL if start.device.type == "cpu" else ON_DEVICE)
    size = math.isqrt(length // 2) if small else 0
    if size < 2:
        states = torch.stack(_one_by_one(decay.unbind(1), inputs.unbind(1), start), 1)
    else:
        whole = length // size * size
        states = _in_blocks(decay[:, :whole], inputs[:, :whole], start, size)
        if whole < length:
            rest = _one_by_one(decay[:, whole:].unbind(1), inputs[:, whole:].unbind(1), states[:, -1])
            states = torch.cat((states, torch.stack(rest, 1)), 1)
    return states, states[:, -1]


def _one_by_one(decay: Sequence[Tensor], inputs: Sequence[Tensor], h: Tensor) -> list[Tensor]:
    states = []
    for a, b in zip(decay, inputs, strict=True):
        h = torch.addcmul(b, a, h)
        states.append(h)
    return states


def _in_blocks(decay: Tensor, inputs: Tensor, start: Tensor, size: int) -> Tensor:
    """The states of ``T`` steps, a multiple of ``size``, in blocks of this length. Source: Blelloch (1990), scans in two levels."""
    blocks = inputs.shape[1] // size
    a, b = (t.unflatten(1, (blocks, size)).unbind(2) for t in (decay, inputs))
    own, kept = [b[0], *_one_by_one(a[1:], b[1:], b[0])], [a[0]]
    for factor in a[1:]:
        kept.append(kept[-1] * factor)
    before = [start, *_one_by_one(kept[-1].unbind(1)[:-1], own[-1].unbind(1)[:-1], start)]
    return torch.addcmul(torch.stack(own, 2), torch.stack(kept, 2), torch.stack(before, 1).unsqueeze(2)).flatten(1, 2)
