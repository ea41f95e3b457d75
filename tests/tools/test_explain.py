"""`co.explain`: rows follow the data through containers, and refusals are explained."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ET
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import continual as co
from continual.core.op_rows import Graph
from continual.tools.explanation import Explanation, Refusal, Row
from continual.tools.structure import described
from tests.strategies import module_is, networks_and_clips

EXPLAIN = importlib.import_module("continual.tools.explain")


def flow(explanation: Explanation) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    return [(r.path, r.op, r.inputs, r.waits) for r in explanation.rows]


def test_layers_in_a_row():
    net = co.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), co.AvgPool1d(2), nn.Identity(), co.LSTM(4, 3))
    found = co.explain(net, torch.zeros(2, 2, 9))
    assert flow(found) == [
        ("0", "Conv1d k3 p1", (-1,), (0,)),
        ("1", "ReLU", (0,), (0,)),
        ("2", "AvgPool1d k2 s2", (1,), (0,)),
        ("4", "LSTM 4→3", (2,), (0,)),
    ]
    assert found.outputs == (3,)
    assert found.inputs == ("x (2, 2, T)",)
    assert [(r.rate, r.receptive_field, r.delay) for r in found.rows] == [
        (Fraction(1), 3, 1),
        (Fraction(1), 3, 1),
        (Fraction(1, 2), 4, 2),
        (Fraction(1, 2), 4, 2),
    ]
    assert [r.state_bytes for r in found.rows] == [2 * 2 * 2 * 4, 0, 2 * 4 * 4, 2 * 2 * 3 * 4]
    assert found.name == "Sequential"
    assert [r.path for r in found.rows if r.note] == ["4"]
    assert "everything since the stream began" in found.rows[3].note


def test_branches_wait_where_they_meet():
    slow = co.Sequential(co.Conv1d(3, 3, 5, padding=2), co.Conv1d(3, 3, 3, padding=1))
    net = co.Sequential(nn.ReLU(), co.Residual(slow), co.BroadcastReduce(co.Conv1d(3, 2, 1), co.Conv1d(3, 2, 3), reduce="concat"))
    found = co.explain(net, torch.zeros(1, 3, 20))
    assert flow(found) == [
        ("0", "ReLU", (-1,), (0,)),
        ("1.1.0", "Conv1d k5 p2", (0,), (0,)),
        ("1.1.1", "Conv1d k3 p1", (1,), (0,)),
        ("1", "add", (0, 2), (3, 0)),
        ("2.0", "Conv1d k1", (3,), (0,)),
        ("2.1", "Conv1d k3", (3,), (0,)),
        ("2", "cat", (4, 5), (2, 0)),
    ]
    assert found.rows[3].state_bytes == 3 * 3 * 4
    assert (found.rows[6].delay, found.rows[6].receptive_field) == (net.delay, net.receptive_field) == (5, 9)


def test_streams_side_by_side():
    net = co.Sequential(
        co.Broadcast(2),
        co.Parallel(co.Conv1d(2, 2, 3, padding=1), nn.Tanh()),
        co.ParallelDispatch([1, 0, 1]),
        co.Reduce(lambda streams: streams[0] - streams[1] * streams[2]),
    )
    found = co.explain(net, torch.zeros(2, 2, 9))
    assert flow(found) == [
        ("1.0", "Conv1d k3 p1", (-1,), (0,)),
        ("1.1", "Tanh", (-1,), (0,)),
        ("1.1 (waits)", "wait", (1,), (1,)),
        ("3", "reduce <lambda>", (2, 0, 2), (0, 0, 0)),
    ]
    assert (found.rows[2].delay, found.rows[2].receptive_field, found.rows[2].state_bytes) == (1, 1, 2 * 2 * 4)


def test_several_streams_come_and_leave():
    pair = co.Sequential(co.Broadcast(2), co.Parallel(nn.ReLU(), nn.Tanh()))
    net = co.Parallel(pair, co.Conv1d(3, 3, 5, padding=2), co.Identity())
    clip = (torch.zeros(1, 2, 9), torch.zeros(1, 3, 9), torch.zeros(1, 4, 9))
    found = co.explain(net, clip)
    assert found.inputs == ("x0 (1, 2, T)", "x1 (1, 3, T)", "x2 (1, 4, T)")
    assert [(r.op, r.inputs, r.waits) for r in found.rows] == [
        ("ReLU", (-1,), (0,)),
        ("Tanh", (-1,), (0,)),
        ("Conv1d k5 p2", (-2,), (0,)),
        ("wait", (0,), (2,)),
        ("wait", (1,), (2,)),
        ("wait", (-3,), (2,)),
    ]
    assert len({r.path for r in found.rows}) == 6
    assert found.outputs == (3, 4, 2, 5)
    assert found.state_bytes == net.init_state([c[:, :, 0] for c in clip]).nbytes


def test_one_of_two_modules():
    def loud(module: co.CoModule, x: Tensor) -> bool:
        return True

    found = co.explain(co.Conditional(loud, co.AvgPool1d(3, 1, padding=1)), torch.zeros(1, 2, 9))
    assert flow(found) == [
        ("0", "AvgPool1d k3 p1", (-1,), (0,)),
        ("network", "Conditional loud", (0, -1), (0, 1)),
    ]


def test_a_network_of_the_zoo_whose_blocks_keep_both_paths_as_children():
    net = co.models.create("cox3d_xs", input_size=32)
    found = co.explain(net, torch.zeros(1, 3, 4, 32, 32))
    assert (found.receptive_field, found.delay) == (net.receptive_field, net.delay)
    assert found.state_bytes == net.init_state(torch.zeros(1, 3, 32, 32)).nbytes
    first = next(i for i, r in enumerate(found.rows) if r.path == "s2.pathway0_res0")
    assert [found.rows[i].path.rpartition(".")[0] for i in found.rows[first].inputs] == [
        "s2.pathway0_res0.shortcut",
        "s2.pathway0_res0.path.branch2",
    ]
    assert found.rows[first].waits == (1, 0)


@settings(max_examples=60)
@given(case=networks_and_clips(depth=3))
def test_random_networks(case: tuple[co.CoModule, Tensor]):
    """What is said of the last rows is what the network says of itself, and every frame that is kept is in a row."""
    net, clip = case
    found = co.explain(net, clip)
    assert found.state_bytes == net.init_state(clip[:, :, 0]).nbytes
    last = [found.rows[i] for i in found.outputs if i >= 0]
    assert {(r.rate, r.receptive_field, r.delay) for r in last} <= {(1 / Fraction(net.stride[0]), net.receptive_field, net.delay)}
    assert len({r.path for r in found.rows}) == len(found.rows)
    used = {i for r in found.rows for i in r.inputs} | set(found.outputs)
    assert used >= set(range(len(found.rows))) or module_is(net, co.ParallelDispatch)  # no row leads nowhere
    assert str(found).count("\n") >= len(found.rows)
    ET.fromstring(found.svg())


def test_a_running_stream_needs_no_clip():
    net = co.Conv2d(2, 3, (3, 1), padding=(1, 0))
    with pytest.raises(TypeError, match=r"co\.explain\(Conv2d\) needs the shapes of a stream: give a clip"):
        co.explain(net)
    net.forward_step(torch.zeros(4, 2, 5))
    found = co.explain(net)
    assert found.inputs == ("x (4, 2, T, 5)",)
    assert flow(found) == [("network", "Conv2d k(3,1) p(1,0)", (-1,), (0,))]
    assert found.state_bytes == 2 * 4 * 2 * 5 * 4
    assert net.get_state().clock == 1


def test_time_may_be_another_dim():
    net = co.MultiheadAttention(4, 2, sequence_len=5)
    found = co.explain(net, torch.zeros(3, 7, 4))  # (N, L, E)
    assert found.inputs == ("x (3, T, 4)",)
    assert found.rows[0].receptive_field == 5
    assert found.state_bytes == net.init_state(torch.zeros(3, 4)).nbytes


def test_a_clip_that_does_not_fit():
    with pytest.raises(co.ShapeMismatch, match="expects steps"):
        co.explain(co.Conv1d(2, 2, 3), torch.zeros(1, 3, 9))
    with pytest.raises(TypeError, match="options are for plain modules, and Conv1d is streaming already; got time_pooling"):
        co.explain(co.Conv1d(2, 2, 3), torch.zeros(1, 2, 9), time_pooling="window")
    with pytest.raises(TypeError, match=r"give a clip, co\.explain\(module, clip\)"):
        co.explain(nn.Conv1d(2, 2, 3))


class Twin(co.Sequential):
    """Knows its own explanation, as converted networks do."""

    def operation_graph(self, clip: Any) -> Graph:
        return Graph("Twin", (), (-1,), inputs=(f"x {None if clip is None else tuple(clip.shape)}",))


def test_a_network_that_explains_itself_does_so():
    assert co.explain(Twin(nn.ReLU()), torch.zeros(1, 2, 9)).inputs == ("x (1, 2, 9)",)
    assert co.explain(Twin(nn.ReLU())).inputs == ("x None",)


def test_a_plain_module_is_converted(monkeypatch: pytest.MonkeyPatch):
    calls: list[Any] = []

    def convert(module: nn.Module, clip: Any, **options: Any) -> co.CoModule:
        calls.append((module, clip, options))
        return co.Sequential(co.Conv1d(2, 2, 3), nn.ReLU())

    monkeypatch.setattr(EXPLAIN, "_convert", convert)
    module, clip = nn.Conv1d(2, 2, 3), torch.zeros(1, 2, 9)
    found = co.explain(module, clip, time_pooling="window")
    assert calls == [(module, clip, {"time_pooling": "window"})]
    assert [r.op for r in found.rows] == ["Conv1d k3", "ReLU"]


def test_refusals_are_an_explanation(monkeypatch: pytest.MonkeyPatch):
    refusals = (Refusal("norm", "GroupNorm", "a.py:3  y", "why", "what"), Refusal("flip", "flip", "", "why", "what"))
    rows = (Row("norm", "GroupNorm", (-1,), (0,), Fraction(1), 1, 0, 0),)

    def convert(module: nn.Module, clip: Any, **options: Any) -> co.CoModule:
        error = co.NotStreamable("all of them")
        error.refusals, error.rows = refusals, rows  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(EXPLAIN, "_convert", convert)
    found = co.explain(nn.GroupNorm(1, 2), (torch.zeros(1, 2, 9), torch.zeros(1, 3)))
    assert (found.name, found.refusals, found.rows, found.outputs) == ("GroupNorm", refusals, rows, ())
    assert found.inputs == ("x0 (1, 2, 9)", "x1 (1, 3)")
    assert not found.streamable


def test_a_refusal_in_words_is_an_explanation_too():
    net = co.Sequential(nn.Conv1d(2, 2, 3), nn.Linear(7, 2))
    found = co.explain(net, torch.zeros(1, 2, 9))
    assert not found.streamable
    assert "on a clip with 3 dimensions would mix time" in found.refusals[0].reason
    assert "1 (Linear)(channel_dim=-1)" in str(found)


DESCRIBED = {
    "Conv2d k3 s(2,1) p(1,0) d(2,1) g2": lambda: nn.Conv2d(2, 4, 3, (2, 1), (1, 0), (2, 1), 2),
    "Conv1d k3": lambda: nn.Conv1d(2, 4, 3),
    "Conv1d k3 psame": lambda: nn.Conv1d(2, 4, 3, padding="same"),
    "ConvTranspose1d k4 s2 p1": lambda: co.ConvTranspose1d(2, 2, 4, 2, 1),
    "MaxPool2d k2 s2": lambda: nn.MaxPool2d(2, 2),
    "Linear 3→4": lambda: nn.Linear(3, 4),
    "GRU 3→4 ×2": lambda: nn.GRU(3, 4, 2),
    "Delay 3": lambda: co.Delay(3),
    "BatchNorm1d": lambda: nn.BatchNorm1d(3),
    "Tanh": lambda: nn.Tanh(),
    "Lambda relu": lambda: co.Lambda(torch.relu),
}


@pytest.mark.parametrize("said", DESCRIBED)
def test_modules_in_words(said: str):
    assert described(DESCRIBED[said]()) == said
