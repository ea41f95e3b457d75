"""`StepProgram`: its sugar for one stream, its state, and what leaves it for others."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import continual as co
from tests.contract import TOLERANCE, assert_equal, assert_identical, join
from tests.long import by_turns
from tests.programs.small import F64, MAKERS, compiled, made


def stacked(y: Any, program: Any) -> Any:
    """Outputs of a step with a time axis."""
    return y if y is None or program.outputs > 1 else y.unsqueeze(2)


# ---- one stream in lockstep ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual", "recurrent", "attention", "up"])
def test_steps_are_those_of_forward_step(name: str):
    """The same nothing at the same steps, the same shapes, also for outputs that come by two."""
    net, clip = made(name)
    program = compiled(net, clip)
    assert program.chunk == 1
    found, wanted = [], []
    with torch.no_grad():
        for t in range(clip.shape[2]):
            found.append(program.step(clip[:, :, t]))
            wanted.append(net.forward_step(clip[:, :, t]))
    assert any(y is None for y in wanted) or net.delay == 0
    assert [y is None for y in found] == [y is None for y in wanted]
    for y, z in zip(found, wanted):
        if z is not None:
            assert_equal(y if y.ndim == z.ndim else stacked(y, program), z)


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("name", ["strided", "unet", "image", "residual"])
def test_a_chunk_s_last_step_brings_its_outputs(name: str, chunks: int):
    net, clip = made(name)
    program = compiled(net, clip, chunks * compiled(net, clip).chunk)
    found = []
    for t in range(clip.shape[2]):
        y = program.step(clip[:, :, t])
        assert y is None or (t + 1 - program.start) % program.chunk == 0
        found.append(stacked(y, program))
    with torch.no_grad():
        wanted = net.forward_steps(clip[:, :, : clip.shape[2] - (clip.shape[2] - program.start) % program.chunk])
    assert_equal(join(found), wanted)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("frames", [1, 2, 7, 13])
def test_flush_is_the_rest_and_leaves_the_stream(name: str, frames: int):
    net, clip = made(name)
    program, twice = compiled(net, clip), compiled(net, clip)
    total = frames - frames % 2 if name == "unet" else frames  # the branches of a U-Net agree on even lengths
    found = []
    for t in range(total):
        found.append(stacked(program.step(clip[:, :, t]), program))
        twice.step(clip[:, :, t])
    rest = program.flush()
    assert_identical(program.flush(), rest, "two flushes")
    with torch.no_grad():
        wanted = net.forward_steps(clip[:, :, :total], pad_end=True) if total else None
    assert (join([*found, rest]) is None) == (wanted is None)
    if wanted is not None:
        assert_equal(join([*found, rest]), wanted)
    for t in range(total, total + 6):
        assert_identical(program.step(clip[:, :, t]), twice.step(clip[:, :, t]), "a step after a flush")


def test_nothing_to_flush():
    net, clip = made("residual")
    assert compiled(net, clip).flush() is None


@pytest.mark.parametrize("name", ["strided", "recurrent"])
def test_clean_state_forgets(name: str):
    net, clip = made(name)
    program = compiled(net, clip)
    first = [program.step(clip[:, :, t]) for t in range(9)]
    program.clean_state()
    assert program.flush() is None
    assert_identical([program.step(clip[:, :, t]) for t in range(9)], first, "a stream after another")


def test_an_error_in_a_step_leaves_the_stream():
    net, clip = made("strided")
    program, other = compiled(net, clip), compiled(net, clip)
    for t in range(5):
        program.step(clip[:, :, t])
        other.step(clip[:, :, t])
    with pytest.raises(co.ShapeMismatch):
        program.step(clip[:, :2, 0])
    assert_identical([program.step(clip[:, :, t]) for t in range(5, 12)], [other.step(clip[:, :, t]) for t in range(5, 12)])


# ---- state --------------------------------------------------------------------------------------------------------------


def test_names_and_shapes_of_the_state():
    """Modules' paths and their own names, a value for each row."""
    net, clip = made("recurrent", batch=3)
    state = compiled(net, clip).init_state()
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    assert shapes == {
        "clock": (3,),
        "end": (3,),
        "0.window": (3, 3, 2),
        **{"1.hidden": (3, 4), "1.hidden1": (3, 4)},
        **{"2.hidden": (3, 2), "2.cell": (3, 2)},
    }
    assert state["clock"].dtype == state["end"].dtype == torch.int64
    assert {t.dtype for name, t in state.items() if name not in ("clock", "end")} == {F64}


def test_a_first_call_begins_before_the_stream():
    """Where the strides want it, so that the last frame of a chunk completes an output."""
    net, clip = made("strided")
    program = compiled(net, clip)
    assert program.chunk == 4
    assert -4 < program.start <= 0
    assert (program.init_state()["clock"] == program.start).all()
    seen = [program.start + 4 * (k + 1) for k in range(9)]
    assert all(net.timing.delivered(n) > net.timing.delivered(n - 1) for n in seen if n > net.delay)


@pytest.mark.parametrize("name", MAKERS)
def test_eager_calls_are_pure(name: str):
    net, clip = made(name)
    program = compiled(net, clip)
    x, state = clip[:, :, : program.chunk], program.init_state()
    for active in (None, torch.tensor([True, False])):
        for _ in range(4):
            before = {n: t.clone() for n, t in state.items()}
            version = {n: t._version for n, t in state.items()}
            _, _, new = program(x, state, active)
            assert_identical(list(state.values()), list(before.values()), "the state that was given")
            assert {n: t._version for n, t in state.items()} == version
            assert [t.shape for t in new.values()] == [t.shape for t in state.values()]
            assert list(new) == list(state)
            state = new


def test_rows_that_pause_keep_every_tensor():
    net, clip = made("recurrent")
    program = compiled(net, clip)
    state = program.init_state()
    for t in range(5):
        _, _, state = program(clip[:, :, t : t + 1], state)
    _, valid, new = program(torch.full_like(clip[:, :, :1], float("nan")), state, torch.tensor([False, True]))
    assert valid.tolist() == [[False], [True]]
    for name, t in new.items():
        if name != "end":
            assert torch.equal(t[0], state[name][0])
            assert not torch.equal(t[1], state[name][1])


def test_a_row_that_is_reset_is_as_at_first():
    net, clip = made("attention")
    program = compiled(net, clip)
    fresh = program.init_state()
    state = program.init_state()
    for t in range(7):
        _, _, state = program(clip[:, :, t : t + 1], state)
    state = program.finish(state, 0, 7)
    kept = {n: t[1].clone() for n, t in state.items()}
    state = program.reset(state, [0])
    for name, t in state.items():
        assert torch.equal(t[0], fresh[name][0])
        assert torch.equal(t[1], kept[name])
    state = program.reset(state)
    assert all(torch.equal(t, fresh[name]) for name, t in state.items())


@pytest.mark.parametrize("name", MAKERS)
def test_nan_in_a_row_does_not_touch_the_others(name: str):
    net, clip = made(name, batch=3)
    program = compiled(net, clip)
    spoilt = clip.clone()
    spoilt[1] = float("nan")
    states = [program.init_state(), program.init_state()]
    for t in range(0, clip.shape[2] - program.chunk, program.chunk):
        outs = []
        for i, x in enumerate((clip, spoilt)):
            y, valid, states[i] = program(x[:, :, t : t + program.chunk], states[i])
            assert valid[0].equal(valid[1])
            outs.append(y[[0, 2]][:, :, valid[0]])
        assert_equal(outs[1], outs[0], "rows beside NaN")
        assert outs[1].isfinite().all()


# ---- precision ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", MAKERS)
def test_other_precisions(name: str, dtype: torch.dtype):
    """Against the host clock in the same precision, and for half types against double precision roughly."""
    net, clip = made(name, dtype)
    program = compiled(net, clip)
    assert {t.dtype for n, t in program.init_state().items() if t.is_floating_point()} <= {dtype, F64, torch.float32}
    found = [stacked(program.step(clip[:, :, t]), program) for t in range(22)] + [program.flush()]
    with torch.no_grad():
        wanted = net.forward_steps(clip[:, :, :22], pad_end=True)
    y = join(found)
    assert y.dtype == dtype
    difference = (y.double() - wanted.double()).abs().max().item()
    assert difference <= (2e-2 if dtype == torch.bfloat16 else TOLERANCE[dtype]) * max(1.0, wanted.double().abs().max().item())


# ---- export -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, strict", by_turns(product(MAKERS, [False, True]), 2))
def test_export(name: str, strict: bool):
    """One graph without guards on the data, which computes what the program does for rows that are out of step."""
    net, clip = made(name)
    program = compiled(net, clip)
    exported = program.export()
    example = exported.example_inputs[0]
    graph = exported.module()
    if strict:
        graph = torch.export.export(graph, example, strict=True).module()
    state = program.init_state()
    names = [n for n in state if n not in ("clock", "end")]
    for call in range(6):
        x = clip[:, :, 2 * call : 2 * call + program.chunk]
        active = torch.tensor([True, call % 3 != 1])
        if call == 4:
            state = program.finish(state, 0, 4 * program.chunk + program.start)
        wanted = program(x, state, active)
        with torch.no_grad():
            y, valid, clock, held = graph(x, state["clock"], state["end"], active, [state[n] for n in names])
        assert_equal(y, wanted[0], "outputs of the exported graph")
        assert torch.equal(valid, wanted[1])
        assert torch.equal(clock, wanted[2]["clock"])
        assert_equal(held, [wanted[2][n] for n in names], "state of the exported graph")
        state = wanted[2]


def test_a_program_keeps_nothing_of_the_stream_of_its_network():
    net, clip = made("residual")
    with torch.no_grad():
        net.forward_steps(clip[:, :, :5])
        before = copy.deepcopy(net.get_state())
        program = compiled(net, clip)
        for t in range(8):
            program.step(clip[:, :, t])
        program.flush()
    assert_identical(
        tree_leaves(list(net.get_state().tensors.values())), list(before.tensors.values()), "the network's own stream"
    )
