"""`examples/running`: the inputs are written, and each network says of them what it should."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.streamed import invoke, lines

pytest.importorskip("av")
FOLDER = Path(__file__).parents[2] / "examples" / "running"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in [n for n in sys.modules if n == "nets" or n.startswith("_target_nets")]:
        del sys.modules[name]


def run(net: str, clip: str, source: str, *more: str) -> None:
    makers = runpy.run_path(str(FOLDER / "make_inputs.py"))
    makers[{".wav": "sound", ".edf": "recording", ".csv": "sensor", ".mp4": "film"}[Path(source).suffix]](Path())
    result = invoke("run", f"{FOLDER / 'nets.py'}:{net}", "--clip", clip, "--source", source, *more)
    assert result.exit_code == 0, result.output


def test_the_sound_has_less_hiss():
    run("low_pass", "1,1,600", "tone.wav", "--sink", "clean.wav")
    before, after = (np.abs(np.fft.rfft(soundfile.read(name)[0])) for name in ("tone.wav", "clean.wav"))
    above = len(before) * 600 // 4000  # of 4 kHz
    assert after[above:].max() < 1e-2 * before[above:].max()
    assert after[: above // 2].max() > 0.98 * before[: above // 2].max()


def test_the_film_moves_where_the_ball_is():
    run("movement", "1,3,8,72,128", "ball.mp4", "--labels", "thirds.txt", "--top", "1", "--sink", "o.jsonl", "--limit", "75")
    said = [one["top"][0]["label"] for one in lines()]
    assert (said[15], said[30], said[45]) == ("left", "middle", "right")


def test_the_mean_of_the_room_falls_when_the_heating_fails():
    run("trend", "1,1,200", "room.csv", "--sink", "o.jsonl")
    means = {one["time"] / 86400: one["output"][0] for one in lines()}
    assert (means[4.0], means[6.5]) == (pytest.approx(20, abs=0.2), pytest.approx(16.8, abs=0.2))


def test_the_beats_of_the_ecg():
    pytest.importorskip("pyedflib", reason="needs pyedflib, of the extra `edf`")
    run("beats", "1,1,400", "ecg.edf", "--sink", "o.jsonl")
    values = np.array([json.loads(line)["output"][0] for line in Path("o.jsonl").read_text().splitlines()])
    high = values > values.max() / 2
    assert np.count_nonzero(np.diff(high.astype(int)) == 1) == 5
