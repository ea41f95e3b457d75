"""Streams that hold complex numbers, whole numbers or sums, and move to another dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.core.precision import kept_complex, kept_kind, kept_wide
from continual.core.state import InitContext, StateNode

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

F32, F64, F16, BF16 = torch.float32, torch.float64, torch.float16, torch.bfloat16
C32, C64, C128 = torch.complex32, torch.complex64, torch.complex128
SOUND = torch.randn(2, 40, generator=torch.Generator().manual_seed(1))

STAY: dict[str, Callable[[nn.Module], Any]] = {
    "to(dtype)": lambda net: net.to(F32),
    "to(tensor)": lambda net: net.to(torch.ones(1)),
    "type": lambda net: net.type(F32),
    "float": lambda net: net.float(),
    "to(device, dtype)": lambda net: net.to("cpu", F32),
    "double and back": lambda net: net.double().float(),
    "to(float64) and back": lambda net: net.to(F64).to(F32),
    "to(float64), to(tensor)": lambda net: net.to(F64).to(torch.ones(1)),
}
MOVES: dict[str, tuple[Callable[[nn.Module], Any], torch.dtype]] = {
    "double": (lambda net: net.double(), F64),
    "to(float64)": (lambda net: net.to(F64), F64),
    "to(tensor)": (lambda net: net.to(torch.ones(1, dtype=F64)), F64),
    "type": (lambda net: net.type(F64), F64),
    "half": (lambda net: net.half(), F16),
    "to(float16)": (lambda net: net.to(F16), F16),
}


class Spectra(nn.Module):
    """Differences of spectra, which wait in a queue, a window and a shift as complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(8))
        self.conv = nn.Conv1d(5, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stft(x, 8, 4, window=self.window, center=False, return_complex=True)
        y = self.conv(z.abs())
        z = z - F.pad(z, (1, 0))[:, :, :-1]
        return torch.cat((y, z.real, z.imag), 1)


class Turned(nn.Module):
    """Complex numbers of real ones, times complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.randn(3, 1, dtype=C64))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.complex(x, -0.5 * x)
        z = z - F.pad(z, (2, 0))[:, :, :-2]
        return torch.view_as_real(z * self.turn).sum(1)


@cache
def _spectra() -> tuple[nn.Module, Any]:
    module = Spectra().eval()
    return module, co.continual(module, SOUND, time_dim=1)


def spectra() -> tuple[nn.Module, Any]:
    """A module and its twin, which share their weights."""
    return copy.deepcopy(_spectra())


def dtypes(net: Any) -> dict[str, torch.dtype]:
    return {name: t.dtype for name, t in net.get_state().tensors.items()}


@torch.no_grad()
@pytest.mark.parametrize("way", STAY)
def test_a_move_to_the_dtype_that_it_has_changes_nothing(way: str):
    module, net = spectra()
    first = net.forward_steps(SOUND[:, :19])
    before = net.get_state()
    STAY[way](net)
    after = net.get_state()
    assert C64 in dtypes(net).values()
    for name, t in after.tensors.items():
        assert t.dtype == before.tensors[name].dtype
        assert torch.equal(t, before.tensors[name]), name
    rest = net.forward_steps(SOUND[:, 19:], pad_end=True)
    torch.testing.assert_close(torch.cat((first, rest), 2), module(SOUND), atol=1e-5, rtol=0)
    net.set_state(before)  # a snapshot from before the move
    torch.testing.assert_close(net.forward_steps(SOUND[:, 19:], pad_end=True), rest)


@torch.no_grad()
@pytest.mark.parametrize("way", [w for w in MOVES if MOVES[w][1] == F64])
def test_complex_frames_follow_to_double(way: str):
    module, net = spectra()
    first = net.forward_steps(SOUND[:, :19])
    MOVES[way][0](net)
    assert set(dtypes(net).values()) == {F64, C128}
    assert {f.dtype for n in net.get_state().node.walk() if n.out for f in [n.out]} <= {F64, C128}
    rest = net.forward_steps(SOUND[:, 19:].double(), pad_end=True)
    assert rest.dtype == F64
    torch.testing.assert_close(torch.cat((first, rest), 2), module.double()(SOUND.double()), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("way", MOVES)
def test_complex_weights_stay_complex(way: str):
    module = Turned().eval()
    clip = torch.randn(2, 3, 11)
    net = co.continual(module, clip, copy=True)
    weight = net.turn.detach().clone()
    first = net.forward_steps(clip[:, :, :5])
    move, dtype = MOVES[way]
    move(net)
    assert net.turn.dtype == (C128 if dtype == F64 else C64)
    assert torch.equal(net.turn.to(C64), weight)
    there = copy.deepcopy(module).double() if dtype == F64 else copy.deepcopy(module).half()  # which leave complex weights alone
    want = there(clip.to(dtype))
    rest = net.forward_steps(clip[:, :, 5:].to(dtype), pad_end=True)
    assert rest.dtype == want.dtype
    torch.testing.assert_close(torch.cat((first, rest), 1).double(), want.double(), atol=1e-5 if dtype == F64 else 1e-2, rtol=0)


@torch.no_grad()
def test_layers_with_complex_frames():
    clip = torch.randn(2, 3, 11, dtype=C64)
    plain = co.Sequential(co.Delay(2), co.Residual(co.Delay(1), residual_shrink=False))
    weighed = co.Sequential(co.Delay(3), co.Conv1d(3, 2, 2, dtype=C64))
    for net, narrow in ((plain, C32), (weighed, C64)):  # products of complex32 are not to be had
        want = net(clip)
        for way, dtype in (("half", narrow), ("bfloat16", C64), ("double", C128)):
            twin = copy.deepcopy(net)
            first = twin.forward_steps(clip[:, :, :6])
            getattr(twin, way)()
            assert set(dtypes(twin).values()) == {dtype}, way
            assert twin.get_state().frame.dtype == dtype
            rest = twin.forward_steps(clip[:, :, 6:].to(dtype), pad_end=True)
            assert rest.dtype == dtype
            got = torch.cat((first, rest.to(C64)), 2)
            torch.testing.assert_close(got, want, atol=1e-2 if dtype == C32 else 1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("way", ["half", "double", "to", "type"])
def test_whole_numbers_and_truth_values_stay_so(way: str):
    net = co.Sequential(co.Delay(2), co.CumulativeSum())
    x = torch.randint(-50, 50, (2, 3, 9))
    first = net.forward_steps(x[:, :, :5])
    getattr(net, way)(*((F16,) if way in ("to", "type") else ()))
    assert set(dtypes(net).values()) == {torch.int64}
    got = torch.cat((first, net.forward_steps(x[:, :, 5:], pad_end=True)), 2)
    assert torch.equal(got, net(x))
    truth = co.Delay(1)
    truth.forward_steps(x > 0)
    truth.type(F32)
    assert torch.equal(truth.forward_step(x[:, :, 0] > 0), x[:, :, -1] > 0)


@torch.no_grad()
@pytest.mark.parametrize("way", ["half", "bfloat16", "type"])
def test_sums_stay_wide(way: str):
    net = co.Sequential(co.CumulativeMean(), co.Conv1d(3, 2, 2))
    x = torch.randn(2, 3, 9)
    net.forward_steps(x[:, :, :5])
    before = net.get_state().tensors["0.so_far"]
    getattr(net, way)(*((F16,) if way == "type" else ()))
    after = net.get_state().tensors
    assert after["0.so_far"].dtype == F64
    assert torch.equal(after["0.so_far"], before)
    assert after["1.window"].dtype == (BF16 if way == "bfloat16" else F16)


def test_states_are_mapped_so_too():
    state = co.Delay(2).init_state(torch.zeros(1, 3, dtype=C64))
    for fn, dtype in (
        (lambda t: t.to(F32), C64),
        (torch.Tensor.double, C128),
        (torch.Tensor.half, C32),
        (lambda t: t.bfloat16(), C64),
    ):
        moved = state.map(fn)
        assert {t.dtype for t in moved.tensors.values()} == {dtype} == {moved.frame.dtype} == {moved.node.out.dtype}
    whole = co.Delay(2).init_state(torch.zeros(1, 3, dtype=torch.int32)).map(lambda t: t.to("meta", F16))
    assert {(t.dtype, t.device.type) for t in whole.tensors.values()} == {(torch.int32, "meta")}


def test_complex_sums_stay_wide():
    total = torch.randn(2, 3, dtype=C128)
    node = StateNode(InitContext(), "sums", None, {"total": total}, accumulator=True)
    assert node.map(kept_kind(torch.Tensor.half)).tensors[0].dtype == C128
    assert torch.equal(kept_wide(torch.Tensor.float, total), total)
    assert kept_wide(lambda t: t.to("meta", F16), total).dtype == C128


def test_parts_that_lie_askew_in_memory_and_conjugates():
    z = torch.randn(3, 5, dtype=C64)
    for t in (
        z.mT,
        z[:, 1::2],
        z.conj(),
        z.mT.conj()[1:],
        torch.randn(2, 3, 4, 5, dtype=C64).to(memory_format=torch.channels_last),
    ):
        for keep in (kept_kind, kept_complex):
            assert torch.equal(keep(lambda p: p.to(F64))(t), t.to(C128))
            assert torch.equal(keep(torch.clone)(t), t)
    assert kept_complex(torch.Tensor.half)(z).dtype == C64
    assert kept_kind(torch.Tensor.half)(z).dtype == C32
    x = torch.randn(3, dtype=C64, requires_grad=True)
    kept_kind(torch.Tensor.double)(x).abs().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == C64
