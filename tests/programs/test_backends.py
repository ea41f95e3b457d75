"""Compiled step programs against the eager one: rows that pause, end and begin again, without a second compilation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import TOLERANCE
from tests.long import by_turns, some, whose_turn

CALLS, ROWS = 40, 3
COMPILED = ("inductor", "aot")

compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="code is compiled by g++ or clang++, and there is none"
)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Gated(nn.Module):
    """Somebody else's module: time last, a gate, a shift by a slice and a sum over what is kept of the past."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix = nn.Conv1d(3, 8, 3), nn.Conv1d(4, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(nn.functional.pad(x, (2, 0))).chunk(2, 1)
        y = a.tanh() * b.sigmoid()
        return self.mix(y) + y


def residual() -> Any:
    return co.Sequential(co.Residual(co.Conv1d(3, 3, 3, padding=1)), nn.ReLU(), co.Conv1d(3, 4, 3, dilation=5, padding=5))


def unet() -> Any:
    """A stride, and a frame in two for each that comes."""
    inner = co.Sequential(co.Conv1d(3, 4, 4, 2, 1), nn.ReLU(), co.ConvTranspose1d(4, 3, 4, 2, 1))
    return co.Sequential(co.BroadcastReduce(co.Identity(), inner, reduce="concat"), co.Conv1d(6, 2, 3, padding=1))


def gru() -> Any:
    return co.Sequential(co.Conv1d(3, 4, 3), co.GRU(4, 5))


def transformer() -> Any:
    layer = co.TransformerEncoderLayerFactory(4, 2, 8, sequence_len=5, causal=True, look_ahead=1)
    return co.Sequential(co.Linear(3, 4, channel_dim=1), co.SinusoidalPositionalEncoding(4), co.TransformerEncoder(layer, 1))


def graph() -> Any:
    return co.continual(Gated().eval(), torch.randn(1, 3, 17))


MAKERS: dict[str, Callable[[], Any]] = {f.__name__: f for f in (residual, unet, gru, transformer, graph)}
every_network = pytest.mark.parametrize("name", MAKERS)
# Compiling takes most of a test's time, so tests share one network a backend, and backends take turns; all others run on request.
SHARED = {"inductor": "unet", "aot": "graph"}
every_backend = pytest.mark.parametrize("backend", by_turns(COMPILED, 2))
NOW = [(SHARED[b], b) for b in whose_turn(COMPILED, 2)]


@cache
def network(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    torch.manual_seed(3)
    net = MAKERS[name]().eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.rand_like(p))
    return net.to(device, dtype)


@cache
def program_of(name: str, backend: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """Compiled once for all tests."""
    return co.compile(network(name, dtype, device), torch.zeros(ROWS, 3, dtype=dtype, device=device), backend=backend)


def history(program: Any, calls: int = CALLS) -> list[tuple[Tensor, Tensor]]:
    """What a program gives for rows that pause, end and are reset, always the same ones; outputs that are none as zeros."""
    generator = torch.Generator().manual_seed(5)
    dtype, device = program.net.parameters().__next__().dtype, program.device
    state, found = program.init_state(), []
    seen = [program.start] * program.batch
    for call in range(calls):
        x = torch.randn(program.batch, 3, program.chunk, generator=generator, dtype=torch.float64).to(device, dtype)
        active = torch.rand(program.batch, generator=generator) < 0.8
        if call == 13:
            state = program.finish(state, 1, seen[1])
        if call == 24:
            state = program.reset(state, [1, 2])
            seen[1] = seen[2] = program.start
        if 13 <= call < 24:
            x[1] = float("nan")
        y, valid, state = program(x, state, None if active.all() else active.to(device))
        seen = [n + program.chunk * bool(a) for n, a in zip(seen, active)]
        found.append((torch.where(valid.unsqueeze(1), y, 0).cpu(), valid.cpu().clone()))
    return found


def assert_close(found: list[tuple[Tensor, Tensor]], wanted: list[tuple[Tensor, Tensor]], tolerance: float) -> None:
    """The same outputs at the same places."""
    for call, ((y, valid), (y0, valid0)) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(valid, valid0), f"call {call}"
        difference = (y.double() - y0.double()).abs().max().item()
        assert difference <= tolerance * max(1.0, y0.double().abs().max().item()), f"call {call}: {difference:.3g}"


# ---- on the CPU ---------------------------------------------------------------------------------------------------------


@compiler
@pytest.mark.parametrize(
    "name, backend", some(product(MAKERS, COMPILED), [pair for pair in product(MAKERS, COMPILED) if pair not in NOW])
)
def test_equals_the_eager_program(name: str, backend: str):
    wanted = history(program_of(name, "eager"))
    assert sum(int(valid.sum()) for _, valid in wanted) > 20
    assert any(bool(valid.any()) and not bool(valid.all()) for _, valid in wanted)
    assert_close(history(program_of(name, backend)), wanted, 1e-5)


@compiler
@pytest.mark.parametrize("name", some(MAKERS, [n for n in MAKERS if (n, "inductor") not in NOW]))
def test_compiles_once(name: str):
    """With active rows given, and without: two programs. What comes later compiles nothing."""
    from torch._dynamo.utils import counters

    program = program_of(name, "inductor")
    history(program)
    counters.clear()
    history(program, 60)
    assert not counters["stats"], dict(counters["stats"])
    assert not counters["frames"], dict(counters["frames"])
    assert not counters["inductor"], dict(counters["inductor"])


@compiler
@every_backend
def test_inputs_of_any_strides(backend: str):
    """Compiled code knows the strides of its example alone: others gave wrong numbers once."""
    eager, program = program_of(SHARED[backend], "eager"), program_of(SHARED[backend], backend)
    states = [eager.init_state(), program.init_state()]
    n = program.chunk
    wide, clip = torch.randn(ROWS, 20 * n, 6), torch.randn(ROWS, 3, 20 * n)
    masks = torch.rand(20, ROWS, 2) < 0.7
    for t in range(20):
        at = slice(n * t, n * (t + 1))
        for x in (wide[:, at, ::2].transpose(1, 2), clip[:, :, at], clip[:1, :, at].expand(ROWS, 3, n)):
            outs = []
            for i, p in enumerate((eager, program)):
                y, valid, states[i] = p(x, states[i], masks[t, :, 0])
                outs.append((torch.where(valid.unsqueeze(1), y, 0), valid))
            assert_close(outs[1:], outs[:1], 1e-5)


@compiler
@every_backend
def test_the_state_stays_in_place(backend: str):
    program = program_of(SHARED[backend], backend)
    state = program.init_state()
    before = {name: t.data_ptr() for name, t in state.items()}
    for _ in range(5):
        _, _, state = program(torch.randn(ROWS, 3, program.chunk), state)
    assert {name: t.data_ptr() for name, t in state.items()} == before


@compiler
@every_backend
def test_outputs_are_not_overwritten(backend: str):
    """What a call has given stays as it is when the next one runs."""
    program = program_of(SHARED[backend], backend)
    state, kept = program.init_state(), []
    for _ in range(6):
        y, valid, state = program(torch.randn(ROWS, 3, program.chunk), state)
        kept.append((y, y.clone(), valid, valid.clone()))
    assert all(torch.equal(a, b) and torch.equal(c, d) for a, b, c, d in kept[2:])


@compiler
@pytest.mark.parametrize(
    "name, backend",
    some(product(MAKERS, COMPILED), [pair for pair in product(MAKERS, COMPILED) if pair not in NOW]),
)
def test_steps_and_flush(name: str, backend: str):
    """The sugar for one stream."""
    net, program = network(name), program_of(name, backend)
    program.clean_state()
    clip = torch.randn(ROWS, 3, 18)
    found = []
    for t in range(18):
        if (y := program.step(clip[:, :, t])) is not None:
            found.append(y if program.outputs > 1 else y.unsqueeze(2))
    rest = program.flush()
    assert rest is not None
    assert torch.equal(program.flush(), rest)
    with torch.no_grad():
        wanted = net(clip)
    y = torch.cat([*found, rest], 2)
    assert y.shape == wanted.shape
    assert (y - wanted).abs().max() <= 1e-5 * max(1.0, wanted.abs().max().item())


def test_no_compiler(monkeypatch: pytest.MonkeyPatch):
    """It is said with the first call, and how to do without."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    program = co.compile(network("residual"), torch.zeros(1, 3), backend="aot")
    with pytest.raises(co.ExportError, match=r"no compiler.*backend='eager'"):
        program(torch.zeros(1, 3, 1), program.init_state())


def test_cuda_graphs_need_a_gpu():
    program = co.compile(network("residual"), torch.zeros(1, 3), backend="cudagraph")
    with pytest.raises(co.ExportError, match="needs a network on a CUDA device, this one is on cpu"):
        program(torch.zeros(1, 3, 1), program.init_state())


# ---- on a GPU -----------------------------------------------------------------------------------------------------------


@cuda
@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "inductor", "cudagraph"])
@every_network
def test_on_a_gpu(name: str, backend: str):
    """Against the eager program on the CPU, in double precision, where no TF32 is used."""
    wanted = history(program_of(name, "eager", torch.float64))
    assert_close(history(program_of(name, backend, torch.float64, "cuda")), wanted, 1e-10)


@cuda
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("backend", ["eager", "inductor", "cudagraph"])
@every_network
def test_half_precision_on_a_gpu(name: str, backend: str, dtype: torch.dtype):
    wanted = history(program_of(name, "eager", torch.float32))
    assert_close(history(program_of(name, backend, dtype, "cuda")), wanted, 8 * TOLERANCE[dtype])
