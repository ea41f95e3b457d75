"""Counts of all wires of a graph, by the length of the clip."""

from __future__ import annotations

import random

import pytest

from continual.core.alignment import waiting
from continual.core.fitted import Fitted
from continual.core.length_function import LengthFunction, Step
from continual.core.resampling import Upsampling
from continual.core.timing import Crop, Timing, Window
from continual.core.timing_graph import AHEAD, Wires, aligned

FOURS = Fitted(LengthFunction((Step(1, 4, 4),)))  # padding to a multiple of 4


def network(seed: int, layers: int = 12) -> tuple[Wires, list[int]]:
    """Layers, residual connections and crops to the length of an earlier wire, as they come."""
    rng, wires = random.Random(seed), Wires()
    at, found = 0, [0]
    for _ in range(layers):
        timing: Timing = rng.choice(
            [Window(3, start=2, end=2), Window(5, 2, 1, 1), Crop(0, 2), Crop(1, 0), FOURS, Upsampling(2, 2)]
        )
        at = wires.then(at, timing)
        found.append(at)
        same = [w for w in found[:-1] if wires.timing(w).stride == wires.timing(at).stride]
        if same and rng.random() < 0.5:
            at = wires.meet([at, rng.choice(same)])
            found.append(at)
    return wires, found


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_each_wire(seed: int) -> None:
    wires, found = network(seed)
    for wire in reversed(found):
        timing = wires.timing(wire)
        for n in (0, 1, 7, 63, 64, 65, 200):
            assert (wires.clips.come(wire, n), wires.clips.ended(wire, n)) == timing.counts(n, n)
            assert wires.streams.come(wire, n) == timing.counts(n, AHEAD)[0]


@pytest.mark.parametrize("seed", range(4))
def test_counts_recur_from_where_a_wire_has_settled(seed: int) -> None:
    wires, found = network(seed)
    for wire in found:
        timing, start = wires.timing(wire), wires.clips.settled(wire)
        assert start <= max(timing.transient, 1)
        jumps = [
            tuple(b - a for a, b in zip(timing.counts(n, n), timing.counts(n + 1, n + 1), strict=True))
            for n in range(start, start + 3 * timing.period + 40)
        ]
        assert jumps[timing.period :] == jumps[: -timing.period]


def test_a_deep_network_settles_as_early_as_its_parts() -> None:
    wires, at = Wires(), 0
    for _ in range(50):
        pooled = wires.then(wires.then(at, Window(100, 100, 0, 99)), Upsampling(100, 100))
        at = wires.meet([at, wires.fit(pooled, 0, Fitted(LengthFunction((Step(1, 1, 1),)), cuts=True))])
    assert wires.timing(at).transient > 20_000
    assert wires.clips.settled(at) < 1000


@pytest.mark.parametrize("seed", range(4))
def test_queues_are_as_deep_as_the_counts_of_all_lengths_say(seed: int) -> None:
    wires, found = network(seed, 7)
    ends = [w for w in found if wires.timing(w).stride == wires.timing(found[-1]).stride]
    branches = tuple(wires.timing(w) for w in (ends[0], ends[-1]))
    whole, deepest = aligned(*branches), [0, 0]
    for n in range(whole.transient + 2 * whole.period + 1):
        come = [b.delivered(n) for b in branches]
        deepest = [max(d, c - min(come)) for d, c in zip(deepest, come, strict=True)]
    assert waiting(branches) == deepest
