"""What tests of `continual export` share: networks in a file, a file that was exported once. No tests are in this file."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner

import continual as co
from continual.cli.app import app
from tests.export.artefacts import needs

NETS = """
import torch
from torch import nn
import continual as co

def net(width=3, off=0.0):
    torch.manual_seed(0)
    made = co.Sequential(co.Conv1d(2, width, 5, padding=2), nn.Tanh(), co.Conv1d(width, 2, 3, padding=1, stride=2)).eval()
    with torch.no_grad():
        made[2].bias[1] += off
    return made

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(5, 3), nn.GRU(3, 4, batch_first=True)
    def forward(self, x):
        return self.rnn(self.table(x))[0], self.table(x).sum(-1)

class Both(nn.Module):
    def forward(self, x, y):
        return x + y

def twin():
    return co.continual(Both().eval(), (torch.randn(2, 2, 9), torch.randn(2, 2, 9)))

class Flipped(nn.Module):
    def forward(self, x):
        return x.flip(2)

class Unshippable(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

torch.manual_seed(0)
words = Words().eval()
plain = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1)).eval()
pair = co.Parallel(nn.ReLU(), co.Conv1d(3, 3, 3, padding=1)).eval()
up = co.Sequential(co.Conv1d(2, 2, 3, padding=1), co.Upsample(scale_factor=2)).eval()
"""
CLIP = ("--clip", "2,2,9")


def invoke(*args: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in args], env={"COLUMNS": "160"})


@functools.cache
def made() -> bytes:
    """The network, exported at 250 steps per second. In a folder with the networks' file."""
    needs("onnx")
    result = invoke("export", "export_nets:net", "made.onnx", *CLIP, "--rate", 250)
    assert result.exit_code == 0, result.output
    return Path("made.onnx").read_bytes()


def value(output: str, name: str) -> list[str]:
    """What stands beside a name in a table, line by line."""
    lines = iter(output.splitlines())
    first = next(line for line in lines if line.startswith(f"{name}  "))
    found = first[len(name) :].lstrip()
    indent = len(first) - len(found)
    return [found, *(line[indent:] for line in itertools.takewhile(lambda line: line.startswith(" " * indent), lines))]


def net(width: int = 3) -> Any:
    """As in the file of networks."""
    torch.manual_seed(0)
    return co.Sequential(co.Conv1d(2, width, 5, padding=2), nn.Tanh(), co.Conv1d(width, 2, 3, padding=1, stride=2)).eval()
