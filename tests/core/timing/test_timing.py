"""`continual.core.timing` against brute force: the same composition made of torch operations, on inputs marked with NaN."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from continual import ShapeMismatch
from continual.core.alignment import waiting
from continual.core.constant_rate import ConstantRate
from continual.core.resampling import Interpolation, Upsampling
from continual.core.timing import IDENTITY, Crop, Timing, Window, Wiring
from continual.core.timing_graph import aligned
from tests.core.timing.cases import (
    Case,
    branches,
    causal_counts,
    compositions,
    crop,
    crops,
    due,
    interpolation,
    length_of,
    ordinary,
    parallels,
    parts,
    plain_compositions,
    rates,
    reflections,
    sequence,
    small,
    window,
    windows,
)

HORIZON = 90  # inputs after which all generated compositions are periodic


# ---- counts ---------------------------------------------------------------------------------------------------------


@given(case=compositions)
def test_ended_is_the_length_that_torch_gives(case: Case):
    timing, op = case
    note(timing)
    assert [timing.ended(e) for e in range(20)] == [length_of(op, e) for e in range(20)]


@given(case=compositions)
@settings(max_examples=settings().max_examples // 2)
def test_delivered_is_what_the_future_can_not_change(case: Case):
    timing, op = case
    note(timing)
    total = 26 + timing.receptive_field
    assume(total < HORIZON)
    lengths = [length_of(op, e) for e in range(total + 1)]
    found = [due(op, n, total, lengths) for n in range(14)]
    assert [timing.delivered(n) for n in range(14)] == found


DROPPED = {"a crop": crop(2, 0), "a shorter crop": crop(1, 0), "a crop of both ends": crop(1, 1), "a stride": window(1, 2)}
BEFORE = {"": window(1), "behind a crop of the end": crop(0, 1), "behind padding": window(2, 1, 1, 1)}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("dropped", DROPPED)
@pytest.mark.parametrize("kind", ["nearest", "nearest-exact", "linear", "cubic"])
@pytest.mark.parametrize("factor", ["3", "5/3", "7/3", "1/3", "3/5"])
def test_outputs_at_the_place_of_an_input_behind_one_that_is_dropped(factor: str, kind: str, dropped: str, before: str):
    """Cubic, ×5/3: output 1 waits for input 2; output 2 lies on input 1, and is no later where output 1 is cut off."""
    timing, op = sequence(BEFORE[before], interpolation(Fraction(factor), kind), DROPPED[dropped])
    lengths = [length_of(op, e) for e in range(41)]
    assert [timing.delivered(n) for n in range(14)] == [due(op, n, 40, lengths) for n in range(14)]


@given(case=st.lists(st.one_of(reflections, ordinary), min_size=1, max_size=2).map(lambda found: sequence(*found)))
@settings(max_examples=settings().max_examples // 2)
def test_reflection_gives_as_many_outputs_and_none_too_early(case: Case):
    timing, op = case
    note(timing)
    total = 40
    lengths = [length_of(op, e) for e in range(total + 1)]
    assert [timing.ended(e) for e in range(total)] == lengths[:total]
    assert all(timing.delivered(n) <= due(op, n, total, lengths) for n in range(14))


@given(case=compositions)
def test_delay_is_the_wait_for_the_first_output(case: Case):
    timing, _ = case
    note(timing)
    first = next((n for n in range(1, HORIZON) if timing.delivered(n)), None)
    if first is None:  # crops can remove every frame that a short horizon brings
        assert timing.delay >= HORIZON - 1
    else:
        assert timing.delay == first - 1


@given(case=compositions)
def test_counts_never_go_back_and_never_exceed_the_end(case: Case):
    timing, _ = case
    pairs = [timing.counts(n, n) for n in range(HORIZON)]
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    assert all(0 <= n <= e for n, e in pairs)


@given(case=compositions)
def test_bursts_are_several_outputs_for_one_input(case: Case):
    timing, _ = case
    note(timing)
    delivered = [timing.delivered(n) for n in range(timing.delay + HORIZON)]
    assert timing.bursts == any(b - a > 1 for a, b in itertools.pairwise(delivered))


@given(case=compositions)
def test_the_pattern_repeats_once_it_has_settled(case: Case):
    timing, _ = case
    note(timing)
    delivered = [timing.delivered(n) for n in range(timing.transient + 4 * timing.period)]
    gain = {delivered[n + timing.period] - delivered[n] for n in range(timing.transient, len(delivered) - timing.period)}
    assert gain == {int(timing.period / timing.stride)}


def test_counts_of_long_streams_are_exact():
    timing = Timing.sequence(Window(3, 2, 1, 1), Window(5, 3, 2, 2), Window(2, 7))
    n = 10**30 * 42
    assert timing.delivered(n + 42) - timing.delivered(n) == 1


@given(case=compositions, ahead=st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_steady_timings_deliver_whatever_is_known_of_the_end(case: Case, ahead: list[int]):
    """And nothing where nothing comes: on this stands that empty wires are not followed."""
    timing, _ = case
    note(timing)
    assume(timing.causal_counts)
    for n in range(1, 30):
        assert {timing.counts(n, n + more)[0] for more in ahead} == {timing.delivered(n)}
    assert timing.counts(0, 5)[0] == 0


@given(extent=st.integers(1, 6), crop=small, beyond=small, lead=st.integers(0, 5))
def test_transposed_convolution_of_rate_1_is_a_window(extent: int, crop: int, beyond: int, lead: int):
    timing, plain = Upsampling(1, extent, crop, beyond), Upsampling(1, extent, crop, beyond).constant_rate(lead)
    same = Window(extent, 1, extent - 1 - crop, extent - 1 - crop + beyond)
    assert [timing.counts(n, n + lead) for n in range(1, 20)] == [same.counts(n, n + lead) for n in range(1, 20)]
    assert [timing.counts(n, n + lead)[0] for n in range(1, 20)] == [max(0, n - plain.delay) for n in range(1, 20)]
    assert {e - n for n, e in (timing.counts(n, n + lead) for n in range(1, 20)) if n} <= {plain.lookahead}
    assert timing.causal_counts == (timing.constant_rate(None) is not None)
    assert (timing.stride, timing.receptive_field) == (1, same.receptive_field)


@given(case=st.lists(st.one_of(ordinary, rates), min_size=1, max_size=3).map(lambda found: sequence(*found)))
@settings(max_examples=settings().max_examples // 2)
def test_receptive_field_is_the_widest_span_of_a_period(case: Case):
    """Where there is upsampling, outputs see more or fewer inputs in turns."""
    timing, op = case
    note(timing)
    outputs = int(timing.period / Fraction(timing.stride))
    assume(timing.phase_dependent and timing.period <= 12 and outputs <= 24)
    j = -(-40 // timing.period) * outputs  # in the middle of the clip
    touched: dict[int, list[int]] = {k: [] for k in range(j, j + outputs)}
    for i in range(total := 80 + 4 * timing.period + timing.receptive_field):
        clip = torch.zeros(1, 1, total, dtype=torch.float64)
        clip[:, :, i] = float("nan")
        y = op(clip)[0, 0]
        for k in touched:
            touched[k] += [i] if y[k].isnan() else []
    assert max((seen[-1] - seen[0] + 1 for seen in touched.values() if seen), default=1) == timing.receptive_field


# ---- closed form ----------------------------------------------------------------------------------------------------


@given(case=compositions)
def test_plain_predicts_delivered(case: Case):
    timing, _ = case
    plain = timing.constant_rate()
    assume(plain is not None)
    note(f"{timing}\n{plain}")
    assert [timing.delivered(n) for n in range(HORIZON)] == [
        max(0, (n - 1 - plain.delay) // plain.stride + 1) for n in range(HORIZON)
    ]
    if plain.lookahead is not None:
        running = [(n, e) for n, e in (timing.counts(n, n) for n in range(HORIZON)) if n]
        assert {e - n for n, e in running} <= {plain.lookahead}


@given(cases=st.lists(st.one_of(windows, causal_counts, reflections, parallels), min_size=2, max_size=5))
@settings(max_examples=4 * settings().max_examples)
def test_bursts_that_are_swallowed(cases: list[Case]):
    """Padding beyond a window may burst inside a plain sequence; after so many inputs as it says no wire does any more."""
    timing, _ = sequence(*cases)
    plain = timing.constant_rate()
    assume(plain is not None and isinstance(timing, Wiring))
    note(f"{timing}\n{plain}")
    assert [timing.delivered(n) for n in range(HORIZON)] == [
        max(0, (n - 1 - plain.delay) // plain.stride + 1) for n in range(HORIZON)
    ]
    for inside in timing.order:
        wire = [timing.at(inside).delivered(n) for n in range(plain.after, HORIZON)]
        assert all(b - a <= 1 for a, b in pairwise(wire)), f"on wire {inside}"


SWALLOWED = {
    "causal": ([Window(start=2), Window(3)], ConstantRate(0, 1, 0, after=1)),
    "behind a window": ([Window(5), Window(start=2), Window(3)], ConstantRate(4, 1, 0, after=5)),
    "mirrored": ([Window(start=1, end=1, wait=2, least=2), Window(3)], ConstantRate(1, 1, 1, after=2)),
    "stride": ([Window(3, 2, 1), Window(start=2), Window(3)], ConstantRate(1, 2, 0, after=2)),
    "in front of the window alone": ([Window(5), Window(start=2)], None),
    "padding too wide": ([Window(start=3), Window(3)], None),
    "mirrored, and a longer clip is wanted": ([Window(start=1, end=3, wait=2, least=4), Window(3)], None),
}


@pytest.mark.parametrize("name", SWALLOWED)
def test_what_is_swallowed(name: str):
    parts, wanted = SWALLOWED[name]
    assert Timing.sequence(*parts).constant_rate() == wanted


@given(cases=st.lists(ordinary, min_size=1, max_size=5))
def test_ordinary_windows_are_plain(cases: list[Case]):
    timing, _ = sequence(*cases)
    if all(t.end == 0 or t.stride == 1 for t, _ in cases):
        assert timing.constant_rate() is not None
        assert timing.delay == timing.receptive_field - 1 - timing.start


@given(cases=plain_compositions)
@settings(max_examples=settings().max_examples // 2)
def test_receptive_field_is_the_span_of_inputs_that_an_output_sees(cases: list[Case]):
    timing, op = sequence(*cases)
    note(timing)
    s, field = int(timing.stride), timing.receptive_field
    j = max(0, -(-timing.start // s)) + field  # beyond the start padding of every part
    first, total = s * j - timing.start, s * j - timing.start + 2 * field + 40 * s
    assume(total < 2500)
    seen = []
    for i in range(max(0, first - 3), first + field + 3):
        clip = torch.zeros(1, 1, total, dtype=torch.float64)
        clip[:, :, i] = float("nan")
        seen += [i] if op(clip)[0, 0, j].isnan() else []
    assert (seen[0], seen[-1]) == (first, first + field - 1)


@given(cases=st.lists(st.one_of(ordinary, crops), min_size=1, max_size=4))
def test_end_padding_gives_the_length(cases: list[Case]):
    timing, _ = sequence(*cases)
    assume(timing.stride == 1)
    for e in range(timing.receptive_field + 30, timing.receptive_field + 34):
        assert timing.ended(e) == e + timing.start + timing.end - timing.receptive_field + 1


# ---- queues ---------------------------------------------------------------------------------------------------------


@given(before=st.lists(st.one_of(windows, crops, rates), max_size=2), found=branches())
def test_queues_are_as_deep_as_needed_and_no_deeper(before: list[Case], found: list[Case]):
    prior, timings = Timing.sequence(*(t for t, _ in before)), tuple(t for t, _ in found)
    note(f"{timings} after {prior}")
    deepest = [0] * len(timings)
    for n in range(6 * HORIZON):  # strides of 27 in all, and crops of some frames behind them
        delivered = [t.counts(*prior.counts(n, n))[0] for t in timings]
        deepest = [max(d, k - min(delivered)) for d, k in zip(deepest, delivered)]
    assert waiting(timings, prior) == deepest


# ---- values ---------------------------------------------------------------------------------------------------------

VALUES = [
    Window(3, 2, 1, 1),
    Crop(1, 2),
    Upsampling(2, 4, 1),
    Interpolation(Fraction(3, 2), "linear"),
    Window(3).then(Crop(0, 1)),
    aligned(Window(3, start=1, end=1), Window(2)),
]


@pytest.mark.parametrize("timing", VALUES, ids=lambda t: type(t).__name__)
def test_timings_are_immutable_values(timing: Timing):
    twin = pickle.loads(pickle.dumps(timing))
    assert timing == twin
    assert hash(timing) == hash(twin)
    assert timing.delay == twin.delay  # what was computed once is kept, and is no part of the value
    assert timing == pickle.loads(pickle.dumps(twin))
    name = dataclasses.fields(timing)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(timing, name, 1)


@given(a=parts, b=parts, c=parts)
def test_composition_is_associative(a: Case, b: Case, c: Case):
    (a, _), (b, _), (c, _) = a, b, c
    assert a.then(b).then(c) == a.then(b.then(c)) == Timing.sequence(a, b, c)
    assert a.then(IDENTITY) == IDENTITY.then(a) == a


def test_nothing_in_a_row_and_nothing_side_by_side_is_the_identity():
    assert Timing.sequence() == aligned() == IDENTITY
    assert aligned(Window(3), Window(3)) == Window(3)


def test_branches_of_different_strides_are_refused():
    with pytest.raises(ShapeMismatch, match=r"strides \[1, 2\].*strided 1×1 convolution"):
        aligned(Window(3), Window(3, 2))


def test_a_network_whose_crops_remove_everything_says_so():
    with pytest.raises(ShapeMismatch, match="never gives an output"):
        _ = Nothing().delay


class Nothing(Window):
    """A timing that never delivers."""

    def counts(self, n: int, n_if_ended: int) -> tuple[int, int]:
        return 0, 0
