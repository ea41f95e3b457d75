"""Positions for endless streams: learned and cyclic ones that recur, sinusoidal and rotary ones that never repeat or drift."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.module import CoModule
from ...core.naming import named
from ...core.program.context import CallRows, KernelContext, Run
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing
from ...errors import NotStreamable, ShapeMismatch
from ...layers.positions.fixed_point_angles import angles_at, angles_in_32_bits, limbs
from ..local import check_home
from .fixed_point_angles import angles, geometric

Angles = Callable[[Tensor], Tensor]  # positions (…) → (…, pairs)


class Positioned(CoModule):
    """Base class of modules whose output depends on the input frame and on its index in the stream. Steps are ``(B, C)``."""

    channels: int

    @property
    def timing(self) -> Timing:
        return IDENTITY

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} of {self.channels} channels"

    def placed(self, x: Tensor, first: int) -> Tensor:
        """The outputs for frames ``(B, n, C)`` whose first has index ``first``."""
        raise NotStreamable(f"{type(self).__name__} defines no `placed`")

    def table(self) -> Tensor | None:
        """The module's own tensor whose dtype and device steps must have, if it has one."""
        return None

    def forward(self, input: Tensor) -> Tensor:
        """The clip ``(B, C, T)`` with the positions ``0 … T - 1``."""
        return self.placed(input.transpose(1, 2), 0).transpose(1, 2)

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        name = named(init.path, self)
        if len(frame.shape) != 2 or frame.shape[1] != self.channels:
            raise ShapeMismatch(f"{name}: expects steps (B, {self.channels}), got {tuple(frame.shape)}")
        if (own := self.table()) is not None:
            check_home(own, frame, name, mixed=torch.is_autocast_enabled(frame.device.type))
        return StateNode(init, self.kind, frame)

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        self.count(x, node, n_if_ended, updates)
        return (None if x is None else self.placed(x.transpose(1, 2), node.n_in).transpose(1, 2)), n_if_ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        updates.ticks.append((node, node.n_in + 1, node.n_in + 1))
        return self.placed(x.unsqueeze(1), node.n_in).squeeze(1)


class CyclicPattern(nn.Module):
    """Fixed positions on a circle: sines and cosines that all return to their start after ``num_embeddings`` steps.

    Pair ``i`` turns ``1 + i mod h`` times a round, ``h`` being the highest number of turns that samples can tell apart. So the
    inner product of two positions depends on their distance along the circle alone.
    """

    pattern: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings = num_embeddings
        pair = torch.arange((embedding_dim + 1) // 2, dtype=torch.float64)
        turns = 1 + pair % max(1, (num_embeddings - 1) // 2)
        angle = torch.arange(num_embeddings, dtype=torch.float64).unsqueeze(1) * turns * (2 * math.pi / num_embeddings)
        waves = torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[:, :embedding_dim]
        self.register_buffer("pattern", waves.to(torch.get_default_dtype()))

    def forward(self, index: Tensor) -> Tensor:
        """The rows of the pattern."""
        return self.pattern[index]


class RecyclingPositionalEncoding(Positioned):
    """Add one of ``num_embeds`` position vectors to every step, over and over: step ``t`` gets vector ``t % num_embeds``.

    Attention over a window of at most ``num_embeds`` tokens then still tells every two of its tokens apart. In training mode
    every ``forward`` starts ``forward_update_index_steps`` vectors after the one before, so that all vectors are trained at all
    places of a clip. In eval mode clips start at vector 0, as streams do.

    Args:
        embed_dim: channels.
        num_embeds: position vectors, at least the length of the attention window.
        learned: learn the vectors (``pe.weight``), or take fixed waves around a circle (``pe.pattern``).
        forward_update_index_steps: how far the start moves on with every ``forward`` in training mode.

    Raises:
        ShapeMismatch: steps that are not ``(B, embed_dim)``.

    Example:
        >>> positions = co.RecyclingPositionalEncoding(4, num_embeds=3).eval()
        >>> y = positions(torch.zeros(1, 4, 5))
        >>> torch.equal(y[:, :, 0], y[:, :, 3]), torch.equal(y[:, :, 0], y[:, :, 1])
        (True, False)

    Source: Hedegaard, Bakhtiarnia and Iosifidis, Continual Transformers (2022), section 3.4.
    """

    has_products = False

    def __init__(self, embed_dim: int, num_embeds: int, learned: bool = True, forward_update_index_steps: int = 1):
        super().__init__()
        if min(embed_dim, num_embeds) < 1:
            raise ValueError(
                f"RecyclingPositionalEncoding: embed_dim and num_embeds are at least 1, got {embed_dim} and {num_embeds}"
            )
        self.channels, self.num_embeds, self.learned = embed_dim, num_embeds, learned
        self.forward_update_index_steps = forward_update_index_steps
        self.index = 0  # where clips start in training
        self.pe: nn.Module = nn.Embedding(num_embeds, embed_dim) if learned else CyclicPattern(num_embeds, embed_dim)

    @property
    def kind(self) -> str:
        return f"{super().kind}, {self.num_embeds} positions"

    def forward(self, input: Tensor, update_index_steps: int | None = None) -> Tensor:
        """The clip ``(B, C, T)`` with its positions, ``T`` of any length.

        Args:
            input: the clip.
            update_index_steps: instead of ``forward_update_index_steps``; in training mode alone.
        """
        first = self.index if self.training else 0
        if self.training:
            moved = self.forward_update_index_steps if update_index_steps is None else update_index_steps
            self.index = (self.index + moved) % self.num_embeds
        return self.placed(input.transpose(1, 2), first).transpose(1, 2)

    def placed(self, x: Tensor, first: int) -> Tensor:
        start = first % self.num_embeds
        index = torch.arange(start, start + x.shape[1], device=x.device) % self.num_embeds
        vectors: Tensor = self.pe(index)
        return x + vectors

    def table(self) -> Tensor:
        table: Any = self.pe.weight if self.learned else self.pe.pattern
        return table

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.num_embeds}, learned={self.learned}"

    def program(self, ctx: KernelContext) -> Run:
        """Position vectors by the index of each frame, modulo their number."""
        return lambda x, rows: x + self.pe(rows.index(ctx.in_schedule).remainder(self.num_embeds)).transpose(1, 2)


class SinusoidalPositionalEncoding(Positioned):
    """Add the waves ``sin(t * f_i)`` and ``cos(t * f_i)`` of the position ``t`` to channels ``2i`` and ``2i + 1``.

    ``f_i = base ** (-2i / embed_dim)``. Positions count from 0 for ever; ten million steps on they are right to 1e-12, before
    they are rounded to the stream's dtype.

    Args:
        embed_dim: channels.
        base: of the frequencies.

    Raises:
        ShapeMismatch: steps that are not ``(B, embed_dim)``.

    Example:
        >>> positions = co.SinusoidalPositionalEncoding(4)
        >>> positions(torch.zeros(1, 4, 2))[0, :, 1]
        tensor([0.8415, 0.5403, 0.0100, 0.9999])

    Source: Vaswani et al., Attention is all you need (2017), section 3.5.
    """

    has_products = False
    frequencies: Tensor

    def __init__(self, embed_dim: int, base: float = 10000.0):
        super().__init__()
        self.channels, self.base = embed_dim, base
        self.register_buffer("frequencies", geometric(embed_dim, base), persistent=False)

    @property
    def kind(self) -> str:
        return f"{super().kind}, base {self.base}"

    def placed(self, x: Tensor, first: int) -> Tensor:
        angle = angles(self.frequencies, first, x.shape[1])
        waves = torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[:, : self.channels]
        return x + waves.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, base={self.base}"

    def program(self, ctx: KernelContext) -> Run:
        """Waves at the index of each frame."""

        angles = angles_of(self, ctx)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            angle = angles(rows.index(ctx.in_schedule))
            waves = torch.stack((angle.sin(), angle.cos()), 3).flatten(2)[:, :, : self.channels]
            return x + waves.to(x.dtype).transpose(1, 2)

        return run


class RotaryPositionalEncoding(Positioned):
    """Turn pairs of channels by an angle that grows with the position: inner products then depend on distances alone.

    ``co.MultiheadAttention(…, positions="rotary")`` turns queries and keys so; this module is for networks of your own.

    Args:
        embed_dim: channels; even.
        heads: the channels of each head are turned alike.
        base: pair ``i`` of a head with ``d`` channels turns by ``base ** (-2i / d)`` radians a step.
        interleaved: a pair is channels ``2i, 2i + 1``; otherwise ``i, i + d/2``.

    Raises:
        ValueError: heads with an odd number of channels.
        ShapeMismatch: steps that are not ``(B, embed_dim)``.

    Example:
        >>> turn = co.RotaryPositionalEncoding(4)
        >>> x = torch.ones(1, 4, 30)
        >>> q = turn(x)
        >>> torch.allclose((q[:, :, 9] * q[:, :, 4]).sum(1), (q[:, :, 27] * q[:, :, 22]).sum(1))
        True

    Source: Su et al., RoFormer: enhanced transformer with rotary position embedding (2021).
    """

    has_products = False
    frequencies: Tensor

    def __init__(self, embed_dim: int, heads: int = 1, base: float = 10000.0, interleaved: bool = False):
        super().__init__()
        if embed_dim % (2 * heads):
            raise ValueError(
                f"RotaryPositionalEncoding turns pairs of channels: {embed_dim} channels make no {heads} heads of an even number"
            )
        self.channels, self.heads, self.base, self.interleaved = embed_dim, heads, base, interleaved
        self.register_buffer("frequencies", geometric(embed_dim // heads, base), persistent=False)

    @property
    def kind(self) -> str:
        return f"{super().kind}, {self.heads} heads, base {self.base}, interleaved={self.interleaved}"

    def placed(self, x: Tensor, first: int) -> Tensor:
        return self.turned(x.unflatten(2, (self.heads, -1)), first).flatten(2)

    def turned(self, x: Tensor, first: int) -> Tensor:
        """Vectors ``(B, n, heads, d)`` of the positions from ``first`` on, turned."""
        angle = angles(self.frequencies, first, x.shape[1]).unsqueeze(1)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        a, b = (x[..., 0::2], x[..., 1::2]) if self.interleaved else x.chunk(2, -1)
        turned = (a * cos - b * sin, a * sin + b * cos)
        return torch.stack(turned, -1).flatten(-2) if self.interleaved else torch.cat(turned, -1)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}, base={self.base}, interleaved={self.interleaved}"

    def program(self, ctx: KernelContext) -> Run:
        """Rotations by the index of each frame."""
        angles = angles_of(self, ctx)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            heads = x.transpose(1, 2).unflatten(2, (self.heads, -1))
            return turned(self, angles, heads, rows.index(ctx.in_schedule)).flatten(2).transpose(1, 2)

        return run


def angles_of(layer: Any, ctx: KernelContext) -> Angles:
    """The angles of positions, by arithmetic that the runtime has."""
    if not ctx.target.int32:
        return lambda index: angles_at(layer.frequencies, index)
    parts = limbs(layer.frequencies)
    return lambda index: angles_in_32_bits(parts, index)


def turned(layer: Any, angles: Angles, x: Tensor, index: Tensor) -> Tensor:
    """Vectors ``(B, n, heads, d)`` turned to the positions ``(B, n)``."""
    angle = angles(index).unsqueeze(2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = (x[..., 0::2], x[..., 1::2]) if layer.interleaved else x.chunk(2, -1)
    pair = (a * cos - b * sin, a * sin + b * cos)
    return torch.stack(pair, -1).flatten(-2) if layer.interleaved else torch.cat(pair, -1)
