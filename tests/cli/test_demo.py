"""`continual demo`: runs on the ECG and on own recordings, and refuses bad files with one line."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import continual as co
from continual.cli.app import app
from continual.cli.denoise import denoiser

PNG = b"\x89PNG\r\n\x1a\n"


def invoke(*args: object):
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "120"})


def signal(size: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.sin(np.arange(size) / 9) + 0.1 * rng.standard_normal(size)


def write_wav(path: Path, samples: np.ndarray, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(500)
        file.writeframes((np.repeat(samples[:, None], channels, 1) * 8000).astype("<i2").tobytes())


def test_the_ecg_is_streamed_and_drawn(tmp_path: Path):
    figure = tmp_path / "out.png"
    result = invoke("demo", "--steps", 3, "--out", figure)
    assert result.exit_code == 0, result.output
    assert figure.read_bytes().startswith(PNG)
    for said in ("1024 samples at 360", "33 steps = 92 ms", "67 steps", "8,944 bytes", "0 failed", "times as long", "µs"):
        assert said in result.output
    difference = float(result.output.split("clip network")[1].split("│")[1].split()[0])
    assert difference <= 1e-5


def test_the_network_is_a_clip_network_and_converts():
    plain = denoiser().eval()
    for module in plain.modules():
        assert not isinstance(module, co.CoModule)
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    net = co.continual(plain)
    assert (net.receptive_field, net.delay) == (67, 33)
    co.verify(net, torch.randn(2, 1, 150), reference=plain)


OWN: dict[str, Callable[[Path], None]] = {
    "a.csv": lambda p: p.write_text("\n".join(map(str, signal()))),
    "heading.csv": lambda p: p.write_text("volt\n" + "\n".join(map(str, signal()))),
    "a.npy": lambda p: np.save(p, signal().astype(np.float32)),
    "a.wav": lambda p: write_wav(p, signal()),
    "stereo.wav": lambda p: write_wav(p, signal(), 2),
}


@pytest.mark.parametrize("name", OWN)
def test_own_recordings(name: str, tmp_path: Path):
    OWN[name](tmp_path / name)
    result = invoke("demo", "--input", tmp_path / name, "--steps", 2, "--out", tmp_path / "o.png")
    assert result.exit_code == 0, result.output
    assert f"400 samples at {500 if name.endswith('wav') else 100} per second" in result.output
    assert "taken as the clean signal" in result.output
    assert ("channels are averaged" in result.output) == (name == "stereo.wav")
    assert ("heading: volt" in result.output) == (name == "heading.csv")


def test_another_column_and_rate(tmp_path: Path):
    (tmp_path / "two.csv").write_text("\n".join(f"x,{v}" for v in signal()))
    result = invoke(
        "demo", "--input", tmp_path / "two.csv", "--column", 2, "--rate", 50, "--steps", 2, "--out", tmp_path / "o.png"
    )
    assert result.exit_code == 0, result.output
    assert "400 samples at 50 per second" in result.output


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.csv": (lambda p: None, "there is no file"),
    "a.txt": (lambda p: p.write_text("1"), "don't know the ending '.txt'"),
    "empty.csv": (lambda p: p.write_text(""), "is empty"),
    "word.csv": (lambda p: p.write_text("1\n2\nthree\n"), "line 3: 'three' is no number"),
    "binary.csv": (lambda p: p.write_bytes(b"\xff\xfe\x00\x01"), "is no text file"),
    "nan.csv": (lambda p: p.write_text("\n".join(["1", "2", "nan"] * 200)), "sample 2 is nan"),
    "short.csv": (lambda p: p.write_text("1\n2\n3\n"), "has 3 samples, at least 300"),
    "constant.npy": (lambda p: np.save(p, np.ones(500)), "there is no signal"),
    "plane.npy": (lambda p: np.save(p, np.ones((20, 20))), r"of shape (20, 20); a one-dimensional array"),
    "text.npy": (lambda p: p.write_text("hello"), "can't be read as an array"),
    "pickled.npy": (lambda p: np.save(p, np.array([{}] * 400), allow_pickle=True), "can't be read as an array"),
    "text.wav": (lambda p: p.write_text("hello"), "can't be read as a .wav file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_clear_line(name: str, tmp_path: Path):
    make, message = BAD[name]
    make(tmp_path / name)
    result = invoke("demo", "--input", tmp_path / name, "--out", tmp_path / "o.png")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("continual demo: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("out", ["figure.txt", "no/such/folder/figure.png"])
def test_a_figure_that_can_not_be_saved(out: str, tmp_path: Path):
    result = invoke("demo", "--out", tmp_path / out)
    assert result.exit_code == 2
    assert "can't save the figure" in result.stderr


def test_a_column_that_is_not_there(tmp_path: Path):
    (tmp_path / "one.csv").write_text("1\n2\n")
    result = invoke("demo", "--input", tmp_path / "one.csv", "--column", 3)
    assert result.exit_code == 2
    assert "line 1: there is no column 3, the line has 1" in result.stderr


def test_help_and_version():
    assert co.__version__ in invoke("--version").output
    text = invoke("demo", "--help").output
    for option in ("--input", "--out", "--rate", "--column", "--steps", "--seed"):
        assert option in text
