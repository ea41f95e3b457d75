"""The kernel of norms over time: each frame is normalised by statistics of itself and of frames before it.

Statistics are float64, computed by :mod:`continual.layers.norms.statistics`. The norms are in :mod:`continual.layers.norms.causal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ...core.naming import named
from ...core.precision import widest
from ...core.program.context import CallRows, KernelContext, Run, carried, of_rows
from ...core.registry import TorchLayer
from ...core.ring_buffer import ring_frames
from ...core.state import InitContext, StateNode, StateUpdates, StepSpec
from ...core.timing import IDENTITY, Timing, Window
from ...errors import NotStreamable, ShapeMismatch
from ..local import check_parameters, parameter
from .statistics import Statistics, of_frames, over_last, up_to_now


class TimeNorm(TorchLayer):
    """Base class: normalise each group of channels by its mean and variance over frames that a subclass of this chooses.

    The statistics of each frame are computed alone. :meth:`known` combines them into those to normalise by; :meth:`centred_step` does
    both for one frame.
    """

    has_products = False
    eps: float

    def groups(self, shape: Sequence[int]) -> int:
        """How many groups the channels of steps ``(B, C, *S)`` are normalised in."""
        raise NotStreamable(f"{type(self).__name__} defines no `groups`")

    def check(self, frame: StepSpec, path: str) -> None:
        """Refuse frames that the norm can't take."""
        check_parameters(self, frame, path)
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{path}: takes floating point numbers, got steps {frame}")

    def cold(self, frame: StepSpec) -> dict[str, Tensor]:
        """The cold state tensors."""
        raise NotStreamable(f"{type(self).__name__} defines no `cold`")

    def known(self, mean: Tensor, variance: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        """The statistics to normalise each frame of a chunk by, of those of the frames alone; all ``(B, groups, n)``."""
        raise NotStreamable(f"{type(self).__name__} defines no `known`")

    def centred_step(self, parts: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        """A frame ``(B, groups, N)`` minus the mean to normalise it by, and the variance ``(B, groups, 1)``."""
        raise NotStreamable(f"{type(self).__name__} defines no `centred_step`")

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        self.check(frame, named(init.path, self))
        return StateNode(init, self.kind, frame, self.cold(frame), accumulator=True)

    def forward(self, input: Tensor) -> Tensor:
        """The clip ``(B, C, T, *S)``, normalised as a stream of it is: each frame by statistics that look back."""
        node = self.open(StepSpec.of_chunk(input), InitContext())
        return self.advance(input, node, input.shape[2], StateUpdates(final=True))[0] if input.shape[2] else input

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Any, int]:
        _, _, ended = self.count(x, node, n_if_ended, updates)
        if x is None:
            return None, ended
        groups = self.groups(x.shape[:2] + x.shape[3:])
        parts = x.to(widest(x.device)).unflatten(1, (groups, -1))  # (B, groups, C / groups, n, *S)
        alone = of_frames(parts, [2, *range(4, parts.ndim)])
        shape = alone[0].shape
        mean, variance = self.known(alone[0].flatten(2), alone[1].flatten(2), node, updates)
        parts = parts - mean.view(shape)
        parts = _times(parts, (variance + self.eps).rsqrt().view(shape))
        return self._scaled(parts.flatten(1, 2)).to(x.dtype), ended

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        n = node.n_in + 1
        if n == 1:  # there is no earlier mean to subtract
            return cast(Tensor, super().advance_step(x, node, updates))
        parts = x.reshape(x.shape[0], self.groups(x.shape), -1).to(widest(x.device))
        centred, variance = self.centred_step(parts, node, updates)
        updates.ticks.append((node, n, n))
        return self._scaled(centred.mul_((variance + self.eps).rsqrt_()).view(x.shape)).to(x.dtype)

    def _scaled(self, y: Tensor) -> Tensor:
        """Channels (dim 1) times the weight, plus the bias. ``y`` is not used again."""
        weight, bias = parameter(self, "weight"), parameter(self, "bias")
        if weight is None:
            return y
        shape = (-1, *(1,) * (y.ndim - 2))
        weight = weight.view(shape)
        if bias is None:
            return _times(y, weight)
        bias = bias.view(shape)
        return torch.addcmul(bias, y, weight) if torch.is_grad_enabled() else y.mul_(weight).add_(bias)

    def program(self, ctx: KernelContext) -> Run:
        """Refused: a subclass defines which frames it normalises by."""
        raise ctx.refuse("defines its statistics itself, and not how a program computes them")


def _times(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor``, in place where no gradients are wanted: a chunk's memory costs more than its arithmetic."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)


# ---- which frames -----------------------------------------------------------------------------------------------------


class UpToNow(TimeNorm):
    """By the statistics of all frames up to now."""

    unbounded_memory = True

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def cold(self, frame: StepSpec) -> dict[str, Tensor]:
        shape = (frame.shape[0], self.groups(frame.shape), 1)
        with torch.inference_mode(False):
            mean, variance = (torch.zeros(shape, dtype=widest(frame.device), device=frame.device) for _ in range(2))
        return {"mean": mean, "variance": variance}

    def known(self, mean: Tensor, variance: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        before = (node.tensors[0], node.tensors[1])
        mean, variance = up_to_now(mean, variance, node.n_in, before)
        updates.put(node, 0, mean[:, :, -1:])
        updates.put(node, 1, variance[:, :, -1:])
        return mean, variance

    def centred_step(self, parts: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        mean, variance = node.tensors
        share = 1 / (node.n_in + 1)
        centred = parts - mean  # by the old mean, to which the new one is close
        shift = centred.mean(2, keepdim=True)
        square = torch.linalg.vector_norm(centred, dim=2, keepdim=True).square_()
        spread = torch.lerp(variance, square.mul_(1 / parts.shape[2]), share)
        spread = torch.addcmul(spread, shift, shift, value=-share * share)  # subtracts at most half of the variance
        updates.slots += [(mean, torch.add(mean, shift, alpha=share)), (variance, spread)]
        return centred.sub_(shift, alpha=share), spread

    def program(self, ctx: KernelContext) -> Run:
        """By the statistics of all frames up to now."""
        specs = [ctx.state_tensor(n, StepSpec.of(t), None) for n, t in zip(ctx.node.names, ctx.node.tensors, strict=True)]

        def step(alone: Tensor, state: list[Tensor], index: Tensor) -> tuple[Tensor, list[Tensor]]:
            (mean, variance), number = alone.unbind(-1), of_rows(index + 1, state[0]).to(alone.dtype)
            mean, variance = mean.unsqueeze(2), variance.unsqueeze(2)
            shift = mean - torch.where(number > 1, state[0], mean)
            new = mean - shift * ((number - 1) / number)
            spread = (state[1] * (number - 1) + variance + shift.square() * ((number - 1) / number)) / number
            return torch.cat((new, spread), 2), [new, spread]

        def run(x: Tensor, rows: CallRows) -> Tensor:
            parts = _parts(self, x)
            mean, variance = of_frames(parts, [2])
            alone = torch.stack((mean, variance), -1).squeeze(2)  # (B, groups, n, 2)
            mean, variance = carried(ctx, specs, alone, rows, step).unbind(-1)  # of (B, groups, n, 2)
            return _normed(self, parts, mean.unsqueeze(2), variance.unsqueeze(2), x)

        return run


class OfLast(TimeNorm):
    """By the statistics of the last ``window`` frames, of those present at the start.

    The state is a ring of the statistics of single frames, from which those of the window are computed again at every step.
    """

    window: int

    def configure(self, window: int | None = None) -> None:
        super().configure()
        if not isinstance(window, int) or window < 1:
            raise ValueError(f"{type(self).__name__} needs window, the number of frames that it normalises by, got {window!r}")
        self.window = window

    @property
    def timing(self) -> Timing:
        return Window(self.window, start=self.window - 1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, window={self.window}"

    def cold(self, frame: StepSpec) -> dict[str, Tensor]:
        shape = (frame.shape[0], self.window - 1, self.groups(frame.shape), 2)
        with torch.inference_mode(False):
            ring = torch.zeros(shape, dtype=widest(frame.device), device=frame.device)
        return {"frames": ring} if self.window > 1 else {}

    def known(self, mean: Tensor, variance: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        if self.window == 1:
            return mean, variance
        n_in, new = node.n_in, mean.shape[2]
        frames = torch.stack((mean, variance), 3)
        past = ring_frames(node.tensors[0], max(0, n_in - self.window + 1), n_in)
        updates.ring(node, 0, n_in, frames)
        frames = torch.cat((*past, frames), 2)
        mean, variance = over_last(frames[..., 0], frames[..., 1], self.window)
        return mean[:, :, -new:], variance[:, :, -new:]

    def centred_step(self, parts: Tensor, node: StateNode, updates: StateUpdates) -> Statistics:
        mean, variance = of_frames(parts, [2])
        if self.window == 1:
            return parts - mean, variance
        ring, n_in, kept = node.tensors[0], node.n_in, self.window - 1
        frame = torch.cat((mean, variance), 2)
        updates.slots.append((ring[:, n_in % kept], frame))
        frames = torch.cat((ring if n_in >= kept else ring[:, :n_in], frame.unsqueeze(1)), 1)
        apart, mean = torch.var_mean(frames, 1, correction=0)  # the variance of the means, and the means of both
        return parts - mean[:, :, :1], mean[:, :, 1:] + apart[:, :, :1]

    def program(self, ctx: KernelContext) -> Run:
        """By the statistics of the last frames, of those that there are."""
        groups = self.groups(ctx.node.in_spec.shape)
        like = replace(ctx.node.in_spec, shape=(1, groups, 2), dtype=widest(ctx.node.in_spec.device))
        past = ctx.history("frames", like, 1 - self.window)

        def run(x: Tensor, rows: CallRows) -> Tensor:
            parts = _parts(self, x)
            alone = torch.stack([s.squeeze(2) for s in of_frames(parts, [2])], 3)  # (B, groups, n, 2)
            frames = past.extend(rows, alone).unfold(2, self.window, 1)  # (B, groups, n, 2, window)
            index = rows.index(ctx.in_schedule).unsqueeze(2) - torch.arange(self.window - 1, -1, -1, device=x.device)
            there = (index >= 0).unsqueeze(1).to(frames.dtype)  # (B, 1, n, window)
            frames = torch.where(there.unsqueeze(3) > 0, frames, 0.0)
            number = there.sum(-1)
            mean = frames[:, :, :, 0].sum(-1) / number
            apart = (frames[:, :, :, 0] - mean.unsqueeze(-1)).square() * there
            variance = (frames[:, :, :, 1].sum(-1) + apart.sum(-1)) / number
            return _normed(self, parts, mean.unsqueeze(2), variance.unsqueeze(2), x)

        return run


def _normed(layer: Any, parts: Tensor, mean: Tensor, variance: Tensor, like: Tensor) -> Tensor:
    """Frames ``(B, groups, N, n)`` by statistics ``(B, groups, 1, n)``, as ``(B, C, n, *S)``."""
    y = (parts - mean) * (variance + layer.eps).rsqrt()
    batch, channels, count, *space = like.shape
    y = y.transpose(2, 3).unflatten(3, (-1, *space)).movedim(2, 3).reshape(batch, channels, count, *space)
    return layer._scaled(y.clone()).to(like.dtype)


def _parts(layer: Any, x: Tensor) -> Tensor:
    """Frames ``(B, C, n, *S)`` by groups: ``(B, groups, N, n)``."""
    groups = layer.groups((*x.shape[:2], *x.shape[3:]))
    return x.to(widest(x.device)).unflatten(1, (groups, -1)).movedim(3, -1).flatten(2, -2)
