"""`continual run` on videos: what is streamed equals the clip network, what is shown and written, one line for what can't be used."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import continual as co
from continual.cli import network
from continual.cli import run as command
from continual.cli.app import app
from continual.cli.sources import video
from continual.cli.zoo import alive, built
from tests.videos import decoded, reference, write

SHARP = 2
SMALL = ("--input-size", 32, "--classes", 7)
LATER = 3  # the step that the first output is about
WHOLE = 33  # outputs of 36 steps, those at the end included


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONTINUAL_TRACEBACK", raising=False)


@pytest.fixture(autouse=True)
def _decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose predictions differ from class to class and from frame to frame."""
    monkeypatch.setattr(network, "built", lambda *given: decided(built(*given)))
    monkeypatch.setattr(network, "alive", lambda net: net)


@functools.cache
def sample(size: int) -> Tensor:
    """A clip of a video such as the tests write."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = decoded(write(Path(folder, "sample.mp4"), 71))
    return torch.stack([reference(pixels[i], size, 0.45, 0.225) for i in range(0, 71, 2)], 1).unsqueeze(0)


def decided(net: Any) -> Any:
    """Norms of the sample's statistics, and logits that vary about zero: predictions that say something of a frame."""
    if not net.card.of_video:
        return net
    norms = [m for m in alive(net).modules() if isinstance(m, nn.BatchNorm3d)]
    clip, last = sample(net.step_shape[-1]), net.head.projection
    with torch.no_grad():
        for norm in norms:
            norm.train().momentum = 1.0
        net(clip)
        for norm in norms:
            norm.eval()
        logits = net(clip)[0, :, 5:30]
        mean = logits.mean(1)
        scale = SHARP / (logits - mean.unsqueeze(1)).std()
        last.weight.data *= scale
        last.bias.data = (last.bias - mean) * scale
    return net


def invoke(*args: object, **env: str) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "120", "TERM": "xterm", **env})


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def expected(path: Path, frames: list[int], classes: int = 7) -> Tensor:
    """The scores of the clip network for a clip of these frames."""
    net, pixels = decided(built("cox3d_xs", classes, 32)), decoded(path)
    clip = torch.stack([reference(pixels[i], 32, 0.45, 0.225) for i in frames], 1)
    with torch.inference_mode():
        return net(clip.unsqueeze(0))[0]


def compare(found: list[dict[str, Any]], scores: Tensor, frames: list[int], rate: int) -> None:
    want = scores.softmax(0)
    assert len(found) == want.shape[1] > 1
    assert want.std(1).max() > 1e-2  # from frame to frame
    for j, line in enumerate(found):
        assert line["index"] == j + LATER
        if j + LATER < len(frames):
            assert line["time"] == pytest.approx(frames[j + LATER] / rate)
        assert np.abs(np.array(line["output"]) - scores[:, j].numpy()).max() < 1e-2 * scores.abs().max()
        shares = torch.zeros(want.shape[0])
        for one in line["top"]:
            shares[one["class"]] = one["probability"]
        assert (shares - want[:, j]).abs().max() < 1e-3
        assert shares.sum() == pytest.approx(1)
        listed = [one["probability"] for one in line["top"]]
        assert listed == sorted(listed, reverse=True)


def test_a_stream_equals_the_clip_network(tmp_path: Path):
    path = write(tmp_path / "a.mp4", 71)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, "--every", 2, "--out", "o.jsonl", "--top", 99)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    frames = list(range(0, 71, 2))
    compare(lines("o.jsonl"), expected(path, frames), frames, 30)
    first, last = result.stderr.splitlines()
    assert first == "continual run: no --weights FILE: the weights are random, and the predictions mean nothing"
    assert last.startswith(f"continual run: cox3d_xs on {path}: 71 frames, 36 steps, {WHOLE} outputs; ")
    assert last.endswith("steps per second, 15 needed; delay 31 steps = 2.07 s")


def test_a_video_of_another_rate_is_resampled(tmp_path: Path):
    path = write(tmp_path / "a.mp4", 340, rate=24)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, "--out", "o.jsonl", "--top", 99)
    assert result.exit_code == 0, result.output
    frames = [(48 * k + 2) // 5 for k in range(36)]  # 9.6 frames a step: the nearest
    assert frames[:4] == [0, 10, 19, 29]
    compare(lines("o.jsonl"), expected(path, frames), frames, 24)


def test_stdout_with_labels_and_a_limit(tmp_path: Path):
    path = write(tmp_path / "a.mp4", 71)
    Path("names.txt").write_text("\ufeff" + "\n".join(f"class [{i}] é " for i in range(7)) + "\n\n", encoding="utf-8")
    options = ("--labels", "names.txt", "--top", 2, "--limit", 33, "--every", 2, "--threads", 1)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, *options, "--out", "-", FORCE_COLOR="1")
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]  # and no table
    assert [line["index"] for line in found] == [LATER, LATER + 1]
    assert [len(line["top"]) for line in found] == [2, 2]
    for one in found[0]["top"]:
        assert one["label"] == f"class [{one['class']}] é"
    assert "65 frames, 33 steps, 2 outputs" in result.stderr


def test_the_table_on_a_terminal(tmp_path: Path):
    path = write(tmp_path / "[b]a.mp4", 71)
    Path("names.txt").write_text("\n".join(f"sport [{i}]" for i in range(7)))
    options = (*SMALL, "--every", 2, "--labels", "names.txt", "--out", "o.jsonl")
    result = invoke("run", "cox3d_xs", "--video", path, *options, FORCE_COLOR="1", COLUMNS="200")
    assert result.exit_code == 0, result.output
    shown = result.stdout[result.stdout.rindex("cox3d_xs on") :]  # the last of many
    last = lines("o.jsonl")[-1]
    top = last["top"]
    for one in top:
        assert f"{one['class']} sport [{one['class']}]" in shown
        assert f"{100 * one['probability']:.1f} %" in shown
    for said in ("[b]a.mp4, weights: random", f"at {last['time']:.2f} s; delay 31 steps = 2.07 s", "15 needed", "71/71", "█"):
        assert said in shown
    assert "\x1b[?25l" in result.stdout  # in place


def test_elsewhere_only_the_last_table(tmp_path: Path):
    path = write(tmp_path / "a.mp4", 71)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, "--every", 2)
    assert result.stdout.count("cox3d_xs on") == 1
    assert "%\nat 2." in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("color", ["", "1"])
def test_a_video_that_is_too_short(color: str, tmp_path: Path):
    path = write(tmp_path / "a.mp4", 26, rate=25)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, "--no-end", "--out", "o.jsonl", FORCE_COLOR=color)
    assert result.exit_code == 0, result.output
    assert "26 frames, 3 steps, 0 outputs" in result.stderr
    assert result.stderr.endswith("no output: the first comes with step 32, which needs 311 frames\n")
    assert lines("o.jsonl") == []
    assert ("none yet, after 3 steps" in result.stdout) == bool(color)


def test_a_file_that_ends_before_it_should(tmp_path: Path):
    path = write(tmp_path / "a.mkv", 70)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL)
    assert result.exit_code == 0
    assert "; the file speaks of 70 frames: it may be cut off\n" in result.stderr
    whole = invoke("run", "cox3d_xs", "--video", write(tmp_path / "b.mkv", 70), *SMALL, "--limit", 2)
    assert "cut off" not in whole.stderr


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    whole = video.Video.pictures

    def pictures(self: Any) -> Iterator[Any]:
        for i, picture in enumerate(whole(self)):
            if i == after:
                raise KeyboardInterrupt
            yield picture

    monkeypatch.setattr(video.Video, "pictures", pictures)


@pytest.mark.parametrize("color", ["", "1"])
def test_ctrl_c_ends_with_the_summary(color: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(monkeypatch, 65)
    path = write(tmp_path / "a.mp4", 71)
    result = invoke("run", "cox3d_xs", "--video", path, *SMALL, "--every", 2, "--out", "o.jsonl", FORCE_COLOR=color)
    assert result.exit_code == 130
    assert f"{path} (interrupted): 65 frames, 33 steps, 2 outputs" in result.stderr
    assert "cut off" not in result.stderr
    assert len(lines("o.jsonl")) == 2


def test_a_camera(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(video, "CAMERA", "lavfi")  # pictures that a program makes
    interrupted(monkeypatch, 70)
    result = invoke(
        "run", "cox3d_xs", "--video", "camera:testsrc=size=64x48:rate=30,realtime=speed=3", *SMALL, "--every", 2, FORCE_COLOR="1"
    )
    assert result.exit_code == 0, result.output  # ctrl-C is how a camera ends
    assert "(interrupted): 70 frames, 35 steps, 4 outputs" in result.stderr
    assert "missed" not in result.stderr
    monkeypatch.setattr(video, "DEVICE", "testsrc=size=64x48:rate=1,realtime=speed=30")  # slower than the network would have it
    interrupted(monkeypatch, 5)
    slow = invoke("run", "cox3d_xs", "--video", "camera", *SMALL)
    assert "5 frames, 5 steps, 0 outputs" in slow.stderr
    assert "; 6 steps missed: the network or the camera is too slow" in slow.stderr


def short(name: str = "a.mp4") -> str:
    return str(write(Path(name), 5))


def file(name: str, content: str | bytes = "") -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


BAD: dict[str, Callable[[], tuple[object, ...]]] = {
    "there is no network 'cox3d_q' in the zoo: did you mean 'cox3d_": lambda: ("cox3d_q", "--video", short()),
    "there is no sound in 'a.mp4', and the network takes a signal": lambda: ("kws_ds_cnn", "--video", short()),
    "there is no file 'no.mp4'": lambda: ("cox3d_xs", "--video", "no.mp4"),
    "'.' is a folder without images": lambda: ("cox3d_xs", "--video", "."),
    "'x.mp4' is empty": lambda: ("cox3d_xs", "--video", file("x.mp4")),
    "'x.mp4' can't be opened as a video (Invalid": lambda: ("cox3d_xs", "--video", file("x.mp4", "text")),
    "CoX3D halves frames five times": lambda: ("cox3d_xs", "--video", short(), "--input-size", 16),
    "there is no file 'no.pyth'": lambda: ("cox3d_xs", "--video", short(), "--pretrained", "no.pyth"),
    "'.' is a folder; give a file": lambda: ("cox3d_xs", "--video", short(), "--labels", "."),
    "'l' has 2 labels, one a line, and cox3d_xs gives 400 classes": lambda: (
        ("cox3d_xs", "--video", short(), "--labels", file("l", "a\nb\n"))
    ),
    "'l' has 9 labels": lambda: ("cox3d_xs", "--video", short(), *SMALL, "--labels", file("l", "a\n\n" * 4 + "b")),
    "'l' can't be read as text": lambda: ("cox3d_xs", "--video", short(), "--labels", file("l", b"\xff\xfe\xff")),
    "--sink 'no/o.jsonl' (No such file": lambda: ("cox3d_xs", "--video", short(), "--out", "no/o.jsonl"),
    "--sink '.' is a folder": lambda: ("cox3d_xs", "--video", short(), "--out", "."),
    "--sink './a.mp4' is a file that is read": lambda: ("cox3d_xs", "--video", short(), "--out", "./a.mp4"),
    "--device gpu: can't be used (": lambda: ("cox3d_xs", "--video", short(), "--device", "gpu"),
    "its frames are 2000 × 2": lambda: ("cox3d_xs", "--video", write(Path("t.mkv"), 2, size=(2000, 2), codec="ffv1"), *SMALL),
}


@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(message: str):
    args = BAD[message]()
    before = sorted(p.name for p in Path().iterdir())
    sizes = [p.stat().st_size for p in sorted(Path().iterdir())]
    result = invoke("run", *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if "weights are random" not in line]
    assert len(said) == 1
    assert said[0].startswith("continual run: ")
    assert message in said[0]
    assert sorted(p.name for p in Path().iterdir()) == before
    assert [p.stat().st_size for p in sorted(Path().iterdir())] == sizes


def test_what_is_there_is_kept_when_a_video_is_refused():
    Path("o.jsonl").write_text("of an earlier run\n")
    result = invoke("run", "cox3d_xs", "--video", file("x.mp4", "text"), *SMALL, "--out", "o.jsonl")
    assert result.exit_code == 2
    assert Path("o.jsonl").read_text() == "of an earlier run\n"


def test_damaged_in_the_middle():
    data = bytearray(write(Path("a.mp4"), 70).read_bytes())
    data[9000:-3000] = bytes(len(data) - 12000)
    result = invoke("run", "cox3d_xs", "--video", file("b.mp4", bytes(data)), *SMALL, "--every", 1)
    assert result.exit_code == 2
    assert "continual run: 'b.mp4' is damaged or cut off: frame " in result.stderr


def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch):
    def broken(*given: Any) -> Any:
        net = decided(built(*given))
        net.head.projection.bias.data[3] = float("nan")
        return net

    monkeypatch.setattr(network, "built", broken)
    result = invoke("run", "cox3d_xs", "--video", write(Path("a.mp4"), 40), *SMALL, "--every", 1)
    assert result.exit_code == 2
    assert f"continual run: cox3d_xs gives nan at step {LATER}: its weights are not usable\n" in result.stderr


def test_weights_are_loaded(monkeypatch: pytest.MonkeyPatch):
    given: list[Any] = []
    monkeypatch.setattr(network, "built", lambda *args: (given.append(args), decided(built(*args[:3])))[1])
    options = ("--pretrained", file("x.pyth", "weights"), "--json")
    result = invoke("run", "cox3d_xs", "--video", short(), *SMALL, *options)
    assert result.exit_code == 0, result.output
    assert given == [("cox3d_xs", 7, 32, "x.pyth")]
    assert "random" not in result.stderr
    found = json.loads(result.stdout)
    assert (found["weights"], found["receptive_field"], found["delay"], found["outputs"]) == ("x.pyth", 60, 31, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk():
    result = invoke("run", "cox3d_xs", "--video", write(Path("a.mp4"), 40), *SMALL, "--every", 1, "--out", "/dev/full")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "continual run: can't write to --sink '/dev/full' (No space left on device)"


def test_a_reader_that_has_had_enough():
    """As ``| head -n 1`` does it."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from continual.cli import main; main()"
    video = str(write(Path("a.mp4"), 40))
    args = [sys.executable, "-c", code, "run", "cox3d_xs", "--video", video, *map(str, SMALL), "--every", "1", "--out", "-"]
    done = subprocess.run(args, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1  # that weights are random


def test_the_speed_is_that_of_steps_that_predict():
    tally = command.Tally()
    for predicted, seconds in ((False, 0.1), (False, 0.3)):
        tally.count(1, predicted, seconds)
    assert tally.speed == pytest.approx(5)
    for predicted, seconds in ((True, 1.0), (False, 2.0), (True, 1.0)):
        tally.count(1, predicted, seconds)
    assert tally.speed == pytest.approx(0.75)
    assert (tally.steps, tally.outputs) == (5, 2)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    assert invoke("run", "cox3d_xs", "--video", short(), *SMALL, "--threads", before + 1).exit_code == 0
    assert torch.get_num_threads() == before


def test_help():
    text = " ".join(invoke("run", "--help").output.split())
    assert "Example: continual run cox3d_s --source clip.mp4" in text
    named = "source sink weights pretrained labels classes input-size every out limit top threads columns realtime json"
    for option in (f"--{name}" for name in named.split()):
        assert option in text
    assert co.models.describe("cox3d_s").of_video
