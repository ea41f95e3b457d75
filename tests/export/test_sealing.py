"""The digest of an exported file: damage is refused before a runtime sees it; what was changed on purpose is taken where that is said."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import continual as co
from continual.export.artefact_digest import beside, digest_in, seal_file
from tests.export.artefacts import file
from tests.export.networks import NETWORKS
from tests.long import LONG
from tests.tools.damage import damaged

SUFFIX = {"onnx": ".onnx", "executorch": ".pte", "openvino": ".xml", "pt2": ".pt2"}
MEANT = r"has not the digest that co\.export wrote into it\. If it was changed on purpose: co\.load\(path, allow_changed=True\)"


def written(format: str, folder: Path) -> Path:
    """A copy of a file, with what belongs to it."""
    own = file("gru", format)
    path = Path(shutil.copy(own, folder / f"net{SUFFIX[format]}"))
    if format == "openvino":
        shutil.copy(own.with_suffix(".bin"), path.with_suffix(".bin"))
    return path


def check_damages(path: Path, count: int, seed: int) -> None:
    """Damages of all kinds are refused."""
    for _, copy in damaged(path.read_bytes(), count, seed):
        path.write_bytes(copy)
        with pytest.raises(co.ArtefactMismatch, match=r"co\.load: .*(is|or it is) damaged"):
            co.load(path)


@pytest.mark.parametrize("format", ["onnx", "executorch"])
def test_damaged_files_are_refused(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nearly all of them before a runtime reads them: not those in which the digest itself has gone."""
    path, seen = written(format, tmp_path), []
    module = importlib.import_module(f"continual.export.{format}")
    own = module.read
    monkeypatch.setattr(module, "read", lambda *given: seen.append(given) or own(*given))
    check_damages(path, 100, 11)
    assert len(seen) < 25


@LONG
@pytest.mark.parametrize("format", ["onnx", "executorch", "pt2"])
@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_damaged_files_are_refused(format: str, seed: int, tmp_path: Path):
    check_damages(written(format, tmp_path), 1000, seed)


def test_bits_everywhere_in_a_file_matter(tmp_path: Path):
    """Also those of weights, which every runtime takes as they are."""
    path = written("onnx", tmp_path)
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 150):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(co.ArtefactMismatch, match="damaged"):
            co.load(path)


def test_a_file_that_has_lost_its_digest_is_damaged(tmp_path: Path):
    path = written("onnx", tmp_path)
    path.write_bytes(path.read_bytes().replace(b"continual:sha256:", b"continual_sha256:"))
    assert digest_in(path, "onnx") is None
    with pytest.raises(co.ArtefactMismatch, match="it has lost the digest of the file"):
        co.load(path)


def test_what_was_changed_on_purpose(tmp_path: Path):
    """A tool writes the model again: that has to be said."""
    onnx = pytest.importorskip("onnx")
    path = written("onnx", tmp_path)
    model = onnx.load(path)
    for t in model.graph.initializer:
        if t.data_type == onnx.TensorProto.FLOAT:
            t.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(t), t.name))
    onnx.save(model, path)
    with pytest.raises(co.ArtefactMismatch, match=MEANT):
        co.load(path)
    runner, clip = co.load(path, allow_changed=True), NETWORKS["gru"].clip(5)
    assert not torch.allclose(runner.forward_steps(clip), co.load(file("gru")).forward_steps(clip))
    seal_file(path, "onnx")  # what this library changes itself has a new digest
    assert not co.load(path).forward_steps(clip).any()


def test_damaged_metadata_of_a_file_that_may_be_changed(tmp_path: Path):
    """It is read or refused: for text that is not a text onnxruntime has a bare UnicodeDecodeError."""
    path = written("onnx", tmp_path)
    content, refused = path.read_bytes(), 0
    begin, end = content.index(b'{"format"'), content.index(b',"format_version":2')
    for _, copy in damaged(content[begin:end], 40, 4):
        path.write_bytes(content[:begin] + copy[: end - begin].ljust(end - begin) + content[end:])
        try:
            co.load(path, threads=1, allow_changed=True)
        except co.ArtefactMismatch:
            refused += 1
    assert 25 < refused < 40


@pytest.mark.parametrize("name", ["net.onnx.data", 120 * "w" + ".data", 180 * "w" + ".bin"], ids=lambda name: str(len(name)))
def test_weights_in_a_file_beside_the_model(name: str, tmp_path: Path):
    """As large models have them. The model may have another name than when it was written."""
    onnx = pytest.importorskip("onnx")
    path, weights = written("onnx", tmp_path), tmp_path / name
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=weights.name, size_threshold=1024)
    seal_file(path, "onnx")
    assert beside(path, "onnx") == [weights]
    path = path.rename(tmp_path / "renamed.onnx")
    (tmp_path / "renamed.onnx.data").write_text("of another model")
    clip = NETWORKS["gru"].clip(5)
    torch.testing.assert_close(co.load(path).forward_steps(clip), co.load(file("gru")).forward_steps(clip))
    content = weights.read_bytes()
    for changed in (content[:99] + b"!" + content[100:], content[:-1], content + b"\0", b""):
        weights.write_bytes(changed)
        with pytest.raises(co.ArtefactMismatch, match=r"renamed\.onnx' or a file of weights beside it is damaged"):
            co.load(path)
    weights.unlink()
    with pytest.raises(co.ArtefactMismatch, match="or a file of weights beside it is damaged"):
        co.load(path)


def first_version(path: Path, **more: Any) -> None:
    """As files were before they had digests."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    said = next(json.loads(p.value) for p in model.metadata_props if p.key == "continual")
    del model.metadata_props[:], said["weights"]
    onnx.helper.set_model_props(model, {"continual": json.dumps(said | {"format_version": 1} | more)})
    onnx.save(model, path)


def test_files_of_the_first_version_are_read_with_a_warning(tmp_path: Path):
    path, clip = written("onnx", tmp_path), NETWORKS["gru"].clip(5)
    want = co.load(path).forward_steps(clip)
    first_version(path)
    with pytest.warns(
        UserWarning, match="of version 1 of the format, which has no digest: .* Export the network again, or say"
    ) as caught:
        runner = co.load(path)
    assert caught[0].filename == __file__
    torch.testing.assert_close(runner.forward_steps(clip), want)
    assert (runner.metadata.format_version, runner.metadata.weights, runner.get_state().weights) == (1, "", "")
    co.load(path, allow_changed=True)  # without a warning, which would be an error


def test_a_file_is_not_of_the_first_version_because_it_says_so(tmp_path: Path):
    path = written("onnx", tmp_path)
    first_version(path, weights="")
    with pytest.raises(co.ArtefactMismatch, match="the metadata of .* is damaged"):
        co.load(path)
