"""The state of a :class:`~continual.Stream` at one moment: that of its network, and its clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..errors import StateMismatch
from .clock import COUNTERS, REMEMBERED, Axis, Clock
from .output import Numbering
from .policy import Number, Policy


@dataclass(frozen=True)
class StreamState:
    """A stream at one moment. It fits ``set_state``, in this process or in another one (:func:`continual.save_state`).

    Attributes:
        network: the state of the network, or of the file, or a snapshot of a stream of a batch.
        facts: the clock, as numbers and names.
        frames: the frames that the clock holds, one tensor an input.
    """

    network: Any
    facts: dict[str, Any]
    frames: tuple[Tensor, ...]

    @property
    def clock(self) -> int:
        """The number of steps of the network so far."""
        return int(self.facts["steps"])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return int(self.network.nbytes) + sum(t.numel() * t.element_size() for t in self.frames)


def state_of(network: Any, clock: Clock, numbering: Numbering, outputs: int) -> StreamState:
    """The state of a stream that has started."""
    axis, previous = numbering.axis, clock.previous
    frames: list[Tensor] = []
    for frame in ([] if previous is None else [previous[1]]) + [f for _, f in clock.waiting if f is not None]:
        frames += [t.clone() for t in frame]
    facts: dict[str, Any] = {
        "rules": rules(clock.policy),
        "kind": axis.kind,
        "first": _out(axis.first),
        "origin": _out(axis.origin),
        "next": clock.next,
        "last": _out(clock.last),
        "held": None if previous is None else _out(previous[0]),
        "newest": _out(clock.newest),
        "waiting": [[_out(number), frame is not None] for number, frame in clock.waiting],
        "recent": [_out(p) for p in clock.recent],
        "broken": clock.broken,
        "counters": dict(clock.counters),
        "steps": numbering.steps,
        "outputs": [numbering.outputs, outputs],
        "gaps": [list(run) for run in numbering.gaps],
        "between": [list(run) for run in numbering.between],
    }
    return StreamState(network, facts, tuple(frames))


def restored(state: StreamState, policy: Policy, inputs: int) -> tuple[Clock, Numbering, int]:
    """A clock, the counts of the network, and the number of outputs so far, of a state.

    Args:
        state: of a stream.
        policy: of the stream that goes on: its steps are as far apart as those of the state.
        inputs: tensors of a frame.

    Raises:
        StateMismatch: the steps are not, or the state is damaged.
    """
    try:
        return _restored(state.facts, list(state.frames), policy, inputs)
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, StateMismatch):
            raise
        raise StateMismatch(f"Stream: this state is damaged ({error!r})") from error


def _restored(facts: Mapping[str, Any], tensors: list[Tensor], policy: Policy, inputs: int) -> tuple[Clock, Numbering, int]:
    if facts["rules"] != (own := rules(policy)):
        raise StateMismatch(f"Stream: this state is of a stream with {facts['rules']}, and this one has {own}: make it alike")
    if facts["kind"] not in ("order", "index", "time") or set(facts["counters"]) != set(COUNTERS):
        raise ValueError(facts["kind"])
    stored = [tensors[i : i + inputs] for i in range(0, len(tensors), inputs)]
    if len(stored) != (facts["held"] is not None) + sum(bool(there) for _, there in facts["waiting"]):
        raise ValueError(f"{len(stored)} frames")
    frames = iter(stored)
    axis = Axis(facts["kind"], policy, _in(facts["first"]), _in(facts["origin"]))
    previous = None if facts["held"] is None else (_in(facts["held"]), _cloned(next(frames)))
    waiting = [(_in(number), _cloned(next(frames)) if there else None) for number, there in facts["waiting"]]
    recent = deque((_in(p) for p in facts["recent"]), REMEMBERED)
    clock = Clock(
        policy, axis, int(facts["next"]), _in(facts["last"]), previous, _in(facts["newest"]), waiting, recent, bool(facts["broken"]),
        {name: int(n) for name, n in facts["counters"].items()},
    )  # fmt: skip
    sent, outputs = (int(n) for n in facts["outputs"])
    gaps, between = (deque((int(a), int(b)) for a, b in facts[name]) for name in ("gaps", "between"))
    return clock, Numbering(axis, int(facts["steps"]), sent, gaps, between), outputs


def rules(policy: Policy) -> str:
    """What the positions of a state depend on."""
    return f"{policy.spacing} steps from frame to frame" + (
        "" if policy.rate is None else f" and rate={policy.steps_per_second:g}"
    )


def _out(number: Number) -> int | float | str:
    """A number for JSON, exactly."""
    return str(number) if isinstance(number, Fraction) else number


def _in(number: Any) -> Number:
    if isinstance(number, str):
        return Fraction(number)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{number!r} is no number")
    return number


def _cloned(frame: Sequence[Tensor]) -> list[Tensor]:
    return [t.clone() for t in frame]
