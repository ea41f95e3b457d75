"""The base class of layers whose state is carried by a linear map, and what they share."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.kernel import counted_macs
from ...core.state import StepSpec
from ...errors import NotStreamable, ShapeMismatch
from ..native import product
from ..recurrence import Recurrence, States

HALF = (torch.float16, torch.bfloat16)
PIECE = 64  # frames that are computed at a time, so that their states stay in the cache of the processor


class Projection(nn.Linear):
    """``nn.Linear``, whose products are the library's own where these are faster."""

    def forward(self, input: Tensor) -> Tensor:
        return product.linear(input, self.weight, self.bias)


class LinearRecurrence(Recurrence):
    """Base class of layers on clips ``(B, C, T)`` whose state is carried by a linear map.

    A subclass defines :meth:`mix`, one formula for a step and for a chunk, and :meth:`states`.

    States are float32 at least: a decay near 1 would be lost in half precision. Parts that a layer casts (:meth:`wide`) are computed so
    too; of a module that computes them in float32 always, :attr:`single` is set.
    """

    channels: int
    diagonal_state = ""  # the state that is carried number by number
    single = False  # whether parts are computed in float32, also in a network of float64

    def states(self, x: Tensor) -> dict[str, tuple[int, ...]]:
        """The shapes of the states before the first step, without the batch: they are zeros."""
        raise NotStreamable(f"{type(self).__name__} defines no `states`")

    def mix(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        """The layer on a chunk ``(B, T, C)`` or on a step ``(B, C)``: the output in this layout, and the states behind it."""
        raise NotStreamable(f"{type(self).__name__} defines no `mix`")

    def wide(self, x: Tensor) -> Tensor:
        """A tensor in the precision of the parts that carry the state."""
        return x.float() if self.single or x.dtype in HALF else x

    # ---- the recurrence ---------------------------------------------------------------------------------------------

    def initial_state(self, x: Tensor) -> States:
        if x.ndim != 2 or x.shape[1] != self.channels:
            raise ShapeMismatch(f"{type(self).__name__}: expects steps (B, {self.channels}), got {tuple(x.shape)}")
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        return {name: x.new_zeros(x.shape[0], *shape, dtype=dtype) for name, shape in self.states(x).items()}

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        return self.mix(x, state)

    def recur_chunk(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        outs = []
        for piece in x.transpose(1, 2).split(PIECE, 1):
            y, state = self.mix(piece, state)
            outs.append(y)
        return (torch.cat(outs, 1) if len(outs) > 1 else outs[0]).transpose(1, 2), state

    def macs(self, x: Tensor) -> int | Fraction:
        """Those of the products in a chunk of one, and one for each number of a diagonal state."""
        frame = StepSpec.of(x)
        state = self._initial(frame, "")
        carried = state[self.diagonal_state].numel() if self.diagonal_state else 0
        return Fraction(carried + counted_macs(lambda: self.recur_chunk(frame.zeros(1), state)), frame.shape[0])


# ---- what stands around the recurrences ---------------------------------------------------------------------------------


def causal_conv(conv: nn.Conv1d, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """A depthwise convolution over a chunk ``(B, T, C)`` or a step ``(B, C)``, and the frames before the next one, ``(B, C, k-1)``."""
    weight = conv.weight
    frames = torch.cat((window, x.unsqueeze(-1) if x.ndim == 2 else x.transpose(1, 2)), -1)
    kept = frames[..., frames.shape[-1] - weight.shape[-1] + 1 :]
    if x.ndim == 3:
        return F.conv1d(frames.to(weight.dtype), weight, conv.bias, groups=weight.shape[0]).transpose(1, 2), kept
    y = (frames * weight.squeeze(1)).sum(-1)
    return (y if conv.bias is None else y + conv.bias).to(weight.dtype), kept


def depthwise(channels: int, kernel: int, bias: bool, **home: Any) -> nn.Conv1d:
    """The weights of :func:`causal_conv`, as modules for clips hold them."""
    return nn.Conv1d(channels, channels, kernel, groups=channels, padding=kernel - 1, bias=bias, **home)


def rms(x: Tensor, eps: float) -> Tensor:
    """``x`` divided by the root of the mean of its squares over the last dimension."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def keys_and_values(name: str, channels: int, num_heads: int, expand_k: float, expand_v: float) -> tuple[int, int]:
    """The channels of the keys and of the values, of all heads.

    Raises:
        ValueError: the heads do not divide them.
    """
    keys, values = int(channels * expand_k), int(channels * expand_v)
    if keys % num_heads or values % num_heads:
        raise ValueError(f"{name}: {num_heads} heads do not divide {keys} channels of keys and {values} of values")
    return keys, values


class HeadNorm(nn.Module):
    """A root-mean-square norm over the last dimension, computed in float32 at least. Source: Zhang and Sennrich (2019)."""

    def __init__(self, size: int, eps: float, **home: Any):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size, **home)), eps

    def forward(self, x: Tensor) -> Tensor:
        """``(…, size)`` to the same."""
        return self.weight * rms(x.float() if x.dtype in HALF else x, self.eps).to(x.dtype)
