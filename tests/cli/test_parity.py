"""`continual export --check`: a file that does what its network does passes, and one that differs is found out, with the place."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from continual.cli.parity import Clock, Example, Parity, enough, refuse_few, stream, whole
from continual.cli.target import BadInput
from continual.export.metadata import Port
from tests.cli.exports import CLIP, invoke, net, value
from tests.export.artefacts import needs

pytestmark = pytest.mark.usefixtures("networks")


def exported(*args: object) -> dict[str, Any]:
    """What JSON says of an export that is checked and passes."""
    needs("onnx")
    result = invoke("export", *args, "--check", "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("unwritten")
def test_check_shows_the_contract_and_the_steps():
    result = invoke("export", "export_nets:net", "net.onnx", *CLIP, "--check")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "Runner on a clip (2, 2, 15) float32, tolerance 1e-05" in result.stdout
    assert "no output held back" in result.stdout
    assert "0 failed" in result.stdout
    assert "1,000 steps from a cold start" in result.stdout
    count = net().timing.delivered(1000)
    assert f"{count} of the file, {count} of the network" in result.stdout
    assert "(allowed: 1e-05)" in value(result.stdout, "largest difference")[0]
    assert value(result.stdout, "the file")[0].endswith(" steps per second")
    assert value(result.stdout, "the network, eager")[0].endswith(" steps per second")
    assert result.stdout.endswith("passed: the file computes what the network does\n")


def test_check_of_several_inputs_and_other_numbers():
    found = exported("export_nets:pair", "a.onnx", "--clip", "2,2,9", "--clip", "2,3,9", "--dtype", "float64", "--steps", 30)
    assert [p["dtype"] for p in found["inputs"]] == ["float64", "float64", "int64"]
    assert found["check"]["stream"]["tolerance"] == 1e-12
    assert (found["check"]["stream"]["steps"], found["check"]["stream"]["outputs"]) == (30, 29)
    assert {c["outcome"] for c in found["check"]["contract"]} == {"passed", "skipped"}


def test_check_of_a_layout_with_time_elsewhere_and_words():
    found = exported("export_nets:words", "a.onnx", "--clip", "2,9", "--dtype", "int64", "--time-dim", 1, "--steps", 30)
    assert found["inputs"][0] == {"name": "x", "dtype": "int64", "shape": [None, 1]}
    assert [p["name"] for p in found["outputs"]] == ["y", "y1", "valid"]
    assert found["unbounded"] is True
    assert found["check"]["stream"]["outputs"] == 30


def test_check_of_several_outputs_a_step():
    found = exported("export_nets:up", "a.onnx", *CLIP, "--steps", 30)
    assert found["check"]["stream"]["outputs"] == net_of("up").timing.delivered(30) == 58
    assert found["check"]["stream"]["where"] == "" or " of output " in found["check"]["stream"]["where"]


def net_of(name: str) -> Any:
    """One of the networks of the file, which has been imported."""
    return getattr(sys.modules["export_nets"], name)


def test_check_of_chunks_that_are_larger_than_need_be():
    """Outputs wait for the last step of a chunk, and steps go on to the end of one; clips end in the middle of one."""
    found = exported("export_nets:net", "a.onnx", *CLIP, "--chunk", 6, "--batch", 2, "--steps", 30)
    assert (found["chunk"], found["batch"]) == (6, 2)
    count = found["check"]["stream"]["steps"]
    assert 30 <= count < 36
    assert (count - co.load("a.onnx").metadata.start) % 6 == 0
    assert {c["name"]: c["detail"] for c in found["check"]["contract"]}["delay"] == "3, and 2 in a chunk of 6"


def test_check_of_streams_that_do_not_end():
    needs("onnx")
    result = invoke("export", "export_nets:net", "net.onnx", *CLIP, "--no-flush", "--check", "--steps", 30)
    assert result.exit_code == 0, result.output
    assert value(result.stdout, "inputs") == ["x float32 (B, 2, 2)"]
    assert value(result.stdout, "streams may end") == ["no"]
    assert "the contract was not checked: it needs streams that end" in result.stdout
    assert "30 steps from a cold start" in result.stdout


@pytest.mark.usefixtures("unwritten")
def test_check_finds_a_file_of_other_weights():
    args = ("export", "export_nets:net", "net.onnx", "--clip", "1,2,9", "--arg", "off=1e-3", "--check", "--steps", 30)
    result = invoke(*args)
    assert result.exit_code == 1
    assert value(result.stdout, "largest difference") == ["1.0e-03 of the output's largest value (allowed: 1e-05)"]
    assert value(result.stdout, "there")[0].startswith("y[0, 1] of output ")
    assert "FAIL" in result.stdout
    assert result.stdout.endswith("failed: the file does not compute what the network does\n")
    result = invoke(*args, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["check"]
    assert found["passed"] is found["stream"]["passed"] is False
    assert found["stream"]["largest_difference"] == pytest.approx(1e-3, rel=1e-2)
    assert "failed" in {c["outcome"] for c in found["contract"]}


class Faulty:
    """A loaded file in which one step's output is made another."""

    def __init__(self, path: Path, at: int, change: Any):
        self._runner, self._at, self._change, self._count = co.load(path), at, change, 0
        self.metadata = self._runner.metadata

    def clean_state(self) -> None:
        self._runner.clean_state()
        self._count = 0

    def forward_step(self, x: Any) -> Any:
        y = self._runner.forward_step(x)
        self._count += 1
        return self._change(y) if self._count == self._at else y


def _plus(y: Tensor) -> Tensor:
    y[0, 1] += 2.0
    return y


def streamed(path: Path, at: int, change: Any, steps: int = 20) -> Parity:
    runner: Any = Faulty(path, at, change)
    example = Example(runner.metadata.inputs, 1, 2, torch.Generator().manual_seed(0))
    return stream(net(), runner, example.steps(), steps, lambda done: None)


def test_the_place_of_the_largest_difference(made: Path):
    right = streamed(made, 0, None)
    assert right.passed
    assert (right.compared, right.difference < 1e-5) == (net().timing.delivered(20), True)
    wrong = streamed(made, 12, _plus)
    assert not wrong.passed
    assert wrong.difference > 1e-2
    assert wrong.where == f"y[0, 1] of output {net().timing.delivered(12) - 1}, after step 12"
    assert wrong.compared == right.compared


@pytest.mark.parametrize("change", [lambda y: y * torch.nan, lambda y: y[:, :1]], ids=["nan", "shape"])
def test_what_is_no_number_or_of_another_shape_is_a_difference(made: Path, change: Any):
    found = streamed(made, 12, change)
    assert not found.passed
    assert found.difference == float("inf")


def test_an_output_that_does_not_come_or_is_too_much(made: Path):
    last = streamed(made, 20, lambda y: None)
    assert last.difference < 1e-5  # all that came is right
    assert (last.file.outputs, last.network.outputs, last.passed) == (last.compared, last.compared + 1, False)
    early = streamed(made, 1, lambda y: torch.zeros(1, 2))
    assert (early.file.outputs, early.passed) == (early.network.outputs + 1, False)


def test_a_stream_starts_cold_and_leaves_nothing_behind(made: Path):
    model, runner = net(), co.load(made)
    model.forward_steps(torch.randn(1, 2, 9))
    runner.forward_steps(torch.randn(1, 2, 8))
    example = Example(runner.metadata.inputs, 1, 2, torch.Generator().manual_seed(0))
    assert stream(model, runner, example.steps(), 12, lambda done: None).passed
    assert model.get_state() is None
    assert runner.get_state() is None


def test_examples():
    ports = (Port("x", (None, 2, 1), "float32", 2), Port("x1", (None, 1), "int64", 1), Port("x2", (None, 4), "float32"))
    example = Example(ports, 3, 5, torch.Generator().manual_seed(0))
    assert [tuple(t.shape) for t in example.clip(7)] == [(3, 2, 7), (3, 7), (3, 4)]
    first, second = itertools.islice(example.steps(), 2)
    assert [tuple(t.shape) for t in first] == [(3, 2), (3,), (3, 4)]
    assert first[2] is second[2]
    assert not torch.equal(first[0], second[0])
    words = example.clip(200)[1]
    assert (int(words.min()), int(words.max())) == (0, 4)
    assert Example(ports[:1], 1, 2, torch.Generator()).clip(3).shape == (1, 2, 3)


def test_lengths():
    model = net()  # receptive field 7, stride 2
    assert [enough(model, n) for n in (1, 8, 13, 14, 15, 16, 99)] == [15, 14, 15, 14, 15, 16, 99]
    with pytest.raises(BadInput, match="--steps 3: the first output comes with step 4; take more"):
        refuse_few(model, 3)
    refuse_few(model, 4)


def test_steps_go_to_the_end_of_a_chunk(made: Path):
    metadata = co.load(made).metadata
    found = [whole(metadata, n) for n in range(1, 9)]
    assert all(m >= n and m - n < metadata.chunk and (m - metadata.start) % metadata.chunk == 0 for n, m in enumerate(found, 1))


def test_the_clock_counts_from_the_first_output():
    clock = Clock()
    for outputs in (0, 0, 1, 1, 0):
        clock.take(lambda x: x, 1)
        clock.count(outputs)
    assert (clock.steps, clock.outputs) == (2, 2)
    assert clock.speed == pytest.approx(2 / clock.seconds)
    assert Clock().speed is None
