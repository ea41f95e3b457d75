"""`co.summary`: the numbers of every row."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co


def test_multiply_adds_are_those_of_the_clip():
    net = co.Sequential(
        nn.Conv2d(2, 4, (3, 3), padding=1),
        nn.ReLU(),
        co.Residual(co.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2)),
        co.forward_stepping(nn.Conv2d(4, 6, (1, 3))),
        co.Lambda(lambda step: step.mean(-1)),
        co.Linear(6, 3, channel_dim=1),
    )
    clip = torch.randn(1, 2, 21, 9)
    with FlopCounterMode(display=False) as counter:
        net(clip)
    found = co.summary(net, clip[:, :, 0], clip_length=21)
    assert found.rows[0].macs_clip == counter.get_total_flops() // 2
    assert found.rows[0].macs_step == Fraction(found.rows[0].macs_clip, 21)
    assert found.rows[0].params == sum(p.numel() for p in net.parameters())


def test_a_strided_step_counts_the_mean_over_its_period():
    net = co.Sequential(co.Conv1d(2, 4, 3, stride=2), co.Conv1d(4, 8, 3, stride=3))
    rows = {row.path: row for row in co.summary(net, torch.zeros(1, 2)).rows}
    assert rows["0"].macs_step == Fraction(2 * 4 * 3, 2)
    assert rows["1"].macs_step == Fraction(4 * 8 * 3, 6)
    assert rows[""].macs_step == rows["0"].macs_step + rows["1"].macs_step
    assert (rows["1"].receptive_field, rows["1"].delay, rows["1"].stride) == (7, 6, 6)


def test_state_bytes_are_those_of_the_state():
    net = co.Sequential(co.Residual(co.Conv1d(3, 3, 5, padding=2)), co.AvgPool1d(12, 1), co.Delay(4))
    step = torch.zeros(2, 3)
    rows = {row.path: row for row in co.summary(net, step).rows}
    assert rows[""].state_bytes == net.init_state(step).nbytes
    assert rows["0.1"].state_bytes == 2 * 3 * 4 * 4  # R - 1 frames of 3 channels, 2 rows
    assert rows["0.0 (waits)"].state_bytes == 2 * 2 * 3 * 4
    assert rows["2"].state_bytes == 4 * 2 * 3 * 4


def test_the_table_gives_milliseconds_at_a_rate():
    text = str(co.summary(co.Conv1d(1, 1, 9, padding=4), torch.zeros(1, 1), rate=250))
    assert "delay (ms)" in text
    assert "4 (16.0)" in text


def test_a_step_that_does_not_fit_is_refused():
    with pytest.raises(co.ShapeMismatch, match="expects steps"):
        co.summary(co.Conv1d(2, 2, 3), torch.zeros(1, 3))
