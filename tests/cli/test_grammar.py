"""All commands take the same networks: names of the zoo, code of the user's, exported files; and weights from a file, which run no code."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import continual as co
from continual.cli import network as networks
from tests.cli.streamed import SMOOTH, equal, invoke, lines, network, signal, wanted

ZOO = ("kws_ds_cnn", "--input-size", 12, "--classes", 3)


pytestmark = pytest.mark.usefixtures("nets_folder")


@functools.cache
def content() -> bytes:
    pytest.importorskip("onnxruntime")
    return Path(co.export(co.continual(network()), torch.zeros(1, 2), "made.onnx", rate=50)).read_bytes()


def exported() -> str:
    Path("net.onnx").write_bytes(content())
    return "net.onnx"


def test_networks_of_the_zoo():
    net = co.models.create("kws_ds_cnn", input_size=12, classes=3)
    table = invoke("explain", *ZOO)
    assert table.stdout.startswith("Model  ←  x (1, 1, T, 12)")
    assert table.stderr == ""  # what it says does not depend on the weights
    told = json.loads(invoke("explain", *ZOO, "--json").stdout)
    assert (told["delay"], told["receptive_field"]) == (net.delay, net.receptive_field)
    summary = json.loads(invoke("summary", *ZOO, "--json").stdout)
    rows = co.summary(net, torch.zeros(1, *net.step_shape)).rows
    assert (summary["params"], summary["macs_per_step"]) == (rows[0].params, rows[0].macs_step)
    assert summary["rate"] == net.card.rate
    assert [layer["path"] for layer in summary["layers"]] == [row.path for row in rows]
    result = invoke("verify", *ZOO, "--effort", "quick", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"]
    assert len(report["checks"]) > 20
    assert {check["outcome"] for check in report["checks"]} <= {"passed", "skipped"}


def test_exported_files():
    path = exported()
    told = [json.loads(invoke(command, path, "--json").stdout) for command in ("explain", "summary", "inspect")]
    assert told[0] == told[1] == told[2]
    assert (told[0]["delay"], told[0]["rate"]) == (4, 50)
    assert "onnxruntime" in invoke("explain", path).stdout
    result = invoke("verify", path, "--effort", "quick")
    assert result.exit_code == 0, result.output
    assert "0 failed" in result.stdout


BAD: dict[str, tuple[object, ...]] = {
    "'net.onnx' is an exported file, and can't be written in another format. Give": ("export", "net.onnx", "other.pt2"),
    "'net.onnx' is an exported file, and its operations are in the runtime": ("explain", "net.onnx", "--out", "a.svg"),
    "--clip, --classes are for networks, and 'net.onnx' is an exported file": (
        *("verify", "net.onnx", "--clip", "1,2,9", "--classes", 3),
    ),
    "--weights is for networks, and 'net.onnx'": ("summary", "net.onnx", "--weights", "nets.py"),
    "--device cuda: an exported file runs where its runtime does": ("run", "net.onnx", "--source", ".", "--device", "cuda"),
    "there is no file 'no.onnx'": ("verify", "no.onnx"),
    "there is no network 'kws_ds_cn' in the zoo": ("summary", "kws_ds_cn"),
    "nets.py:smooth needs an example: --clip": ("explain", "nets.py:smooth"),
    "--clip is for networks of your own": ("explain", "kws_ds_cnn", "--clip", "1,2,9"),
    "--input-size is for networks of the zoo": ("verify", *SMOOTH, "--input-size", 3),
    "there is no file 'w.pt'": ("summary", *SMOOTH, "--weights", "w.pt"),
}


@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(message: str):
    if "net.onnx" in BAD[message]:
        exported()
    result = invoke(*BAD[message])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def other() -> nn.Module:
    net = network(seed=3)
    assert not torch.equal(net[0].weight, network()[0].weight)
    return net


WEIGHTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "w.pt": lambda w: torch.save(w, "w.pt"),
    "w.pth": lambda w: torch.save({"state_dict": {f"model.{name}": t for name, t in w.items()}, "epoch": 3}, "w.pth"),
    "w.safetensors": lambda w: save_file(w, "w.safetensors"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str):
    WEIGHTS[name](other().state_dict())
    frames = signal(50)
    Path("a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in frames.tolist()))
    result = invoke("run", *SMOOTH, "--source", "a.jsonl", "--weights", name, "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(frames, seed=3))


def test_weights_that_do_not_fit():
    weights = other().state_dict()
    del weights["0.bias"]
    torch.save(weights, "w.pt")
    result = invoke("summary", *SMOOTH, "--weights", "w.pt")
    assert result.exit_code == 2
    assert "Sequential: w.pt does not fit; nothing was loaded. 1 missing: 0.bias" in result.stderr
    Path("w.safetensors").write_bytes(b"no tensors")
    assert "'w.safetensors' can't be read as weights" in invoke("summary", *SMOOTH, "--weights", "w.safetensors").stderr


class Attack:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("attacked"),)


@pytest.mark.parametrize("net", ["code", "zoo"])
def test_weights_run_no_code(net: str):
    Path("w.pt").write_bytes(pickle.dumps(Attack()))
    result = invoke("summary", *(SMOOTH if net == "code" else ZOO), "--weights", "w.pt")
    assert result.exit_code == 2
    assert "'w.pt' can't be read as weights" in result.stderr
    assert not Path("attacked").exists()
    pickle.loads(Path("w.pt").read_bytes())
    assert Path("attacked").exists()


def test_every_command_takes_them(monkeypatch: pytest.MonkeyPatch):
    """By one function, whatever else a command takes."""
    asked: list[tuple[networks.Options, str]] = []

    def subject(options: networks.Options, command: str) -> Any:
        asked.append((options, command))
        raise networks.BadInput("enough")

    for module in ("networks", "export", "run", "serve"):
        monkeypatch.setattr(f"continual.cli.{module}.subject", subject)
    Path("w.pt").touch()
    shared = ("a:b", "--clip", "1,2,9", "--clip", "1,3,9", "--arg", "x=1", "--dtype", "float64", "--high", 7, "--seed", 4)
    shared = (*shared, "--time-dim", 1, "--time-pooling", "frame", "--weights", "w.pt")
    more = {"explain": (), "summary": (), "verify": (), "export": ("o.onnx",), "run": ("--source", "."), "serve": ()}
    for command, own in more.items():
        assert invoke(command, *shared, *own).stderr == f"continual {command}: enough\n"
    clips, arguments = ["1,2,9", "1,3,9"], ["x=1"]
    want = networks.Options("a:b", clips, arguments, ["float64"], 7, 4, 1, "frame", Path("w.pt"))
    assert asked == [(want, command) for command in more]


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "continual", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: continual [OPTIONS] COMMAND [ARGS]...\n")
    assert not set(done.stdout) & set("╭│┌─")  # plain text in a pipe
