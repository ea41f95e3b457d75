"""`continual models`: the list, the description and the race, and one line for what can't be used."""

from __future__ import annotations

import json
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import continual as co
from continual.cli import bench as command
from continual.cli.app import app
from continual.cli.bench import Times, alive, conditions, race
from continual.cli.zoo import built
from continual.models import zoo
from tests.long import by_turns


def invoke(*args: object, **env: str) -> Any:
    return CliRunner().invoke(app, ["models", *map(str, args)], env={"COLUMNS": "200", "TERM": "xterm", **env})


def value(output: str, name: str) -> str:
    """What stands beside a name in a table."""
    return next(line for line in output.splitlines() if line.startswith(f"{name}  "))[len(name) :].strip()


@pytest.mark.parametrize("args", [(), ("list",)])
def test_the_list(args: tuple[str, ...]):
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    for name in co.models.list():
        card = co.models.describe(name)
        row = re.split("  +", next(x for x in result.stdout.splitlines() if x.startswith(f"{name} ")))
        shape = " × ".join(map(str, card.step(card.input_size)))
        assert row == [name, card.title, shape, str(card.classes), card.dataset]


def test_the_list_as_json():
    found = json.loads(invoke("list", "--json").stdout)
    assert [one["name"] for one in found] == co.models.list()
    one = next(one for one in found if one["name"] == "cox3d_m")
    assert one["step"] == [3, 224, 224]
    assert (one["classes"], one["dataset"], one["every"], one["mean"], one["std"]) == (400, "Kinetics-400", 5, 0.45, 0.225)


def test_a_description():
    result = invoke("describe", "cox3d_s", "--input-size", 48, "--classes", 11)
    assert result.exit_code == 0, result.output
    net = co.models.create("cox3d_s", input_size=48, classes=11)
    row = co.summary(net, torch.zeros(1, 3, 48, 48)).rows[0]
    state = net.init_state(torch.zeros(1, 3, 48, 48))
    assert value(result.stdout, "a step") == "an RGB frame: 3 × 48 × 48"
    assert value(result.stdout, "input size") == "48 (height and width; published: 160)"
    assert value(result.stdout, "classes") == "11 (published: 400, of Kinetics-400)"
    assert value(result.stdout, "rate") == "5 steps per second: one of 6 frames of a video of 30 per second"
    assert value(result.stdout, "pixels") == "between 0 and 1, less 0.45, divided by 0.225"
    assert value(result.stdout, "parameters") == f"{sum(p.numel() for p in net.parameters()):,}"
    assert value(result.stdout, "receptive field") == "69 steps"
    assert value(result.stdout, "delay") == "40 steps = 8,000 ms"
    assert value(result.stdout, "stride") == "1"
    assert value(result.stdout, "multiply-adds") == f"{int(row.macs_step):,} a step"
    assert value(result.stdout, "state") == f"{state.nbytes:,} bytes a stream"
    assert "2106.00050" in value(result.stdout, "paper")
    assert "67.33" in value(result.stdout, "accuracy")


def test_a_description_as_json():
    found = json.loads(invoke("describe", "cox3d_xs", "--input-size", 32, "--json", "--layers").stdout)
    assert (found["receptive_field"], found["delay"], found["delay_ms"], found["stride"]) == (60, 31, 12400, 1)
    net = co.models.create("cox3d_xs", input_size=32)
    rows = co.summary(net, torch.zeros(1, 3, 32, 32)).rows
    assert [layer["path"] for layer in found["layers"]] == [row.path for row in rows]
    assert [layer["macs_per_step"] for layer in found["layers"]] == [row.macs_step for row in rows]
    assert found["macs_per_step"] == rows[0].macs_step > 0
    assert found["state_bytes"] == rows[0].state_bytes
    assert "layers" not in json.loads(invoke("describe", "cox3d_xs", "--input-size", 32, "--json").stdout)


def test_the_layers():
    result = invoke("describe", "cox3d_xs", "--input-size", 32, "--layers")
    net = co.models.create("cox3d_xs", input_size=32)
    table = str(co.summary(net, torch.zeros(1, 3, 32, 32), rate=2.5))
    assert "delay (ms)" in table
    assert table in result.stdout


def thirds(classes: int, size: int) -> dict[str, nn.Module]:
    return {"conv": co.Conv1d(size, 6, 5, stride=3), "norm": nn.BatchNorm1d(6), "conv2": co.Conv1d(6, classes, 3)}


@pytest.fixture
def audio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network in the zoo that is not of video, has no rate and gives an output every third step."""
    fields = {**zoo.card_of("cox3d_xs").__dict__, "name": "audio", "every": None, "rate": None, "accuracy": "", "build": thirds}
    monkeypatch.setitem(zoo.CARDS, "audio", zoo.ModelCard(**{**fields, "input_size": 4, "step": lambda n: (n,), "classes": 2}))


def test_a_network_without_a_rate(audio: None):
    result = invoke("describe", "audio")
    assert value(result.stdout, "delay") == "10 steps"
    assert value(result.stdout, "stride") == "3"
    assert value(result.stdout, "accuracy") == "none was published for it as it is here"
    assert "pixels" not in result.stdout
    assert not [line for line in result.stdout.splitlines() if line.startswith("rate")]
    found = json.loads(invoke("describe", "audio", "--json").stdout)
    assert found["delay_ms"] is None
    assert found["macs_per_step"] == float(Fraction(4 * 6 * 5 + 6 * 2 * 3, 3))
    assert "every" not in found


@pytest.mark.parametrize("color", by_turns(["", "1"], 2))
def test_a_race(color: str):
    result = invoke("bench", "cox3d_xs", "--input-size", 32, "--rounds", 3, "--batch", 2, FORCE_COLOR=color)
    assert result.exit_code == 0, result.output
    assert "cox3d_xs at 3 × 32 × 32: batch 2, 1 thread" in result.stdout
    assert "the clip network on 4 steps" in result.stdout
    assert "3 rounds" in result.stdout
    macs = co.summary(co.models.create("cox3d_xs", input_size=32), torch.zeros(1, 3, 32, 32), clip_length=4).rows[0]
    assert f"{macs.macs_clip / float(macs.macs_step):.2f} ×" in result.stdout
    assert ("filling the state" in result.stderr) == bool(color)
    if color:
        assert "timing" in result.stderr
        assert "3/3" in result.stderr


def test_a_race_with_the_clip_network_of_the_paper():
    result = invoke("bench", "cost_gcn_star", "--input-size", 18, "--rounds", 1)
    assert result.exit_code == 0, result.output
    assert "the clip network cost_gcn on 300 steps" in result.stdout
    ratio = re.search(r"multiply-adds +([0-9.]+) ×", result.stdout)
    assert ratio
    assert float(ratio[1]) == pytest.approx(107.5, rel=0.01)  # 12,048 M of a clip over 112.1 M of a step


def test_a_race_for_each_prediction(audio: None):
    result = invoke("bench", "audio", "--rounds", 2, "--clip-length", 30, "--threads", 2)
    assert result.exit_code == 0, result.output
    assert "one step, 3 steps a prediction" in result.stdout
    assert "the clip network on 30 steps" in result.stdout
    assert "2 threads" in result.stdout
    found = Times([2.0, 1.0], [12.0, 9.0], 3)
    assert found.ratios == [2.0, 3.0]


def test_a_race_as_json(audio: None):
    told = json.loads(invoke("bench", "audio", "--rounds", 2, "--clip-length", 17, "--json").stdout)
    assert (told["network"], told["clip_length"], told["steps_a_prediction"], told["threads"]) == ("audio", 17, 3, 1)
    steps, clips = told["rounds"]["step"], told["rounds"]["clip"]
    assert told["step_ms"] == pytest.approx(1e3 * sum(steps) / 2)
    assert told["ratio"] == pytest.approx(sum(c / (3 * s) for c, s in zip(clips, steps, strict=True)) / 2)


def test_what_is_timed(monkeypatch: pytest.MonkeyPatch, audio: None):
    """Whole periods of a network whose state is full, and clips of the length that was asked for."""
    net = alive(built("audio", None, None))
    calls: list[tuple[str, int]] = []
    step, forward = net.forward_step, net.forward
    monkeypatch.setattr(net, "forward_step", lambda x: (calls.append(("step", x.shape[0])), step(x))[1])
    monkeypatch.setattr(net, "forward", lambda x: (calls.append(("clip", x.shape[2])), forward(x))[1])
    timed: list[tuple[int, int]] = []
    real = command._timed

    def counted(call: Any, count: int) -> float:
        before = len(calls)
        took = real(call, count)
        timed.append((len(calls) - before, count))
        return took

    monkeypatch.setattr(command, "_timed", counted)
    found = race(net, net, 4, 20, 4)
    assert calls[:11] == [("step", 4)] * 11
    assert ("clip", 20) in calls
    assert all(made == count for made, count in timed)
    assert len(timed) == 2 + 8
    assert (len(found.step), len(found.clip), found.steps) == (4, 4, 3)
    assert min(found.step) > 0
    assert net.get_state() is None  # left as it was found


def test_statistics_are_random_and_nothing_is_dead():
    net = alive(built("cox3d_xs", 5, 32))
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm3d))
    assert norm.running_mean.std() > 0.01
    assert 0.1 <= norm.running_var.min() < norm.running_var.max() <= 0.3
    with torch.no_grad():
        one, other = (net(torch.randn(1, 3, 4, 32, 32)) for _ in range(2))
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


def test_conditions_are_undone():
    before = torch.get_num_threads()
    tiny = torch.tensor([1e-40])
    with conditions(before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch.is_inference_mode_enabled()
        assert (tiny * 1.0).item() == 0
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()
    assert (tiny * 1.0).item() > 0


BAD: dict[str, tuple[object, ...]] = {
    "there is no network 'cox3d' in the zoo: did you mean 'cox3d_": ("describe", "cox3d"),
    "there is no network 'x' in the zoo: co.models.list() names all": ("bench", "x"),
    "CoX3D halves frames five times: input_size is at least 32, got 16": ("describe", "cox3d_s", "--input-size", 16),
    "--clip-length 3: cox3d_xs gives nothing for a clip of 3 steps; take more": ("bench", "cox3d_xs", "--clip-length", 3),
}


@pytest.mark.parametrize("message", BAD)
def test_one_clear_line(message: str):
    result = invoke(*BAD[message])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"continual models {BAD[message][0]}: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_help():
    text = " ".join(invoke("--help").output.split())
    for name in ("list", "describe", "bench"):
        assert name in text
    for option in ("--input-size", "--threads", "--rounds", "--batch", "--clip-length"):
        assert option in invoke("bench", "--help").output
    for name in ("models", "run"):
        assert name in CliRunner().invoke(app, ["--help"]).output


def test_only_videos_need_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "av", None)
    assert invoke("list").exit_code == 0
    (tmp_path / "a.mp4").write_bytes(b"video")
    result = CliRunner().invoke(app, ["run", "cox3d_xs", "--video", str(tmp_path / "a.mp4"), "--input-size", "32"])
    assert result.exit_code == 2
    assert "continual run: videos are read with PyAV, which is not installed: pip install av (" in result.stderr
