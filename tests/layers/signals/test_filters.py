"""Filters along time, against ``scipy.signal``."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import continual as co
from continual.layers.signals.exponential import Averaging
from continual.layers.signals.linear_filter import LinearFilter
from tests.contract import assert_equal, check_gradients
from tests.layers.signals.chunks import streamed
from tests.long import by_turns, in_full

signal = pytest.importorskip("scipy.signal")
F64 = torch.float64
SECTIONS = {
    "a band": signal.butter(4, [0.1, 0.3], "band", output="sos"),
    "near zero": signal.butter(2, [0.5, 40], "band", fs=1000, output="sos"),
    "near the highest frequency": signal.cheby1(3, 1, 0.97, "high", output="sos"),
    "elliptic": signal.ellip(5, 1, 60, 0.2, output="sos"),
    "a double pole": [[0.3, 0.1, -0.2, 2.0, -3.2, 1.28], [1.0, 0.0, 0.5, 1.0, 0.7, 0.0]],
}


def by_scipy(sos: Any, clip: Tensor, zi: Any = None) -> Tensor:
    x, sos = clip.movedim(2, -1).numpy(), torch.tensor(sos, dtype=F64)
    sos = (sos / sos[:, 3:4]).numpy()
    if zi is None:
        return torch.as_tensor(signal.sosfilt(sos, x)).movedim(-1, 2)
    first = torch.as_tensor(zi).view(-1, *(1,) * (clip.ndim - 1), 2).expand(-1, *x.shape[:-1], 2)
    return torch.as_tensor(signal.sosfilt(sos, x, zi=first.numpy())[0]).movedim(-1, 2)


@pytest.mark.parametrize("name", by_turns(SECTIONS, 2))
def test_sections(name: str) -> None:
    sos = SECTIONS[name]
    net, clip = co.SOSFilter(sos).eval(), torch.randn(2, 3, 400, 2, dtype=F64)
    assert_equal(net(clip), by_scipy(sos, clip))
    with torch.no_grad():
        assert_equal(streamed(net, clip, [400, 1, 161, 320]), net(clip))
    assert co.verify(net, clip[:, :, :70]).passed
    zi = torch.linspace(-1, 2, 2 * len(sos), dtype=F64).view(-1, 2)
    from_initial = co.SOSFilter(sos, zi).eval()
    assert_equal(from_initial(clip), by_scipy(sos, clip, zi))
    assert co.verify(from_initial, clip[:, :, :70]).passed
    check_gradients(net, clip[:, :, :70])


@st.composite
def polynomials(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Of a stable filter: poles within 0.9 of the middle."""
    poles: list[complex] = []
    for _ in range(draw(st.integers(0, 2))):
        pole = torch.polar(torch.tensor(draw(st.floats(0.05, 0.9))), torch.tensor(draw(st.floats(0.0, 3.1)))).item()
        poles += [pole, pole.conjugate()]
    poles += [draw(st.floats(-0.9, 0.9)) for _ in range(draw(st.integers(0, 1)))]
    a = signal.zpk2tf([], poles, 1.0)[1] * draw(st.sampled_from([1.0, -2.5]))
    return draw(st.lists(st.floats(-2, 2), min_size=1, max_size=6)), a.tolist()


@given(polynomials(), st.booleans(), st.lists(st.integers(1, 200), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_polynomials(given: tuple[list[float], list[float]], initial: bool, sizes: list[int]) -> None:
    b, a = given
    order, clip = max(len(a), len(b)) - 1, torch.randn(2, 2, 300, dtype=F64)
    zi = torch.linspace(-1, 2, order, dtype=F64) if initial and order else None
    net = co.IIRFilter(b, a, zi).eval()
    x = clip.numpy()
    wanted = signal.lfilter(b, a, x) if zi is None else signal.lfilter(b, a, x, zi=zi.expand(2, 2, -1).numpy())[0]
    assert (net(clip) - torch.as_tensor(wanted)).abs().max() <= 1e-10 * max(1, abs(wanted).max())
    with torch.no_grad():
        assert (streamed(net, clip, sizes) - net(clip)).abs().max() <= 1e-10 * max(1, abs(wanted).max())


IIR = {
    "one coefficient": ([0.5], [2.0]),
    "a running average": ([0.1], [1.0, -0.9]),
    "a resonator": ([1.0, 0.0, -1.0], [1.0, -1.8, 0.95]),
    "more zeros than poles": ([0.2, 0.1, 0.3, -0.4, 0.5], [1.0, -0.3]),
    "order five": ([0.2, -0.1], [1.0, -0.2, 0.3, -0.1, 0.2, 0.05]),
}


@pytest.mark.parametrize("name", by_turns(IIR, 2))
def test_recursive_filters_keep_the_contract(name: str) -> None:
    b, a = IIR[name]
    net, clip = co.IIRFilter(b, a).eval(), torch.randn(2, 3, 160, 2, dtype=F64)
    assert_equal(net(clip), torch.as_tensor(signal.lfilter(b, a, clip.numpy(), axis=2)))
    assert co.verify(net, clip).passed
    assert co.verify(net.float(), clip.float()).passed


@pytest.mark.parametrize(
    "make", [lambda t: co.SOSFilter(t), lambda t: co.IIRFilter(t[0, :3], t[0, 3:]), lambda t: co.FIRFilter(t[:3, 0])]
)
def test_coefficients_learn(make: Any) -> None:
    """Gradients of parameters are those of the recursion that is written out."""
    sos = torch.tensor(SECTIONS["a double pole"], dtype=F64)
    net, clip = make(sos).double(), torch.randn(2, 1, 40, dtype=F64)
    for name, buffer in list(net.named_buffers()):
        delattr(net, name)
        net.register_parameter(name, nn.Parameter(buffer))
    given = dict(net.named_parameters())
    loss = (net(clip) * torch.linspace(-1, 1, 40, dtype=F64)).sum()
    found = torch.autograd.grad(loss, list(given.values()))
    for parameter, gradient in zip(given.values(), found, strict=True):
        for place in range(parameter.numel()):
            losses = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter.view(-1)[place] += step
                    losses.append((net(clip) * torch.linspace(-1, 1, 40, dtype=F64)).sum().item())
                    parameter.view(-1)[place] -= step
            assert abs((losses[0] - losses[1]) / 2e-6 - gradient.view(-1)[place].item()) < 1e-5


def test_a_parameter_stays_one() -> None:
    taps = nn.Parameter(torch.randn(3, 4))
    assert dict(co.FIRFilter(taps).named_parameters())["weight"] is taps
    net = co.SOSFilter(nn.Parameter(torch.tensor(SECTIONS["a double pole"])))
    assert [n for n, _ in net.named_parameters()] == ["sos"]
    assert [n for n, _ in co.IIRFilter([1.0], nn.Parameter(torch.tensor([1.0, 0.5]))).named_parameters()] == ["a"]


@pytest.mark.parametrize(
    "taps", [[1.0], [0.5, -0.25, 2.0], [[1.0, 2.0, 3.0, 4.0], [-1.0, 0.5, 0.0, 0.25], [0.0, 0.0, 1.0, -1.0]]]
)
@pytest.mark.parametrize("space", [(), (2, 3)])
def test_filters_of_the_last_samples(taps: Any, space: tuple[int, ...]) -> None:
    net, clip = co.FIRFilter(taps).double().eval(), torch.randn(2, 3, 30, *space, dtype=F64)
    rows = torch.tensor(taps, dtype=F64).expand(3, -1) if not isinstance(taps[0], list) else torch.tensor(taps, dtype=F64)
    wanted = torch.stack(
        [torch.as_tensor(signal.lfilter(r, 1, x, axis=1)) for r, x in zip(rows.numpy(), clip.unbind(1), strict=True)], 1
    )
    assert_equal(net(clip), wanted)
    assert co.verify(net, clip).passed
    assert net.delay == 0
    check_gradients(net, clip)


# ---- precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_coefficients_and_state_stay_double(dtype: torch.dtype) -> None:
    sos = signal.butter(4, 0.5, "high", fs=16000, output="sos")
    net = co.Sequential(co.SOSFilter(sos), nn.Identity()).to(dtype)
    clip = (torch.randn(2, 1, 500) + 5).to(dtype)
    y = net.forward_steps(clip)
    assert y.dtype == dtype
    assert [t.dtype for t in (*net.buffers(), *net.get_state().tensors.values())] == [F64, F64]
    assert_equal(y, by_scipy(sos, clip.double()).to(dtype))
    before = net.get_state().tensors["0.state"]
    assert net.double().get_state().tensors["0.state"].equal(before)


def test_ten_million_samples() -> None:
    """A slow filter on a signal with an offset: what a stream gives at the end is that of the same samples in float64."""
    count = 10_000_000 if in_full("test_ten_million_samples", 8) else 200_000
    sos = signal.butter(2, 0.5, "high", fs=16000, output="sos")
    net = co.SOSFilter(sos).float().eval()
    state, worst = None, 0.0
    generator = torch.Generator().manual_seed(3)
    for _ in range(count // 100_000):
        x = torch.randn(1, 1, 100_000, generator=generator) + 100
        with torch.no_grad():
            y = net.forward_steps(x)
        first = torch.zeros(len(sos), 1, 1, 2).numpy() if state is None else state
        wanted, state = signal.sosfilt(sos, x.double().numpy(), zi=first)
        worst = max(worst, abs(y.double().numpy() - wanted).max())
    assert worst < 1e-5 * 100


def test_what_is_lost_shows_later_and_not_before() -> None:
    """A NaN within a chunk: outputs before it are as by steps."""
    clip = torch.randn(1, 2, 200, dtype=F64)
    clip[0, 1, 70] = torch.nan
    for net in (co.SOSFilter(SECTIONS["a band"]), co.IIRFilter(*IIR["order five"])):
        with torch.no_grad():
            chunk, steps = streamed(net, clip, [200]), streamed(net, clip, [1])
        assert_equal(chunk, steps)
        assert chunk[0, 1].isnan().sum() == 130
        assert chunk[0, 0].isfinite().all()


def test_a_filter_before_windows_in_a_program() -> None:
    """Frames before the first one of a program's first call leave a filter at rest."""
    net = co.Sequential(co.SOSFilter(SECTIONS["a band"]), co.LogMel(8000, 24, hop_length=10, n_mels=5)).double().eval()
    clip = torch.randn(2, 1, 90, dtype=F64)
    for chunk in (10, 20):
        program = co.compile(net, clip[:, :, 0], chunk=chunk, backend="eager")
        assert program.start < 0
        outs = [
            y.unflatten(2, (-1,)) if y.ndim > 2 else y.unsqueeze(2) for x in clip.unbind(2) if (y := program.step(x)) is not None
        ]
        assert_equal(torch.cat([*outs, program.flush()], 2), net(clip))


def test_designs_of_scipy() -> None:
    net = co.SOSFilter.design("bandstop", (48, 52), 250, order=2, family="cheby1", ripple=1.0)
    assert torch.equal(net.sos, torch.tensor(signal.cheby1(2, 1.0, (48, 52), "bandstop", fs=250, output="sos")))
    net = co.FIRFilter.design(31, (5, 20), 100, "bandpass", window="hann")
    assert torch.allclose(
        net.weight, torch.tensor(signal.firwin(31, (5, 20), window="hann", pass_zero="bandpass", fs=100)).float()
    )


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "sections": (lambda: co.SOSFilter([1.0, 2.0]), ValueError, r"\(sections, 6\), got \(2,\)"),
    "a0 of a section": (lambda: co.SOSFilter([[1.0, 0, 0, 0, 0, 0]]), ValueError, "a0, is not zero"),
    "zi of sections": (lambda: co.SOSFilter([[1.0, 0, 0, 1, 0, 0]], zi=[0.0, 0.0]), ValueError, r"zi has the shape \(1, 2\), got \(2,\)"),
    "polynomials": (lambda: co.IIRFilter([], [1.0]), ValueError, "rows of numbers"),
    "a0": (lambda: co.IIRFilter([1.0], [0.0, 1.0]), ValueError, "not zero"),
    "zi": (lambda: co.IIRFilter([1.0], [1.0, 1.0], [1.0, 2.0]), ValueError, r"\(1,\), got \(2,\)"),
    "rounding": (lambda: co.IIRFilter(*signal.butter(8, 0.01)), co.NotStreamable, r"order 8 .*co.SOSFilter\(sos\)"),
    "taps": (lambda: co.FIRFilter(torch.zeros(2, 2, 2)), ValueError, r"got \(2, 2, 2\)"),
    "channels": (
        lambda: co.FIRFilter(torch.zeros(2, 3)).forward_step(torch.zeros(1, 3)), co.ShapeMismatch, "taps for 2 channels"
    ),
    "whole numbers": (
        lambda: co.SOSFilter([[1.0, 0, 0, 1, 0, 0]]).forward_step(torch.zeros(1, 3, dtype=torch.int64)), co.ShapeMismatch, "int64"
    ),
    "whole numbers of taps": (
        lambda: co.FIRFilter([1.0]).forward_step(torch.zeros(1, 3, dtype=torch.int64)), co.ShapeMismatch, "int64"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, kind, match = REFUSED[name]
    with pytest.raises(kind, match=match):
        make()


@pytest.mark.parametrize("base, method", [(LinearFilter, "coefficients"), (LinearFilter, "made"), (Averaging, "averaged")])
def test_a_class_without_its_method_can_not_be_made(base: type, method: str) -> None:
    others = {name: lambda *_: None for name in base.__abstractmethods__ - {method}}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=f"abstract.*{method}"):
        type("Incomplete", (base,), others)()
