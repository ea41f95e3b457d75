"""What a step program refuses, and what it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from continual.core.state import StateNode
from continual.core.timing import Window
from tests.contract import assert_identical
from tests.programs.small import compiled, made


def test_chunks_of_another_shape():
    net, clip = made("strided")
    program = compiled(net, clip)
    state = program.init_state()
    good = clip[:, :, :4]
    before = {n: t.clone() for n, t in state.items()}
    for x, message in (
        (clip[:, :, :3], r"takes chunks .*4.*got .*3"),
        (clip[:, :2, :4], "got"),
        (clip[:1, :, :4], "got"),
        (good.float(), "float32"),
        (clip[:, :, :4].unsqueeze(3), "got"),
        ([good, good], "got"),
    ):
        with pytest.raises(co.ShapeMismatch, match=message):
            program(x, state)
    assert_identical(list(state.values()), list(before.values()), "the state after errors")


def test_steps_of_another_shape():
    net, clip = made("residual")
    program = compiled(net, clip)
    for x in (clip[:, :2, 0], clip[:1, :, 0], clip[:, :, :1], clip[:, :, 0].float()):
        with pytest.raises(co.ShapeMismatch, match="takes steps"):
            program.step(x)


def test_the_state_of_another_program():
    net, clip = made("residual")
    program = compiled(net, clip)
    other, _ = made("recurrent")
    for state in (compiled(other, clip).init_state(), {}, None, [1]):
        with pytest.raises(co.StateMismatch, match=r"init_state\(\)"):
            program(clip[:, :, :1], state)
    wider = co.compile(net, clip[:, :, 0].repeat(2, 1), backend="eager").init_state()
    with pytest.raises(co.StateMismatch, match="2 rows, the state is of 4"):
        program(clip[:, :, :1], wider)


def test_a_state_of_the_same_names():
    """A longer kernel's state was taken, and gave wrong outputs; compiled code would have read what is none of its own."""
    program = co.compile(co.Conv1d(3, 4, 3).eval(), torch.zeros(2, 3), backend="eager")
    longer = co.compile(co.Conv1d(3, 4, 5).eval(), torch.zeros(2, 3), backend="eager").init_state()
    other = {name: t.double() if t.is_floating_point() else t for name, t in program.init_state().items()}
    for state, message in (
        (longer, r"'window' is torch.float32 \(2, 3, 2\).*got torch.float32 \(2, 3, 4\)"),
        (other, "float64"),
    ):
        with pytest.raises(co.StateMismatch, match=message):
            program(torch.zeros(2, 3, 1), state)


def test_active_is_a_bool_for_each_row():
    net, clip = made("residual")
    program = compiled(net, clip)
    for active in (torch.ones(3, dtype=torch.bool), torch.ones(2), torch.ones(2, 1, dtype=torch.bool)):
        with pytest.raises(co.ShapeMismatch, match="active is a bool for each of 2 rows"):
            program(clip[:, :, :1], program.init_state(), active)


def test_training_mode():
    net, clip = made("residual")
    with pytest.raises(co.NotStreamable, match=r"training mode.*net.eval\(\)"):
        compiled(net.train(), clip)


def test_chunks_that_do_not_fit():
    net, clip = made("strided")
    for chunk in (0, 1, 6, -4):
        with pytest.raises(ValueError, match=f"chunk={chunk} .*multiple of 4"):
            compiled(net, clip, chunk)


def test_unknown_backends():
    net, clip = made("residual")
    with pytest.raises(ValueError, match="'eager', 'inductor', 'aot', 'cudagraph', 'onnxruntime', 'openvino', not 'tvm'"):
        co.compile(net, clip[:, :, 0], backend="tvm")


def test_a_module_that_is_no_streaming_network():
    with pytest.raises(TypeError, match=r"not Conv1d: convert it by co.continual"):
        co.compile(nn.Conv1d(3, 3, 3), torch.zeros(1, 3), backend="eager")


def test_hooks_are_refused():
    net, clip = made("residual")
    handle = net[2].register_forward_hook(lambda *_: None)
    with pytest.raises(co.NotStreamable, match=r"2 .*hooks.*Remove them"):
        compiled(net, clip)
    handle.remove()
    compiled(net, clip)


class Negative(co.CoModule):
    """A layer of a user, without a kernel."""

    timing = Window()

    def open(self, frame: Any, init: Any) -> StateNode:
        return StateNode(init, "negative", frame)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x


def test_a_class_without_a_kernel_is_named_with_its_path_and_what_there_is():
    net = co.Sequential(co.Conv1d(2, 2, 3), co.Sequential(nn.ReLU(), Negative())).eval()
    with pytest.raises(co.NotStreamable, match=r"co.compile: 1\.1 \(Negative\).*no kernel for the class Negative") as caught:
        co.compile(net, torch.zeros(1, 2), backend="eager")
    named = re.findall(r"\bco\.(\w+)", str(caught.value))
    assert {"Recurrence", "SlidingWindow"} <= set(named)
    assert all(hasattr(co, name) for name in named)
