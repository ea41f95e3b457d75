"""`continual run` on signals: whatever they come from, outputs equal those of the clip network; what does not fit is said in a line."""

from __future__ import annotations

import http.server
import itertools
import json
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import continual as co
from continual.cli.sources import sound
from tests.cli.streamed import LENGTH, RATE, SMOOTH, equal, invoke, lines, network, signal, wanted
from tests.long import one_in

pytestmark = pytest.mark.usefixtures("nets_folder")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])


def wav(name: str = "a.wav", frames: np.ndarray | None = None, rate: int = RATE, subtype: str = "FLOAT") -> str:
    soundfile.write(name, signal() if frames is None else frames, rate, subtype=subtype)
    return name


def csv(name: str = "a.csv", mark: str = ",", head: str = "") -> str:
    rows = [mark.join(repr(float(x)) for x in row) for row in signal()]
    Path(name).write_text("\n".join([*([head] if head else []), *rows]) + "\n")
    return name


def timed(name: str = "t.csv") -> str:
    rows = (f"{5 + i / 200!r},{a!r},{b!r}" for i, (a, b) in enumerate(signal().tolist()))
    Path(name).write_text("\n".join(["time,left,right", *rows, ""]))
    return name


def npy(name: str = "a.npy") -> str:
    np.save(name, signal().astype(np.float64))
    return name


def jsonl(name: str = "a.jsonl") -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in signal().tolist()))
    return name


def edf(name: str = "a.edf") -> str:
    pyedflib = pytest.importorskip("pyedflib", reason="needs pyedflib, of the extra `edf`")
    frames = signal(1500)
    with pyedflib.EdfWriter(name, 3) as file:
        for i, (label, rate) in enumerate((("Fp1", 100), ("Fp2", 100), ("SpO2", 1))):
            header = {"label": label, "dimension": "uV", "sample_frequency": rate, "physical_max": 1, "physical_min": -1}
            file.setSignalHeader(i, {**header, "digital_max": 32767, "digital_min": -32768, "transducer": "", "prefilter": ""})
        file.writeSamples([*np.ascontiguousarray(frames.T.astype(np.float64)), np.linspace(0, 1, 15)])
    return name


def wfdb(name: str = "a.hea") -> str:
    package = pytest.importorskip("wfdb", reason="needs wfdb, of the extra `wfdb`")
    warnings.simplefilter("ignore")  # pytest restores the filters after the test
    package.wrsamp("a", 250, ["mV", "mV"], ["I", "II"], p_signal=signal().astype(np.float64), fmt=["24", "24"])
    return name


def parquet(name: str = "a.parquet") -> str:
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow, of the extra `parquet`")
    import pyarrow.parquet

    columns = {"time": np.arange(LENGTH) / 50, "a": signal()[:, 0], "b": signal()[:, 1]}
    pyarrow.parquet.write_table(arrow.table(columns), name)
    return name


SOURCES: dict[str, tuple[Callable[[], str], float | None]] = {  # and their frames per second
    "wav": (wav, RATE),
    "flac": (lambda: wav("a.flac", signal().round(2), subtype="PCM_16"), RATE),
    "csv": (csv, None),
    "csv of marks and headings": (lambda: csv("a.csv", ";", "left;right"), None),
    "csv of spaces, with comments": (lambda: csv("a.csv", "  ", "# of a sensor\n"), None),
    "csv with moments": (timed, 200),
    "npy": (npy, None),
    "json lines": (jsonl, None),
    "edf": (edf, 100),
    "wfdb": (wfdb, 250),
    "parquet": (parquet, 50),
}
COARSE = {"flac": 5e-3, "edf": 2e-4, "wfdb": 1e-5}  # what the format rounds to


@pytest.mark.parametrize("kind", SOURCES)
def test_outputs_equal_the_clip_network(kind: str):
    make, rate = SOURCES[kind]
    result = invoke("run", *SMOOTH, "--source", make(), "--sink", "o.jsonl", "--json")
    assert result.exit_code == 0, result.output
    found, want = lines(), wanted(signal(1500 if kind == "edf" else LENGTH))
    equal([one["output"] for one in found], want, COARSE.get(kind, 1e-5))
    assert [one["index"] for one in found[:3]] == [1, 3, 5]  # after R - 1 = 7 steps less 3 of padding and less 3 to come
    for one in found[:-1]:
        assert one["time"] == (None if rate is None else pytest.approx(one["index"] / rate, abs=1e-9))
    told = json.loads(result.stdout)
    assert (told["frames"], told["outputs"], told["dropped"]) == (len(signal(1500 if kind == "edf" else LENGTH)), len(want), 0)
    assert told["delay_ms"] == (None if rate is None else pytest.approx(1000 * 4 / rate))


def test_signals_of_a_lower_rate_are_left_out_with_a_note():
    result = invoke("run", *SMOOTH, "--source", edf())
    assert "signals of fewer than 100 samples per second are left out: SpO2 (1)" in result.stderr


def test_a_rate_gives_moments_to_what_has_none():
    assert invoke("run", *SMOOTH, "--source", npy(), "--rate", 50, "--sink", "o.jsonl").exit_code == 0
    assert [one["time"] for one in lines()[:3]] == [0.02, 0.06, 0.1]


def test_an_exported_file_runs_like_its_network():
    pytest.importorskip("onnxruntime")
    co.export(co.continual(network()), torch.zeros(1, 2), "net.onnx", rate=RATE)
    result = invoke("run", "net.onnx", "--source", wav(), "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(signal()), 1e-4)
    assert [one["index"] for one in lines()[:3]] == [1, 3, 5]


def test_a_network_with_time_elsewhere():
    result = invoke("run", "nets.py:Turned", "--clip", "1,40,2", "--time-dim", 1, "--source", wav(), "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], np.asarray(clip_of_turned()), 1e-5)


def clip_of_turned() -> np.ndarray:
    with torch.no_grad():
        return network("Turned")(torch.from_numpy(signal()).unsqueeze(0))[0].numpy()


def test_a_network_of_several_outputs_a_step():
    frames = signal(301)
    options = ("--source", wav(frames=frames), "--sink", "o.jsonl", "--sink", "o.wav")
    result = invoke("run", "nets.py:up", "--clip", "1,2,40", *options)
    assert result.exit_code == 0, result.output
    with torch.no_grad():
        want = network("up")(torch.from_numpy(frames).T.unsqueeze(0))[0].T.numpy()
    equal([one["output"] for one in lines()], want)
    assert [round(b["time"] - a["time"], 9) for a, b in itertools.pairwise(lines()[4:40])] == [1 / RATE / 2] * 35
    samples, rate = soundfile.read("o.wav", always_2d=True)
    assert rate == 2 * RATE
    equal(samples, want)


@pytest.mark.parametrize("columns, take", [("2", [1]), ("right", [1]), ("mean", None), ("right,left", [1, 0])])
def test_columns(columns: str, take: list[int] | None):
    frames = signal().mean(1, keepdims=True) if take is None else signal()[:, take]
    net = ("nets.py:smooth", "--arg", f"channels={frames.shape[1]}", "--clip", f"1,{frames.shape[1]},40")
    result = invoke("run", *net, "--source", timed(), "--columns", columns, "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(frames, channels=frames.shape[1]))


def test_a_limit_and_no_end():
    result = invoke("run", *SMOOTH, "--source", wav(), "--limit", 1100, "--sink", "o.jsonl")
    assert "1,100 frames, 1,100 steps, 548 outputs" in result.stderr
    equal([one["output"] for one in lines()], wanted(signal())[:548])
    result = invoke("run", *SMOOTH, "--source", wav(), "--no-end", "--sink", "o.jsonl")
    assert len(lines()) == 749 < len(wanted(signal()))


def test_in_real_time_a_file_comes_in_small_blocks():
    frames = signal(41)
    result = invoke("run", *SMOOTH, "--source", wav(frames=frames, rate=400), "--realtime", "--sink", "o.jsonl", "--json")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(frames))
    assert json.loads(result.stdout)["dropped"] == 0


# ---- gaps ------------------------------------------------------------------------------------------------------------------------


def lossy(name: str = "lossy.csv") -> tuple[str, np.ndarray]:
    """A file of 20 frames a second without some of its rows and with rows that hold no numbers; and what "hold" makes of it."""
    frames, lost, empty = signal(90).astype(np.float64), {7, 8, 30}, {50}
    rows = [
        f"{i / 20!r},{a!r},{b!r}" if i not in empty else f"{i / 20!r},,{b!r}"
        for i, (a, b) in enumerate(frames.tolist())
        if i not in lost
    ]
    Path(name).write_text("\n".join(["time,a,b", *rows, ""]))
    held = frames.copy()
    for i in sorted(lost | empty):
        held[i] = held[i - 1]
    return name, held


def test_gaps_are_filled_by_the_stamps():
    path, held = lossy()
    result = invoke("run", *SMOOTH, "--source", path, "--gaps", "hold", "--sink", "o.jsonl", "--json")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(held))
    assert [one["time"] for one in lines()] == pytest.approx([(1 + 2 * j) / 20 for j in range(45)])
    gaps = {one["index"] for one in lines() if "gap" in one.get("flags", ())}
    assert {7, 9, 29, 31, 51} <= gaps
    assert not {21, 23, 41, 61} & gaps
    assert "warming_up" in lines()[0]["flags"]
    told = json.loads(result.stdout)
    assert (told["gaps"]["missing"], told["gaps"]["interpolated"], told["outputs"]) == (4, 0, 45)
    assert "of them 4 missing" in result.stderr
    refused = invoke("run", *SMOOTH, "--source", path, "--gaps", "error", "--sink", "o.jsonl")
    assert refused.exit_code == 2
    assert "missing" in refused.stderr


def test_a_signal_of_another_rate_is_resampled_where_it_is_asked_for():
    options = ("--source", timed(), "--rate", 100, "--gaps", "interpolate", "--sink", "o.jsonl")
    result = invoke("run", *SMOOTH, *options)
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(signal()[::2]), 1e-4)
    assert lines()[3]["time"] == pytest.approx(0.07)


# ---- sound that is cut off -----------------------------------------------------------------------------------------------------


def test_a_wav_with_fewer_samples_than_its_header_says():
    whole = Path(wav(subtype="PCM_16")).read_bytes()
    Path("cut.wav").write_bytes(whole[: 44 + 4 * 1000])
    result = invoke("run", *SMOOTH, "--source", "cut.wav", "--sink", "o.jsonl")
    assert result.exit_code == 0, result.output
    assert f"'cut.wav' is cut off: its header says {LENGTH:,} samples, and it has 1,000" in result.stderr
    assert len(lines()) == len(wanted(signal(1000)))
    result = invoke("run", *SMOOTH, "--source", "a.wav", "--sink", "o.jsonl")
    assert "cut off" not in result.stderr


def test_a_wav_with_a_header_alone():
    whole = Path(wav(subtype="PCM_16")).read_bytes()
    Path("head.wav").write_bytes(whole[:44])
    result = invoke("run", *SMOOTH, "--source", "head.wav", "--sink", "o.jsonl")
    assert result.exit_code == 2
    assert result.stderr == "continual run: 'head.wav' has a header, and no sample\n"
    assert not Path("o.jsonl").exists()


def test_the_header_of_a_pipe_leaves_the_length_open():
    head = bytearray(Path(wav(subtype="PCM_16")).read_bytes()[:44])
    for size in (0, 0xFFFFFFFF):
        head[40:44] = struct.pack("<I", size)
        Path("open.wav").write_bytes(head)
        assert sound.samples_of_header(Path("open.wav")) is None
    assert sound.samples_of_header(Path("a.wav")) == LENGTH
    assert sound.samples_of_header(Path(wav("f.wav"))) == LENGTH  # with further parts before the samples


# ---- what does not fit ---------------------------------------------------------------------------------------------------------

BAD: dict[str, Callable[[], tuple[object, ...]]] = {
    "has 3 numbers in a frame (1, 2, 3), and the network takes steps of 2 (2,): choose with --columns": lambda: (
        (*SMOOTH, "--source", wav(frames=signal(50, 3)))
    ),
    "has 1 numbers in a frame (1), and the network takes steps of 2": lambda: ((*SMOOTH, "--source", wav(frames=signal(50, 1)))),
    "--columns mid: 't.csv' has 2 numbers in a frame (left, right)": lambda: (*SMOOTH, "--source", timed(), "--columns", "mid"),
    "'a.wav' has 8000 frames per second, and the network takes 16000: convert": lambda: (
        (*SMOOTH, "--source", wav(), "--rate", 16000)
    ),
    "'b.csv': row 3 is '0.5,word', not 2 numbers": lambda: (*SMOOTH, "--source", text("b.csv", "a,b\n1,2\n0.5,word\n")),
    "'b.csv': frame 2 is not a finite number": lambda: (*SMOOTH, "--source", text("b.csv", "1,2\n0.5,\n")),
    "'b.csv' has headings, and no row of numbers": lambda: (*SMOOTH, "--source", text("b.csv", "a,b\n")),
    "--realtime: 'a.npy' does not say how many frames": lambda: (*SMOOTH, "--source", npy(), "--realtime"),
    "--gaps hold: 'a.npy' does not say how many frames": lambda: (*SMOOTH, "--source", npy(), "--gaps", "hold"),
    "--gaps often: Stream: gaps is one of": lambda: (*SMOOTH, "--source", wav(), "--gaps", "often"),
    "'b.csv' is empty": lambda: (*SMOOTH, "--source", text("b.csv", "")),
    "'b.npy' can't be read as an array": lambda: (*SMOOTH, "--source", text("b.npy", "numbers")),
    "'b.wav' can't be read as sound": lambda: (*SMOOTH, "--source", text("b.wav", "sound")),
    "'b.jsonl': frame 2 is '[1, oops': give a JSON array": lambda: ((*SMOOTH, "--source", text("b.jsonl", "[1, 2]\n[1, oops\n"))),
    "there is no file 'no.wav'. --source takes a video": lambda: (*SMOOTH, "--source", "no.wav"),
    "'d' is a folder without images": lambda: (*SMOOTH, "--source", folder("d")),
    "--sink 'o.txt': don't know the ending '.txt'": lambda: (*SMOOTH, "--source", wav(), "--sink", "o.txt"),
    "--sink 'o.csv' is given twice": lambda: (*SMOOTH, "--source", wav(), "--sink", "o.csv", "--sink", "o.csv"),
    "--sink 'o.wav' needs a whole number of outputs per second, and there are None": lambda: (
        (*SMOOTH, "--source", npy(), "--sink", "o.wav")
    ),
    "--sink 'o.mp4' shows the pictures of a video, and the source is a signal": lambda: (
        (*SMOOTH, "--source", wav(), "--sink", "o.mp4")
    ),
    "can't connect to 'ws://127.0.0.1:9'": lambda: (*SMOOTH, "--source", "ws://127.0.0.1:9"),
    "nets.py:smooth needs an example: --clip": lambda: ("nets.py:smooth", "--source", wav()),
}


def text(name: str, content: str) -> str:
    Path(name).write_text(content)
    return name


def folder(name: str) -> str:
    Path(name).mkdir()
    return name


@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(message: str):
    result = invoke("run", *BAD[message]())
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 + ("moments" in result.stderr)
    assert message in result.stderr


# ---- connections ---------------------------------------------------------------------------------------------------------------


@contextmanager
def over_http() -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def test_sound_from_an_address():
    wav()
    with over_http() as address:
        result = invoke("run", *SMOOTH, "--source", f"{address}/a.wav", "--sink", "o.jsonl")
        missing = invoke("run", *SMOOTH, "--source", f"{address}/no.wav")
    assert result.exit_code == 0, result.output
    equal([one["output"] for one in lines()], wanted(signal()))
    assert missing.exit_code == 2
    assert "/no.wav' can't be opened" in missing.stderr


def test_from_one_websocket_to_another():
    server = pytest.importorskip("websockets.sync.server")
    sent, got = signal(60), []

    def handler(connection: object) -> None:
        if connection.request.path == "/in":  # type: ignore[attr-defined]
            for i, frame in enumerate(sent):  # as numbers, as objects with a moment, and as bytes
                connection.send((json.dumps(frame.tolist()), frame.tobytes())[i % 2])  # type: ignore[attr-defined]
            return
        got.extend(json.loads(message) for message in connection)  # type: ignore[attr-defined]

    with server.serve(handler, "127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        address = f"ws://127.0.0.1:{serving.socket.getsockname()[1]}"
        result = invoke("run", *SMOOTH, "--source", f"{address}/in", "--rate", 10, "--sink", f"{address}/out")
        serving.shutdown()
    assert result.exit_code == 0, result.output
    want = wanted(sent)[: len(got)]
    assert len(got) == 28  # a connection has no end that a clip has
    equal([one["output"] for one in got], want)
    assert got[0]["time"] == pytest.approx(0.1)


@one_in(3)  # two further processes
def test_pipes_from_one_network_to_another(tmp_path: Path):
    """JSON lines go from one command to the next; the second takes what the first gives."""
    program = [sys.executable, "-m", "continual", "run"]
    first = [*program, *SMOOTH, "--source", npy(), "--sink", "-"]
    second = [*program, "nets.py:smooth", "--arg", "channels=3", "--clip", "1,3,40", "--source", "-", "--sink", "o.jsonl"]
    with subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as giving:
        done = subprocess.run(second, stdin=giving.stdout, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    equal([one["output"] for one in lines()], wanted(wanted(signal()), channels=3))
