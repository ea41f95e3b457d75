"""Counts at the end of a stream, as programs compute them: short, however deep the network is."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from hypothesis import given, note
from torch import nn

import continual as co
from continual.containers.base import open_child
from continual.core.program.stream_ends import STREAM, Count, Least, end_of, ended, meets
from continual.core.state import InitContext, StepSpec
from continual.core.timing import Crop, Timing, Window, Wiring
from continual.core.timing_graph import aligned
from continual.programs.planning import _wires
from tests.core.timing.cases import Case, compositions, reflections


@given(case=compositions | reflections)
def test_ends_on_tensors_are_those_of_the_timing(case: Case):
    timing: Timing = case[0]
    note(timing)
    lengths = list(range(40))
    assert ended(timing, torch.tensor(lengths)).tolist() == [timing.ended(e) for e in lengths]


SAME = Window(3, start=1, end=1)


@pytest.mark.parametrize(
    "timing, end",
    [
        (SAME.then(SAME), STREAM),
        (aligned(Window(), SAME), STREAM),
        (Window(3, 2, 1, 1).then(Window(3, 2, 1, 1)), Count(None, 1, 1, 3, 4)),
        (Window(3, start=2, end=2).then(Crop(0, 2)), STREAM),
        (Window(3).then(Window(5)), Count(None, 7, 1, -6, 1)),
        (aligned(Window(3), Window(5, end=1)), Count(None, 4, 1, -3, 1)),
        (aligned(Window(3, end=1, least=6), Window(4, end=1)), Count(None, 6, 1, -2, 1)),
        (Window(4, 2, 1, 1), Count(None, 2, 1, 0, 2)),
        (Window(1, least=5).then(SAME), Count(None, 5, 1, 0, 1)),
        (Window(3).then(Window(1, least=5)), Count(None, 7, 1, -2, 1)),
        (Window(2, 2).then(Window(1, least=3)), Count(None, 6, 1, 0, 2)),
        (co.ConvTranspose1d(1, 1, 4, 4).timing.then(Window(1, least=6)), Count(None, 2, 4, 0, 1)),
        (co.ConvTranspose1d(1, 1, 4, 2, 1).timing, Count(None, 1, 2, 0, 1)),
        (co.ConvTranspose1d(1, 1, 4, 4).timing.then(Window(4, 2, 1, 1)), Count(None, 1, 2, 0, 1)),
        (Window(2, 2).then(co.ConvTranspose1d(1, 1, 2, 2).timing), Count(Count(None, 2, 1, 0, 2), 1, 2, 0, 1)),
    ],
)
def test_formulas_become_one(timing: Timing, end: Count):
    assert end_of(timing)[0] == end
    lengths = torch.arange(40)
    assert ended(timing, lengths).tolist() == [timing.ended(int(e)) for e in lengths]


def test_wires_that_differ_by_a_remainder_stay_apart():
    """Down and up by two loses the last frame of odd clips, which the shortcut does not."""
    down_up = Window(2, 2).then(co.ConvTranspose1d(1, 1, 2, 2).timing)
    end, joins = end_of(Wiring(((None, ()), (down_up, (0,)), (None, (0, 1)), (SAME, (2,)), (None, (0, 3))), 4))
    assert isinstance(end, Least)
    assert set(end.of) == {STREAM, end_of(down_up)[0]}
    assert len(joins) == 2
    lengths = torch.arange(8)
    timing = Wiring(((None, ()), (down_up, (0,)), (None, (0, 1))), 2)
    assert ended(timing, lengths).tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert meets(timing, lengths).tolist() == [True, True, True, False, True, False, True, False]


# ---- of networks ----------------------------------------------------------------------------------------------------------


def residual(depth: int) -> Any:
    """Blocks like those of video networks."""
    blocks = (co.Residual(co.Sequential(co.Conv2d(3, 3, 3, padding=1), nn.ReLU())) for _ in range(depth))
    return co.Sequential(*blocks).eval()


def written(net: Any, *space: int) -> torch.fx.Graph:
    """A program's graph."""
    return co.compile(net, torch.zeros(2, 3, *space), backend="eager").export().graph


def test_a_graph_grows_with_the_depth_alone():
    """Each layer once wrote the counts of all layers before it."""
    sizes = [len(written(residual(depth), 4).nodes) for depth in (1, 2, 3)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]


def unrolled(graph: torch.fx.Graph) -> int:
    """Operations on the rows' whole numbers that a compiler has in one expression, where each is written into all that use it."""
    sizes: dict[torch.fx.Node, int] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and node.target is not operator.getitem:
            sizes[node] = 1 + sum(sizes.get(n, 0) for n in node.all_input_nodes)
    return max(sizes.values())


def test_no_count_is_written_into_another_many_times():
    """A residual block had the count of the one before it three times: 3,291 operations here, and CoX3D compiled for minutes."""
    assert unrolled(written(residual(6), 4)) <= 20


def unet(depth: int) -> Any:
    inner = unet(depth - 1) if depth else co.Identity()
    within = co.Sequential(co.Conv1d(3, 3, 4, 2, 1), inner, co.ConvTranspose1d(3, 3, 4, 2, 1))
    return co.Sequential(co.BroadcastReduce(co.Identity(), within), co.Conv1d(3, 3, 3, padding=1)).eval()


def test_counts_of_unets_stay_small():
    """They are not one formula, since down and up by two loses a frame. It were 4,475 operations."""
    assert unrolled(written(unet(2))) <= 60


@pytest.mark.parametrize("name", ["cox3d_s", "coslow", "coi3d"])
def test_wires_of_video_networks(name: str):
    """All that a compiler gets for any wire is the stream's own count, divided and shifted once."""
    net = co.models.create(name, input_size=64, classes=3).eval()
    node = open_child(net, StepSpec.of(torch.zeros(1, 3, 64, 64)), InitContext())
    ends = {end_of(timing)[0] for timing in _wires(net, node)}
    assert len(ends) <= 4
    assert all(isinstance(end, Count) and end.of is None for end in ends)
