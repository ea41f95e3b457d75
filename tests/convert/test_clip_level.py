"""Outputs of a whole clip, and means over the clip in the middle of a network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.convert.residual_net import CLIP, Net, made, steps

# ---- outputs of a whole clip ------------------------------------------------------------------------------------------


def test_an_output_of_the_clip_is_one_of_a_sliding_window():
    module = made(Net())
    net = co.continual(module, CLIP, windows="stream")
    longer = torch.randn(2, 3, 20)
    with torch.no_grad():
        assert net(CLIP).shape == (2, 2)
        windows = net(longer)
        assert windows.shape == (2, 2, 9)
        assert torch.allclose(net.forward_steps(longer, pad_end=True), windows, atol=1e-5)
        found = [y for y in steps(net, longer) if y is not None]
        assert found[0].shape == (2, 2)
        net.clean_state()
        assert torch.allclose(net.forward_steps(CLIP, pad_end=True)[:, :, -1], module(CLIP), atol=1e-5)
    assert "12 frames of a clip" in " ".join(net.notes)
    co.verify(net, longer)


class Number(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))


def test_one_number_for_each_row():
    net = co.continual(Number().eval(), CLIP, windows="stream")
    longer = torch.randn(2, 3, 15)
    assert net(CLIP).shape == (2,)
    assert net(longer).shape == net.forward_steps(longer).shape == (2, 4)
    assert torch.allclose(net(longer)[:, 0], longer[:, :, :12].mean((1, 2)), atol=1e-6)
    co.verify(net, longer)


class Gate(nn.Module):
    """Squeeze and excitation: a mean over the clip in the middle."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * torch.sigmoid(self.fc(y.mean(2))).unsqueeze(2)


def test_a_mean_in_the_middle_is_refused_with_the_two_choices():
    with pytest.raises(co.NotStreamable, match='time_pooling="window".*time_pooling="frame"'):
        co.continual(made(Gate()), CLIP)


def test_a_mean_in_the_middle_over_each_frame():
    module = made(Gate())
    net = co.continual(module, CLIP, time_pooling="frame")
    y = module.conv(CLIP)
    want = y * torch.sigmoid(module.fc(y.transpose(1, 2))).transpose(1, 2)
    assert torch.allclose(net(CLIP), want, atol=1e-6)
    assert "another function" in " ".join(net.notes)
    co.verify(net, CLIP)


def test_a_mean_in_the_middle_over_a_window():
    module = made(Gate())
    net = co.continual(module, CLIP, time_pooling="window")
    longer = torch.randn(2, 3, 30)
    y = module.conv(longer)
    means = torch.stack([y[:, :, max(0, t - 11) : t + 1].mean(2) for t in range(30)], 1)
    assert torch.allclose(net(longer), y * torch.sigmoid(module.fc(means)).transpose(1, 2), atol=1e-5)
    assert net.delay == 1  # the convolution's: the window adds none
    co.verify(net, longer)
