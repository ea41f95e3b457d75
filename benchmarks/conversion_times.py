"""How long conversions and refusals take: ``python -m benchmarks.conversion_times`` writes the table of docs/performance.md."""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from tests.convert.networks import made
from tests.convert.vision import ShiftNet

from . import report
from .conversion import SIZES

Made = tuple[nn.Module, tuple[Tensor, ...], Any]  # a module, an example, and where time is in it
HEADER = ["network", "clip", "result", "before, s", "now, CPU s"]
LEGEND = """\
*before*: the same, or one of its kind, at commit c80071a on a machine with other work (wall time); "–": not measured then. *now*: CPU
seconds of `co.continual(module, clip)`, its check included, in one thread, after one small conversion that loads what torch.export needs
(1 to 2 s, once in a process). Networks whose names begin with a package are that package's own, of random weights."""


class Recurrent(nn.Module):
    """A recurrent layer alone."""

    def __init__(self, kind: type, **options: Any):
        super().__init__()
        self.layer = kind(4, 8, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)[0]
        return y


class Shift(nn.Module):
    """Temporal shifts on merged batch and time, the number of clips by a division of sizes."""

    def __init__(self, depth: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        b, t, *_ = x.shape
        y = x.flatten(0, 1)
        for conv in self.convs:
            n, c, h, w = y.shape
            clip = y.view(n // 8, 8, c, h, w)
            later, sooner = clip[:, :-1, :2], clip[:, 1:, 2:4]
            moved = torch.zeros_like(clip)
            moved[:, 1:, :2], moved[:, :-1, 2:4], moved[:, :, 4:] = later, sooner, clip[:, :, 4:]
            y = y + conv(moved.view(n, c, h, w)).relu()
        return y.mean((2, 3)).view(b, t, -1).mean(1)


class Filter(nn.Module):
    """A recursive filter of second order, sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([-0.5, 0.2])), nn.Parameter(torch.tensor([0.2, 0.3, 0.2]))

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (2, 0))
        out = torch.zeros_like(padded)
        for i, frame in enumerate((padded.unfold(-1, 3, 1) @ self.b).unbind(-1)):
            out[:, i + 2] = frame - (out[:, i : i + 2] * self.a).sum(-1)
        return out[:, 2:]


def _rows(time: int, *shape: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, time, *shape),)


OWN: dict[str, tuple[str, Callable[[], Made]]] = {
    "LSTM, 16 frames": ("10", lambda: (Recurrent(nn.LSTM), _rows(16, 4), 1)),
    "LSTM, 400 frames": ("118", lambda: (Recurrent(nn.LSTM), _rows(400, 4), 1)),
    "GRU of 3 layers, 400 frames": ("–", lambda: (Recurrent(nn.GRU, num_layers=3), _rows(400, 4), 1)),
    "LSTM in both directions, 400 frames": ("–", lambda: (Recurrent(nn.LSTM, bidirectional=True), _rows(400, 4), 1)),
    "4 temporal shifts": ("63", lambda: (Shift(4), _rows(8, 8, 6, 6), 1)),
    "8 temporal shifts": ("> 200", lambda: (Shift(8), _rows(8, 8, 6, 6), 1)),
    "6 temporal shifts that write into slices": ("> 200", lambda: (ShiftNet(8, 8, 6, 4), _rows(8, 3, 8, 8), 1)),
    "recursive filter, 200 samples": ("28–73", lambda: (Filter(), _rows(200), 1)),
    "recursive filter, 16,000 samples": ("–", lambda: (Filter(), _rows(16000), 1)),
}
BRAINDECODE: dict[str, tuple[str, int, int]] = {
    "EEGNet": ("9.0", 8, 500), "BDTCN": ("21.7", 8, 500), "AttentionBaseNet": ("21.3", 8, 500), "Deep4Net": ("15.3", 8, 500),
    "EEGInceptionERP": ("20.0", 8, 500), "EEGITNet": ("17.2", 8, 500), "MEDFormer": ("34.7", 8, 500), "SCCNet": ("7.2", 8, 500),
    "CTNet": ("15.7", 8, 500), "EEGConformer": ("15.1", 8, 500), "BIOT": ("39.0", 8, 600), "EEGDINO": ("57.1", 8, 500),
    "CBraMod": ("70.9", 8, 800), "USleep": ("17.8", 8, 1280), "SleepStagerBlanco2020": ("20.9", 8, 1500),
    "MVPFormer": ("no answer in 90", 8, 500),
}  # fmt: skip


@dataclass
class Took:
    """A conversion, or a refusal."""

    name: str
    clip: str
    result: str
    before: str
    seconds: float

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        return [self.name, self.clip, self.result, self.before, f"{self.seconds:.1f}"]


def choose(gallery: bool, pattern: str = "") -> dict[str, tuple[str, Callable[[], Made]]]:
    """The networks: those of the tests, the slow ones of the past, and with `gallery` those of braindecode."""
    found: dict[str, tuple[str, Callable[[], Made]]] = {name: ("–", _of_tests(name)) for name in SIZES} | OWN
    if gallery:
        models: Any = importlib.import_module("braindecode.models")
        for name, (before, channels, frames) in BRAINDECODE.items():
            found[f"braindecode {name}"] = before, _of_braindecode(getattr(models, name), channels, frames)
    return {name: row for name, row in found.items() if pattern in name}


def _of_tests(name: str) -> Callable[[], Made]:
    def make() -> Made:
        case = made(name, batch=1, **SIZES[name])
        return case.module, tuple(case.inputs), tuple(case.time_dims)

    return make


def _of_braindecode(kind: Any, channels: int, frames: int) -> Callable[[], Made]:
    return lambda: (kind(n_chans=channels, n_outputs=4, n_times=frames, sfreq=100), (torch.randn(2, channels, frames),), 2)


def measure(name: str, before: str, make: Callable[[], Made]) -> Took:
    """Convert a network, and say how long that took."""
    torch.manual_seed(0)
    module, inputs, time_dim = make()
    start = time.process_time()
    try:
        co.continual(module.eval(), inputs, time_dim=time_dim if isinstance(time_dim, tuple) else (time_dim,) * len(inputs))
        result = "converts"
    except co.NotStreamable:
        result = "refused"
    return Took(name, ", ".join(str(tuple(x.shape)) for x in inputs), result, before, time.process_time() - start)


def markdown(machine: report.Machine, rows: Sequence[Took]) -> str:
    """The table, as the part of a page."""
    seconds = [row.seconds for row in rows]
    total = f"{len(rows)} networks: median {statistics.median(seconds):.1f} s, the longest {max(seconds):.1f} s."
    return "\n\n".join([f"Measured: {machine}.", LEGEND, report.markdown_table(HEADER, [row.cells for row in rows]), total])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.conversion_times", description="How long conversions take.")
    line.add_argument("--only", metavar="TEXT", default="", help="networks with this in their names")
    line.add_argument("--gallery", action="store_true", help="networks of braindecode too, which has to be installed")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'conversion times' of a page")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the table in Markdown."""
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    networks = choose(args.gallery, args.only)
    if not networks:
        parser().error(f"no network has {args.only!r} in its name")
    measure("", "", lambda: (nn.Conv1d(2, 2, 3), (torch.randn(2, 2, 9),), 2))  # loads what torch.export needs
    rows = []
    with report.progress(len(networks)) as advance:
        for name, (before, make) in networks.items():
            advance(name)
            rows.append(measure(name, before, make))
    text = markdown(report.Machine.here(), rows)
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "conversion times", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
