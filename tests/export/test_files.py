"""Files: what they say of themselves, and what is refused of others'; exports that can't be."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core import optional_packages as packages
from continual.core.weights_digest import fingerprint
from continual.export import writing
from continual.export.artefact_digest import seal_file
from continual.export.metadata import Metadata
from continual.programs.rewrites.passes import TABLES
from tests.export.artefacts import file, needs, network, unwritten
from tests.export.networks import NETWORKS
from tests.long import by_turns


def simple() -> Any:
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU()).eval()


STEP = torch.zeros(1, 2)


# ---- metadata -----------------------------------------------------------------------------------------------------------------


def test_what_a_file_says(tmp_path: Path):
    net = co.Sequential(co.Conv1d(2, 4, 3, 2, padding=1), co.GRU(4, 3)).eval()
    path = co.export(net, STEP, tmp_path / "net.onnx", rate=50, chunk=4)
    m = co.load(path).metadata
    assert (m.format, m.network, m.format_version, m.package_version) == ("onnx", "Sequential", 2, co.__version__)
    assert (m.receptive_field, m.delay, m.stride, m.chunk, m.rate) == (net.receptive_field, net.delay, 2, 4, 50)
    assert [(p.name, p.shape, p.dtype, p.time) for p in m.inputs] == [("x", (None, 2, 4), "float32", 2)]
    assert [(p.name, p.shape, p.dtype, p.time) for p in m.outputs] == [("y", (None, 3, 2), "float32", 2)]
    assert m.input_names == ["x", "end", "state.calls", "state.0.window", "state.1.hidden"]
    assert m.output_names == ["y", "valid", "new_state.calls", "new_state.0.window", "new_state.1.hidden"]
    assert Metadata.from_json(m.to_json(), path) == m
    assert m.weights == fingerprint(net)


def test_any_onnx_tool_sees_names_and_sizes(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(file("gru"))
    onnx.checker.check_model(model)
    sizes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    assert sizes == {
        "x": ["batch", 8, 1], "end": ["batch"], "state.calls": ["batch"], "state.0.hidden": ["batch", 32], "state.0.hidden1": ["batch", 32]
    }  # fmt: skip
    said = json.loads(next(p.value for p in model.metadata_props if p.key == "continual"))
    assert said["delay"] == 0
    assert said["chunk"] == 1


def test_states_of_zeros_begin_whatever_layers_begin_with():
    """Padding with -inf and a constant is made inside the graph."""
    net = co.Sequential(co.ConstantPad1d((2, 0), -0.7), co.Conv1d(2, 4, 3), co.MaxPool1d(3, 1, 1), co.CumulativeMax()).eval()
    runner = unwritten(net, STEP)
    clip = -2 + 0.1 * torch.randn(2, 2, 20)
    assert co.verify(runner, clip, reference=net, splits=2).passed
    state = runner.get_state()
    assert state is None
    runner.forward_steps(clip)
    assert any(bool((t != 0).any()) for t in runner.get_state().tensors.values())


def test_a_newer_version_is_refused(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(file("gru"))
    entry = next(p for p in model.metadata_props if p.key == "continual")
    said = json.loads(entry.value)
    for change, message in (
        (
            {"format_version": 7, "package_version": "9.1"},
            "format version 7, written by continual 9.1; this library reads versions 1 and 2",
        ),
        ({"totals": 3}, "metadata of .* is damaged"),
        ({"states": []}, "other inputs and outputs than its metadata say"),
    ):
        entry.value = json.dumps(said | change)
        onnx.save(model, tmp_path / "other.onnx")
        seal_file(tmp_path / "other.onnx", "onnx")
        with pytest.raises(co.ArtefactMismatch, match=message):
            co.load(tmp_path / "other.onnx")
    entry.value = "{"
    onnx.save(model, tmp_path / "other.onnx")
    seal_file(tmp_path / "other.onnx", "onnx")
    with pytest.raises(co.ArtefactMismatch, match="metadata of .* is damaged"):
        co.load(tmp_path / "other.onnx")


# ---- files of others, and damaged ones ------------------------------------------------------------------------------------------


def test_no_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*nothing.onnx'"):
        co.load(tmp_path / "nothing.onnx")


def test_files_that_are_not_ours(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [value], [helper.make_tensor_value_info("y", 1, [1])]
    )
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "plain.onnx")
    with pytest.raises(co.ArtefactMismatch, match="is an ONNX model, but not one that co.export wrote"):
        co.load(tmp_path / "plain.onnx")
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        archive.writestr("a/b", "c")
    with pytest.raises(co.ArtefactMismatch, match="is an archive, but not one that co.export wrote"):
        co.load(tmp_path / "plain.zip")
    for content in (b"", b"hello, world", b"\xff" * 64):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(co.ArtefactMismatch, match="none of the files that co.export writes"):
            co.load(tmp_path / "other")


def test_a_truncated_package(tmp_path: Path):
    """Without compiling one: an archive that ends too early, and one with a changed byte."""
    with zipfile.ZipFile(tmp_path / "whole", "w") as archive:
        archive.writestr("net/extra/continual.json", "x" * 5000)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:3000])
    with pytest.raises(co.ArtefactMismatch, match="is damaged"):
        co.load(tmp_path / "cut")
    (tmp_path / "changed").write_bytes(whole[:2000] + b"y" + whole[2001:])
    with pytest.raises(co.ArtefactMismatch, match=r"damaged: net/extra/continual.json in it is not what was written"):
        co.load(tmp_path / "changed")


# ---- exports that can't be ------------------------------------------------------------------------------------------------------


def test_paths_that_can_not_be_written(tmp_path: Path):
    net = simple()
    with pytest.raises(co.ExportError, match="there is no folder '.*missing' to write 'net.onnx' to"):
        co.export(net, STEP, tmp_path / "missing" / "net.onnx")
    with pytest.raises(co.ExportError, match="is a folder; give the name of a file in it"):
        co.export(net, STEP, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(co.ExportError, match="there is no folder"):
        co.export(net, STEP, tmp_path / "file" / "net.onnx")
    with pytest.raises(co.ExportError, match=r"ends with \.xml, not '\.bin'"):
        co.export(net, STEP, tmp_path / "net.bin", format="openvino")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"], "nothing is left behind"


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    with pytest.raises(co.ExportError, match="may not write to the folder"):
        co.export(simple(), STEP, tmp_path / "net.onnx")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc, in which nothing can be written whatever permissions say")
def test_a_file_system_that_takes_no_files():
    with pytest.raises(co.ExportError, match=r"can't write to the folder '/proc' \(No such file or directory\)"):
        co.export(network("gru"), NETWORKS["gru"].step(), "/proc/net.onnx")


def test_a_failed_export_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "net.onnx"
    co.export(simple(), STEP, path)
    before = path.read_bytes()
    with pytest.raises(co.ExportError):
        co.export(co.Sequential(Bessel()).eval(), STEP, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


class Bessel(co.Lambda):
    """An operation that runtimes do not have."""

    def __init__(self) -> None:
        super().__init__(torch.special.i0e)


@pytest.mark.parametrize("format, suffix", by_turns([("onnx", ".onnx"), ("executorch", ".pte")], 2, of=__name__))
def test_an_operation_that_the_format_has_not(format: str, suffix: str, tmp_path: Path):
    """The error names it, and the module by its path."""
    needs(format)
    net = co.Sequential(co.Conv1d(2, 4, 3), co.Sequential(nn.ReLU(), Bessel())).eval()
    with pytest.raises(co.ExportError, match=r"it has nothing for `\w+\.\w*i0e\.default`, which 1\.1 \(Bessel\) computes"):
        co.export(net, STEP, tmp_path / f"net{suffix}", format=format)


class Inside(nn.Module):
    """The operation in a module that is converted by its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv1d(2, 4, 3), Scaled())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x).neg()


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.special.i0e(x)


@pytest.mark.parametrize("format, suffix", by_turns([("onnx", ".onnx"), ("executorch", ".pte")], 2, of=__name__))
def test_an_operation_of_a_converted_module(format: str, suffix: str, tmp_path: Path):
    """The error also names the line of code."""
    needs(format)
    net = co.Sequential(co.Conv1d(2, 2, 1), co.continual(Inside().eval(), torch.randn(1, 2, 9)))
    where = r"1\.one\.1\.special_i0e \(test_files\.py:\d+  return 2 \* torch\.special\.i0e\(x\)\)"
    with pytest.raises(co.ExportError, match=rf"it has nothing for `\w+\.\w*i0e\.default`, which {where} computes\. Write that"):
        co.export(net.eval(), STEP, tmp_path / f"net{suffix}")


def test_what_executorch_refuses_only_when_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A convolution over volumes, if it were not written by those of images."""
    needs("executorch")
    monkeypatch.setitem(TABLES, "executorch", {})
    net = co.Sequential(co.Lambda(nn.Conv3d(2, 3, 2))).eval()
    with pytest.raises(
        co.ExportError, match="ExecuTorch's runtime can't run Sequential: .*error 0x12.*exporting parts of the network"
    ):
        co.export(net, torch.zeros(1, 2, 3, 3, 3), tmp_path / "net.pte")
    assert not list(tmp_path.iterdir())


def test_what_executorch_has_no_kernels_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    needs("executorch")
    monkeypatch.setitem(TABLES, "executorch", {})
    net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3), Volumes()).eval(), torch.randn(1, 2, 9))
    op = r"`aten\.max_pool3d_with_indices\.default`"
    with pytest.raises(co.ExportError, match=rf"it has nothing for {op}, which 1\.max_pool3d \(test_files"):
        co.export(net, STEP, tmp_path / "net.pte")


class Cast(co.Recurrence):
    """It casts a parameter to the type that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def initial_state(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"h": torch.zeros_like(x)}

    def recur(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        h = state["h"] + x * self.w.to(x.dtype)
        return h, {"h": h}


def test_executorch_takes_a_parameter_that_is_cast_to_its_own_type(tmp_path: Path):
    needs("executorch")
    runner = co.load(co.export(Cast().eval(), torch.zeros(1, 2), tmp_path / "net.pte"))
    assert [torch.as_tensor(runner.forward_step(torch.ones(1, 2))).tolist() for _ in range(2)] == [[[1, 1]], [[2, 2]]]


class Volumes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.transpose(1, 2).reshape(-1, 1, 2, 2, 1)
        return torch.nn.functional.max_pool3d(y, (2, 1, 1)).reshape(x.shape[0], x.shape[2], 2).transpose(1, 2)


class Loud(nn.Module):
    """What it does depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x if x.sum() > 0 else x


class Sized(nn.Module):
    """It raises under torch.export alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            raise RuntimeError("no export today\nand more of it")
        return x


@pytest.mark.parametrize(
    "layer, batch, message",
    [
        (
            Loud(),
            None,
            r"follow 1\.1 \(Loud\): its control flow depends on the values of a tensor \(test_files\.py:\d+: `return 2 \* x if ",
        ),
        (
            Sized(),
            None,
            r"follow 1\.1 \(Sized\): no export today \(test_files\.py:\d+: `raise .*`\)\. A fixed number of rows may do",
        ),
        (Sized(), 2, r"follow 1\.1 \(Sized\): no export today \(test_files\.py:\d+: `raise [^`]*`\)$"),
    ],
)
def test_a_module_that_can_not_be_traced(
    layer: nn.Module, batch: int | None, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """The error names it by its path, with the line of its code, and torch does not print the whole graph."""
    net = co.Sequential(co.Conv1d(2, 4, 3), co.Sequential(nn.ReLU(), co.forward_stepping(layer))).eval()
    with pytest.raises(co.ExportError, match=message):
        co.export(net, STEP, tmp_path / "net.onnx", batch=batch)
    assert "def forward(self, arg" not in "".join(capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format, suffix", [("onnx", ".onnx"), ("executorch", ".PTE"), ("openvino", ".xml"), ("pt2", ".pt2")])
def test_the_ending_says_the_format(format: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(writing, "write", lambda *arguments: asked.append(arguments[3]))
    co.export(simple(), STEP, tmp_path / f"net{suffix}")
    co.export(simple(), STEP, tmp_path / f"net{suffix}", format="onnx")
    assert asked == [format, "onnx"]


def test_an_ending_that_says_nothing(tmp_path: Path):
    endings = r"end it in \.onnx \(onnx\), \.pt2 \(pt2\), \.pte \(executorch\), \.xml \(openvino\), or give format="
    with pytest.raises(ValueError, match=rf"'net\.bin' does not say its format: {endings}"):
        co.export(simple(), STEP, tmp_path / "net.bin")


def test_networks_that_are_no_programs(tmp_path: Path):
    path = tmp_path / "net.onnx"
    with pytest.raises(TypeError, match=r"takes a streaming network, not Conv1d: convert it by co\.continual"):
        co.export(nn.Conv1d(2, 2, 3), STEP, path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="format is one of 'onnx', 'pt2', 'executorch', 'openvino', not 'tflite'"):
        co.export(simple(), STEP, path, format="tflite")
    with pytest.raises(ValueError, match="chunk=3 does not fit this network, whose strides need a multiple of 2 steps"):
        co.export(co.Sequential(co.Conv1d(2, 2, 3, 2)).eval(), STEP, path, chunk=3)
    with pytest.raises(co.NotStreamable, match="training mode"):
        co.export(simple().train(), STEP, path)
    with pytest.raises(co.ShapeMismatch, match="0"):
        co.export(simple(), torch.zeros(1, 3), path)


def test_packages_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    path = file("gru")
    monkeypatch.setattr(packages.importlib, "import_module", missing)
    with pytest.raises(co.ExportError, match=r"co.load needs the package onnxruntime: pip install onnx"):
        co.load(path)


# ---- co.onnx.export -----------------------------------------------------------------------------------------------------------------


def test_the_names_of_torch_onnx_export(tmp_path: Path):
    net = simple()
    path = co.onnx.export(
        net, (STEP,), tmp_path / "a.onnx", input_names=["frame"], output_names=["out"], export_params=True, do_constant_folding=True,
        opset_version=18, dynamic_axes={"frame": {0: "batch"}},
    )  # fmt: skip
    m = co.load(path).metadata
    assert (m.input_names[0], m.output_names[0], m.batch) == ("frame", "out", None)
    assert pytest.importorskip("onnx").load(path).opset_import[0].version == 18
    clip = torch.randn(3, 2, 12)
    assert co.verify(co.load(path), clip, reference=net, splits=1).passed
    assert co.load(co.onnx.export(net, STEP, tmp_path / "b.onnx")).batch == 1
    with pytest.raises(TypeError, match="there is no option 'fast'"):
        co.onnx.export(net, STEP, path, fast=True)
    with pytest.raises(co.ExportError, match="dynamo=False is not possible"):
        co.onnx.export(net, STEP, path, dynamo=False)
    with pytest.raises(
        co.ExportError, match=r"2 names for 1 inputs of Sequential\. States, `end` and `valid` have names of their own"
    ):
        co.onnx.export(net, STEP, path, input_names=["a", "b"])
    with pytest.raises(co.ExportError, match="names are given twice: end, end"):
        co.onnx.export(net, STEP, path, input_names=["end"])


@torch.no_grad()
def test_by_onnxruntime_alone():
    """What a program in another language does: zeros for the states, outputs back in as inputs."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(file("gru")), providers=["CPUExecutionProvider"])
    clip, frames = NETWORKS["gru"].clip(50, batch=2), []
    shapes = {i.name: [2 if n == "batch" else n for n in i.shape] for i in session.get_inputs()}
    kinds = {"tensor(float)": torch.float32, "tensor(int64)": torch.int64}
    given: dict[str, Tensor] = {i.name: torch.zeros(shapes[i.name], dtype=kinds[i.type]) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    for call in range(50 + 4):
        given["x"] = clip[:, :, call : call + 1] if call < 50 else torch.full((2, 8, 1), torch.nan)
        given["end"] = torch.full((2,), 0 if call < 50 else 50)
        found = dict(zip(names, map(torch.from_numpy, session.run(names, {k: v.numpy() for k, v in given.items()})), strict=True))
        if bool(found["valid"].all()):
            frames.append(found["y"])
        given |= {name.removeprefix("new_"): value for name, value in found.items() if name.startswith("new_")}
    torch.testing.assert_close(torch.cat(frames, 2), network("gru")(clip), rtol=1e-5, atol=1e-5)
