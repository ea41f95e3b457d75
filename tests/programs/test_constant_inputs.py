"""Inputs that are not streams, in programs: the same value in every step of a row, and also at its end."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal


class Scaled(nn.Module):
    """A convolution whose outputs are scaled by a gain per row and channel."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 5, stride, padding=2)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.conv(x) * gain.unsqueeze(2)


def scaled(stride: int) -> tuple[Any, Any, Tensor, Tensor]:
    """A module, the converted network, clips of two rows, and their gains."""
    torch.manual_seed(4)
    module = Scaled(stride).double().eval()
    clip, gain = torch.randn(2, 3, 14).double(), torch.rand(2, 4).double() - 2
    return module, co.continual(module, (clip, gain), time_dim=(2, None)), clip, gain


def joined(found: list[Tensor | None], dim: int) -> Tensor:
    return torch.cat([y for y in found if y is not None], dim)


@pytest.mark.parametrize("frames", [1, 2, 9, 13, 14])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_program_keeps_them_to_the_end(stride: int, frames: int):
    """The flush once computed with zeros."""
    module, net, clip, gain = scaled(stride)
    program = co.compile(net, [clip[:, :, 0], gain], backend="eager")
    found = [program.step(clip[:, :, t], gain) for t in range(frames)]
    found = [None if y is None else y.unsqueeze(2) for y in found]
    assert_equal(joined([*found, program.flush()], 2), module(clip[:, :, :frames], gain), f"{frames} frames")


@pytest.mark.parametrize("frames", [1, 2, 9, 13, 14])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_batch_keeps_them_to_the_end(stride: int, frames: int):
    """A stream that ended within its first chunk was scaled by 0, or by the gain of the row's stream before it."""
    module, net, clip, gain = scaled(stride)
    streams = co.StreamBatch(net, [clip[:1, :, 0], gain[:1]], 2, backend="eager")
    for row in (0, 1, 0):
        stream = streams.open()
        found = [streams.step({stream: [clip[row, :, t], gain[row]]})[stream] for t in range(frames)]
        found = [None if y is None else y.unsqueeze(1) for y in found]
        want = module(clip[row : row + 1, :, :frames], gain[row : row + 1])[0]
        assert_equal(joined([*found, streams.flush(stream)], 1), want, f"{frames} frames")
        streams.close(stream)


@pytest.mark.parametrize("frames", [1, 2, 7, 8])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_snapshot_keeps_them_to_the_end(stride: int, frames: int):
    """A flush right after `restore` once took the gain of the row's stream before it."""
    _, net, clip, gain = scaled(stride)
    streams = co.StreamBatch(net, [clip[:1, :, 0], gain[:1]], 2, backend="eager")
    first, second = streams.open(), streams.open()
    for t in range(frames):
        streams.step({first: [clip[0, :, t], gain[0]], second: [clip[1, :, t], gain[1]]})
    want = streams.flush(first)
    snapshot = streams.snapshot(first)
    streams.restore(second, snapshot)
    assert_equal(streams.flush(second), want, f"{frames} frames")


def test_snapshots_of_earlier_versions_are_taken():
    """They had as many steps of such an input as of others."""
    module, net, clip, gain = scaled(3)
    streams = co.StreamBatch(net, [clip[:1, :, 0], gain[:1]], 2, backend="eager")
    stream = streams.open()
    for t in range(5):
        snapshot = streams.snapshot(stream)
        waiting = snapshot.pending[0].shape[1]
        earlier = dataclasses.replace(snapshot, pending=(snapshot.pending[0], gain[0].view(4, 1).expand(4, waiting)))
        streams.restore(stream, earlier)
        streams.step({stream: [clip[0, :, t], gain[0]]})
    rest = streams.flush(stream)
    assert rest is not None
    assert_equal(rest, module(clip[:1, :, :5], gain[:1])[0][:, -rest.shape[1] :], "the end")
    with pytest.raises(co.StateMismatch, match="waiting steps of input 1"):
        streams.restore(stream, dataclasses.replace(snapshot, pending=snapshot.pending[:1]))


class Shared(nn.Module):
    """A convolution whose outputs are scaled by gains for all rows together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.conv(x) * gain.sum(-1).view(1, 4, 1)


def test_a_batch_of_streams_refuses_one_value_for_all_of_them():
    """Only the first row was written, or the step failed in torch's words."""
    module, clip, gain = Shared().double().eval(), torch.randn(2, 3, 9).double(), torch.rand(4, 5).double() - 2
    net = co.continual(module, (clip, gain), time_dim=(2, None))
    program = co.compile(net, [clip[:, :, 0], gain], backend="eager")
    found = [program.step(clip[:, :, t], gain) for t in range(9)]
    assert_equal(torch.stack([y for y in found if y is not None], 2), module(clip, gain)[:, :, :-1], "a program")
    with pytest.raises(co.NotStreamable, match=r"input 1 of \w+, \(4, 5\), has no dimension for the batch.*Remedies"):
        co.StreamBatch(net, [clip[:1, :, 0], gain], 3, backend="eager")
