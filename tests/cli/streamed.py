"""What tests of `continual run` on signals share: networks in a file, a signal, and what the clip network says of it. No tests are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

from continual.cli.app import app

NETS = """
import torch
from torch import nn

def smooth(channels=2, seed=0):
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv1d(channels, 8, 5, padding=2), norm, nn.ReLU(), nn.Conv1d(8, 3, 4, stride=2, padding=1))

def up():
    torch.manual_seed(0)
    return nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)

def images(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(channels, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d((None, 1, 1)), nn.Flatten(2))

class Turned(nn.Module):  # (B, T, C)
    def __init__(self):
        super().__init__()
        self.net = smooth()
    def forward(self, x):
        return self.net(x.transpose(1, 2)).transpose(1, 2)
"""
RATE = 8000
LENGTH = 1501
SMOOTH = ("nets.py:smooth", "--clip", "1,2,40")


def invoke(*args: object, **env: str) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "120", "TERM": "xterm", **env})


def signal(length: int = LENGTH, channels: int = 2) -> np.ndarray:
    """``(length, channels)``, between −1 and 1."""
    return np.random.default_rng(0).uniform(-1, 1, (length, channels)).astype(np.float32)


def network(name: str = "smooth", **arguments: Any) -> nn.Module:
    """As in the file of networks."""
    names: dict[str, Any] = {"__name__": "nets"}
    exec(NETS, names)
    net: nn.Module = names[name](**arguments)
    return net.eval()


@torch.no_grad()
def wanted(frames: np.ndarray, **arguments: Any) -> np.ndarray:
    """The outputs of the clip network ``(T', 3)``."""
    clip = torch.from_numpy(np.ascontiguousarray(frames.T)).float().unsqueeze(0)
    return np.asarray(network(**arguments)(clip)[0].T)


def lines(path: str | Path = "o.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def equal(found: Any, want: np.ndarray, tolerance: float = 1e-5) -> None:
    got = np.asarray(found)
    assert got.shape == want.shape
    assert want.std(0).max() > 1e-2
    assert np.abs(got - want).max() < tolerance * max(1, np.abs(want).max())
