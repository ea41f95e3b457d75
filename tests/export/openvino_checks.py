"""What test_openvino.py runs in a process of its own: OpenVINO has crashed in long ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import continual as co
from continual.core.weights_digest import fingerprint
from tests.export.artefacts import file, network
from tests.export.networks import NETWORKS
from tests.export.test_files import Bessel
from tests.export.test_parity import assert_close, clip_outputs, streamed
from tests.export.test_rewriting import REWRITTEN, assert_clip
from tests.export.test_sealing import check_damages, written


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_steps(name: str):
    clip = NETWORKS[name].clip(1000)
    assert_close(streamed(co.load(file(name, "openvino"), threads=1), clip), clip_outputs(name, clip))


def test_the_contract():
    runner = co.load(file("resnet stage", "openvino"), threads=1)
    assert co.verify(runner, NETWORKS["resnet stage"].clip(48, batch=2), reference=network("resnet stage"), splits=2).passed


def test_digests(tmp_path: Path):
    """Of the model and of the weights beside it."""
    path = written("openvino", tmp_path)
    content, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    check_damages(path, 60, 3)
    path.write_bytes(content)
    for copy in (weights[:-1], weights + b"0", weights[:50] + bytes([weights[50] ^ 4]) + weights[51:]):
        path.with_suffix(".bin").write_bytes(copy)
        with pytest.raises(co.ArtefactMismatch, match=r"net\.xml' or the \.bin file beside it is damaged"):
            co.load(path)
    path.with_suffix(".bin").write_bytes(weights)
    assert co.load(path).metadata.weights == fingerprint(network("gru"))


def test_damaged_files(tmp_path: Path):
    text = file("resnet stage", "openvino").read_text()
    for content in (text[: len(text) // 2], text.replace("continual", "other")):
        (tmp_path / "cut.xml").write_text(content)
        with pytest.raises(co.ArtefactMismatch, match="co.load"):
            co.load(tmp_path / "cut.xml")


def test_an_operation_that_it_has_not(tmp_path: Path):
    net = co.Sequential(co.Conv1d(2, 4, 3), Bessel()).eval()
    with pytest.raises(co.ExportError, match=r"it has nothing for `aten\.special_i0e\.default`, which 1 \(Bessel\) computes"):
        co.export(net, torch.zeros(1, 2), tmp_path / "net.xml", format="openvino")


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_it_has_not_in_other_operations(name: str, tmp_path: Path):
    assert_clip(name, tmp_path / "net.xml")
