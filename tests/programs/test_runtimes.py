"""Step programs in onnxruntime, and on request in OpenVINO, against the eager program.

OpenVINO has crashed in long processes: it has one of its own, in which this file runs again with its name in the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.layers.positions.fixed_point_angles import angles_at, angles_in_32_bits, geometric, limbs
from tests.export.artefacts import needs
from tests.long import LONG, some
from tests.own_process import check_in_own_process
from tests.programs.test_backends import MAKERS, ROWS, assert_close, history, network, program_of
from tests.programs.test_every_layer import CASES, MORE, REFUSED, made

RUNTIME = os.environ.get("CONTINUAL_RUNTIME", "onnxruntime")
FORMAT = {"onnxruntime": "onnx", "openvino": "openvino"}[RUNTIME]
OFTEN = ("unet", "transformer")  # exporting takes seconds


@pytest.fixture(autouse=True)
def installed() -> None:
    needs(FORMAT)


@pytest.mark.parametrize("name", some(MAKERS, MAKERS.keys() - OFTEN))
def test_equals_the_eager_program(name: str):
    """Rows pause, end, and begin again."""
    assert_close(history(program_of(name, RUNTIME)), history(program_of(name, "eager")), 1e-5)


LAYERS = [n for n in (*CASES, *MORE) if n not in REFUSED]


@pytest.mark.parametrize("name", some(LAYERS, LAYERS))
def test_every_layer(name: str):
    """Rows that end at different times, and one that pauses."""
    net, clip = made(name)
    net, clip = net.float(), clip.float()
    programs = [co.compile(net, clip[:, :, 0], backend=b) for b in ("eager", RUNTIME)]
    states = [p.init_state() for p in programs]
    for p, state in zip(programs, states, strict=True):
        p.finish(state, 1, 17)
    n, start = programs[0].chunk, programs[0].start
    padded = torch.cat((clip.new_zeros(*clip.shape[:2], -start, *clip.shape[3:]), clip), 2)
    some_outputs = False
    for call in range((padded.shape[2]) // n):
        x, active = padded[:, :, n * call : n * (call + 1)], torch.tensor([True, True, call % 3 != 1])
        outs = []
        for i, p in enumerate(programs):
            y, valid, states[i] = p(x, states[i], active)
            outs.append((torch.where(valid.view(3, 1, -1, *(1,) * (y.ndim - 3)), y, 0), valid))
        assert_close(outs[1:], outs[:1], 2e-5)
        some_outputs |= bool(outs[0][1].any())
    assert some_outputs


def test_states_of_several_streams_in_turns():
    """The state is handed over: each call's is the one to go on with, whatever other streams of the program did meanwhile."""
    programs = [program_of("unet", "eager"), program_of("unet", RUNTIME)]
    states: list[list[Any]] = [[p.init_state() for _ in range(3)] for p in programs]
    for turn in (0, 1, 0, 2, 2, 1, 0, 1, 1, 2, 0, 0):
        x = torch.randn(ROWS, 6, programs[0].chunk)[:, ::2]  # of other strides than the example's
        outs = []
        for p, own in zip(programs, states, strict=True):
            y, valid, own[turn] = p(x, own[turn])
            outs.append((torch.where(valid.unsqueeze(1), y, 0), valid))
        assert_close(outs[1:], outs[:1], 1e-5)
    for a, b in zip(*states, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5)


def test_a_state_that_was_handed_over_is_refused():
    program = program_of("unet", RUNTIME)
    state, x = program.init_state(), torch.randn(ROWS, 3, program.chunk)
    _, _, later = program(x, state)
    with pytest.raises(
        co.StateMismatch, match="handed over to the previous call.*continue with the state that the call returned"
    ):
        program(x, state)
    program(x, later)


def test_outputs_are_not_overwritten():
    program = program_of("unet", RUNTIME)
    state, kept = program.init_state(), []
    for _ in range(6):
        y, valid, state = program(torch.randn(ROWS, 3, program.chunk), state)
        kept.append((y, y.clone(), valid, valid.clone()))
    assert all(torch.equal(a, b) and torch.equal(c, d) for a, b, c, d in kept)


def test_a_row_that_ends_before_it_begins():
    """No frames at all: there is no output, and the rows beside it go on."""
    found = []
    for p in (program_of("unet", "eager"), program_of("unet", RUNTIME)):
        state = p.finish(p.init_state(), 1, 0)
        generator, outs = torch.Generator().manual_seed(0), []
        for _ in range(9):
            y, valid, state = p(torch.randn(ROWS, 3, p.chunk, generator=generator), state)
            outs.append((torch.where(valid.unsqueeze(1), y, 0), valid))
        assert not any(bool(valid[1].any()) for _, valid in outs)
        assert bool(outs[-1][1][0].all())
        found.append(outs)
    assert_close(found[1], found[0], 1e-5)


def test_steps_flushes_and_streams_that_come_and_go():
    net, program, clip = network("unet"), program_of("unet", RUNTIME), torch.randn(ROWS, 3, 20)
    program.clean_state()
    with torch.no_grad():
        want = net(clip)
    found = [program.step(x) for x in clip.unbind(2)]
    rest = program.flush()
    assert torch.equal(rest, program.flush())  # the stream stays where it is
    got = torch.cat([y for y in (*found, rest) if y is not None], 2)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    streams = co.StreamBatch(net, torch.zeros(1, 3), capacity=ROWS, backend=RUNTIME)
    for rows in ((0, 1), (2, 1)):
        outs: dict[Any, list[Tensor]] = {streams.open(row): [] for row in rows}
        for t in range(20):
            for row, y in streams.step({row: clip[row, :, t] for row in rows}).items():
                outs[row] += [] if y is None else [y]
        for row in rows:
            parts = [y if y.ndim == 2 else y.unsqueeze(1) for y in (*outs[row], streams.flush(row))]
            torch.testing.assert_close(torch.cat(parts, 1), want[row], rtol=1e-4, atol=1e-5)
            streams.close(row)


def test_positions_far_from_the_start():
    """Angles of positions are right wherever a stream is, also where whole numbers have 32 bits."""
    net = co.Sequential(co.SinusoidalPositionalEncoding(6)).eval()
    programs = [co.compile(net, torch.zeros(2, 6), backend=b) for b in ("eager", RUNTIME)]
    for position in (0, 5, 100_000, 10_000_019):
        outs = []
        for p in programs:
            state = p.init_state()
            state["clock"] += torch.tensor([position, position + 1])
            outs.append(p(torch.zeros(2, 6, 1), state)[0])
        torch.testing.assert_close(outs[1], outs[0], rtol=0, atol=5e-6)


def test_angles_in_32_bits():
    """Against those in 64 bits, at positions of all sizes below 2**30; no product is as large as 2**24."""
    frequencies = geometric(64, 10_000.0)
    positions = torch.cat((torch.arange(5000), torch.randint(0, 1 << 30, (5000,)), torch.tensor([(1 << 30) - 1])))
    parts = limbs(frequencies)
    assert (int(parts.min()) >= 0, int(parts.max()) < 4096) == (True, True)
    off = angles_in_32_bits(parts, positions).double() - angles_at(frequencies, positions)
    off = (off + torch.pi).remainder(2 * torch.pi) - torch.pi
    assert float(off.abs().max()) < 3e-6


def test_what_can_not_be_taken():
    net = co.Sequential(co.Conv1d(2, 2, 3), co.Sequential(nn.ReLU(), co.Lambda(torch.special.i0e))).eval()
    with pytest.raises(
        co.ExportError, match=r"can't take Sequential: it has nothing for `[\w.]*i0e\.default`, which 1\.1 \(Lambda\)"
    ):
        co.compile(net, torch.zeros(1, 2), backend=RUNTIME).step(torch.zeros(1, 2))
    half = co.Conv1d(2, 2, 3).eval().bfloat16()
    with pytest.raises(co.ExportError, match=f"backend '{RUNTIME}' has no bfloat16 on the CPU. Take 'aot' or 'inductor'"):
        co.compile(half, torch.zeros(1, 2).bfloat16(), backend=RUNTIME).step(torch.zeros(1, 2).bfloat16())


@LONG
@pytest.mark.skipif(RUNTIME == "openvino", reason="this is that process")
def test_openvino():
    needs("openvino")
    check_in_own_process(Path(__file__), CONTINUAL_RUNTIME="openvino")
