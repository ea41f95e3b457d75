"""Published checkpoints load: made-up ones with exactly the published names and shapes, wrapped as they are published."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import continual as co
from tests.long import one_in

FOLDER = Path(__file__).parent / "checkpoints"
NETWORKS: dict[str, list[tuple[str, int]]] = {  # those of XS and M have the names and shapes of S
    "x3d_s.pyslowfast": [("cox3d_xs", 160), ("cox3d_s", 64), ("cox3d_m", 224)],
    "x3d_l.pyslowfast": [("cox3d_l", 64)],
    "x3d_s.pytorchvideo": [("cox3d_xs", 32), ("cox3d_s", 160), ("cox3d_m", 32)],
    "x3d_l.pytorchvideo": [("cox3d_l", 64)],
    "slow_r50.pytorchvideo": [("coslow", 256)],
    "i3d_r50.pytorchvideo": [("coi3d", 224)],
    "st_gcn.ntu": [("cost_gcn", 25), ("cost_gcn_star", 25)],
    "st_gcn.kinetics": [("cost_gcn", 18), ("cost_gcn_star", 18)],
    "a_gcn.ntu": [("coa_gcn", 25), ("coa_gcn_star", 25)],
    "a_gcn.kinetics": [("coa_gcn", 18), ("coa_gcn_star", 18)],
    "s_tr.ntu": [("cos_tr", 25), ("cos_tr_star", 25)],
    "s_tr.kinetics": [("cos_tr", 18), ("cos_tr_star", 18)],
}
CASES = [(file, *network) for file, networks in NETWORKS.items() for network in networks]


def made_up(file: str) -> dict[str, Tensor]:
    """A checkpoint of the published names and shapes."""
    generator = torch.Generator().manual_seed(len(file))
    shapes = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return {
        name: torch.tensor(7) if name.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


def test_every_file_is_used():
    assert {p.stem for p in FOLDER.glob("*.json")} == set(NETWORKS)


@pytest.mark.parametrize("file, name, size", CASES)
def test_published_names_load(file: str, name: str, size: int, tmp_path: Path):
    given = made_up(file)
    wrapper = {"pyslowfast": "model_state", "pytorchvideo": "model_state"}.get(file.rpartition(".")[2], "state_dict")
    torch.save({wrapper: given, "epoch": 3, "cfg": "…"}, tmp_path / "weights.pyth")
    net = co.models.create(name, input_size=size, pretrained=tmp_path / "weights.pyth")
    loaded = net.state_dict()
    if "x3d" in file and "pytorchvideo" in file:
        assert len(loaded) == len(given) + 5  # the batch norm of the first shortcut
        assert sorted(map(total, loaded.values())) != sorted(map(total, given.values()))
        for theirs, ours in RENAMED.items():
            assert torch.equal(loaded[ours], given[theirs]), theirs
    else:
        assert list(loaded) == list(given) or set(loaded) == set(given)
        assert all(torch.equal(loaded[key], given[key]) for key in given)


def total(t: Tensor) -> float:
    return t.double().sum().item()


RENAMED = {
    "blocks.0.conv.conv_t.weight": "s1.pathway0_stem.conv_xy.weight",
    "blocks.0.conv.conv_xy.weight": "s1.pathway0_stem.conv.weight",
    "blocks.0.norm.running_var": "s1.pathway0_stem.bn.running_var",
    "blocks.1.res_blocks.0.branch1_conv.weight": "s2.pathway0_res0.branch1.weight",
    "blocks.2.res_blocks.0.branch1_norm.bias": "s3.pathway0_res0.branch1_bn.bias",
    "blocks.3.res_blocks.1.branch2.norm_b.0.running_mean": "s4.pathway0_res1.branch2.b_bn.running_mean",
    "blocks.4.res_blocks.4.branch2.norm_b.1.block.0.weight": "s5.pathway0_res4.branch2.se.fc1.weight",
    "blocks.4.res_blocks.4.branch2.norm_b.1.block.2.bias": "s5.pathway0_res4.branch2.se.fc2.bias",
    "blocks.4.res_blocks.6.branch2.norm_c.weight": "s5.pathway0_res6.branch2.c_bn.weight",
    "blocks.5.pool.pre_norm.weight": "head.conv_5_bn.weight",
    "blocks.5.pool.post_conv.weight": "head.lin_5.weight",
    "blocks.5.proj.bias": "head.projection.bias",
}


def test_the_missing_norm_of_pytorchvideo_is_the_identity():
    net = co.models.load_weights(co.models.create("cox3d_s", input_size=32), made_up("x3d_s.pytorchvideo"))
    norm = net.s2.pathway0_res0.branch1_bn
    assert norm.weight[0].item() == pytest.approx(math.sqrt(1 + norm.eps))
    x = torch.randn(2, 24, 5, 4, 3)
    with torch.no_grad():
        assert torch.allclose(norm(x), x, atol=1e-6)


@pytest.mark.parametrize("prefix", ["model.", "module.", "net.backbone."])
def test_prefixes_of_trainers_are_taken_off(prefix: str):
    given = made_up("st_gcn.ntu")
    net = co.models.create("cost_gcn")
    co.models.load_weights(net, {"state_dict": {prefix + k: v for k, v in given.items()}, "pytorch-lightning_version": "2.0"})
    assert torch.equal(net.fc.weight, given["fc.weight"])


def test_names_of_continual_skeletons():
    """Its continual blocks stand in two more containers, and where a delay was inserted in a third."""
    given = made_up("st_gcn.ntu")

    def theirs(name: str) -> str:
        name = re.sub(r"(layer[58])\.residual", r"\1.0.0.residual", name)
        return re.sub(r"(layer(?:[2-9]|10))\.(gcn|tcn)", r"\1.0.1.\2", name)

    net = co.models.load_weights(co.models.create("cost_gcn"), {theirs(k): v for k, v in given.items()})
    assert all(torch.equal(value, given[key]) for key, value in net.state_dict().items())


def caffe2(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A made-up Caffe2 file: numpy arrays under the names of blobs, the optimiser's among them."""
    net = co.models.create("coi3d")
    ends = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    blobs: dict[str, Any] = {"lr": np.float32(0.1), "model_iter": np.array([7]), "conv1_w_momentum": np.zeros(3, np.float32)}
    for key, value in net.state_dict().items():
        *path, end = key.split(".")
        if end == "num_batches_tracked":
            continue
        array = np.random.default_rng(len(key)).random(value.shape, np.float32)
        stage = int(path[1])
        if stage == 0:
            name = "conv1_w" if path[2] == "conv" else f"res_conv1_bn_{ends[end]}"
        elif stage == 6:
            name = "pred_w" if end == "weight" else "pred_b"
        else:
            branch = "1" if path[4].startswith("branch1") else f"2{path[5][-1]}"
            name = f"res{2 if stage == 1 else stage}_{path[3]}_branch{branch}_"
            name += "w" if "conv" in path[-1] else f"bn_{ends[end]}"
        blobs[name] = array
    assert len(blobs) == 3 + 320 - 53
    path_of_file = tmp_path / "I3D_8x8_R50.pkl"
    path_of_file.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return path_of_file, blobs


@one_in(4)
def test_caffe2_blobs(tmp_path: Path):
    path, blobs = caffe2(tmp_path)
    net = co.models.create("coi3d", pretrained=path)
    weights = net.state_dict()
    for key, blob in {
        "blocks.0.norm.running_var": "res_conv1_bn_riv",
        "blocks.1.res_blocks.0.branch1_conv.weight": "res2_0_branch1_w",
        "blocks.3.res_blocks.3.branch2.conv_b.weight": "res3_3_branch2b_w",
        "blocks.5.res_blocks.2.branch2.norm_c.bias": "res5_2_branch2c_bn_b",
        "blocks.6.proj.weight": "pred_w",
    }.items():
        assert np.array_equal(weights[key].numpy(), blobs[blob]), key


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_listed_and_nothing_is_loaded():
    net = co.models.create("cost_gcn")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    given = made_up("st_gcn.ntu")
    del given["fc.bias"], given["layers.layer3.tcn.bn.weight"]
    given["loss.weight"] = torch.ones(2)
    given["data_bn.bias"] = torch.ones(108)
    with pytest.raises(co.CheckpointMismatch) as refused:
        co.models.load_weights(net, given)
    assert refused.value.missing == ["layers.layer3.tcn.bn.weight", "fc.bias"]
    assert refused.value.extra == ["loss.weight"]
    assert refused.value.misshaped == ["data_bn.bias (108,), expected (150,)"]
    message = str(refused.value)
    assert "cost_gcn: the checkpoint does not fit; nothing was loaded" in message
    assert "2 missing: layers.layer3.tcn.bn.weight, fc.bias" in message
    assert "1 not known: loss.weight" in message
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_another_number_of_classes_says_what_to_do():
    net = co.models.create("cox3d_s", classes=10, input_size=32)
    with pytest.raises(
        co.CheckpointMismatch, match=r"head\.projection\.weight \(400, 2048\), expected \(10, 2048\)(.|\n)*`classes`"
    ):
        co.models.load_weights(net, made_up("x3d_s.pyslowfast"))


def test_the_checkpoint_of_another_network():
    with pytest.raises(co.CheckpointMismatch) as refused:
        co.models.load_weights(co.models.create("cost_gcn"), made_up("slow_r50.pytorchvideo"))
    assert (len(refused.value.missing), len(refused.value.extra)) == (242 - 26, 320)
    assert "… and 300 more" in str(refused.value)


def test_a_missing_norm_elsewhere_is_refused():
    given = made_up("x3d_s.pytorchvideo")
    for key in [k for k in given if k.startswith("blocks.2.res_blocks.0.branch1_norm.")]:
        del given[key]
    with pytest.raises(co.CheckpointMismatch, match=r"4 missing: s3\.pathway0_res0\.branch1_bn\.weight"):
        co.models.load_weights(co.models.create("cox3d_s", input_size=32), given)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("trap-was-sprung"),)


@pytest.mark.parametrize("suffix", [".pt", ".pkl"])
def test_code_in_files_never_runs(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": {"fc.weight": Trap()}}, path)
    else:
        path.write_bytes(pickle.dumps({"blobs": {"conv1_w": Trap()}}))
    with pytest.raises(co.CheckpointMismatch, match=rf"'weights{suffix}' can't be read as weights(.|\n)*never code"):
        co.models.create("coi3d", pretrained=path)
    assert not (tmp_path / "trap-was-sprung").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "is not a file"),
        (b"", "can't be read as weights"),
        (b"not a checkpoint", "can't be read as weights"),
        ([1, 2], r"holds no dictionary of weights, but a list"),
        ({}, "holds no dictionary of weights"),
        ({"state_dict": {"fc.weight": "a text", "fc.bias": torch.ones(3)}}, r"other objects besides weights: fc\.weight"),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(co.CheckpointMismatch, match=message):
        co.models.create("cost_gcn", pretrained=path)
