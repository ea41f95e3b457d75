"""Networks that between them have every kind of state. No tests are in this file."""

from typing import Any

import torch
from torch import nn

import continual as co
from tests.contract import stream


def network() -> Any:
    """Windows, queues, a stride, a long pool: every kind of state."""
    block = co.Residual(co.Sequential(co.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.ReLU()))
    return co.Sequential(block, co.Conv1d(2, 2, 3, 2, 1, groups=2), co.MaxPool1d(10, 1), co.Delay(2)).eval()


NETS = {
    "conv": lambda: co.Conv1d(2, 2, 4, padding=1),
    "depthwise": lambda: co.Conv1d(2, 2, 4, padding=1, groups=2),
    "replicate": lambda: co.Conv1d(2, 2, 3, padding=1, temporal_fill="replicate"),
    "average": lambda: co.AvgPool1d(4, 1, 1, count_include_pad=False),
    "long maximum": lambda: co.MaxPool1d(10, 3),
    "delay": lambda: co.Delay(3),
    "local": lambda: co.Add(1),
    "residual": lambda: co.Residual(co.Conv1d(2, 2, 5, padding=2)),
    "recurrent": lambda: co.Sequential(co.LSTM(2, 3, num_layers=2, proj_size=2), co.GRUCell(2, 2)),
    "network": network,
}


def steps(net: Any, clip: torch.Tensor) -> list[Any]:
    return stream(net, clip, [1] * clip.shape[2], lambda: True, end=False)
