"""Exact windows of networks after well-known designs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import continual as co
from continual.convert.graph.windows.rolling import Carry
from tests.convert.windows import check, close, made, noise, shared, stacked, windows_of
from tests.long import by_turns

from . import window_networks as nets

__all__ = ["shared"]  # a fixture

DESIGNS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], float]] = {
    "attention in frames, then between them": (nets.SpaceThenTime, (2, 9, 8, 8), {}, 0.3),
    "attention between frames of each patch": (nets.Divided, (11, 4, 6), {"dim": 1}, 0.4),
    "gated dilated convolutions": (nets.Gated, (3, 50), {}, 0.7),
    "attentive statistics": (nets.Statistics, (4, 40), {}, 0.5),
    "layers over time": (nets.Mixer, (3, 24), {}, 0.0),
    "five strides": (nets.Deep, (3, 192), {}, 0.3),
    "five strides, each step": (nets.Deep, (3, 192), {"every": 1}, 0.5),
    "down, up and across": (nets.Ladder, (3, 32), {"every": 1}, 0.3),
    "spectra": (nets.Spectra, (160,), {"dim": 1}, 0.3),
    "parts of the clip": (nets.Pyramid, (3, 32), {"every": 1}, 0.7),
}


RECURRENT: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "LSTM": (nets.Last, (3, 22), {}),
    "LSTM, two layers, last states": (lambda: nets.Last(take="both", layers=2), (3, 22), {}),
    "LSTM, the cell": (lambda: nets.Last(take="cell", layers=2), (3, 22), {"every": 4}),
    "GRU, two layers": (lambda: nets.Last("GRU", layers=2), (3, 26), {"every": 3}),
    "GRU without biases": (lambda: nets.Last("GRU", bias=False, take="state"), (3, 26), {"every": 1}),
    "RNN": (lambda: nets.Last("RNN", take="state"), (3, 22), {"every": 2}),
    "LSTM behind a stride": (lambda: nets.Last(stride=2), (3, 24), {}),
    "LSTM behind a stride, each hop two": (lambda: nets.Last(stride=2), (3, 24), {"every": 4}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_windows_that_have_begun_go_on_together(name, shared):
    module, shape, options = RECURRENT[name]
    net = check(module(), shape, **options)
    assert any(isinstance(h, Carry) for h in net._program.instructions[0].schedule.histories)


@pytest.mark.parametrize("every", [3, 1])
def test_a_recurrent_layer_that_windows_begin_anew(every, shared):
    """Where hops do not divide the window, behind padding, or behind a stride with hops of one, it runs on the window."""
    module = nets.Last(stride=2) if every == 1 else nets.Last()
    net = check(module, (3, 24), every=every)
    assert not any(isinstance(h, Carry) for h in net._program.instructions[0].schedule.histories)


def test_recurrent_windows_in_programs_and_their_contract(shared):
    module = made(nets.Last(layers=2))
    net = co.continual(module, noise(2, 3, 22))
    co.verify(net, noise(2, 3, 22), reference=module)
    assert any(note.startswith("the 20 windows that have begun go on as one batch in 'rnn") for note in net.notes)
    assert "lstm, 20 windows at once" in [row.op for row in co.explain(net).rows]
    program, clip = co.compile(net, noise(3, 3), backend="eager"), noise(3, 3, 50, seed=8)
    outs = [program.step(clip[:, :, t]) for t in range(50)]
    close(stacked([y for y in outs if y is not None]), stacked(windows_of(module, clip, 22, 1)))


@pytest.mark.parametrize("name", by_turns(DESIGNS, 3))
def test_scores_are_the_modules_own(name, shared):
    module, shape, options, least = DESIGNS[name]
    assert check(module(), shape, **options).windows.reuse >= least


def test_two_streams(shared):
    module = made(nets.TwoStreams())
    net = co.continual(module, (noise(2, 3, 30), noise(2, 2, 30, seed=5)))
    x, y = noise(3, 3, 63, seed=6), noise(3, 2, 63, seed=7)
    want = stacked([module(x[:, :, i : i + 30], y[:, :, i : i + 30]) for i in range(0, 34, net.windows.every)])
    close(net.forward_steps(x, y), want)
    assert net.windows.reuse > 0.7


def test_time_before_rows(shared):
    module = made(nets.TimeFirst())
    net = co.continual(module, noise(12, 2, 5), time_dim=0)
    clip = noise(30, 3, 5, seed=6)
    with torch.no_grad():
        steps = [net.forward_step(clip[t]) for t in range(30)]
        want = [module(clip[i : i + 12]) for i in range(19)]
    close(stacked([s for s in steps if s is not None]), stacked(want))
