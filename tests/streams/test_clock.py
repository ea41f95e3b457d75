"""The clock alone: which steps a pattern of arriving frames becomes."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import continual as co
from continual.streams.clock import Clock, Segment, Start
from continual.streams.policy import Policy


def run(clock: Clock, arrivals: list[tuple[Any, Any]], kind: Any = "index") -> list[Any]:
    """The value of each step, of frames that are numbers; ``"start"`` for a start of the network."""
    found: list[Any] = []
    for frame, number in arrivals:
        found += values(clock.give(frame, kind, number))
    return found + values(clock.rest())


def values(events: Any) -> list[Any]:
    found: list[Any] = []
    for event in events:
        if isinstance(event, Start):
            found.append("start")
            continue
        found += [value(event, at) for at in range(event.count)]
    return found


def value(segment: Segment, at: int) -> Any:
    if segment.right is None:
        return None if segment.blank else segment.left
    weight = segment.weights[0] + at * segment.weights[1]
    return segment.left * (1 - weight) + segment.right * weight


# ---- losses, late frames, frames that come twice ------------------------------------------------------------------------------


def reference(arrivals: list[tuple[int, bool]], patience: int) -> tuple[dict[int, int], int, int]:
    """The frame that each step holds, step by step; how many frames came late, and how many twice.

    Args:
        arrivals: numbers, each with a frame, or with the word that it is missing.
        patience: steps that missing frames are waited for.
    """
    got, gone, taken = set[int](), set[int](), dict[int, int]()
    late = double = due = newest = -1
    for i, there in arrivals:
        if due < 0 and not there:
            continue  # a stream starts at its first frame
        if due < 0:
            late, double, due, newest = 0, 0, i, i
        if i < due or i in got:
            late += there and i not in got
            double += there and i in got
            continue
        (got if there else gone).add(i)
        newest = max(newest, i)
        while due <= newest and (due in got or due in gone or newest - due > patience):
            taken[due] = due if due in got else taken[due - 1]
            due += 1
    for i in range(due, newest + 1) if due >= 0 else ():
        taken[i] = i if i in got else taken[i - 1]
    return taken, max(late, 0), max(double, 0)


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([True, True, True, False])), max_size=60),
    patience=st.integers(0, 5),
)
def test_any_order_of_frames(arrivals: list[tuple[int, bool]], patience: int) -> None:
    clock = Clock(Policy("hold", lateness=patience))
    found = run(clock, [(i if there else None, i) for i, there in arrivals])
    taken, late, double = reference(arrivals, patience)
    assert found == ["start", *taken.values()][: len(taken) + 1 if taken else 0]
    assert clock.counters["frames"] == sum(there for _, there in arrivals)
    assert clock.counters["late"] == late
    assert clock.counters["duplicate"] == double
    assert clock.counters["missing"] == sum(i != frame for i, frame in taken.items())


@given(order=st.permutations(range(12)), patience=st.integers(0, 12))
def test_frames_that_are_waited_for_are_in_order(order: list[int], patience: int) -> None:
    order = [0, *(i + 1 for i in order)]
    newest = [max(order[: k + 1]) for k in range(len(order))]
    if any(n - i > patience for i, n in zip(order, newest, strict=True)):
        return
    clock = Clock(Policy("error", lateness=patience))
    assert run(clock, [(i, i) for i in order]) == ["start", *range(13)]


def test_a_frame_that_is_known_to_be_missing_is_not_waited_for() -> None:
    clock = Clock(Policy("hold", lateness=4))
    assert values(clock.give(10, "index", 0)) == ["start", 10]
    assert values(clock.give(None, "index", 1)) == [10]
    assert values(clock.give(11, "index", 1)) == []  # it comes after all: late
    assert values(clock.give(12, "index", 2)) == [12]
    assert clock.counters["late"] == 1
    assert clock.counters["missing"] == 1


def test_a_stream_starts_at_its_first_frame() -> None:
    clock = Clock(Policy("hold"))
    assert run(clock, [(None, 3), (None, 4), (1.0, 5), (2.0, 6), (7.0, 2)]) == ["start", 1.0, 2.0]
    assert clock.counters["missing"] == 0
    assert clock.counters["late"] == 1


# ---- time ---------------------------------------------------------------------------------------------------------------------


@given(
    steps=st.lists(st.floats(0.06, 1.4), min_size=1, max_size=30),
    begin=st.sampled_from([0.0, -3.25, 1.7e9]),
    rate=st.sampled_from([1, 30, 29.97, 360]),
)
def test_irregular_stamps_are_resampled_linearly(steps: list[float], begin: float, rate: float) -> None:
    stamps = begin + np.concatenate([[0.0], np.cumsum(steps)]) / rate
    frames = np.cos(3 * np.arange(len(stamps)))
    clock = Clock(Policy("error", rate=rate, jitter=0.02))
    found = run(clock, list(zip(frames.tolist(), stamps.tolist(), strict=True)), "time")
    at = (stamps - stamps[0]) * rate
    grid = np.arange(int(at[-1] + 0.02) + 1)
    steepest = np.abs(np.diff(frames) / np.diff(at)).max()
    assert found[0] == "start"
    assert np.abs(np.array(found[1:]) - np.interp(grid, at, frames)).max() <= 0.0201 * steepest + 1e-6


@given(off=st.lists(st.floats(-0.49, 0.49), min_size=2, max_size=30))
def test_with_all_jitter_allowed_frames_are_as_they_came(off: list[float]) -> None:
    stamps = [0.0, *((k + 1 + d) / 25 for k, d in enumerate(off))]
    clock = Clock(Policy("error", rate=25, jitter=0.5))
    assert run(clock, list(enumerate(stamps)), "time") == ["start", *range(len(stamps))]
    assert clock.counters["interpolated"] == 0


@pytest.mark.parametrize("source", [10, 20, 50])
def test_a_source_of_another_rate_by_numbers_and_by_stamps(source: int) -> None:
    frames = [float(i * i) for i in range(20)]
    steps = int(19 * 20 / source)
    want = np.interp(np.arange(steps + 1) * source / 20, np.arange(20), frames)
    for kind, numbers in (("index", list(range(20))), ("time", [i / source for i in range(20)])):
        clock = Clock(Policy("error", rate=20, source_rate=source))
        found = run(clock, list(zip(frames, numbers, strict=True)), kind)
        assert np.allclose(found[1:], want, atol=1e-9), kind
        assert clock.axis is not None
        assert clock.axis.time_of(3) == pytest.approx(0.15)
        assert clock.axis.index_of(4) == (4 if kind == "time" else 4 * source / 20)


def test_frames_that_are_missing_between_irregular_ones() -> None:
    clock = Clock(Policy("zero", rate=1))
    found = run(clock, [(1.0, 0.0), (2.0, 1.25), (8.0, 4.25), (9.0, 5.25)], "time")
    assert found == ["start", 1.0, 1.8, None, None, None, 8.75]
    assert clock.counters["missing"] == 3
    assert clock.counters["interpolated"] == 2


# ---- restarts -----------------------------------------------------------------------------------------------------------------


def test_reset_and_the_new_axis() -> None:
    clock = Clock(Policy("reset", rate=10))
    arrivals = [(1.0, 0.0), (2.0, 0.1), (3.0, 0.55), (4.0, 0.65)]
    assert run(clock, arrivals, "time") == ["start", 1.0, 2.0, "start", 3.0, 4.0]
    assert clock.axis is not None
    assert clock.axis.time_of(1) == pytest.approx(0.65)
    assert clock.axis.index_of(0) == 6
    assert clock.counters["resets"] == 1
    assert clock.counters["missing"] == 4


def test_gaps_that_are_too_long_and_sources_that_go_back() -> None:
    clock = Clock(Policy("hold", rate=10, reset_after=0.5))
    arrivals = [(i, i) for i in (0, 1, 4, 104, 105, 1_000_000_000, 3, 4)]
    assert run(clock, arrivals) == ["start", 0, 1, 1, 1, 4, "start", 104, 105, "start", 1_000_000_000, "start", 3, 4]
    assert clock.counters["resets"] == 3


def test_what_came_before_a_restart_is_not_taken_for_what_comes_after() -> None:
    clock = Clock(Policy("hold", reset_after=5))
    assert run(clock, [(i, i) for i in (0, 1, 2, 100, 102, 101)]) == ["start", 0, 1, 2, "start", 100, 100, 102]
    assert clock.counters["late"] == 1
    assert clock.counters["duplicate"] == 0


def test_frames_that_wait_over_a_restart() -> None:
    clock = Clock(Policy("hold", lateness=30, reset_after=25))
    found = [values(clock.give(i, "index", i)) for i in (0, 28, 30, 62)]
    assert found == [["start", 0], [], [], ["start", 28, 28, 30]]  # 29 is waited for no longer, 32 is


def test_nothing_is_filled_beyond_the_longest_gap() -> None:
    clock = Clock(Policy("hold", reset_after=3))
    found = values(clock.give(7, "index", 0))
    for i in (1, 2, 3, 4, 5, 10**12):
        found += values(clock.give(None, "index", i))
    assert found == ["start", 7, 7, 7, 7]
    assert values(clock.give(8, "index", 10**12 + 1)) == ["start", 8]


def test_interpolation_waits_for_the_next_frame() -> None:
    clock = Clock(Policy("interpolate"))
    assert values(clock.give(1.0, "index", 5)) == ["start", 1.0]
    assert values(clock.give(None, "index", 6)) == []
    assert values(clock.give(None, "index", 7)) == []
    assert values(clock.give(4.0, "index", 8)) == pytest.approx([2.0, 3.0, 4.0])
    assert clock.counters["missing"] == 2
    assert clock.counters["interpolated"] == 2
    assert values(clock.give(None, "index", 9)) == []
    assert values(clock.rest()) == [4.0]  # no frame follows


def test_errors_say_where_frames_are_missing() -> None:
    clock = Clock(Policy("error"))
    list(clock.give(1, "index", 4))
    with pytest.raises(co.MissingFrames, match="between frame 4 and frame 9, and gaps='error'"):
        list(clock.give(1, "index", 9))
    clock = Clock(Policy("error", rate=4))
    list(clock.give(1, "time", 0.5))
    with pytest.raises(co.MissingFrames, match=r"between 0\.5 s and 2\.25 s"):
        list(clock.give(1, "time", 2.25))


def test_frames_are_placed_alike() -> None:
    clock = Clock(Policy("hold", rate=5))
    list(clock.give(1, "index", 4))
    with pytest.raises(ValueError, match="came with index=… so far, and this one with time=…"):
        list(clock.give(1, "time", 4.0))
    with pytest.raises(ValueError, match="finite number, got nan"):
        list(Clock(Policy("hold", rate=5)).give(1, "time", float("nan")))


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"gaps": "skip"}, "gaps is one of 'error', 'hold'"),
        ({"rate": 0}, "rate is above 0"),
        ({"source_rate": 5.0}, "needs rate"),
        ({"lateness": -1}, "lateness is 0 or more"),
        ({"jitter": 0.6}, "jitter is a share of a step"),
        ({"gaps": "value"}, "needs value=…"),
        ({"gaps": "hold", "value": 1.0}, "is for gaps='value'"),
    ],
)
def test_policies_that_contradict_themselves(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Policy(**wrong)


@settings(max_examples=50)
@given(arrivals=st.lists(st.integers(0, 20), min_size=2, max_size=30), at=st.integers(1, 29), patience=st.integers(0, 4))
def test_a_copy_goes_on_by_itself(arrivals: list[int], at: int, patience: int) -> None:
    at = min(at, len(arrivals) - 1)
    clock = Clock(Policy("hold", lateness=patience))
    before = [values(clock.give(i, "index", i)) for i in arrivals[:at]]
    copy = clock.copy()
    after = run(copy, [(i, i) for i in arrivals[at:]])
    assert run(clock, [(i, i) for i in arrivals[at:]]) == after
    assert clock.counters == copy.counters
    whole = run(Clock(Policy("hold", lateness=patience)), [(i, i) for i in arrivals])
    assert [*itertools.chain(*before), *after] == whole


def test_spacing_is_exact() -> None:
    assert Policy("hold", rate=30, source_rate=25).spacing == Fraction(6, 5)
    assert Policy("hold", rate=50, source_rate=25).spacing == 2
