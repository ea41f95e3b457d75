"""`continual demo`: runs on the ECG and on own recordings, and refuses bad files with one line."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import continual as co
from continual import cli
from continual.cli import recording
from continual.cli.app import app
from continual.cli.demo import scaled
from continual.cli.denoise import denoiser
from continual.cli.recording import BadRecording, load
from tests.long import by_turns, one_in, some

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


@pytest.fixture
def shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is verified on a clip that it just has outputs for: with the ECG it is verified in full."""
    whole = co.verify
    monkeypatch.setattr(co, "verify", lambda net, clip, **o: whole(net, clip[:, :, : net.receptive_field + 4], splits=1, **o))


def test_the_ecg_is_streamed_and_drawn(tmp_path: Path):
    figure = tmp_path / "out.png"
    result = invoke("demo", "--steps", 3, "--out", figure)
    assert result.exit_code == 0, result.output
    assert figure.read_bytes().startswith(PNG)
    for said in ("1024 samples at 360", "33 steps = 92 ms", "67 steps", "8,944 bytes", "0 failed", "times as long", "µs"):
        assert said in result.output
    difference = float(result.output.split("clip network")[1].split()[0])
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
    co.verify(net, torch.randn(2, 1, 110), reference=plain)


OWN: dict[str, Callable[[Path], None]] = {
    "a.csv": lambda p: p.write_text("\n".join(map(str, signal()))),
    "heading.csv": lambda p: p.write_text("volt\n" + "\n".join(map(str, signal()))),
    "a.npy": lambda p: np.save(p, signal().astype(np.float32)),
    "a.wav": lambda p: write_wav(p, signal()),
    "stereo.wav": lambda p: write_wav(p, signal(), 2),
}


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, signal())
    return file.getvalue()


ROWS = list(enumerate(signal()))
READ: dict[str, Callable[[Path], object]] = {
    **OWN,
    "byte-order-mark.csv": lambda p: p.write_text("\n".join(map(str, signal())), encoding="utf-8-sig"),
    "quotes.csv": lambda p: p.write_text('"volt"\n' + "\n".join(f'"{v}"' for v in signal())),
    "words in a heading.csv": lambda p: p.write_text("volt [mV] of a sensor\n" + "\n".join(map(str, signal()))),
    "comment.csv": lambda p: p.write_text("# a sensor\n\n" + "\n".join(map(str, signal())) + "\n\n"),
    "huge.npy": lambda p: np.save(p, signal() * 1e307),
    "tiny.npy": lambda p: np.save(p, signal() * 1e-300),
    "far from zero.npy": lambda p: np.save(p, signal() + 1e9),
    "whole numbers.npy": lambda p: np.save(p, (signal() * 10_000).astype(np.int16)),
}


@pytest.mark.parametrize("name", READ)
def test_recordings_are_read_and_scaled(name: str, tmp_path: Path):
    READ[name](tmp_path / name)
    found = load(tmp_path / name, None, None, 300)
    assert found.samples.shape == (400,)
    assert found.rate == (500 if name.endswith("wav") else 100)
    want = (signal() - np.median(signal()[:240])) / signal()[:240].std()
    assert scaled(found).numpy() == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("name", by_turns(OWN, 5))
def test_own_recordings(name: str, tmp_path: Path, shortly: None):
    OWN[name](tmp_path / name)
    result = invoke("demo", "--input", tmp_path / name, "--steps", 2, "--out", tmp_path / "o.png")
    assert result.exit_code == 0, result.output
    assert f"400 samples at {500 if name.endswith('wav') else 100} per second" in result.output
    assert ("100 samples per second are assumed" in result.output) != name.endswith("wav")
    assert "taken as the clean signal" in result.output
    assert ("channels are averaged" in result.output) == (name == "stereo.wav")
    assert ("heading: volt" in result.output) == (name == "heading.csv")


def test_another_column_and_rate(tmp_path: Path):
    (tmp_path / "two.csv").write_text("\n".join(f"x,{v}" for v in signal()))
    found = load(tmp_path / "two.csv", 50.0, "2", 300)
    assert np.array_equal(found.samples, signal())
    assert found.rate == 50


@pytest.mark.parametrize("column", ["volt [mV]", "2"])
@pytest.mark.parametrize("separator", [",", ";", "\t", " ; "])
def test_a_column_by_heading_or_number(separator: str, column: str, tmp_path: Path):
    rows = [("time", "volt [mV]"), *ROWS]
    (tmp_path / "two.csv").write_text("\n".join(separator.join(map(str, row)) for row in rows))
    found = load(tmp_path / "two.csv", 50.0, column, 300)
    assert np.array_equal(found.samples, signal())
    assert found.notes == ("the first row is taken as a heading: volt [mV]",)


@pytest.mark.parametrize("heading", ["", "time volt\n"])
def test_columns_between_spaces(heading: str, tmp_path: Path):
    (tmp_path / "two.csv").write_text(heading + "\n".join(f"  {i}   {v} " for i, v in ROWS))
    assert np.array_equal(load(tmp_path / "two.csv", 50.0, "2", 300).samples, signal())


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.wav"])
def test_a_long_recording_is_cut(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "LONGEST", 350)
    OWN[name](tmp_path / name)
    found = load(tmp_path / name, 100.0, None, 300)
    assert found.samples.size == 350
    assert found.notes == ("only the first 350 samples are used, which are enough for a demonstration",)


@one_in(3)
def test_names_are_shown_as_they_are(tmp_path: Path, shortly: None):
    file = tmp_path / "markup[bold]$_$.csv"
    file.write_text("volt [mV]\n" + "\n".join(map(str, signal())))
    result = invoke("demo", "--input", file, "--steps", 2, "--out", tmp_path)
    assert result.output.startswith(f"{file.name}: 400 samples")
    assert "heading: volt [mV]" in result.output
    assert f"figure: {tmp_path / 'ecg_stream.png'}" in result.output
    assert (tmp_path / "ecg_stream.png").read_bytes().startswith(PNG)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.csv": (lambda p: None, "there is no file"),
    "a.txt": (lambda p: p.write_text("1"), "don't know the ending '.txt'"),
    "empty.csv": (lambda p: p.write_text(""), "is empty"),
    "word.csv": (lambda p: p.write_text("1\n2\nthree\n"), "sample 3 is 'three', which is not a number"),
    "binary.csv": (lambda p: p.write_bytes(b"\xff\xfe\x00\x01"), "is not a text file"),
    "nan.csv": (lambda p: p.write_text("\n".join(["1", "2", "nan"] * 200)), "sample 3 is nan; only finite numbers"),
    "comments.csv": (lambda p: p.write_text("# a sensor\n\n"), "has 0 samples, at least 300"),
    "gap.csv": (lambda p: p.write_text("1\n''\n"), "sample 2 is \"''\", which is not a number"),
    "columns.csv": (lambda p: p.write_text("time,volt\n1,2\n"), "has 2 columns (time, volt): choose one with --column"),
    "folder.csv": (lambda p: p.mkdir(), "is a folder"),
    "heading.csv": (lambda p: p.write_text("volt\n"), "has 0 samples, at least 300"),
    "inf.npy": (lambda p: np.save(p, np.r_[1.0, np.inf, np.ones(400)]), "sample 2 is inf"),
    "nothing.npy": (lambda p: np.save(p, np.ones(0)), "has 0 samples, at least 300"),
    "late.npy": (lambda p: np.save(p, np.r_[np.ones(300), signal(100)]), "its first 240 samples are all 1; there is nothing"),
    "archive.npy": (lambda p: p.write_bytes(archive()), "holds NpzFile"),
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


@pytest.mark.parametrize("out", some(("figure.txt", "no/such/folder/figure.png", ""), ("",)))
def test_a_figure_that_can_not_be_saved(out: str, tmp_path: Path):
    (tmp_path / "ecg_stream.png").mkdir()  # in the way, where --out is a folder
    result = invoke("demo", "--steps", 1, "--out", tmp_path / out)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "can't save the figure" in result.stderr


@pytest.mark.parametrize(
    "rows, column, message",
    [
        ("a,b\n1,2\n3,4\n", "3", "there is no column '3', it has a, b"),
        ("1,2\n3,4\n", "3", "there is no column '3', it has 2, without headings"),
        ("a,b\n1,2\n3\n", "b", "is not a text file with a table of numbers (the number of columns changed from 2 to 1 at row 3)"),
    ],
)
def test_a_column_that_is_not_there(rows: str, column: str, message: str, tmp_path: Path):
    (tmp_path / "two.csv").write_text(rows)
    result = invoke("demo", "--input", tmp_path / "two.csv", "--column", column)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_column_of_what_has_none(tmp_path: Path):
    np.save(tmp_path / "a.npy", signal())
    for more in ((), ("--input", tmp_path / "a.npy")):
        result = invoke("demo", "--column", 2, *more)
        assert result.exit_code == 2
        assert "--column chooses from a .csv file" in result.stderr


@pytest.mark.parametrize(
    "option, value", [("--rate", "nan"), ("--rate", "inf"), ("--steps", 0), ("--seed", -1), ("--seed", 2**70)]
)
def test_options_out_of_range(option: str, value: object):
    result = invoke("demo", option, value)
    assert result.exit_code == 2
    assert option in result.stderr


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(cli, "NEEDED", ("rich", "no_such_package"))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "continual: the command line needs no_such_package: pip install no_such_package\n"


def test_recomputing_gives_what_is_streamed():
    plain = denoiser().eval()
    net, clip = co.continual(plain), torch.randn(1, 1, 150)
    with torch.inference_mode():
        streamed = torch.stack([y for x in clip.unbind(2) if (y := net.forward_step(x)) is not None], 2)
        windows = torch.cat([plain(w)[:, :, net.delay :][:, :, :1] for w in clip.unfold(2, net.receptive_field, 1).unbind(2)], 2)
    inside = streamed[:, :, net.receptive_field - 1 - net.delay :]
    assert (inside - windows).abs().max() <= 1e-5 * max(1.0, windows.abs().max())


def test_help_and_version():
    assert co.__version__ in invoke("--version").output
    text = invoke("demo", "--help").output
    for option in ("--input", "--out", "--rate", "--column", "--steps", "--seed"):
        assert option in text


def test_a_wav_that_is_cut_off(tmp_path: Path):
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, signal(), 500, subtype="PCM_16")
    cut, head = tmp_path / "cut.wav", tmp_path / "head.wav"
    cut.write_bytes(whole.read_bytes()[: 44 + 2 * 310])
    head.write_bytes(whole.read_bytes()[:44])
    assert load(whole, None, None, 300).notes == ()
    assert load(cut, None, None, 300).notes == (f"'{cut}' is cut off: its header says {len(signal()):,} samples, and it has 310",)
    with pytest.raises(BadRecording, match=r"head.wav' has a header, and no sample"):
        load(head, None, None, 300)


def test_the_figures_as_json(tmp_path: Path, shortly: None):
    result = invoke("demo", "--steps", 1, "--out", tmp_path / "a.png", "--json")
    told = json.loads(result.stdout)
    assert (told["samples"], told["delay"], told["receptive_field"], told["state_bytes"]) == (1024, 33, 67, 8944)
    assert 0 < told["largest_difference"] < 1e-5
    assert "1024 samples at 360" in result.stderr
