"""The kernel of norms over time: each frame is normalised by statistics of itself and of frames before it.

They are kept in float64, in the ways of :mod:`continual.statistics`. The norms made of it are in :mod:`continual.norms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import NotStreamable, ShapeMismatch
from .local import check_parameters, named, parameter
from .precision import widest
from .registry import Twin
from .state import Call, Frame, Node, Opening, ring_frames
from .statistics import Statistics, of_frame, of_frames, over_last, up_to_now
from .timing import IDENTITY, Timing, Window


class TimeNorm(Twin):
    """Base class: normalise each group of channels by its mean and variance over frames that a subclass of this chooses.

    The statistics of every frame are taken alone, ``(B, groups)``; :meth:`known` and :meth:`known_step` make of them those to
    normalise by.
    """

    eps: float

    def groups(self, shape: Sequence[int]) -> int:
        """How many groups the channels of steps ``(B, C, *S)`` are normalised in."""
        raise NotStreamable(f"{type(self).__name__} defines no `groups`")

    def check(self, frame: Frame, path: str) -> None:
        """Refuse frames that the norm can't take."""
        check_parameters(self, frame, path)
        if not frame.dtype.is_floating_point:
            raise ShapeMismatch(f"{path}: takes floating point numbers, got steps {frame}")

    def cold(self, frame: Frame) -> dict[str, Tensor]:
        """The cold state tensors."""
        raise NotStreamable(f"{type(self).__name__} defines no `cold`")

    def known(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        """The statistics to normalise each frame of a chunk by, ``(B, groups, n)``, of those of the frames alone."""
        raise NotStreamable(f"{type(self).__name__} defines no `known`")

    def known_step(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        """The same for one frame, ``(B, groups)``."""
        raise NotStreamable(f"{type(self).__name__} defines no `known_step`")

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def open(self, frame: Frame, opening: Opening) -> Node:
        self.check(frame, named(opening.path, self))
        return Node(opening, self.kind, frame, self.cold(frame), wide=True)

    def forward(self, input: Tensor) -> Tensor:
        """The clip ``(B, C, T, *S)``, normalised as a stream of it is: each frame by statistics that look back."""
        node = self.open(Frame.of_chunk(input), Opening())
        return self.advance(input, node, input.shape[2], Call(final=True))[0] if input.shape[2] else input

    def advance(self, x: Tensor | None, node: Node, e: int, call: Call) -> tuple[Any, int]:
        _, _, ended = self.count(x, node, e, call)
        if x is None:
            return None, ended
        wide, groups = x.to(widest(x.device)), self.groups(x.shape[:2] + x.shape[3:])
        mean, variance = self.known(*of_frames(wide, groups), node, call)
        parts = wide.unflatten(1, (groups, -1))
        shape = (*mean.shape[:2], 1, mean.shape[2], *(1,) * (parts.ndim - 4))
        parts = (parts - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        return self._scaled(parts.flatten(1, 2)).to(x.dtype), ended

    def advance_step(self, x: Tensor, node: Node, call: Call) -> Tensor:
        parts = x.reshape(x.shape[0], self.groups(x.shape), -1).to(widest(x.device))
        n = node.seen + 1
        mean, variance = self.known_step(*of_frame(parts), node, call)
        call.ticks.append((node, n, n))
        parts = (parts - mean.unsqueeze(2)) * (variance + self.eps).rsqrt_().unsqueeze(2)
        return self._scaled(parts.view(x.shape)).to(x.dtype)

    def _scaled(self, y: Tensor) -> Tensor:
        """Channels (dim 1) times the weight, plus the bias."""
        weight, bias = parameter(self, "weight"), parameter(self, "bias")
        if weight is None:
            return y
        shape = (-1, *(1,) * (y.ndim - 2))
        weight = weight.to(y.dtype).view(shape)
        return y * weight if bias is None else torch.addcmul(bias.to(y.dtype).view(shape), y, weight)


# ---- which frames -----------------------------------------------------------------------------------------------------


class UpToNow(TimeNorm):
    """By the statistics of all frames up to now."""

    unbounded_memory = True

    @property
    def timing(self) -> Timing:
        return IDENTITY

    def cold(self, frame: Frame) -> dict[str, Tensor]:
        shape = (frame.shape[0], self.groups(frame.shape))
        with torch.inference_mode(False):
            mean, variance = (torch.zeros(shape, dtype=widest(frame.device), device=frame.device) for _ in range(2))
        return {"mean": mean, "variance": variance}

    def known(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        before = (node.tensors[0], node.tensors[1])
        mean, variance = up_to_now(mean, variance, node.seen, before)
        call.put(node, 0, mean[:, :, -1].clone())
        call.put(node, 1, variance[:, :, -1].clone())
        return mean, variance

    def known_step(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        old_mean, old_variance = node.tensors
        share = 1 / (node.seen + 1)
        surprise = mean - old_mean
        mean = torch.add(old_mean, surprise, alpha=share)
        variance = torch.addcmul(variance, surprise, surprise, value=1 - share)
        variance = torch.lerp(old_variance, variance, share)
        call.slots += [(old_mean, mean), (old_variance, variance)]
        return mean, variance


class OfLast(TimeNorm):
    """By the statistics of the last ``window`` frames, of those present at the start.

    The state is a ring of the statistics of single frames, from which those of the window are computed anew at every step.
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

    def cold(self, frame: Frame) -> dict[str, Tensor]:
        shape = (frame.shape[0], self.window - 1, 2, self.groups(frame.shape))
        with torch.inference_mode(False):
            ring = torch.zeros(shape, dtype=widest(frame.device), device=frame.device)
        return {"frames": ring} if self.window > 1 else {}

    def known(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        if self.window == 1:
            return mean, variance
        seen, new = node.seen, mean.shape[2]
        frames = torch.stack((mean, variance), 1).transpose(2, 3)  # (B, 2, n, groups)
        past = ring_frames(node.tensors[0], max(0, seen - self.window + 1), seen)
        call.ring(node, 0, seen, frames)
        frames = torch.cat((*past, frames), 2).transpose(2, 3)
        mean, variance = over_last(frames[:, 0], frames[:, 1], self.window)
        return mean[:, :, -new:], variance[:, :, -new:]

    def known_step(self, mean: Tensor, variance: Tensor, node: Node, call: Call) -> Statistics:
        if self.window == 1:
            return mean, variance
        ring, seen = node.tensors[0], node.seen
        frame = torch.stack((mean, variance), 1)
        call.slots.append((ring[:, seen % (self.window - 1)], frame))
        past = ring if seen >= self.window - 1 else ring[:, :seen]
        frames = torch.cat((past, frame.unsqueeze(1)), 1)
        means, variances = frames.unbind(2)
        mean = means.mean(1)
        return mean, variances.mean(1) + (means - mean.unsqueeze(1)).square_().mean(1)
