"""Sinks of `continual run`: what is written holds the outputs of the clip network."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from rich.table import Table

from continual.cli import tables
from continual.cli.feeds import Feed
from continual.cli.sinks.base import About, Result, Sink
from continual.cli.sinks.closer import draw_closer
from continual.cli.sinks.figure import LONGEST, STRIP, Figure
from continual.cli.sinks.rows import Parquet
from tests.cli.streamed import RATE, SMOOTH, equal, invoke, lines, signal, wanted

pytestmark = pytest.mark.usefixtures("nets_folder")


ABOUT = About("a network on a signal", 100.0, 2.0, "4 steps = 40 ms")


def test_all_sinks_at_once():
    soundfile.write("a.wav", signal(), RATE, subtype="FLOAT")
    sinks = [f"--sink=o.{ending}" for ending in ("jsonl", "csv", "wav", "png", "svg")]
    result = invoke("run", *SMOOTH, "--source", "a.wav", *sinks)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    want = wanted(signal())
    equal([one["output"] for one in lines()], want)
    assert set(lines()[9]) == {"index", "time", "output"}
    assert lines()[0]["flags"] == ["warming_up"]
    heads, *rows = Path("o.csv").read_text().splitlines()
    assert heads == "index,time,output_0,output_1,output_2"
    equal([[float(x) for x in row.split(",")[2:]] for row in rows], want)
    assert [float(rows[2].split(",")[i]) for i in (0, 1)] == [5, 5 / RATE]
    samples, rate = soundfile.read("o.wav", always_2d=True)
    assert rate == RATE / 2
    equal(samples, want)
    assert Path("o.png").read_bytes()[:4] == b"\x89PNG"
    svg = Path("o.svg").read_text()
    assert "<svg" in svg
    assert svg.count("<path") > 20


def test_standard_output_and_the_summary_as_json():
    soundfile.write("a.wav", signal(60), RATE, subtype="FLOAT")
    result = invoke("run", *SMOOTH, "--source", "a.wav", "--sink", "-", "--json")
    equal([json.loads(line)["output"] for line in result.stdout.splitlines()], wanted(signal(60)))
    assert json.loads(result.stderr[: result.stderr.rindex("continual run:")])["outputs"] == 30


@pytest.mark.parametrize("columns", ["30", "200"])
def test_on_the_screen(columns: str):
    soundfile.write("a.wav", signal(60), RATE, subtype="FLOAT")
    result = invoke("run", *SMOOTH, "--source", "a.wav", FORCE_COLOR="1", COLUMNS=columns)
    assert result.exit_code == 0, result.output
    last = wanted(signal(60))[-1]
    assert f"{last[2]:.5g}"[:6] in result.stdout
    assert "delay 4 steps = 0.5 ms" in result.stdout
    assert ("┃" in result.stdout) == (columns == "200")  # drawn where there is room
    assert ("frames" in result.stdout) == (columns == "200")


def test_scores_of_the_users_network_have_labels():
    soundfile.write("a.wav", signal(60), RATE, subtype="FLOAT")
    Path("names").write_text("a\nb\nc\n")
    result = invoke("run", *SMOOTH, "--source", "a.wav", "--labels", "names", "--top", 2, "--sink", "o.jsonl", "--sink", "o.png")
    assert result.exit_code == 0, result.output
    for one, want in zip(lines(), wanted(signal(60)), strict=True):
        shares = np.exp(want - want.max()) / np.exp(want - want.max()).sum()
        assert [t["class"] for t in one["top"]] == list(np.argsort(-shares)[:2])
        assert [t["probability"] for t in one["top"]] == pytest.approx(np.sort(shares)[::-1][:2], rel=1e-4)
        assert one["top"][0]["label"] == "abc"[one["top"][0]["class"]]
    Path("names").write_text("a\nb\n")
    result = invoke("run", *SMOOTH, "--source", "a.wav", "--labels", "names")
    assert "'names' has 2 labels, one a line, and nets.py:smooth gives 3 classes" in result.stderr


def test_parquet():
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, of the extra `parquet`")
    sink = Parquet("o.parquet")
    for i in range(5000):
        sink.write(Result(i, i / 10, np.array([i, -i], np.float32)))
    sink.close()
    table = parquet.read_table("o.parquet")
    assert table.column_names == ["index", "time", "output_0", "output_1"]
    assert table["index"].to_pylist() == list(range(5000))
    assert table["time"][4999].as_py() == 499.9
    assert table["output_1"][4998].as_py() == -4998


def test_a_picture_of_an_endless_stream_stays_bounded():
    figure = Figure("o.png", ABOUT)
    frames = np.zeros((LONGEST // 4, 2))
    for _ in range(5):
        figure.saw(frames, [None] * len(frames))
    assert len(figure._inputs) == LONGEST
    from tests.cli.test_video import Turned

    picture = type("P", (), {"frame": Turned(np.zeros((4, 6, 3), np.uint8), 0)})()
    for i in range(1000):
        figure.write(Result(i, i / 10, np.zeros(3, np.float32), picture=picture))  # type: ignore[arg-type]
    kept = [at for at, _ in figure._pictures]
    assert STRIP <= len(kept) < 2 * STRIP
    assert len({round(b - a, 6) for a, b in itertools.pairwise(kept)}) == 1  # evenly apart
    assert kept[0] == 0
    assert kept[-1] > 80


@pytest.mark.parametrize("rate", [None, 50.0])
def test_a_closer_look_at_one_output(rate: float | None):
    matplotlib = pytest.importorskip("matplotlib.figure")
    axis, step = matplotlib.Figure().subplots(), 1.0 if rate is None else 1 / rate
    at, numbers = np.arange(60) * step, np.random.default_rng(0).standard_normal((60, 2)) * [1, 9]
    about = About("a network", rate, 1.0, "3 steps", sees=8, lookahead=3)
    assert draw_closer(axis, about, (at, numbers), (at[:57], numbers[:57]), 1.0)
    moment = 37 * step  # that of the output nearest to two thirds of 56 steps
    assert [line.get_xdata()[0] for line in axis.lines[1:]] == pytest.approx([moment, moment + 3 * step])
    seen = axis.patches[0].get_window_extent().transformed(axis.transData.inverted())
    assert (seen.x0, seen.x1) == pytest.approx(
        (moment - 4.5 * step, moment + 3.5 * step)
    )  # 8 steps, up to the one that it comes with
    shown = axis.lines[0].get_xydata()
    assert shown[:, 1] == pytest.approx(numbers[[round(x / step) for x in shown[:, 0]], 1])  # of the channel that moves most
    said = [text.get_text() for text in axis.get_legend().get_texts()]
    assert said[0] == ("sees 8 steps" if rate is None else "sees 8 steps = 160 ms")
    for sees in (None, 10**6):  # all there was before, or too much to draw
        other = About("a network", rate, 1.0, "3 steps", sees=sees, lookahead=3)
        assert not draw_closer(axis, other, (at, numbers), (at, numbers), 1.0)


def test_a_picture_without_outputs_is_not_drawn():
    Figure("o.png", ABOUT).close()
    assert not Path("o.png").exists()


def test_tables_are_text_where_there_is_no_room(capsys: pytest.CaptureFixture[str]):
    table = Table("name", "what", title="All", caption="the end")
    table.add_row("a", "first\nsecond")
    table.add_row("long", "x" * 200)
    wanted = ["All", "name  what", "a     first", "      second", f"long  {'x' * 200}", "the end"]
    assert tables.plain(table) == wanted
    tables.show(table, Console(width=40, force_terminal=True, color_system=None))
    assert capsys.readouterr().out.splitlines() == wanted
    tables.show(table, Console(width=100))  # a pipe
    assert capsys.readouterr().out.splitlines() == wanted
    tables.show(table, Console(width=100, force_terminal=True, color_system=None))
    assert "│" in capsys.readouterr().out


@pytest.mark.parametrize("base, method", [(Sink, "write"), (Feed, "__iter__")])
def test_a_class_without_its_method_can_not_be_made(base: type, method: str):
    with pytest.raises(TypeError, match=f"abstract.*{method}"):
        type("Incomplete", (base,), {})()
