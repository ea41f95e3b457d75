"""Exported networks compute what the clip networks do, over 1,000 steps from a cold start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from tests.export.artefacts import file, network
from tests.export.networks import FORMATS, NETWORKS
from tests.long import by_turns, some, whose_turn

STEPS, ALLOWED = 1000, 1e-5
# The others take minutes: python -m benchmarks.exports makes them all, and tests/cli/test_export.py one of each format.
QUICK = [(name, "onnx") for name in NETWORKS if name != "r3d_18"]
# OpenVINO runs in a process of its own: test_openvino.py.
ALL = [(name, format) for name in NETWORKS for format in FORMATS if format != "openvino"]


def clip_outputs(name: str, clip: Tensor) -> Tensor:
    """What the network gives for a whole clip, up to its end."""
    with torch.no_grad():
        y: Tensor = network(name).forward_steps(clip, update_state=False)
    return y


def streamed(runner: Any, clip: Tensor) -> Tensor:
    """What a stream of single steps gives."""
    found = [y for frame in clip.unbind(2) if (y := runner.forward_step(frame)) is not None]
    return torch.cat(found, 2) if runner.metadata.per_call > 1 else torch.stack(found, 2)


def assert_close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert float(want.std()) > 0.01, "outputs that hardly change tell nothing"
    off = float((got - want).abs().max() / want.abs().max().clamp(min=1.0))
    assert off <= ALLOWED, f"off by {off:.1e}"


NOW = whose_turn(map(str, QUICK), 2)


@pytest.mark.parametrize("name, format", some(ALL, [pair for pair in ALL if str(pair) not in NOW]))
def test_a_thousand_steps(name: str, format: str):
    clip = NETWORKS[name].clip(STEPS)
    assert_close(streamed(co.load(file(name, format), threads=1), clip), clip_outputs(name, clip))


@pytest.mark.parametrize("name", by_turns(("demo", "resnet stage", "unet", "gru", "causal transformer"), 3))
def test_any_number_of_rows_in_one_file(name: str):
    """1, 3 and 64, each row as if it were alone."""
    path, clip = file(name), NETWORKS[name].clip(network(name).receptive_field + 24, batch=64)
    want = clip_outputs(name, clip)
    for rows in (slice(5, 6), slice(10, 13), slice(0, 64)):
        runner = co.load(path, threads=1)
        assert_close(streamed(runner, clip[rows]), want[rows])
        runner.clean_state()
        assert_close(runner.forward_steps(clip[rows]), want[rows])


def test_forward_and_the_clip_outputs_are_the_same():
    """The tests here compare with a chunk of the whole clip; it is the clip network's forward, up to what the end brings."""
    for name in ("demo", "resnet stage", "unet", "gru", "causal transformer"):
        clip = NETWORKS[name].clip(60)
        with torch.no_grad():
            whole = network(name)(clip)
        y = clip_outputs(name, clip)
        torch.testing.assert_close(y, whole[:, :, : y.shape[2]], rtol=1e-5, atol=1e-5)
