"""Small networks whose parameters have telling names. No tests are in this file."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

import continual as co


def conv(kernel: int = 3, padding: int | None = None, stride: int = 1) -> co.Conv1d:
    """One parameter."""
    return co.Conv1d(2, 2, kernel, stride, kernel // 2 if padding is None else padding, bias=False)


def named(**modules: nn.Module) -> co.Sequential:
    return co.Sequential(OrderedDict(modules))


def block() -> co.Residual:
    return co.Residual(named(conv1=conv(), conv2=conv()))


def x3d_block() -> co.Sequential:
    """Two branches with names of their own."""
    short, long = named(branch1=conv(1)), named(branch2=named(a=conv(1), b=conv(), c=conv(1)))
    return co.Sequential(co.BroadcastReduce(short, long), nn.ReLU())


def names(state_dict: dict[str, Tensor]) -> list[str]:
    """All that these tests' networks hold are parameters called weight."""
    return [key.removesuffix("weight").removesuffix(".") for key in state_dict]


def filled(keys: Any, like: nn.Module) -> dict[str, Tensor]:
    """A checkpoint of these keys, in the order of the network's own, no two tensors alike."""
    return {key: torch.full_like(v, i + 1) for i, (key, v) in enumerate(zip(keys, like.state_dict().values(), strict=True))}


def check_filled(net: nn.Module) -> None:
    """The values of :func:`filled` have come to their places."""
    for i, value in enumerate(net.state_dict().values()):
        assert (value == i + 1).all()
