"""Frames made of others: the mean of two, a value in place of one, a chunk of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeMismatch
from .clock import Segment
from .policy import Policy


class Frames:
    """How the frames of one network are laid out.

    Args:
        times: the dimension of time in the chunks of each input; ``None`` for an input that is not a stream: it keeps its last value.
        several: whether a step of an input has that dimension too, with several frames in it.
        policy: what stands for missing frames.
        shape: of a frame, for errors.
    """

    def __init__(self, times: Sequence[int | None], several: Sequence[bool], policy: Policy, shape: str = "(B, C, *S)"):
        self.times, self.several, self.policy, self.shape = list(times), list(several), policy, shape

    def kept(self, frame: Any) -> list[Tensor]:
        """A copy of a frame, one tensor an input: the caller may write into the original.

        Raises:
            ShapeMismatch: not as many tensors as inputs.
        """
        parts = list(frame) if isinstance(frame, (list, tuple)) else [frame]
        if len(parts) != len(self.times) or not all(isinstance(p, Tensor) for p in parts):
            shown = ", ".join(type(p).__name__ for p in parts)
            want = f"a tensor {self.shape}" if len(self.times) == 1 else f"a list of {len(self.times)} tensors {self.shape}"
            raise ShapeMismatch(f"Stream: a frame is {want}, or None where it is missing; got {shown}")
        return [p.detach().clone() for p in parts]

    def check_alike(self, frame: list[Tensor], like: list[Tensor]) -> None:
        """Refuse a frame of another kind than those before.

        Raises:
            ShapeMismatch: another shape, dtype or device.
        """
        for got, want in zip(frame, like, strict=True):
            if (got.shape, got.dtype, got.device) != (want.shape, want.dtype, want.device):
                raise ShapeMismatch(
                    f"Stream: the frames so far are {want.dtype} {tuple(want.shape)} on {want.device}, this one is {got.dtype} "
                    f"{tuple(got.shape)} on {got.device}. The stream is where it was; clean_state() starts another one"
                )

    def of(self, segment: Segment, at: int) -> list[Tensor]:
        """The frame of one step of a segment.

        Args:
            segment: some steps.
            at: which of them.

        Raises:
            ShapeMismatch: whole numbers have no mean.
        """
        pairs = list(zip(segment.left, self.times, strict=True))
        if segment.blank:
            return [x if time is None else self._value(x) for x, time in pairs]
        if segment.right is None:
            return list(segment.left)
        first, more = segment.weights
        weight = first + at * more
        return [b if time is None else _mean(a, b, weight) for (a, time), b in zip(pairs, segment.right, strict=True)]

    def _value(self, like: Tensor) -> Tensor:
        value = 0 if self.policy.value is None else self.policy.value
        if not isinstance(value, Tensor):
            return torch.full_like(like, value)
        try:
            return value.to(like).expand_as(like)
        except RuntimeError:
            raise ShapeMismatch(
                f"Stream: value {tuple(value.shape)} does not fit frames {tuple(like.shape)}: give one frame, or what broadcasts to it"
            ) from None

    def chunk(self, frames: Sequence[list[Tensor]], like: list[Tensor]) -> Any:
        """Frames as the chunk that ``forward_steps`` takes; of no frames an empty one."""
        found = []
        for i, (time, several, x) in enumerate(zip(self.times, self.several, like, strict=True)):
            own = [f[i] for f in frames]
            if time is None:
                found.append(own[-1] if own else x)
            elif own:
                found.append(torch.cat(own, time) if several else torch.stack(own, time))
            else:
                found.append((x if several else x.unsqueeze(time)).narrow(time, 0, 0))
        return self.nested(found)

    def nested(self, frame: list[Tensor]) -> Any:
        """A frame as the network takes it."""
        return frame[0] if len(self.times) == 1 else frame

    def unstacked(self, chunk: Tensor) -> list[Tensor]:
        """The frames of a chunk of one input."""
        time = self.times[0]
        if len(self.times) > 1 or time is None or self.several[0]:
            raise ShapeMismatch("Stream: several inputs come as a list of frames, each a list of tensors")
        return list(chunk.unbind(time))


def _mean(a: Tensor, b: Tensor, weight: float) -> Tensor:
    if not (a.is_floating_point() or a.is_complex()):
        raise ShapeMismatch(
            f"Stream: frames of {a.dtype} can't be interpolated. Place them on the steps (jitter=0.5), and choose another policy for gaps"
        )
    return torch.lerp(a, b, weight)
