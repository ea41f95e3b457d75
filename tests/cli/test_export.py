"""`continual export` and `continual inspect`: what is written, what is said of it, and one line for what can't be used."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import continual as co
from continual.cli import stages
from continual.cli.artefact import show
from continual.cli.stages import Stages
from continual.core.file_digest import seal_of
from continual.core.weights_digest import fingerprint
from continual.export.artefact_digest import seal_file
from continual.export.metadata import Port
from tests.cli.exports import CLIP, invoke, net, value
from tests.export.artefacts import needs
from tests.export.networks import FORMATS
from tests.long import LONG, by_turns

pytestmark = pytest.mark.usefixtures("networks")


# ---- what is written and said ----------------------------------------------------------------------------------------------


def test_the_file_streams_as_the_network_does_and_the_table_says_what_it_is():
    needs("onnx")
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


def test_inspect_says_the_digests(made: Path):
    metadata, content = co.load(made).metadata, made.read_bytes()
    digest = seal_of(made).digest
    assert (len(digest), len(metadata.weights)) == (64, 32)
    table = invoke("inspect", made).stdout
    assert value(table, "weights") == [f"{metadata.weights[:12]}…"]
    assert value(table, "digest") == [f"{digest[:12]}…"]
    found = json.loads(invoke("inspect", made, "--json").stdout)
    assert (found["weights"], found["digest"], found["changed"]) == (metadata.weights, digest, False)
    Path("changed.onnx").write_bytes(content.replace(b'"stride":2', b'"stride":3'))
    result = invoke("inspect", "changed.onnx", "--allow-changed")
    assert result.exit_code == 0, result.output
    assert value(result.stdout, "digest") == [f"{digest[:12]}…, but the file was changed since"]


def test_inspect_says_what_the_file_of_a_state_is():
    pytest.importorskip("safetensors")
    module = net(4)
    module.forward_steps(torch.randn(3, 2, 9))
    co.save_state(module.get_state(), "stream.safetensors")
    table = invoke("inspect", "stream.safetensors")
    assert table.exit_code == 0, table.output
    weights, digest = fingerprint(module), seal_of(Path("stream.safetensors")).digest
    assert value(table.stdout, "format") == ["state of a network's stream (safetensors)"]
    assert value(table.stdout, "steps so far") == ["9"]
    assert value(table.stdout, "states")[0].startswith(
        f"{len(module.get_state().tensors)} tensors, {module.get_state().nbytes} bytes"
    )
    assert value(table.stdout, "weights") == [f"{weights[:12]}…"]
    assert value(table.stdout, "digest") == [f"{digest[:12]}…"]
    found = json.loads(invoke("inspect", "stream.safetensors", "--json").stdout)
    assert (found["weights"], found["digest"], found["steps"], found["waiting"]) == (weights, digest, 9, 0)
    content = Path("stream.safetensors").read_bytes()
    Path("stream.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = invoke("inspect", "stream.safetensors")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'stream.safetensors' is damaged" in result.stderr


COST = {"mode": "dynamic", "by": "a tool 1.2", "largest": 0.0123, "snr_db": 40.5, "on": "noise"}


def test_many_states_are_counted(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "160")
    states = tuple(Port(f"state.{n}", (None, n), "float64") for n in range(1, 12))
    show(made, dataclasses.replace(co.load(made).metadata, states=states, quantised=COST, rate=None, batch=4))
    table = capsys.readouterr().out
    assert value(table, "states") == [
        f"11 tensors, {8 * 66} bytes a stream, inputs and outputs of every call",
        *(f"state.{n} float64 (B, {n}): {8 * n} bytes" for n in range(1, 9)),
        "… and 3 more (--json lists all)",
    ]
    assert value(table, "delay") == ["3 steps"]
    assert value(table, "rows (B)") == ["4"]
    assert value(table, "in 8 bits") == [
        "dynamic, by a tool 1.2: off by 1.2e-02 of the largest output at most (40.5 dB), on noise"
    ]


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
    assert "no --weights FILE: the weights are random" in result.stderr
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


# ---- formats ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", by_turns(["pt2", "executorch"], 6))
def test_other_formats(format: str):
    needs(format)
    name = f"net{FORMATS[format]}"
    result = invoke("export", "export_nets:net", name, "--clip", "1,2,9", "--check", "--steps", 20, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["format"], found["check"]["stream"]["outputs"]) == (format, net().timing.delivered(20))
    assert found["batch"] == (1 if format == "executorch" else None)
    table = invoke("inspect", name).stdout
    assert value(table, "runs with") == [f"the package {'torch' if format == 'pt2' else 'executorch'}"]


@LONG
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
    "--classes, --input-size are for networks of the zoo, and 'export_nets:net' is none": (
        "export_nets:net", "net.onnx", *CLIP, "--classes", 3, "--input-size", 9,
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
    needs("onnx")
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
    assert f"needs the package {package}: pip install {package} (" in result.stderr
    assert result.stderr.count("\n") == 1


def test_inspect_refuses_in_one_clear_line(made: Path):
    content = made.read_bytes()
    Path("cut.onnx").write_bytes(content[: len(content) // 2])
    Path("newer.onnx").write_bytes(content.replace(b'"format_version":2', b'"format_version":7'))
    seal_file(Path("newer.onnx"), "onnx")
    Path("changed.onnx").write_bytes(content.replace(b'"stride":2', b'"stride":3'))
    Path("text.onnx").write_text("hello")
    Path("empty.pt2").touch()
    Path("folder").mkdir()
    for path, message in {
        "cut.onnx": "'cut.onnx' is damaged",
        "newer.onnx": "'newer.onnx' has format version 7",
        "changed.onnx": "was changed by another tool: its content has not the digest that co.export wrote into it",
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
