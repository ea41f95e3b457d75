"""Which steps a pattern of arriving frames becomes: a state machine that knows frames by their numbers alone, and no network.

Positions are counted in steps of the network from the first frame on, which is step 0. A frame within ``jitter`` of a step is that step's
frame. A step between two neighbouring frames is resampled linearly; where frames are missing between them, the policy decides.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, TypeAlias, cast

from ..errors import MissingFrames
from .policy import APART, Number, Policy

Kind: TypeAlias = Literal["order", "index", "time"]
COUNTERS = ("frames", "missing", "late", "duplicate", "interpolated", "resets")
REMEMBERED = 128  # frames, to tell those that come twice from those that come late


@dataclass(frozen=True)
class Axis:
    """The axis of the steps since the last start: what numbers and times they have.

    Attributes:
        kind: what frames are placed by: their order, sequence numbers or time stamps.
        policy: of the stream.
        first: the number of the first frame of the stream.
        origin: the number of the frame that is step 0.
    """

    kind: Kind
    policy: Policy
    first: Number
    origin: Number

    def position(self, number: Number) -> Number:
        """Where a frame lies, in steps."""
        if self.kind != "time":
            return (number - self.origin) * self.policy.spacing
        exact = (float(number) - float(self.origin)) * self.policy.steps_per_second
        near = round(exact)
        return near if abs(exact - near) <= self.policy.jitter else exact

    def index_of(self, step: Number) -> int | float:
        """The sequence number of a position; by time stamps the steps since the first frame."""
        if self.kind == "time":
            since = (float(self.origin) - float(self.first)) * self.policy.steps_per_second
            return _number(round(since) + step)
        spacing = self.policy.spacing
        return _number(self.origin + (step if spacing == 1 else Fraction(step) / spacing))

    def time_of(self, step: Number) -> float | None:
        """The time of a position, in seconds; ``None`` without a rate."""
        if self.policy.rate is None:
            return None
        if self.kind == "time":
            return float(self.origin) + float(step) / self.policy.steps_per_second
        return float(self.origin * self.policy.spacing + step) / self.policy.steps_per_second


@dataclass(frozen=True)
class Start:
    """The network starts, and the next step is its first."""

    axis: Axis


@dataclass(frozen=True)
class Segment:
    """Steps that follow each other.

    Attributes:
        count: of steps.
        left: the frame of all of them.
        right: for steps between two frames, the later one.
        weights: of ``right`` in the first step, and how much it grows with each step.
        gap: whether these steps stand for missing frames.
        blank: whether they have the policy's value in the place of the frame's.
    """

    count: int
    left: Any
    right: Any = None
    weights: tuple[float, float] = (0.0, 0.0)
    gap: bool = False
    blank: bool = False


Event: TypeAlias = "Start | Segment"


@dataclass
class Clock:
    """The time of one stream.

    Attributes:
        policy: its rules.
        axis: of the steps; ``None`` before the first frame.
        next: the next step.
        last: the position up to which frames have been taken.
        previous: the position of the last frame that was taken, and the frame.
        newest: the largest number that has come.
        waiting: numbers and frames that have come, and wait for earlier ones; ``None``: known to be missing.
        recent: positions of frames that were taken.
        broken: whether frames are known to be missing since the last one.
        counters: what has happened so far.
    """

    policy: Policy
    axis: Axis | None = None
    next: int = 0
    last: Number = -1
    previous: tuple[Number, Any] | None = None
    newest: Number = 0
    waiting: list[tuple[Number, Any]] = field(default_factory=list)
    recent: deque[Number] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    broken: bool = False
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    def copy(self) -> Clock:
        """An independent copy of the clock."""
        made = Clock.__new__(Clock)  # copy.copy takes 5 µs, in each step
        own = {"waiting": list(self.waiting), "recent": self.recent.copy(), "counters": dict(self.counters)}
        made.__dict__.update(self.__dict__, **own)
        return made

    # ---- what comes -----------------------------------------------------------------------------------------------------

    def give(self, frame: Any, kind: Kind, number: Number | None) -> Iterator[Event]:
        """Take a frame, and return the steps that it completes, in order.

        Args:
            frame: ``None``: it is known to be missing.
            kind: what it is placed by.
            number: its sequence number or time stamp; ``None``: it is the next one.

        Raises:
            MissingFrames: frames are missing, and the policy is ``"error"``. The clock must not be used again.
            ValueError: a number of another kind than those before, or not finite.
        """
        self._check(kind, number)
        if self.axis is None:
            if frame is None:
                return  # a stream starts at its first frame
            number = 0 if number is None else number
            yield self._started(Axis(kind, self.policy, number, number))
        number = self.newest + (self.previous is not None) if number is None else number
        self.counters["frames"] += frame is not None
        at = self._position(number)
        if frame is not None and self.last - at > self.policy.longest:  # the source counts from another number
            yield from self.rest()
            yield self._restarted(number)
            at = 0
        if at <= self.last:
            if frame is not None:
                self.counters["duplicate" if at in self.recent else "late"] += 1
        elif self._inserted(number, at, frame):
            self.newest = max(self.newest, number)
            yield from self._drained(self.policy.patience)

    def rest(self) -> Iterator[Event]:
        """The steps of all frames that wait: nothing earlier will come."""
        yield from self._drained(-math.inf)
        until = math.floor(self.last)
        if self.previous is not None and self.policy.gaps == "interpolate" and until >= self.next:  # no frame follows
            yield self._missing(until - self.next + 1, self.previous[1])
            self.broken = False

    def _check(self, kind: Kind, number: Number | None) -> None:
        if self.axis is not None and kind != self.axis.kind:
            names = {"order": "without numbers", "index": "with index=…", "time": "with time=…"}
            raise ValueError(
                f"Stream: frames came {names[self.axis.kind]} so far, and this one {names[kind]}: place all frames of a stream alike"
            )
        if number is not None and not math.isfinite(number):
            raise ValueError(f"Stream: a frame's {'time' if kind == 'time' else 'index'} is a finite number, got {number!r}")

    def _position(self, number: Number) -> Number:
        return number if self.axis is None else self.axis.position(number)

    def _started(self, axis: Axis) -> Start:
        """Start at a frame."""
        self.axis, self.next, self.last, self.previous, self.broken = axis, 0, -1, None, False
        self.newest = max([axis.origin, *(n for n, _ in self.waiting)])
        self.recent.clear()
        return Start(axis)

    def _restarted(self, number: Number) -> Start:
        self.counters["resets"] += 1
        return self._started(replace(cast(Axis, self.axis), origin=number))

    def _inserted(self, number: Number, at: Number, frame: Any) -> bool:
        """Whether a frame is a new one. It waits then, in order."""
        i = bisect.bisect_left(self.waiting, number, key=lambda item: item[0])
        for j in (i - 1, i):
            if 0 <= j < len(self.waiting) and self._position(self.waiting[j][0]) == at:
                if frame is None or self.waiting[j][1] is not None:
                    self.counters["duplicate"] += frame is not None
                    return False
                self.waiting[j] = (number, frame)
                return True
        self.waiting.insert(i, (number, frame))
        return True

    # ---- what becomes of it ---------------------------------------------------------------------------------------------

    def _drained(self, patience: float) -> Iterator[Event]:
        """The steps of frames that need not wait any longer, and of frames that are no longer waited for."""
        while self.waiting:
            number, frame = self.waiting[0]
            at = self._position(number)
            if (abandoned := self._abandoned(at, patience)) is not None:
                if abandoned <= self.last:
                    return
                yield from self._skipped(abandoned, at)
                continue
            del self.waiting[0]
            yield from self._skipped(at, at) if frame is None else self._taken(number, at, frame)

    def _abandoned(self, at: Number, patience: float) -> Number | None:
        """The position up to which missing frames are no longer waited for; ``None`` if none are missing."""
        if not self._apart(at):
            return None
        spacing = self.policy.spacing
        missing = math.ceil((at - self.last) / spacing - APART)
        late = self._position(self.newest) - patience - self.last
        return self.last + min(missing, math.ceil(late / spacing) - 1 if late < math.inf else missing) * spacing

    def _apart(self, at: Number) -> bool:
        """Whether frames are missing before a position."""
        return self.previous is not None and at - self.last > APART * self.policy.spacing

    def _skipped(self, at: Number, known: Number) -> Iterator[Segment]:
        """Frames up to a position are missing. What is known next lies at ``known``."""
        previous, gaps = self.previous, self.policy.gaps
        if previous is None:
            return
        if gaps == "error":
            raise self._error(known)
        self.last, self.broken = at, True
        count = math.floor(at) + 1 - self.next
        if gaps not in ("interpolate", "reset") and count > 0 and known - previous[0] <= self.policy.longest:
            yield self._missing(count, previous[1])

    def _taken(self, number: Number, at: Number, frame: Any) -> Iterator[Event]:
        """A frame that has come, and the steps before it."""
        previous, gap = self.previous, self.broken or self._apart(at)
        if previous is not None and gap and (self.policy.gaps == "reset" or at - previous[0] > self.policy.longest):
            self.counters["missing"] += math.ceil(at) - self.next
            yield self._restarted(number)
            previous, at = None, 0
        if previous is not None and (count := math.ceil(at) - self.next) > 0:
            if gap and self.policy.gaps == "error":
                raise self._error(at)
            yield self._between(count, previous, at, frame, gap)
        if at == self.next:
            self.next += 1
            yield Segment(1, frame)
        self.previous, self.last, self.broken = (at, frame), at, False
        self.recent.append(at)

    def _between(self, count: int, previous: tuple[Number, Any], at: Number, frame: Any, gap: bool) -> Segment:
        """The steps between two frames."""
        if gap and self.policy.gaps != "interpolate":
            return self._missing(count, previous[1])
        wide = at - previous[0]
        weights = float((self.next - previous[0]) / wide), float(1 / wide)
        self.next += count
        self.counters["interpolated"] += count
        self.counters["missing"] += count * gap
        return Segment(count, previous[1], frame, weights, gap)

    def _missing(self, count: int, frame: Any) -> Segment:
        """Steps without frames of their own."""
        self.next += count
        self.counters["missing"] += count
        return Segment(count, frame, gap=True, blank=self.policy.gaps in ("zero", "value"))

    def _error(self, at: Number) -> MissingFrames:
        axis, last = cast(Axis, self.axis), cast(tuple[Number, Any], self.previous)[0]
        shown = [f"{axis.time_of(p):g} s" if axis.kind == "time" else f"frame {axis.index_of(p):g}" for p in (last, at)]
        return MissingFrames(
            f"Stream: frames are missing between {shown[0]} and {shown[1]}, and gaps='error'. Say what stands for them: "
            "Stream(…, gaps='hold'), 'zero', 'value', 'interpolate' or 'reset'. The stream is where it was; clean_state() starts it anew"
        )


def _number(x: Number) -> int | float:
    """Whole numbers as ints."""
    return int(x) if x == int(x) else float(x)
