"""`co.load`: runners keep the contract of streams, refuse what is wrong, and leave the stream as it was then."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import continual as co
from continual.core.program.context import Target
from tests.contract import clip_of, refuses_the_length
from tests.export.artefacts import file, network, unwritten
from tests.export.networks import NETWORKS
from tests.long import by_turns, one_in
from tests.strategies import networks_and_clips

EXAMPLES = settings().max_examples


# ---- the contract -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", by_turns(["unet", "gru", "resnet stage"], 2))
def test_onnx_streams_exactly(name: str):
    net, case = network(name), NETWORKS[name]
    frames = 4 * (-(-(net.receptive_field + 12) // 4))
    report = co.verify(co.load(file(name), threads=1), case.clip(frames, batch=2), reference=net, splits=2)
    assert report.passed


@pytest.mark.parametrize("name", by_turns(["unet", "gru"], 2))
def test_a_call_in_torch_streams_exactly(name: str):
    """What all formats are made of; here with rows of 8 steps and more a call."""
    net, case = network(name), NETWORKS[name]
    assert co.verify(unwritten(net, case.step(), 8), case.clip(88, batch=2), reference=net, splits=2).passed


@given(case=networks_and_clips(depth=3), chunks=st.integers(1, 3), fused=st.booleans(), data=st.data())
@settings(max_examples=EXAMPLES // 2)
def test_random_networks(case: tuple[Any, Tensor], chunks: int, fused: bool, data: st.DataObject):
    """In chunks of any size, with a flush; cold states are zeros whatever the layers begin with."""
    net, clip = case
    net.eval()
    target = Target(compiler_fuses=fused)
    try:
        runner = unwritten(net, clip[:, :, 0], target=target)
        runner = unwritten(net, clip[:, :, 0], chunks * runner.chunk, target=target)
    except co.NotStreamable:
        return
    for frames in (clip.shape[2], data.draw(st.integers(1, clip.shape[2]))):
        part = clip[:, :, :frames]
        if refuses_the_length(net, part):
            continue
        note(f"{net}\nclip {tuple(part.shape)}, {runner}")
        with torch.no_grad():
            want = clip_of(net, part)
        runner.clean_state()
        sizes = data.draw(st.lists(st.integers(0, 5), max_size=6))
        found, at = [], 0
        for size in sizes:
            size = min(size, frames - at)
            x = part[:, :, at : at + size]
            if size == 1 and (y := runner.forward_step(x[:, :, 0])) is not None:
                found.append(y if runner.metadata.per_call > 1 else y.unsqueeze(2))
            elif size != 1:
                found.append(runner.forward_steps(x))
            at += size
        try:
            found.append(runner.forward_steps(part[:, :, at:], pad_end=True))
        except co.ShapeMismatch as error:
            if want is not None or "branches of the network differ in length" not in str(error):
                raise
            continue
        got = [y for y in found if y is not None]
        if want is None or want.shape[2] == 0:
            assert not got
        else:
            torch.testing.assert_close(torch.cat(got, 2), want, rtol=1e-9, atol=1e-9)


class Two(nn.Module):
    """Two streams ``(B, T, C)`` and a table of gains for the rows; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, padding=1), nn.GRU(2, 4, batch_first=True)

    def forward(self, x: Tensor, y: Tensor, gain: Tensor) -> list[Tensor]:
        a = self.a(x.transpose(1, 2)).transpose(1, 2)
        b = self.b(y)[0]
        return [a * gain.unsqueeze(1) + b, b.sum(-1)]


def test_layouts_inputs_and_outputs_of_a_converted_module():
    torch.manual_seed(1)
    module = Two().eval()
    clip = torch.randn(2, 30, 3), torch.randn(2, 30, 2), torch.rand(2, 4)
    net = co.continual(module, clip, time_dim=(1, 1, None))
    path = co.export(net, [clip[0][:, 0], clip[1][:, 0], clip[2]], file("gru").with_name("two.onnx"))
    for runner in (co.load(path, threads=1), unwritten(net, [clip[0][:, 0], clip[1][:, 0], clip[2]])):
        assert [(p.name, p.shape, p.time) for p in runner.metadata.inputs] == [
            ("x", (None, 1, 3), 1), ("x1", (None, 1, 2), 1), ("x2", (None, 4), None)
        ]  # fmt: skip
        assert co.verify(runner, clip, reference=module, splits=2).passed
        assert runner.forward_step(clip[0][:, 0], clip[1][:, 0], clip[2]) is None
        y = runner.forward_step(clip[0][:, 1], clip[1][:, 1], clip[2])
        assert [tuple(t.shape) for t in y] == [(2, 4), (2,)]


def test_outputs_of_whole_clips():
    """A window is pooled: outputs have no time, steps give them one by one."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    net = co.continual(module, torch.randn(2, 3, 12))
    clip = torch.randn(2, 3, 30)
    runner = unwritten(net, clip[:, :, 0])
    got = torch.stack([y for f in clip.unbind(2) if (y := runner.forward_step(f)) is not None], 1)
    want = torch.stack([module(clip[:, :, i : i + 12]) for i in range(19)], 1)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_clocks_of_months():
    """Beyond what 32-bit floats count: ONNX divides and compares whole numbers as such."""
    net = co.Sequential(co.Conv1d(2, 3, 3, padding=1), co.MaxPool1d(2, 2), co.Conv1d(3, 2, 3, stride=3, padding=1)).eval()
    path = co.export(net, torch.zeros(1, 2), file("gru").with_name("months.onnx"))
    runners = [co.load(path, threads=1), unwritten(net, torch.zeros(1, 2))]
    clip = torch.randn(2, 2, 61)
    results = []
    for runner in runners:
        runner.forward_steps(clip[:, :, :12])
        state = runner.get_state()
        assert state is not None
        state.tensors["state.calls"] += 6 * (1 << 27) + 1  # odd on every wire
        moved = dataclasses.replace(state, steps=state.clock + runner.chunk * (6 * (1 << 27) + 1))
        runner.set_state(moved)
        results.append([runner.forward_steps(clip[:, :, 12:], pad_end=True), runner.get_state().tensors["state.calls"]])
    assert results[0][0].shape[2] > 4
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


# ---- state -----------------------------------------------------------------------------------------------------------------


def test_states_travel_between_files():
    """Another file of the same network takes a snapshot; one of another network refuses it, and goes on."""
    case = NETWORKS["gru"]
    one, other = co.load(file("gru"), threads=1), unwritten(network("gru"), case.step())
    clip = case.clip(20, batch=2)
    want = one.forward_steps(clip)
    one.clean_state()
    one.forward_steps(clip[:, :, :9])
    other.set_state(one.get_state())
    torch.testing.assert_close(other.forward_steps(clip[:, :, 9:]), want[:, :, 9:], rtol=1e-5, atol=1e-6)
    foreign = co.load(file("demo"), threads=1)
    foreign.forward_step(torch.ones(2, 1))
    with pytest.raises(
        co.StateMismatch, match=r"runner of Sequential \(onnx\): its state is state.calls int64 \(B\); state.0.hidden"
    ):
        one.set_state(foreign.get_state())
    with pytest.raises(co.StateMismatch, match="takes a state of get_state"):
        one.set_state("a state")
    torch.testing.assert_close(one.forward_steps(clip[:, :, 9:]), want[:, :, 9:], rtol=1e-5, atol=1e-6)


def test_states_of_other_weights_are_refused(tmp_path: Path):
    """In one process, and from files of save_state."""
    case = NETWORKS["gru"]
    net = case.net()
    with torch.no_grad():
        next(net.parameters())[3, 2] += 1e-6
    one, other, clip = unwritten(network("gru"), case.step()), unwritten(net, case.step()), case.clip(20, batch=2)
    want = one.forward_steps(clip)[:, :, 9:]
    one.clean_state()
    one.forward_steps(clip[:, :, :9])
    state = one.get_state()
    co.save_state(state, tmp_path / "state")
    stored = co.load_state(tmp_path / "state")
    for foreign in (state, stored):
        with pytest.raises(co.StateMismatch, match=r"runner of Sequential \(onnx\): this state was made with other weights"):
            other.set_state(foreign)
        assert other.get_state() is None
    one.clean_state()
    one.set_state(stored)
    torch.testing.assert_close(one.forward_steps(clip[:, :, 9:]), want, rtol=0, atol=0)
    other.set_state(state, allow_other_weights=True)
    torch.testing.assert_close(other.forward_steps(clip[:, :, 9:]), want, rtol=1e-3, atol=1e-3)
    other.set_state(co.load_state(tmp_path / "state", allow_other_weights=True))
    torch.testing.assert_close(other.forward_steps(clip[:, :, 9:]), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("damage", ["no tensor", "another shape", "another dtype", "no chunk"])
def test_a_state_that_lacks_something(damage: str):
    """It was a bare KeyError, or an error of the runtime."""
    case = NETWORKS["gru"]
    runner = unwritten(network("gru"), case.step())
    runner.forward_steps(case.clip(4, batch=2))
    state = runner.get_state()
    name = "state.0.hidden"
    tensors, pending = dict(state.tensors), state.pending
    match damage:
        case "no tensor":
            del tensors[name]
        case "another shape":
            tensors[name] = tensors[name][:, :3]
        case "another dtype":
            tensors[name] = tensors[name].double()
        case _:
            pending = ()
    with pytest.raises(co.StateMismatch, match="the state is damaged: (state.0.hidden|chunk of x) is .*, not float32"):
        runner.set_state(dataclasses.replace(state, tensors=tensors, pending=pending))


def test_a_state_of_other_rows():
    case = NETWORKS["demo"]
    runner, clip = co.load(file("demo"), threads=1), case.clip(90, batch=3)
    want = runner.forward_steps(clip)
    runner.clean_state()
    runner.forward_steps(clip[:, :, :50])
    state = runner.get_state()
    runner.clean_state()
    runner.forward_step(torch.ones(1, 1))
    runner.set_state(state)
    got = runner.forward_steps(clip[:, :, 50:])
    torch.testing.assert_close(got, want[:, :, -got.shape[2] :], rtol=1e-5, atol=1e-6)


# ---- what is wrong ----------------------------------------------------------------------------------------------------------


def test_wrong_inputs_are_refused_with_shapes():
    runner = co.load(file("gru"), threads=1)
    clip = NETWORKS["gru"].clip(12, batch=2)
    want = runner.forward_steps(clip)
    runner.clean_state()
    runner.forward_steps(clip[:, :, :5])
    wrong: list[tuple[Any, str]] = [
        ((torch.zeros(2, 7),), r"x takes steps float32 \(2, 8\), got float32 \(2, 7\)"),
        (
            (torch.zeros(3, 8),),
            r"x takes steps float32 \(2, 8\), got float32 \(3, 8\): the stream was begun with 2 rows, clean_state\(\)",
        ),
        ((torch.zeros(2, 8, 1),), r"got float32 \(2, 8, 1\)"),
        ((torch.zeros(2, 8, dtype=torch.float64),), r"float32 \(2, 8\), got float64 \(2, 8\)"),
        ((torch.zeros(2, 8), torch.zeros(2, 8)), "takes 1 inputs, got 2"),
        (("a frame",), "x is a tensor, not str"),
    ]
    for steps, message in wrong:
        with pytest.raises(co.ShapeMismatch, match=message):
            runner.forward_step(*steps)
    with pytest.raises(co.ShapeMismatch, match=r"x takes chunks float32 \(2, 8, n\), got float32 \(2, 8\)"):
        runner.forward_steps(torch.zeros(2, 8))
    torch.testing.assert_close(runner.forward_steps(clip[:, :, 5:]), want[:, :, 5:], rtol=1e-5, atol=1e-6)
    runner.clean_state()
    with pytest.raises(co.ShapeMismatch, match=r"x takes steps float32 \(B, 8\), got float32 \(8,\)"):
        runner.forward_step(torch.zeros(8))
    assert runner.get_state() is None


def test_files_for_a_fixed_number_of_rows():
    runner = co.load(file("gru", batch=2), threads=1)
    with pytest.raises(co.ShapeMismatch, match=r"takes steps float32 \(2, 8\), got float32 \(3, 8\)"):
        runner.forward_step(torch.zeros(3, 8))
    assert co.verify(runner, NETWORKS["gru"].clip(12, batch=2), reference=network("gru"), splits=1).passed
    other = co.load(file("gru"), threads=1)
    other.forward_step(torch.zeros(3, 8))
    with pytest.raises(co.StateMismatch, match="exported for 2 rows, the state is of 3"):
        runner.set_state(other.get_state())


@one_in(4)
def test_a_file_whose_streams_do_not_end():
    runner = co.load(file("demo", flush=False), threads=1)
    clip = NETWORKS["demo"].clip(80)
    with pytest.raises(co.ExportError, match="exported with flush=False"):
        runner.forward_steps(clip, pad_end=True)
    assert "end" not in runner.metadata.input_names
    with torch.no_grad():
        want = network("demo").forward_steps(clip, update_state=False)
    torch.testing.assert_close(runner.forward_steps(clip), want, rtol=1e-5, atol=1e-5)
