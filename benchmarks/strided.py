"""Small networks with long strides: what people do without us is recompute the window for each output. No network pads, so a window
of the receptive field gives just that output.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import continual as co

from . import zoo
from .measure import require_equal
from .subjects import Subject, recompute, streaming


def block(made: nn.Module, norm: int, *after: nn.Module) -> nn.Sequential:
    """A convolution, a norm of so many channels, and what comes behind."""
    kind = nn.BatchNorm2d if isinstance(made, nn.Conv2d) else nn.BatchNorm1d
    return nn.Sequential(made, kind(norm), *after)


class Eeg(nn.Module):
    """Electrodes ``(B, electrodes, T)`` as an image: filters over time, then over electrodes, then a head over time."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.unsqueeze(1)).squeeze(2)
        return y


def eegnet(electrodes: int = 8) -> nn.Module:
    """As EEGNet: depthwise over electrodes, means of 4 and 8 samples."""
    return Eeg(
        nn.Sequential(
            block(nn.Conv2d(1, 8, (1, 64), bias=False), 8),
            block(nn.Conv2d(8, 16, (electrodes, 1), groups=8, bias=False), 16, nn.ELU(), nn.AvgPool2d((1, 4))),
            nn.Conv2d(16, 16, (1, 16), groups=16, bias=False),
            block(nn.Conv2d(16, 16, 1, bias=False), 16, nn.ELU(), nn.AvgPool2d((1, 8))),
            nn.Conv2d(16, 4, (1, 8)),
        )
    )


def deep4(electrodes: int = 8) -> nn.Module:
    """As Deep4Net: four times a convolution of 10 samples and the largest of 3."""
    layers: list[nn.Module] = [nn.Conv2d(1, 25, (1, 10)), nn.Conv2d(25, 25, (electrodes, 1), bias=False)]
    for i, (inputs, outputs) in enumerate(((25, 25), (25, 50), (50, 100), (100, 200))):
        layers += [nn.Conv2d(inputs, outputs, (1, 10), bias=False)] if i else []
        layers += [nn.BatchNorm2d(outputs), nn.ELU(), nn.MaxPool2d((1, 3), (1, 3))]
    return Eeg(nn.Sequential(*layers, nn.Conv2d(200, 4, (1, 2))))


class Residual(nn.Module):
    """Two convolutions of which the first has a stride, beside a shortcut with the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        first = block(nn.Conv1d(inputs, outputs, kernel, stride, bias=False), outputs, nn.ReLU())
        self.body = nn.Sequential(first, block(nn.Conv1d(outputs, outputs, kernel, bias=False), outputs))
        self.shortcut = block(nn.Conv1d(inputs, outputs, 1, stride, bias=False), outputs)
        self.cut = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        same = self.shortcut(x[:, :, self.cut : -self.cut])[:, :, self.cut : -self.cut]
        y: Tensor = torch.relu(self.body(x) + same)
        return y


def ecg_resnet() -> nn.Module:
    """12 leads, four residual blocks, a mean over 8 frames."""
    start = block(nn.Conv1d(12, 32, 15, 2, bias=False), 32, nn.ReLU(), nn.MaxPool1d(3, 2))
    blocks = [Residual(i, o, 7, s) for i, o, s in ((32, 32, 1), (32, 48, 2), (48, 64, 2), (64, 96, 2))]
    return nn.Sequential(start, *blocks, nn.AvgPool1d(8, 1), nn.Conv1d(96, 5, 1))


def raw_audio() -> nn.Module:
    """Samples: a long convolution with a stride, then convolutions and the largest of 4."""
    layers: list[nn.Module] = [block(nn.Conv1d(1, 32, 80, 4), 32, nn.ReLU(), nn.MaxPool1d(4))]
    for inputs, outputs in ((32, 32), (32, 64), (64, 64)):
        layers.append(block(nn.Conv1d(inputs, outputs, 3), outputs, nn.ReLU(), nn.MaxPool1d(4)))
    return nn.Sequential(*layers, nn.AvgPool1d(6, 1), nn.Conv1d(64, 35, 1))


def imu() -> nn.Module:
    """Six axes: three convolutions and the largest of 2, a mean over 12 frames."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((6, 32), (32, 64), (64, 64)):
        layers.append(block(nn.Conv1d(inputs, outputs, 5), outputs, nn.ReLU(), nn.MaxPool1d(2)))
    return nn.Sequential(*layers, nn.AvgPool1d(12, 1), nn.Conv1d(64, 6, 1))


def strided_tcn() -> nn.Module:
    """Two convolutions with a stride of 2, then dilations 1, 2, 4 and 8."""
    layers: list[nn.Module] = [nn.Conv1d(16, 64, 4, 2), nn.ReLU(), nn.Conv1d(64, 64, 4, 2), nn.ReLU()]
    for i in range(4):
        layers += [nn.Conv1d(64, 64, 3, dilation=2**i), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(64, 10, 1))


EXAMPLE = 16_384  # samples of the clip for the conversion


class Case(NamedTuple):
    """A network, and the shape of a step without rows."""

    make: Callable[[], nn.Module]
    frame: tuple[int, ...]


NETWORKS = {
    "EEGNet, stride 32": Case(eegnet, (8,)),
    "Deep4Net, stride 81": Case(deep4, (8,)),
    "ECG ResNet, stride 32": Case(ecg_resnet, (12,)),
    "raw audio, stride 1024": Case(raw_audio, (1,)),
    "IMU, stride 8": Case(imu, (6,)),
    "strided TCN, stride 4": Case(strided_tcn, (16,)),
}


def rows() -> dict[str, Callable[[], Subject]]:
    """All of them, for the suite."""
    return {name: partial(of_strided, name) for name in NETWORKS}


def of_strided(name: str) -> Subject:
    """A row of the suite."""
    torch.manual_seed(0)
    case = NETWORKS[name]
    with torch.inference_mode(False), torch.no_grad():
        module = zoo.alive(case.make()).eval()
        start = time.perf_counter()
        net: Any = co.continual(module, torch.randn(2, *case.frame, EXAMPLE))
        took = time.perf_counter() - start
        hop, field = int(net.step_size), int(net.receptive_field)
        clip = torch.randn(1, *case.frame, field + 2 * hop)
        call = recompute(module, clip[:, :, :field], clip[:, :, field : field + hop].clone())
        require_equal("window", call(), module(clip)[:, :, 1:2])
        return streaming(name, net, module, clip, call, took, "it converts registered classes alone")
