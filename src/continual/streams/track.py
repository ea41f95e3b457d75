"""What a stream knows beside the state of its network: its clock, the steps that it took, and the frame that came last."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from .clock import Clock, Event, Kind, Segment, Start
from .frames import Frames
from .moments import Moments
from .output import Numbering, StreamOutput
from .policy import Number, Policy
from .state import StreamState, restored, state_of

BLOCK = 64  # steps that are taken at once
Steps = list[tuple[Segment, int]]  # steps of segments, by their places in them


class Track:
    """One stream without its network.

    Args:
        frames: how its frames are laid out.
        moments: of the network's outputs.

    Attributes:
        clock: turns frames into steps.
        numbering: of steps and outputs since the network last started; ``None`` before the first frame.
        like: the last frame that came.
        outputs: since the stream started.
    """

    def __init__(self, frames: Frames, moments: Moments):
        self.frames, self.moments = frames, moments
        self.clock, self.outputs = Clock(frames.policy), 0
        self.numbering: Numbering | None = None
        self.like: list[Tensor] = []

    def copy(self) -> Track:
        """The same, by itself."""
        made = Track.__new__(Track)
        numbering = None if self.numbering is None else self.numbering.copy()
        made.__dict__.update(self.__dict__, clock=self.clock.copy(), numbering=numbering)
        return made

    @property
    def counters(self) -> dict[str, int]:
        return self.clock.counters | {"outputs": self.outputs}

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def give(self, frame: Any, kind: Kind, number: Number | None) -> Iterator[Event]:
        """Take a frame, and return the steps that it completes.

        Raises:
            ShapeMismatch: a frame unlike those before.
            MissingFrames, ValueError: as of :meth:`Clock.give`. The track must not be used again.
        """
        kept = None if frame is None else self.frames.kept(frame)
        if kept is not None:
            if self.like:
                self.frames.check_alike(kept, self.like)
            self.like = kept
        return self.clock.give(kept, kind, number)

    def made(self, steps: Steps) -> list[list[Tensor]]:
        """The frames of some steps."""
        return [self.frames.of(segment, at) for segment, at in steps]

    def started(self, start: Start) -> None:
        """The network has started."""
        self.numbering = Numbering(start.axis)

    def took(self, steps: Steps, values: list[Any]) -> list[StreamOutput]:
        """The network has taken some steps, which gave these values; none at the end of a stream."""
        numbering = self.numbering
        if numbering is None:
            return []
        for segment, _ in steps:
            numbering.took(1, segment.gap, segment.right is not None)
        self.outputs += len(values)
        return numbering.numbered(values, self.moments)

    # ---- state ----------------------------------------------------------------------------------------------------------

    def state(self, network: Any) -> StreamState | None:
        """The state of the stream, with that of its network; ``None`` before the first frame."""
        return None if self.numbering is None else state_of(network, self.clock, self.numbering, self.outputs)

    def restored(self, state: StreamState) -> Track:
        """A track that goes on from a state.

        Raises:
            StateMismatch: a state of a stream of other rates, or a damaged one.
        """
        made, inputs = Track(self.frames, self.moments), len(self.frames.times)
        made.clock, made.numbering, made.outputs = restored(state, self.frames.policy, inputs)
        made.like = list(state.frames[:inputs])
        return made


def placed(time: float | None, index: int | None, policy: Policy) -> tuple[Kind, Number | None]:
    """What a frame is placed by, and its number.

    Raises:
        ValueError: both, or a time without a rate.
    """
    if time is None:
        return ("order", None) if index is None else ("index", operator.index(index))
    if index is not None:
        raise ValueError("Stream: a frame has a time or an index, not both: place all frames of a stream alike")
    if policy.rate is None:
        raise ValueError("Stream: time stamps need the rate of the network's steps: Stream(net, rate=…)")
    return "time", float(time)


def blocks(events: Iterable[Event]) -> Iterator[Start | Steps]:
    """Events as beginnings, and as blocks of steps that a network can take at once."""
    steps: Steps = []
    for event in events:
        if isinstance(event, Start):
            if steps:
                yield steps
            steps = []
            yield event
            continue
        for at in range(event.count):
            steps.append((event, at))
            if len(steps) == BLOCK:
                yield steps
                steps = []
    if steps:
        yield steps
