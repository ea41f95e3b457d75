"""What each test costs, and of those that cost much, which run now. No tests are in this file.

``tests/costs.csv`` has the mean CPU seconds of each test function that takes more than ``LIMIT``; ``make costs`` measures it again.
With ``--by-cost``, as ``make test`` runs, such a test runs in one of so many turns that its mean cost of a turn is ``LIMIT``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from statistics import mean
from zlib import crc32

from tests import long

LIMIT = 0.15  # CPU seconds; one function in four costs more
FILE = Path(__file__).with_name("costs.csv")


def function(nodeid: str) -> str:
    """A test without its parameters: its rows cost about the same."""
    return nodeid.split("[")[0]


def read(file: Path = FILE) -> dict[str, float]:
    """The mean CPU seconds of each expensive function."""
    with file.open(newline="") as lines:
        return {name: float(seconds) for seconds, name in csv.reader(lines)}


def exists(name: str) -> bool:
    """Whether a function, a class of tests or the object of a docstring is still in its file."""
    path, inside, *_ = name.split("::")
    file = long.ROOT / path
    return file.exists() and inside.split(".")[-1] in file.read_text()


def write(measured: Mapping[str, Iterable[float]], file: Path = FILE) -> None:
    """Put what was measured into the table: of functions that did not run, and are still there, the former row stays."""
    former = {name: seconds for name, seconds in read(file).items() if exists(name)}
    rows = former | {name: mean(seconds) for name, seconds in measured.items()}
    with file.open("w", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows((f"{rows[n]:.2f}", n) for n in sorted(rows) if rows[n] > LIMIT)


def drawn(nodeid: str, costs: Mapping[str, float]) -> bool:
    """Whether a test runs in this turn: by lot, since a share of its rows may take turns already."""
    share = ceil(costs.get(function(nodeid), 0.0) / LIMIT)
    return share <= 1 or crc32(f"{long.TURN} {nodeid}".encode()) % share == 0
