"""`continual export` and `continual inspect`: what is written, what is said of it, and that a file that differs is found out."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

import continual as co
from continual.cli import stages
from continual.cli.app import app
from continual.cli.artefact import show
from continual.cli.parity import Clock, Example, Parity, enough, refuse_few, stream, whole
from continual.cli.stages import Stages
from continual.cli.target import BadInput
from continual.shipping.metadata import Port

NETS = """
import torch
from torch import nn
import continual as co

def net(width=3, off=0.0):
    torch.manual_seed(0)
    made = co.Sequential(co.Conv1d(2, width, 5, padding=2), nn.Tanh(), co.Conv1d(width, 2, 3, padding=1, stride=2)).eval()
    with torch.no_grad():
        made[2].bias[1] += off
    return made

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(5, 3), nn.GRU(3, 4, batch_first=True)
    def forward(self, x):
        return self.rnn(self.table(x))[0], self.table(x).sum(-1)

class Both(nn.Module):
    def forward(self, x, y):
        return x + y

def twin():
    return co.continual(Both().eval(), (torch.randn(2, 2, 9), torch.randn(2, 2, 9)))

class Flipped(nn.Module):
    def forward(self, x):
        return x.flip(2)

class Unshippable(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

torch.manual_seed(0)
words = Words().eval()
plain = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).eval()
pair = co.Parallel(nn.ReLU(), co.Conv1d(3, 3, 3, padding=1)).eval()
up = co.Sequential(co.Conv1d(2, 2, 3, padding=1), co.Upsample(scale_factor=2)).eval()
"""
PACKAGES = {"onnx": ("onnxscript", "onnxruntime"), "pt2": (), "executorch": ("executorch",), "openvino": ("openvino",)}
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "executorch": ".pte", "openvino": ".xml"}
CLIP = ("--clip", "2,2,9")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "export_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delenv("CONTINUAL_TRACEBACK", raising=False)
    yield
    sys.modules.pop("export_nets", None)


def needs(format: str = "onnx") -> None:
    """Skip where a format's packages, or the compiler, are not there."""
    for name in PACKAGES[format]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if format == "pt2" and not any(shutil.which(c) for c in ("g++", "clang++", "c++")):
        pytest.skip("there is no C++ compiler")


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "160"})


def exported(*args: object) -> dict[str, Any]:
    """What JSON says of an export that is checked and passes."""
    needs()
    result = invoke("export", *args, "--check", "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@functools.cache
def _made() -> bytes:
    needs()
    result = invoke("export", "export_nets:net", "made.onnx", *CLIP, "--rate", 250)
    assert result.exit_code == 0, result.output
    return Path("made.onnx").read_bytes()


@pytest.fixture
def made() -> Path:
    """The network, exported."""
    content, path = _made(), Path("made.onnx")
    path.write_bytes(content)
    return path


def value(output: str, name: str) -> list[str]:
    """What stands beside a name in a table, line by line."""
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in output.splitlines() if line.startswith("│")]
    first = next(i for i, row in enumerate(rows) if row[0] == name)
    return [rows[first][1], *(row[1] for row in itertools.takewhile(lambda row: not row[0], rows[first + 1 :]))]


def net(width: int = 3) -> Any:
    """As in the file of networks."""
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(2, width, 5, padding=2), nn.Tanh(), co.Conv1d(width, 2, 3, padding=1, stride=2)).eval()


# ---- what is written and said ----------------------------------------------------------------------------------------------


def test_the_file_streams_as_the_network_does_and_the_table_says_what_it_is():
    needs()
    result = invoke("export", "export_nets:net", "net.onnx", *CLIP, "--arg", "width=4", "--rate", 250)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    runner, clip = co.load("net.onnx"), torch.randn(3, 2, 20)
    with torch.no_grad():
        torch.testing.assert_close(runner.forward_steps(clip, pad_end=True), net(4)(clip), rtol=1e-5, atol=1e-6)
    assert "net.onnx" in result.stdout
    assert value(result.stdout, "format") == [f"ONNX, of continual {co.__version__}"]
    assert value(result.stdout, "size") == [f"{Path('net.onnx').stat().st_size:,} bytes"]
    assert value(result.stdout, "runs with") == ["the package onnxruntime"]
    assert value(result.stdout, "network") == ["Sequential"]
    assert value(result.stdout, "inputs") == ["x float32 (B, 2, 2)", "end int64 (B)"]
    assert value(result.stdout, "outputs") == ["y float32 (B, 2, 1)", "valid bool (B, 1)"]
    states = value(result.stdout, "states")
    assert states[0] == f"{len(states) - 1} tensors, {8 + 4 * (2 * 4 + 4)} bytes a stream, inputs and outputs of every call"
    assert states[1] == "state.calls int64 (B): 8 bytes"
    assert value(result.stdout, "receptive field") == ["7 steps"]
    assert value(result.stdout, "delay") == ["3 steps = 12.0 ms"]
    assert value(result.stdout, "stride") == ["2"]
    assert value(result.stdout, "chunk") == ["2 steps a call"]
    assert value(result.stdout, "rows (B)") == ["any number"]
    assert value(result.stdout, "streams may end") == ["yes"]
    assert value(result.stdout, "rate") == ["250 steps per second"]


def test_inspect_says_the_same_of_a_file(made: Path):
    table = invoke("inspect", made)
    assert table.exit_code == 0, table.output
    assert value(table.stdout, "delay") == ["3 steps = 12.0 ms"]
    found, metadata = json.loads(invoke("inspect", made, "--json").stdout), co.load(made).metadata
    assert (found["file"], found["bytes"], found["format"], found["needs"]) == (
        "made.onnx", made.stat().st_size, "onnx", "onnxruntime",
    )  # fmt: skip
    for name in ("receptive_field", "delay", "stride", "chunk", "batch", "flush", "rate", "unbounded", "format_version"):
        assert found[name] == getattr(metadata, name)
    assert [p["name"] for p in (*found["inputs"], *found["states"])] == metadata.input_names
    assert [p["name"] for p in found["outputs"]] == ["y", "valid"]
    assert found["delay_ms"] == 12
    runner = co.load(made)
    runner.forward_step(torch.randn(1, 2))
    state = runner.get_state()
    assert state is not None
    assert {p["name"]: p["bytes"] for p in found["states"]} == {n: t.nbytes for n, t in state.tensors.items()}
    assert found["state_bytes"] == sum(t.nbytes for t in state.tensors.values())


def test_many_states_are_counted(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    states = tuple(Port(f"state.{n}", (None, n), "float64") for n in range(1, 12))
    show(made, dataclasses.replace(co.load(made).metadata, states=states, quantised="weights", rate=None, batch=4))
    table = capsys.readouterr().out
    assert value(table, "states") == [
        f"11 tensors, {8 * 66} bytes a stream, inputs and outputs of every call",
        *(f"state.{n} float64 (B, {n}): {8 * n} bytes" for n in range(1, 9)),
        "… and 3 more (--json lists all)",
    ]
    assert value(table, "delay") == ["3 steps"]
    assert value(table, "rows (B)") == ["4"]
    assert value(table, "in 8 bits") == ["weights"]


def test_options_are_handed_on(monkeypatch: pytest.MonkeyPatch):
    given: list[Any] = []

    def export(net: Any, step: Any, path: Path, **options: Any) -> Path:
        given.append((net, step, path, options))
        raise co.ExportError("enough")

    monkeypatch.setattr(co, "export", export)
    more = ("--chunk", 4, "--batch", 3, "--no-flush", "--rate", 30, "--format", "onnx")
    result = invoke("export", "export_nets:pair", "some.thing", "--clip", "2,2,9", "--clip", "2,3,9", *more)
    assert (result.exit_code, result.stderr) == (2, "continual export: enough\n")
    found, steps, path, options = given[0]
    assert isinstance(found, co.Parallel)
    assert [tuple(s.shape) for s in steps] == [(2, 2), (2, 3)]
    assert path == Path("some.thing")
    assert options == {"format": "onnx", "chunk": 4, "batch": 3, "flush": False, "rate": 30}
    for suffix, format in ((".onnx", "onnx"), (".PT2", "pt2"), (".pte", "executorch"), (".xml", "openvino")):
        invoke("export", "export_nets:plain", f"net{suffix}", *CLIP)
        assert isinstance(given[-1][0], co.CoModule)
        assert given[-1][1].shape == (2, 2)
        assert given[-1][3] == {"format": format, "chunk": None, "batch": None, "flush": True, "rate": None}


def test_a_network_of_the_zoo(monkeypatch: pytest.MonkeyPatch):
    given: list[Any] = []
    monkeypatch.setattr(co, "load", lambda path: pytest.fail("nothing was written"))

    def export(net: Any, step: Any, path: Path, **options: Any) -> Path:
        given.append((net, step, options["rate"]))
        raise co.ExportError("enough")

    monkeypatch.setattr(co, "export", export)
    result = invoke("export", "kws_ds_cnn", "words.onnx", "--classes", 3, "--input-size", 12)
    assert "no --pretrained FILE: the weights are random" in result.stderr
    made, step, rate = given[0]
    assert (made.card.name, step.shape, rate) == ("kws_ds_cnn", (1, *made.step_shape), made.card.rate)
    assert rate is not None
    assert made.step_shape[-1] == 12
    with torch.no_grad():
        y = made(torch.randn(1, made.step_shape[0], 120, *made.step_shape[1:]))
    assert y.shape[1] == 3
    assert float(y.std(2).min()) > 1e-3  # random weights that say something: a check of zeros would check nothing
    torch.save(made.state_dict(), "own.pt")
    given.clear()
    more = ("--classes", 3, "--input-size", 12, "--rate", 7, "--pretrained", "own.pt")
    assert invoke("export", "kws_ds_cnn", "words.onnx", *more).stderr == "continual export: enough\n"
    assert given[0][2] == 7
    for a, b in zip(given[0][0].state_dict().values(), made.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# ---- the check -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def unwritten(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exported is the file that has been made, whatever the network; it is a copy of it that is checked."""
    monkeypatch.setattr(co, "export", lambda net, step, path, **options: shutil.copy(made, path))


@pytest.mark.usefixtures("unwritten")
def test_check_shows_the_contract_and_the_steps():
    result = invoke("export", "export_nets:net", "net.onnx", *CLIP, "--check")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "Runner on a clip (2, 2, 15) float32, tolerance 1e-05" in result.stdout
    assert "no output held back" in result.stdout
    assert "0 failed" in result.stdout
    assert "1,000 steps from a cold start" in result.stdout
    count = net().timing.delivered(1000)
    assert f"{count} of the file, {count} of the network" in result.stdout
    assert "(allowed: 1e-05)" in value(result.stdout, "largest difference")[0]
    assert value(result.stdout, "the file")[0].endswith(" steps per second")
    assert value(result.stdout, "the network, eager")[0].endswith(" steps per second")
    assert result.stdout.endswith("passed: the file computes what the network does\n")


def test_check_of_several_inputs_and_other_numbers():
    found = exported("export_nets:pair", "a.onnx", "--clip", "2,2,9", "--clip", "2,3,9", "--dtype", "float64", "--steps", 30)
    assert [p["dtype"] for p in found["inputs"]] == ["float64", "float64", "int64"]
    assert found["check"]["stream"]["tolerance"] == 1e-12
    assert (found["check"]["stream"]["steps"], found["check"]["stream"]["outputs"]) == (30, 29)
    assert {c["outcome"] for c in found["check"]["contract"]} == {"passed", "skipped"}


def test_check_of_a_layout_with_time_elsewhere_and_words():
    found = exported("export_nets:words", "a.onnx", "--clip", "2,9", "--dtype", "int64", "--time-dim", 1, "--steps", 30)
    assert found["inputs"][0] == {"name": "x", "dtype": "int64", "shape": [None, 1]}
    assert [p["name"] for p in found["outputs"]] == ["y", "y1", "valid"]
    assert found["unbounded"] is True
    assert found["check"]["stream"]["outputs"] == 30


def test_check_of_several_outputs_a_step():
    found = exported("export_nets:up", "a.onnx", *CLIP, "--steps", 30)
    assert found["check"]["stream"]["outputs"] == net_of("up").timing.delivered(30) == 58
    assert found["check"]["stream"]["where"] == "" or " of output " in found["check"]["stream"]["where"]


def net_of(name: str) -> Any:
    """One of the networks of the file, which has been imported."""
    return getattr(sys.modules["export_nets"], name)


def test_check_of_chunks_that_are_larger_than_need_be():
    """Outputs wait for the last step of a chunk, and steps go on to the end of one; clips end in the middle of one."""
    found = exported("export_nets:net", "a.onnx", *CLIP, "--chunk", 6, "--batch", 2, "--steps", 30)
    assert (found["chunk"], found["batch"]) == (6, 2)
    count = found["check"]["stream"]["steps"]
    assert 30 <= count < 36
    assert (count - co.load("a.onnx").metadata.start) % 6 == 0
    assert {c["name"]: c["detail"] for c in found["check"]["contract"]}["delay"] == "3, and 2 in a chunk of 6"


def test_check_of_streams_that_do_not_end():
    needs()
    result = invoke("export", "export_nets:net", "net.onnx", *CLIP, "--no-flush", "--check", "--steps", 30)
    assert result.exit_code == 0, result.output
    assert value(result.stdout, "inputs") == ["x float32 (B, 2, 2)"]
    assert value(result.stdout, "streams may end") == ["no"]
    assert "the contract was not checked: it needs streams that end" in result.stdout
    assert "30 steps from a cold start" in result.stdout


@pytest.mark.usefixtures("unwritten")
def test_check_finds_a_file_of_other_weights():
    args = ("export", "export_nets:net", "net.onnx", "--clip", "1,2,9", "--arg", "off=1e-3", "--check", "--steps", 30)
    result = invoke(*args)
    assert result.exit_code == 1
    assert value(result.stdout, "largest difference") == ["1.0e-03 of the output's largest value (allowed: 1e-05)"]
    assert value(result.stdout, "there")[0].startswith("y[0, 1] of output ")
    assert "FAIL" in result.stdout
    assert result.stdout.endswith("failed: the file does not compute what the network does\n")
    result = invoke(*args, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["check"]
    assert found["passed"] is found["stream"]["passed"] is False
    assert found["stream"]["largest_difference"] == pytest.approx(1e-3, rel=1e-2)
    assert "failed" in {c["outcome"] for c in found["contract"]}


class Faulty:
    """A loaded file in which one step's output is made another."""

    def __init__(self, path: Path, at: int, change: Any):
        self._runner, self._at, self._change, self._count = co.load(path), at, change, 0
        self.metadata = self._runner.metadata

    def clean_state(self) -> None:
        self._runner.clean_state()
        self._count = 0

    def forward_step(self, x: Any) -> Any:
        y = self._runner.forward_step(x)
        self._count += 1
        return self._change(y) if self._count == self._at else y


def _plus(y: Tensor) -> Tensor:
    y[0, 1] += 2.0
    return y


def streamed(path: Path, at: int, change: Any, steps: int = 20) -> Parity:
    runner: Any = Faulty(path, at, change)
    example = Example(runner.metadata.inputs, 1, 2, torch.Generator().manual_seed(0))
    return stream(net(), runner, example.steps(), steps, lambda done: None)


def test_the_place_of_the_largest_difference(made: Path):
    right = streamed(made, 0, None)
    assert right.passed
    assert (right.compared, right.difference < 1e-5) == (net().timing.delivered(20), True)
    wrong = streamed(made, 12, _plus)
    assert not wrong.passed
    assert wrong.difference > 1e-2
    assert wrong.where == f"y[0, 1] of output {net().timing.delivered(12) - 1}, after step 12"
    assert wrong.compared == right.compared


@pytest.mark.parametrize("change", [lambda y: y * torch.nan, lambda y: y[:, :1]], ids=["nan", "shape"])
def test_what_is_no_number_or_of_another_shape_is_a_difference(made: Path, change: Any):
    found = streamed(made, 12, change)
    assert not found.passed
    assert found.difference == float("inf")


def test_an_output_that_does_not_come_or_is_too_much(made: Path):
    last = streamed(made, 20, lambda y: None)
    assert last.difference < 1e-5  # all that came is right
    assert (last.file.outputs, last.network.outputs, last.passed) == (last.compared, last.compared + 1, False)
    early = streamed(made, 1, lambda y: torch.zeros(1, 2))
    assert (early.file.outputs, early.passed) == (early.network.outputs + 1, False)


def test_a_stream_starts_cold_and_leaves_nothing_behind(made: Path):
    model, runner = net(), co.load(made)
    model.forward_steps(torch.randn(1, 2, 9))
    runner.forward_steps(torch.randn(1, 2, 8))
    example = Example(runner.metadata.inputs, 1, 2, torch.Generator().manual_seed(0))
    assert stream(model, runner, example.steps(), 12, lambda done: None).passed
    assert model.get_state() is None
    assert runner.get_state() is None


def test_examples():
    ports = (Port("x", (None, 2, 1), "float32", 2), Port("x1", (None, 1), "int64", 1), Port("x2", (None, 4), "float32"))
    example = Example(ports, 3, 5, torch.Generator().manual_seed(0))
    assert [tuple(t.shape) for t in example.clip(7)] == [(3, 2, 7), (3, 7), (3, 4)]
    first, second = itertools.islice(example.steps(), 2)
    assert [tuple(t.shape) for t in first] == [(3, 2), (3,), (3, 4)]
    assert first[2] is second[2]
    assert not torch.equal(first[0], second[0])
    words = example.clip(200)[1]
    assert (int(words.min()), int(words.max())) == (0, 4)
    assert Example(ports[:1], 1, 2, torch.Generator()).clip(3).shape == (1, 2, 3)


def test_lengths():
    model = net()  # receptive field 7, stride 2
    assert [enough(model, n) for n in (1, 8, 13, 14, 15, 16, 99)] == [15, 14, 15, 14, 15, 16, 99]
    with pytest.raises(BadInput, match="--steps 3: the first output comes with step 4; take more"):
        refuse_few(model, 3)
    refuse_few(model, 4)


def test_steps_go_to_the_end_of_a_chunk(made: Path):
    metadata = co.load(made).metadata
    found = [whole(metadata, n) for n in range(1, 9)]
    assert all(m >= n and m - n < metadata.chunk and (m - metadata.start) % metadata.chunk == 0 for n, m in enumerate(found, 1))


def test_the_clock_counts_from_the_first_output():
    clock = Clock()
    for outputs in (0, 0, 1, 1, 0):
        clock.take(lambda x: x, 1)
        clock.count(outputs)
    assert (clock.steps, clock.outputs) == (2, 2)
    assert clock.speed == pytest.approx(2 / clock.seconds)
    assert Clock().speed is None


# ---- formats ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "executorch"])
def test_other_formats(format: str):
    needs(format)
    name = f"net{SUFFIXES[format]}"
    result = invoke("export", "export_nets:net", name, "--clip", "1,2,9", "--check", "--steps", 20, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["format"], found["check"]["stream"]["outputs"]) == (format, net().timing.delivered(20))
    assert found["batch"] == (1 if format == "executorch" else None)
    table = invoke("inspect", name).stdout
    assert value(table, "runs with") == [f"the package {'torch' if format == 'pt2' else 'executorch'}"]


@pytest.mark.slow
def test_openvino():
    """In a process of its own: OpenVINO does not always survive in one that has done much else."""
    needs("openvino")
    source = str(Path(co.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]), "COLUMNS": "160"}
    script = "from continual.cli import main; main()"
    args = ("export", "export_nets:net", "net.xml", *CLIP, "--check", "--steps", "20", "--json")
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["check"]["passed"] is True
    assert found["bytes"] == Path("net.xml").stat().st_size + Path("net.bin").stat().st_size
    assert Path("net.bin").stat().st_size > 0


# ---- what is shown meanwhile -----------------------------------------------------------------------------------------------


def test_stages_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(stages, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    with Stages() as stage:
        with stage("exporting [to onnx]"):
            pass
        with stage("checking steps", 3) as done:
            for n in range(3):
                done(n + 1)
    last = screen.getvalue()
    assert "✓ exporting [to onnx]" in last
    assert "✓ checking steps" in last
    assert "3 of 3" in last
    assert "0:00:00" in last


@pytest.mark.usefixtures("unwritten")
def test_the_stages_of_an_export(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(stages, "Console", lambda **_: Console(file=screen, force_terminal=True, width=100))
    assert invoke("export", "export_nets:net", "a.onnx", *CLIP, "--check", "--steps", 20).exit_code == 0
    shown = screen.getvalue()
    places = [shown.rindex(f"✓ {what} ") for what in ("converting", "exporting to onnx", "loading", "checking the contract")]
    assert places == sorted(places)
    assert "20 of 20" in shown[places[-1] :]


# ---- what can't be used ----------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[object, ...]] = {
    "'net.bin' does not say its format: end it in .onnx (onnx), .pt2 (pt2)": ("export_nets:net", "net.bin", *CLIP),
    "--format tflite: give onnx, pt2, executorch, openvino": ("export_nets:net", "net.onnx", *CLIP, "--format", "tflite"),
    "there is no folder 'no' to write 'net.onnx' to": ("export_nets:net", "no/net.onnx", *CLIP),
    "'folder.onnx' is a folder": ("export_nets:net", "folder.onnx", *CLIP),
    "--steps 9 is for --check": ("export_nets:net", "net.onnx", *CLIP, "--steps", 9),
    "--steps 3: the first output comes with step 4": ("export_nets:net", "net.onnx", *CLIP, "--check", "--steps", 3),
    "--rate 0.0: give steps per second": ("export_nets:net", "net.onnx", *CLIP, "--rate", 0),
    "--chunk 3: chunk=3 does not fit this network, whose strides need a multiple of 2 steps": (
        "export_nets:net", "net.onnx", *CLIP, "--chunk", 3,
    ),
    "export_nets:net needs an example: --clip with its sizes": ("export_nets:net", "net.onnx"),
    "--classes, --pretrained are for networks of the zoo, and 'export_nets:net' is none": (
        "export_nets:net", "net.onnx", *CLIP, "--classes", 3, "--pretrained", "a.pt",
    ),
    "--clip is for networks of your own (package.module:factory), and 'kws_ds_cnn' is none": ("kws_ds_cnn", "net.onnx", *CLIP),
    "there is no network 'kws' in the zoo": ("kws", "net.onnx"),
    "there is no file 'a.pt'": ("kws_ds_cnn", "net.onnx", "--pretrained", "a.pt"),
    "'export_nets' has no 'nett' (did you mean 'net'?)": ("export_nets:nett", "net.onnx", *CLIP),
    "the network takes 2 inputs: give --clip as often, not 1 times": ("export_nets:twin", "net.onnx", *CLIP),
    "--clip (2, 2): there is no dim 2, which is time": ("export_nets:net", "net.onnx", "--clip", "2,2"),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(message: str):
    Path("folder.onnx").mkdir()
    result = invoke("export", *BAD[message])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("continual export: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("net.onnx").exists()


def test_a_network_that_the_format_can_not_take():
    needs()
    result = invoke("export", "export_nets:Unshippable", "net.onnx", *CLIP)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("continual export: co.export: ONNX can't take Unshippable: ")
    assert "bessel_j0" in last
    assert not Path("net.onnx").exists()


def test_a_network_that_can_not_be_streamed():
    result = invoke("export", "export_nets:Flipped", "net.onnx", *CLIP)
    assert result.exit_code == 1
    assert result.stderr.startswith("continual export: ")
    assert "flip" in result.stderr
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize("package, command", [("onnxscript", "export"), ("onnxruntime", "inspect")])
def test_a_package_that_is_missing(made: Path, package: str, command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package, None)
    args = ("export_nets:net", "net.onnx", *CLIP) if command == "export" else (made,)
    result = invoke(command, *args)
    assert result.exit_code == 2
    assert f"needs the package {package}: pip install 'continual[onnx]'" in result.stderr
    assert result.stderr.count("\n") == 1


def test_inspect_refuses_in_one_clear_line(made: Path):
    content = made.read_bytes()
    Path("cut.onnx").write_bytes(content[: len(content) // 2])
    Path("newer.onnx").write_bytes(content.replace(b'"format_version":1', b'"format_version":7'))
    Path("text.onnx").write_text("hello")
    Path("empty.pt2").touch()
    Path("folder").mkdir()
    for path, message in {
        "cut.onnx": "'cut.onnx' is damaged",
        "newer.onnx": "'newer.onnx' has format version 7",
        "text.onnx": "'text.onnx' is none of the files that co.export writes",
        "empty.pt2": "'empty.pt2' is none of the files that co.export writes",
        "missing.onnx": "there is no file 'missing.onnx'",
        "folder": "'folder' is a folder; give a file",
    }.items():
        result = invoke("inspect", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("continual inspect: ")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command, options", [("export", ("--check", "--no-flush", "--format", "--pretrained")), ("inspect", ())])
def test_help_shows_an_example(command: str, options: tuple[str, ...]):
    text = " ".join(invoke(command, "--help").output.split())
    assert f"Example: continual {command} " in text
    for option in ("--json", *options):
        assert option in text
    assert command in invoke("--help").output
