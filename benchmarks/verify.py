"""`co.verify` on every network of the zoo and on some small ones: whether it passes, and the time and memory that it takes.

    python -m benchmarks.verify [--only cox3d_s …] [--effort full] [--json out.json] [--markdown]

Each network runs in a process of its own, one at a time, on one thread. With `--json`, what a file holds of earlier runs stays in
the tables.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

from . import report
from .zoo import alive

ROOT = Path(__file__).parents[1]
PIXELS = 64
STEPS = 20  # past the receptive field
QUICK = ("coi3d", "coslow", "cox3d_l")  # the largest, of which a full run takes longer
HEADER = ["network", "clip", "effort", "CPU, s", "peak, MB", "forward, MB", "passed", "not applicable", "failed"]
LEGEND = f"""\
By `python -m benchmarks.verify --markdown`. Each in a process of its own, one thread. *clip*: two rows; of the zoo's networks the
receptive field and {STEPS} steps, and frames of {PIXELS} × {PIXELS}. *CPU*: seconds of `co.verify`. *peak*: the process's memory by
its end, *forward* by the end of one forward of the clip; both with Python, torch and the weights. Not applicable without a reference are
the two comparisons with it, and that of the `state_dict`."""


@dataclass(frozen=True)
class Row:
    """What a verification took and found."""

    name: str
    clip: tuple[int, ...]
    effort: str
    seconds: float
    peak: float
    forward: float
    passed: int
    skipped: dict[str, str]
    failed: dict[str, str]
    date: str

    def cells(self) -> list[str]:
        """A line of the table."""
        sizes = (f"{self.seconds:.3g}", f"{self.peak:.0f}", f"{self.forward:.0f}", str(self.passed), str(len(self.skipped)))
        return [f"`{self.name}`", " × ".join(map(str, self.clip)), self.effort, *sizes, str(len(self.failed))]


# ---- networks ----------------------------------------------------------------------------------------------------------


def _readme() -> tuple[nn.Module, Tensor]:
    layers = (nn.Conv1d(2, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 3, 3, padding=1))
    return nn.Sequential(*layers), torch.randn(2, 2, 100)


def _dilated() -> tuple[nn.Module, Tensor]:
    convs = [nn.Sequential(nn.Conv1d(16, 16, 3, padding=2**i, dilation=2**i), nn.BatchNorm1d(16), nn.ReLU()) for i in range(6)]
    return nn.Sequential(*convs), torch.randn(2, 16, 250)


def _recurrent() -> tuple[nn.Module, Tensor]:
    return co.Sequential(co.Conv1d(8, 32, 5, stride=2), nn.ReLU(), co.GRU(32, 32), co.Linear(32, 4, channel_dim=1)), torch.randn(
        2, 8, 200
    )


SMALL: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "README's": _readme,
    "six dilated Conv1d 16": _dilated,
    "strided Conv1d, GRU 32": _recurrent,
}


def made(name: str) -> tuple[Any, Tensor]:
    """A network and a clip for it."""
    torch.manual_seed(len(name))
    if name in SMALL:
        net, clip = SMALL[name]()
        return co.continual(alive(net)).eval(), clip
    card = co.models.describe(name)
    net = alive(co.models.create(name, **({"input_size": PIXELS} if card.of_video else {})))
    return net, torch.randn(2, net.step_shape[0], net.receptive_field + STEPS, *net.step_shape[1:])


# ---- measuring ---------------------------------------------------------------------------------------------------------


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, effort: Any) -> Row:
    """Verify a network in this process."""
    torch.set_num_threads(1)
    net, clip = made(name)
    with torch.no_grad():
        net(clip)
    forward, start = _peak(), time.process_time()
    found = co.verify(net, clip, effort=effort, raise_on_fail=False)
    seconds = time.process_time() - start
    said = {
        outcome: {c.name: c.detail for c in found.checks if c.outcome == outcome} for outcome in ("passed", "skipped", "failed")
    }
    today = report.Machine.here().date
    shape, passed = tuple(clip.shape), len(said["passed"])
    return Row(name, shape, effort, seconds, _peak(), forward, passed, said["skipped"], said["failed"], today)


def apart(name: str, effort: str) -> Row:
    """The same in a process of its own.

    Raises:
        CalledProcessError: it did not end well.
    """
    command = [sys.executable, "-m", "benchmarks.verify", "--here", name, "--effort", effort]
    data = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout)
    return Row(**(data | {"clip": tuple(data["clip"])}))


def table(rows: Sequence[Row]) -> str:
    """Rows, in Markdown."""
    failed = [f"- `{r.name}` fails {n}: {d}" for r in rows for n, d in r.failed.items()]
    body = report.markdown_table(HEADER, [r.cells() for r in rows])
    dates = sorted({r.date for r in rows})
    measured = (
        f"Measured: {report.Machine.here()}."
        if len(dates) < 2
        else f"Measured from {dates[0]} to {dates[-1]}: {report.Machine.here()}."
    )
    return "\n\n".join([measured, LEGEND, body, *(["\n".join(failed)] if failed else [])])


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    names = [*co.models.list(), *SMALL]
    found = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=(__doc__ or "").partition("\n")[0])
    found.add_argument("--only", nargs="*", choices=names, default=names, metavar="NAME", help="some networks")
    found.add_argument("--effort", choices=("full", "quick"), help=f"default: quick for {', '.join(QUICK)}, full for the rest")
    found.add_argument("--json", type=Path, help="keep results in a file, and take what it holds of other networks")
    found.add_argument("--markdown", action="store_true", help="write the tables into docs/models.md and docs/performance.md")
    found.add_argument("--here", metavar="NAME", choices=names, help=argparse.SUPPRESS)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. The exit status is 1 if a check failed."""
    args = parser().parse_args(argv)
    if args.here:
        print(json.dumps(asdict(measure(args.here, args.effort or "full"))))
        return 0
    kept: dict[str, Row] = {}
    if args.json and args.json.exists():
        kept = {r["name"]: Row(**(r | {"clip": tuple(r["clip"])})) for r in json.loads(args.json.read_text(encoding="utf-8"))}
    with report.progress(len(args.only)) as advance:
        for name in args.only:
            advance(name)
            kept[name] = apart(name, args.effort or ("quick" if name in QUICK else "full"))
            if args.json:
                args.json.write_text(json.dumps([asdict(r) for r in kept.values()], indent=1), encoding="utf-8")
    zoo, small = ([kept[n] for n in names if n in kept] for names in (co.models.list(), SMALL))
    for page, rows in (("docs/models.md", zoo), ("docs/performance.md", small)):
        if rows:
            print(table(rows))
        if rows and args.markdown:
            report.write_markdown(ROOT / page, "verify", table(rows))
    return int(any(row.failed for row in kept.values()))


if __name__ == "__main__":
    sys.exit(main())
