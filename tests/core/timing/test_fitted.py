"""Numbers of frames that follow from a length: as sums of steps, as timings, and on the integers of programs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from continual.core.fitted import Fitted
from continual.core.length_function import LengthFunction, Step
from continual.core.program.stream_ends import ended
from continual.core.timing import Crop, Window
from continual.core.timing_graph import Wires


def valid_length(n: int) -> int:
    for _ in range(3):
        n = max(math.ceil((n - 8) / 4) + 1, 1)
    for _ in range(3):
        n = (n - 1) * 4 + 8
    return n


FUNCTIONS: dict[str, tuple[Callable[[int], int], int, int]] = {  # the function, a multiple of its period, its steps
    "the next multiple": (lambda n: n + -n % 6, 12, 1),
    "the last multiple": (lambda n: n // 6 * 6, 6, 1),
    "itself": (lambda n: n, 30, 1),
    "less": (lambda n: n - 3, 1, 1),
    "valid_length": (valid_length, 64, 2),
    "evenly": (lambda n: n // 7 * 2 + (n % 7 > 3), 7, 1),
    "unevenly": (lambda n: n // 7 * 2 + (n % 7 > 0), 7, 2),
    "160 of 441": (lambda n: -(-n * 160 // 441), 441, 1),
    "441 of 160": (lambda n: n * 441 // 160, 160, 2),
    "160 of 441, from 9 on": (lambda n: max(0, (n * 160 - 1000) // 441), 441, 1),
    "at most": (lambda n: min(n, 5), 1, 2),
    "blocks, or one that is shorter": (lambda n: max(n, 305) // 300 * 300 + min(n, 305) if n > 80 else 0, 300, 4),
    "up and down": (lambda n: n - n % 3, 3, 1),
    "not monotone": (lambda n: 2 * n - 3 * (n % 4), 4, 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    fn, period, steps = FUNCTIONS[name]
    found = LengthFunction.of(fn, period)
    assert found is not None
    assert len(found.steps) == steps
    lengths = [0, *range(1, 200), 10**6 + 1, 10**9]
    want = [0, *(max(0, fn(n)) for n in lengths[1:])]
    assert [found(n) for n in lengths] == want
    assert found.on(torch.tensor(lengths)).tolist() == want
    assert found.monotone == (name != "not monotone")


def test_what_is_no_sum_of_a_few_steps() -> None:
    assert LengthFunction.of(lambda n: n * n, 4) is None
    assert LengthFunction.of(math.isqrt, 1) is None
    assert LengthFunction.of(lambda n: n * n % 499 + 2 * n, 499) is None


def test_a_crop_to_the_input_waits_for_no_other_end() -> None:
    """What lies within the clip leaves at once, although the wire has frames of padding behind it."""
    wires = Wires()
    padded = wires.then(0, Window(3, start=2, end=5))
    same = wires.fit(padded, 0, Fitted(LengthFunction((Step(1, 1, 1),)), cuts=False))
    timing = wires.timing(same)
    assert [timing.counts(n, n) for n in range(4)] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert timing.delay == 0
    assert timing.causal_counts
    assert wires.fit(padded, 0, Fitted(LengthFunction((Step(1, 1, 1),)))) == same


@pytest.mark.parametrize("cuts", [False, True])
def test_programs_count_the_same(cuts: bool) -> None:
    wires = Wires()
    strided = wires.then(0, Window(3, stride=2))
    function = LengthFunction.of(lambda n: n // 3 * 3 if cuts else n + -n % 3, 3)
    assert function is not None
    own = wires.fit(strided, strided, Fitted(function, cuts, least=2))
    beside = wires.fit(wires.then(own, Crop(0, 1)), 0, Fitted(LengthFunction((Step(2, 1, 2), Step(9, -1))), True, 4))
    lengths = torch.arange(0, 60)
    for wire in (own, beside, wires.meet([own, strided])):
        timing = wires.timing(wire)
        assert ended(timing, lengths).tolist() == [timing.ended(n) for n in range(60)], timing


def test_wires_of_other_functions_never_count_as_equally_long() -> None:
    wires = Wires()
    up = wires.fit(0, 0, Fitted(LengthFunction((Step(1, 4, 4),))))
    down = wires.fit(0, 0, Fitted(LengthFunction((Step(4, 4, 4),)), cuts=True))
    both = wires.timing(wires.meet([up, down]))
    assert [both.counts(n, n) for n in (3, 4, 5)] == [(0, 0), (4, 4), (4, 4)]
