"""`co.bench`: what is measured, how it is counted, and how it is shown. No times are judged."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from continual.tools import pictures
from continual.tools.bench import bench as module
from continual.tools.bench.forms import Forms, Missing
from continual.tools.bench.result import Benchmark, FormTimes, seconds, size
from continual.tools.bench.timing import alternate

QUICK: dict[str, Any] = {"seconds": 0.01, "rounds": 2, "progress": False}


def network() -> Any:
    return co.Sequential(co.Conv1d(3, 4, 5, stride=2, padding=1), nn.BatchNorm1d(4), nn.ReLU(), co.Conv1d(4, 2, 3)).eval()


def test_candidates_take_turns_in_both_orders() -> None:
    order: list[str] = []
    calls = [lambda name=name: order.append(name) for name in "ab"]
    found = alternate(
        calls, [2, 3], rounds=2, seconds=0.0, wait=lambda: order.append("."), say=lambda done: order.append(str(done))
    )
    assert [[len(block) for block in own] for own in found] == [[4, 4], [3, 3]]  # multiples of the periods, three calls at least
    turns = "".join(name for name in order if name != ".").partition("0")[2]
    assert turns == "a" * 5 + "b" * 4 + "1" + "b" * 4 + "a" * 5  # each block after one call that does not count


def test_times_are_of_a_step_and_ratios_within_the_rounds() -> None:
    """Blocks of one candidate that are slow when those of the other are do not change the ratio."""

    class Form:
        def __init__(self, name: str, steps: float):
            self.name, self.steps, self.period, self.state, self.peak = name, steps, 1, 10, None

    class Made:
        rows, device = 3, torch.device("cpu")

    blocks = [[[1.0, 1.0], [4.0, 4.0], [1.0, 3.0]], [[8.0], [32.0], [16.0]], [[64.0], [64.0], [128.0]]]
    forms: Any = [Form("eager", 1), Form("window", 4), Form("clip", 64)]
    eager, window, clip = module._times(forms, blocks, 0.25, Made(), 1)  # type: ignore[arg-type]
    assert (eager.step, window.step, clip.step) == (2.0, 4.0, 1.0)
    assert (eager.ratio, window.ratio, clip.ratio) == (2.0, 1.0, 2.0)
    assert (eager.p50, eager.p99) == (2.0, 4.0)
    assert (eager.real_time, eager.streams, clip.real_time) == (2.0, 6, 4.0)


def test_calls_that_were_interrupted_do_not_count() -> None:
    calls = [1.0, 5.0, 1.0, 900.0, 1.0, 5.0]  # in turns a step that completes an output, and one that does not
    assert module._of_period(calls, 2) == 3.0


def test_a_strided_network_and_its_window() -> None:
    net = network()
    found = co.bench(net, torch.zeros(2, 3), rate=50, forms=("eager", "fused", "window", "clip"), name="mine", **QUICK)
    assert str(found).startswith("mine, steps (2, 3)")
    assert [form.name for form in found.forms] == ["eager", "fused", "window", "clip"]
    assert (found.window, found.clip, found.delay, found.missing) == (9, 64, 7, {})
    assert found.step == ((2, 3),)
    state = net.new_stream()
    state.forward_steps(torch.randn(2, 3, 30))
    assert found["eager"].state == state.get_state().nbytes
    assert all(form.p50 <= form.p99 and form.peak for form in found.forms)
    assert found["window"].ratio == 1
    assert found["window"].state is None
    assert net.get_state() is None
    assert found.fastest.name in ("eager", "fused")
    assert json.loads(json.dumps(found.to_dict()))["forms"][0]["name"] == "eager"


def test_the_forms_of_a_network() -> None:
    net = network()
    made = Forms(net, torch.randn(1, 3), None, 1, None)  # type: ignore[arg-type]
    assert (made.make("window").steps, made.make("clip").steps) == (2, 64)  # a window for each output, a clip for all its steps
    assert made.make("eager").period == 2
    with pytest.raises(Missing, match="nothing to fold"):
        Forms(co.Conv1d(3, 4, 3).eval(), torch.randn(1, 3), None, 1, None).make("fused")  # type: ignore[arg-type]
    gru = Forms(co.GRU(3, 4).eval(), torch.randn(1, 3), None, 1, None)  # type: ignore[arg-type]
    with pytest.raises(Missing, match="no window"):
        gru.make("window")
    with pytest.raises(Missing, match="gives nothing for a clip of 4 steps"):
        Forms(net, torch.randn(1, 3), 4, 1, None).make("clip")  # type: ignore[arg-type]


def test_forms_that_do_not_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.tools.bench.forms._found", lambda package: package != "openvino")
    found = co.bench(network(), torch.zeros(1, 3), forms=("eager", "openvino"), **QUICK)
    assert found.missing == {"openvino": "pip install openvino"}
    assert "openvino: pip install openvino" in str(found)
    with pytest.raises(KeyError, match="'openvino' was not measured: pip install openvino"):
        found["openvino"]
    with pytest.raises(ValueError, match="none of these forms runs here"):
        co.bench(network(), torch.zeros(1, 3), forms=("openvino",), **QUICK)
    default = Forms(network(), torch.zeros(1, 3), None, 1, None).default()  # type: ignore[arg-type]
    assert "openvino" not in default
    assert {"eager", "window", "clip"} <= set(default)


def test_several_inputs_of_a_converted_module() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.conv(x) * scale.unsqueeze(2)

    net = co.continual(Two().eval(), (torch.randn(2, 2, 12), torch.rand(2, 2)), time_dim=(2, None))
    found = co.bench(net, [torch.zeros(2, 2), torch.zeros(2, 2)], forms=("eager", "window", "clip"), **QUICK)
    assert len(found.forms) == 3
    assert found.network == "Two"


def test_what_is_refused() -> None:
    step = torch.zeros(1, 3)
    with pytest.raises(co.NotStreamable, match=r"co\.continual\(module, clip\)"):
        co.bench(nn.Conv1d(3, 4, 3), step)  # type: ignore[arg-type]
    with pytest.raises(co.NotStreamable, match=r"net\.eval\(\)"):
        co.bench(network().train(), step)
    with pytest.raises(ValueError, match="forms are 'eager'.* not 'fast'"):
        co.bench(network(), step, forms=("fast",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rate is above 0"):
        co.bench(network(), step, rate=0)


def test_a_file(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    path = co.export(network(), torch.zeros(1, 3), tmp_path / "net.onnx", rate=40)
    found = co.bench(co.load(path), torch.zeros(2, 3), **QUICK)
    assert [form.name for form in found.forms] == ["file (onnx)"]
    assert (found.rate, found.network, found.delay) == (40, "Sequential", 7)
    assert found.forms[0].ratio is None
    assert found.notes == []
    with pytest.raises(ValueError, match="a file runs in its own runtime alone"):
        co.bench(co.load(path), torch.zeros(2, 3), forms=("eager",), **QUICK)


RESULT = Benchmark(
    "Net",
    (
        FormTimes("eager", 1.5e-5, 2.25e-5, 2e-5, 5.0, 250.0, 250, 4096, 2_500_000),
        FormTimes("window", 1e-4, 3e-4, 1e-4, 1.0, 50.0, 50),
        FormTimes("clip", 6.4e-3, 7e-3, 1e-4, 1.0, 50.0, 50, None, 3_000_000_000),
    ),
    {"openvino": "pip install openvino"},
    ((1, 3),),
    9,
    64,
    8,
    200.0,
    1,
    "a machine",
)
TABLE = """\
Net, steps (1, 3), 1 thread on a machine; delay 8 (40 ms)
form       p50      p99  a step  speed-up  real time  streams a core   state    peak
────────────────────────────────────────────────────────────────────────────────────
eager    15 µs  22.5 µs   20 µs        5×       250×             250  4.1 kB  2.5 MB
window  100 µs   300 µs  100 µs        1×        50×              50       –       –
clip    6.4 ms     7 ms  100 µs        1×        50×               –       –    3 GB
window: 9 steps again for each output, which the speed-up is over
clip: 64 steps at once, whose outputs wait for its end
openvino: pip install openvino"""


def test_the_table() -> None:
    assert str(RESULT) == TABLE
    assert "real time" not in str(Benchmark(**{**RESULT.__dict__, "rate": None}))
    assert (seconds(2.5), seconds(1e-3), seconds(3.21e-7)) == ("2.5 s", "1 ms", "0.321 µs")
    assert (size(999), size(10**6), size(None)) == ("999 B", "1 MB", "–")


def test_the_picture(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    drawn = RESULT.plot(tmp_path / "bench.png")
    assert drawn._repr_png_().startswith(b"\x89PNG")  # in notebooks
    axes = drawn.axes[0]
    assert (tmp_path / "bench.png").stat().st_size > 5000
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clip", "window", "eager"]
    said = [text.get_text().strip() for text in axes.texts]
    assert said == ["100 µs", "100 µs", "20 µs: 5× the speed of the window", "a step comes every 5 ms"]
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([0.1, 0.1, 0.02])


def test_pictures_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    pictures._picture.cache_clear()
    with pytest.raises(ImportError, match="pip install matplotlib"):
        RESULT.plot()
