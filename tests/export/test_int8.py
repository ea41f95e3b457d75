"""8-bit networks and bfloat16: what they cost is measured, what can't be is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import continual as co
from continual.core.file_digest import seal_of
from continual.core.weights_digest import fingerprint
from tests.export.artefacts import needs, network
from tests.export.networks import FORMATS, NETWORKS
from tests.long import LONG, by_turns

CASES = [
    ("demo", "onnx", "dynamic"),
    ("demo", "onnx", "static"),
    ("resnet stage", "onnx", "static"),
    ("demo", "executorch", "static"),
]


@pytest.mark.parametrize("name, format, mode", by_turns(CASES, 8))
@torch.no_grad()
def test_the_cost_that_is_reported_is_that_of_the_file(name: str, format: str, mode: str, tmp_path: Path):
    needs(format)
    net, case = network(name), NETWORKS[name]
    clip = case.clip(net.receptive_field + 60)
    path = co.export(net, case.step(), tmp_path / f"a{FORMATS[format]}", format=format, int8=mode, calibration=clip)
    runner = co.load(path, threads=1)
    said = runner.metadata.quantised
    assert said is not None
    assert said["mode"] == mode
    assert said["share"] > 0.5
    assert said["on"] == "the clip that was given"
    y, want = runner.forward_steps(clip), net.forward_steps(clip, update_state=False)
    largest = float((y - want).abs().max() / want.abs().max())
    close = 0.05 if format == "onnx" else 0.5  # XNNPACK rounds otherwise than torch, in which the cost is found
    assert largest == pytest.approx(said["largest"], rel=close, abs=1e-4)
    assert 1e-4 < largest < 0.2, "8 bits are not exact, and not far off"
    assert said["snr_db"] > 20
    plain = co.export(net, case.step(), tmp_path / f"b{FORMATS[format]}", format=format)
    assert co.load(plain).metadata.quantised is None
    clocks = [r.get_state().tensors["state.calls"] for r in (runner,)]
    assert clocks[0].dtype == torch.int64
    assert clocks[0].tolist() == [clip.shape[2] // runner.chunk]


def test_without_a_clip_noise_is_taken(tmp_path: Path):
    needs("onnx")
    path = co.export(network("gru"), NETWORKS["gru"].step(), tmp_path / "a.onnx", int8="dynamic")
    metadata, digest = co.load(path).metadata, seal_of(path)
    assert metadata.quantised["on"] == "noise"
    assert digest.intact, "of its own content"
    assert metadata.weights == fingerprint(network("gru")), "of the network that it was made of"


def test_what_is_refused(tmp_path: Path):
    net, step = network("gru"), NETWORKS["gru"].step()
    with pytest.raises(ValueError, match="int8 is one of 'dynamic', 'static', or None, not 'weights'"):
        co.export(net, step, tmp_path / "a.onnx", int8="weights")
    with pytest.raises(
        co.ExportError, match="no 8-bit networks in format 'pt2': AOTInductor compiles float networks. Use 'onnx' or 'executorch'"
    ):
        co.export(net, step, tmp_path / "a.pt2", format="pt2", int8="dynamic")
    with pytest.raises(co.ExportError, match="OpenVINO needs another package for it"):
        co.export(net, step, tmp_path / "a.xml", format="openvino", int8="dynamic")
    with pytest.raises(co.ExportError, match="int8='static' measures ranges on a clip: give one"):
        co.export(net, step, tmp_path / "a.onnx", int8="static")
    with pytest.raises(co.ExportError, match=r"too short for any output \(delay 33\)"):
        co.export(network("demo"), torch.zeros(1, 1), tmp_path / "a.onnx", int8="static", calibration=torch.zeros(1, 1, 20))
    pool = co.Sequential(co.AvgPool1d(3)).eval()
    with pytest.raises(co.ExportError, match="found no layer of Sequential to hold in 8 bits"):
        co.export(pool, torch.zeros(1, 2), tmp_path / "a.onnx", int8="dynamic")
    assert not list(tmp_path.iterdir())


@LONG
def test_layers_that_xnnpack_does_not_hold_in_8_bits(tmp_path: Path):
    needs("executorch")
    net, step = network("resnet stage"), NETWORKS["resnet stage"].step()
    with pytest.raises(co.ExportError, match="XNNPACK has no 8-bit layers for Sequential"):
        co.export(net, step, tmp_path / "a.pte", format="executorch", int8="dynamic")


@torch.no_grad()
def test_onnxruntime_has_no_bfloat16(tmp_path: Path):
    net, step = copy.deepcopy(network("gru")).bfloat16(), NETWORKS["gru"].step().bfloat16()
    with pytest.raises(co.ExportError, match="onnxruntime has no kernels for bfloat16 on CPU. Export to 'pt2'"):
        co.export(net, step, tmp_path / "a.onnx")


@LONG
@torch.no_grad()
def test_bfloat16(tmp_path: Path):
    """Compiled code computes in it."""
    needs("pt2")
    net, step = copy.deepcopy(network("gru")).bfloat16(), NETWORKS["gru"].step().bfloat16()
    runner = co.load(co.export(net, step, tmp_path / "a.pt2", format="pt2", batch=1))
    clip = NETWORKS["gru"].clip(40)
    y, want = runner.forward_steps(clip.bfloat16()), network("gru")(clip)
    assert y.dtype == torch.bfloat16
    assert float((y.float() - want).abs().max() / want.abs().max()) < 0.03
