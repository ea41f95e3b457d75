"""Streams in chunks of given sizes. No tests are in this file."""

from __future__ import annotations

import torch
from torch import Tensor

import continual as co


def streamed(net: co.CoModule, clip: Tensor, sizes: list[int]) -> Tensor:
    """The outputs of chunks of these sizes in turns, and of the end."""
    net.clean_state()
    outs, at, i = [], 0, 0
    while at < clip.shape[2]:
        outs.append(net.forward_steps(clip[:, :, at : at + sizes[i % len(sizes)]]))
        at, i = at + sizes[i % len(sizes)], i + 1
    outs.append(net.forward_steps(clip[:, :, :0], pad_end=True))
    return torch.cat([y for y in outs if y is not None], 2)
