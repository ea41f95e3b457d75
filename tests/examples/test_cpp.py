"""The C++ example: it is built, streams networks of several kinds as they compute clips, and refuses what it can't stream."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import continual as co

pytest.importorskip("onnxscript", reason="needs onnxscript: co.export writes ONNX by it")
EXAMPLE = Path(__file__).parents[2] / "examples" / "cpp_onnx"
HEADER = "onnxruntime_cxx_api.h"


def _headers() -> Path | None:
    folders = [
        os.environ.get("ORT_INCLUDE", ""),
        "/usr/include/onnxruntime",
        "/usr/local/include/onnxruntime",
        "/usr/local/include",
    ]
    return next((Path(f) for f in folders if f and (Path(f) / HEADER).is_file()), None)


def _library() -> Path | None:
    """The one of the Python package, which is as new as any: a library may be newer than the headers, not older."""
    if given := os.environ.get("ORT_LIBRARY"):
        return Path(given)
    onnxruntime = pytest.importorskip("onnxruntime")
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"), None)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built as its README says."""
    for tool in ("g++", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    headers, library = _headers(), _library()
    if headers is None:
        pytest.skip(f"needs onnxruntime's {HEADER}: Debian 13's libonnxruntime-dev, or its folder as ORT_INCLUDE")
    if library is None:
        pytest.skip("needs onnxruntime's shared library: its Python package has none for this system, ORT_LIBRARY may name one")
    built = tmp_path_factory.mktemp("cpp")
    options = [
        f"BUILD={built}",
        f"ORT_INCLUDE={headers}",
        f"ORT_LIBRARY={library}",
        "CXX=g++",
        "CXXFLAGS=-O1 -Wall -Wextra -Werror",
    ]
    made = subprocess.run(["make", "-C", str(EXAMPLE), *options], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    return built / "stream"


def _convolutions() -> co.CoModule:
    return co.Sequential(co.Conv1d(3, 8, 5, padding=2), nn.ReLU(), co.Conv1d(8, 4, 3, padding=2, dilation=2), nn.BatchNorm1d(4))


def _recurrent() -> co.CoModule:
    return co.Sequential(co.GRU(8, 16, 2), co.Linear(16, 4, channel_dim=1))


def _strided() -> co.CoModule:
    return co.Sequential(
        co.Conv1d(2, 6, 3, stride=2, padding=1), nn.ReLU(), co.AvgPool1d(2, stride=2), co.Conv1d(6, 5, 3, padding=1)
    )


def _late() -> co.CoModule:
    """Its first chunk begins before the stream."""
    return co.Sequential(co.Conv1d(1, 4, 2, stride=3), nn.ReLU(), co.Conv1d(4, 1, 3, padding=1))


NETWORKS = {"convolutions": (_convolutions, 3), "gru": (_recurrent, 8), "strided": (_strided, 2), "late": (_late, 1)}


Exported = Callable[..., tuple[co.CoModule, int, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A network by name, how wide its frames are, and its file."""
    folder = tmp_path_factory.mktemp("networks")

    @functools.cache  # an export takes seconds
    def export(name: str, chunk: int | None = None) -> tuple[co.CoModule, int, Path]:
        make, channels = NETWORKS[name]
        net = make().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.uniform_(module.running_mean, -1, 1)
        return net, channels, co.export(net, torch.zeros(1, channels), folder / f"{name}-{chunk}.onnx", chunk=chunk)

    return export


def _csv(path: Path, clip: Tensor, newline: str = "\n") -> Path:
    rows = [",".join(f"{float(x):.9g}" for x in frame) for frame in clip[0].T]
    path.write_bytes(newline.join([*rows, ""]).encode())
    return path


def _wav(path: Path, samples: np.ndarray, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(360)
        file.writeframes(samples.tobytes())
    return path


def _run(program: Path, *arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


def _outputs(done: subprocess.CompletedProcess[str], channels: int) -> Tensor:
    assert (done.returncode, done.stderr) == (0, "")
    rows = [[float(x) for x in line.split(",")] for line in done.stdout.splitlines()]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, channels).T.unsqueeze(0)


def _expected(net: co.CoModule, clip: Tensor) -> Tensor:
    with torch.no_grad():
        return net(clip)


# ---- it computes the same -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_streams_as_the_network_computes_clips(program: Path, exported: Exported, tmp_path: Path, name: str, chunk: int | None):
    least = {"strided": 4, "late": 3}.get(name, 1)
    net, channels, path = exported(name, chunk and chunk * least)
    for steps in (12, 13, 14, 15, 200):
        clip = torch.randn(1, channels, steps)
        expected = _expected(net, clip)
        found = _outputs(_run(program, path, _csv(tmp_path / "clip.csv", clip)), expected.shape[1])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_first_chunk_may_begin_before_the_stream(exported: Exported):
    """So that the test above is of that, too."""
    assert co.load(exported("late")[2]).metadata.start < 0


@pytest.mark.parametrize("name", ["convolutions", "gru"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_streams_that_end_before_the_first_output(program: Path, exported: Exported, tmp_path: Path, name: str, steps: int):
    net, channels, path = exported(name)
    clip = torch.randn(1, channels, steps)
    expected = _expected(net, clip)
    found = _outputs(_run(program, path, _csv(tmp_path / "clip.csv", clip)), expected.shape[1])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_stream_without_outputs(program: Path, exported: Exported, tmp_path: Path):
    net, _, path = exported("strided")
    clip = torch.randn(1, 2, 1)
    assert net.forward_steps(clip, pad_end=True) is None
    done = _run(program, path, _csv(tmp_path / "clip.csv", clip))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_wav_file(program: Path, exported: Exported, tmp_path: Path):
    net, _, path = exported("late")
    samples = np.random.default_rng(0).integers(-32768, 32768, 301).astype("<i2")
    expected = _expected(net, torch.tensor(samples / 32768, dtype=torch.float32).view(1, 1, -1))
    done = _run(program, path, _wav(tmp_path / "clip.wav", samples))
    torch.testing.assert_close(_outputs(done, 1), expected, atol=1e-6, rtol=0)  # samples over 32767 would be off by more


def test_parts_of_a_wav_file_that_are_no_samples_are_passed_over(program: Path, exported: Exported, tmp_path: Path):
    _, _, path = exported("late")
    plain = _wav(tmp_path / "plain.wav", np.arange(-50, 50, dtype="<i2")).read_bytes()
    part = b"LIST" + (5).to_bytes(4, "little") + b"title\0"  # of odd size: a byte is added
    (tmp_path / "parts.wav").write_bytes(plain[:12] + part + plain[12:36] + part + plain[36:] + part)
    found = _run(program, path, tmp_path / "parts.wav")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == _run(program, path, tmp_path / "plain.wav").stdout
    assert found.stdout.count("\n") > 20


def test_what_is_piped_in_and_lines_that_end_as_on_windows(program: Path, exported: Exported, tmp_path: Path):
    _, channels, path = exported("gru")
    clip = torch.randn(1, channels, 20)
    plain = _run(program, path, _csv(tmp_path / "plain.csv", clip))
    assert _run(program, path, _csv(tmp_path / "windows.csv", clip, "\r\n")).stdout == plain.stdout
    with (tmp_path / "plain.csv").open() as file:
        assert _run(program, path, "/dev/stdin", stdin=file).stdout == plain.stdout
    assert plain.stdout.count("\n") == 20


def test_outputs_come_before_the_recording_is_over(program: Path, exported: Exported, tmp_path: Path):
    _, channels, path = exported("gru")
    frame = ",".join("0.5" for _ in range(channels)) + "\n"
    with subprocess.Popen(
        [str(program), str(path), "/dev/stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for _ in range(3):
            running.stdin.write(frame)
            assert len(running.stdout.readline().split(",")) == 4
        running.stdin.close()
        assert running.stdout.read() == ""


# ---- it refuses ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def late(exported: Exported) -> Path:
    return exported("late")[2]


def _refusal(program: Path, *arguments: Any) -> str:
    done = _run(program, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("stream: ")
    return line


@pytest.mark.parametrize("count", [0, 1, 3])
def test_arguments(program: Path, count: int):
    assert "usage: stream NETWORK.onnx" in _refusal(program, *["x"] * count)


@pytest.mark.parametrize("ending", ["csv", "wav"])
def test_no_recording(program: Path, late: Path, tmp_path: Path, ending: str):
    assert f"nothing.{ending}' can't be read" in _refusal(program, late, tmp_path / f"nothing.{ending}")
    (tmp_path / f"empty.{ending}").touch()
    assert f"empty.{ending}' can't be read, or is" in _refusal(program, late, tmp_path / f"empty.{ending}")


def test_no_network(program: Path, late: Path, tmp_path: Path):
    clip = _csv(tmp_path / "clip.csv", torch.randn(1, 1, 9))
    assert "nothing.onnx" in _refusal(program, tmp_path / "nothing.onnx", clip)
    (tmp_path / "half.onnx").write_bytes(late.read_bytes()[:1000])
    assert "half.onnx" in _refusal(program, tmp_path / "half.onnx", clip)


@pytest.mark.parametrize("values", [{"channels": 2}, {"width": 1}, {"width": 4}], ids=["two channels", "8 bits", "32 bits"])
def test_other_wav_files(program: Path, late: Path, tmp_path: Path, values: dict[str, int]):
    line = _refusal(program, late, _wav(tmp_path / "clip.wav", np.zeros(100, "<i2"), **values))
    assert "clip.wav' holds no samples of one channel in 16-bit PCM" in line


def test_no_wav_file(program: Path, late: Path, tmp_path: Path):
    (tmp_path / "clip.wav").write_bytes(b"RIFX" + bytes(100))
    assert "is no .wav file" in _refusal(program, late, tmp_path / "clip.wav")
    whole = _wav(tmp_path / "whole.wav", np.zeros(100, "<i2")).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:40])
    assert "holds no samples" in _refusal(program, late, tmp_path / "cut.wav")


@pytest.mark.parametrize("line", ["1", "1,2,3", "1,x", "1;2", "", "1,2 3", "one,two"])
def test_lines_that_are_no_frames(program: Path, exported: Exported, tmp_path: Path, line: str):
    _, _, path = exported("strided")
    (tmp_path / "clip.csv").write_text(f"1,2\n{line}\n3,4\n")
    assert "clip.csv', frame 2: the network takes frames of 2 number(s)" in _refusal(program, path, tmp_path / "clip.csv")


def test_a_wav_file_for_a_network_of_more_channels(program: Path, exported: Exported, tmp_path: Path):
    _, _, path = exported("gru")
    line = _refusal(program, path, _wav(tmp_path / "clip.wav", np.zeros(9, "<i2")))
    assert "frame 1: the network takes frames of 8 number(s)" in line


class _Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.conv(a) + self.conv(b)


def test_networks_of_other_kinds(program: Path, tmp_path: Path):
    clip = _csv(tmp_path / "clip.csv", torch.randn(1, 2, 9))
    conv, images, x = co.Conv1d(2, 2, 3).eval(), co.Conv2d(2, 2, 3).eval(), torch.zeros(1, 2)
    two = co.continual(_Sum().eval(), (torch.zeros(1, 2, 9), torch.zeros(1, 2, 9)))
    for file in (
        co.export(conv, x, tmp_path / "endless.onnx", flush=False),
        co.export(conv, torch.zeros(3, 2), tmp_path / "rows.onnx", batch=3),
        co.export(images, torch.zeros(1, 2, 4), tmp_path / "images.onnx"),
        co.export(two, [x, x], tmp_path / "two.onnx"),
    ):
        assert f"{file.name}' can't be streamed here: it needs one input" in _refusal(program, file, clip)


@pytest.mark.parametrize("found", [{}, {"continual": '{"format_version":1}'}, {"continual": "no json"}])
def test_a_model_that_co_export_did_not_write(program: Path, late: Path, tmp_path: Path, found: dict[str, str]):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(late)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, found)
    onnx.save(model, tmp_path / "other.onnx")
    line = _refusal(program, tmp_path / "other.onnx", _csv(tmp_path / "clip.csv", torch.randn(1, 1, 9)))
    assert "other.onnx' was not written by co.export (version 2)" in line


def test_the_example_is_as_short_as_it_says():
    assert len((EXAMPLE / "stream.cpp").read_text(encoding="utf-8").splitlines()) == 99
