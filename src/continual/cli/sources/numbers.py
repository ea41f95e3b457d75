"""Tables of numbers: CSV, NPY and Parquet files. A row is a frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked, Block, Facts, Whole, moments

SUFFIXES = (".csv", ".tsv", ".npy", ".parquet")
TIME = ("time", "timestamp", "t", "seconds")  # headings of a column of moments, in seconds


def opened(path: Path, asked: Asked) -> Any:
    """The signal of a file.

    Raises:
        BadInput: it can't be read.
    """
    readers: dict[str, Callable[[Path, Asked], Any]] = {".npy": _npy, ".parquet": _parquet}
    return readers.get(path.suffix.lower(), Rows)(path, asked)


class Rows:
    """A text of rows of numbers, with commas, semicolons, tabs or spaces between them.

    A first row of headings names the columns, and a column ``time`` (seconds) gives the moments.
    It is read block by block, so that it may be of any length.
    """

    def __init__(self, path: Path, asked: Asked):
        self._path = path
        with self._lines() as lines:
            first = list(itertools.islice(_rows(lines), 2))
        if not first:
            raise BadInput(f"'{path}' is empty")
        self._mark = next((m for m in ("\t", ";", ",") if m in first[0]), None)
        heads = [cell.strip().strip('"') for cell in first[0].split(self._mark)]
        self._headed = not all(_is_number(cell) for cell in heads)
        if self._headed and len(first) < 2:
            raise BadInput(f"'{path}' has headings, and no row of numbers")
        names = heads if self._headed else [str(i + 1) for i in range(len(heads))]
        self._width = len(names)
        self._time = next((i for i, n in enumerate(names) if self._headed and n.lower() in TIME), None)
        self.facts = Facts(str(path), asked.rate, channels=tuple(n for i, n in enumerate(names) if i != self._time))
        if self._time is not None:
            self.facts.notes.append(f"'{path}': the moments are those of the column {names[self._time]}, in seconds")
            self.facts.rate = asked.rate or self._own_rate()
        self._block = asked.block(self.facts.rate)

    def _lines(self) -> Any:
        try:
            return self._path.open(encoding="utf-8-sig")
        except OSError as error:
            raise BadInput(f"'{self._path}' can't be read ({error.strerror or error})") from error

    def _own_rate(self) -> float | None:
        times = next(iter(self._tables(257)))[:, self._time]
        gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        return 1 / gap if gap > 0 else None

    def _tables(self, block: int) -> Iterator[np.ndarray]:
        with self._lines() as lines:
            rows = _rows(lines)
            number = 2 if self._headed else 1
            for _ in range(self._headed):
                next(rows)
            while part := list(itertools.islice(rows, block)):
                table = np.empty((len(part), self._width))
                for i, line in enumerate(part):
                    cells = line.split(self._mark)
                    try:
                        table[i] = [float(cell.strip().strip('"') or "nan") for cell in cells]
                    except ValueError as error:
                        raise BadInput(
                            f"'{self._path}': row {number + i} is {line.strip()[:60]!r}, not {self._width} numbers"
                        ) from error
                number += len(part)
                yield table

    def blocks(self) -> Iterator[Block]:
        start, first = 0, None
        for table in self._tables(self._block):
            if self._time is None:
                yield Block(table, moments(start, len(table), self.facts))
            else:
                times = table[:, self._time]
                first = times[0] if first is None else first
                yield Block(np.delete(table, self._time, 1), times - first)
            start += len(table)

    def close(self) -> None:
        """Nothing is open between blocks."""


def _rows(lines: Iterable[str]) -> Iterator[str]:
    """The lines that hold something; ``#`` begins a comment."""
    return (line for line in lines if line.partition("#")[0].strip())


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _npy(path: Path, asked: Asked) -> Whole:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # a pickle can run code
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(f"'{path}' can't be read as an array of numbers ({str(error).splitlines()[0]})") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind not in "fiub" or not len(array):
        raise BadInput(f"'{path}' holds no array of real numbers with a frame in each row")
    return Whole(Facts(str(path), asked.rate), array if array.ndim > 1 else array[:, None], None, asked.block(asked.rate))


def _parquet(path: Path, asked: Asked) -> Whole:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise BadInput(f"'{path}' is read with pyarrow: {pip_install('pyarrow')} ({error})") from error
    try:
        table = parquet.read_table(path)
        columns = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"'{path}' can't be read as a table of numbers ({str(error).splitlines()[0]})") from error
    named = next((n for n in columns if n.lower() in TIME), None)
    times = None if named is None else columns.pop(named)
    if not columns or not len(next(iter(columns.values()))):
        raise BadInput(f"'{path}' has no row of numbers")
    rate = asked.rate
    if times is not None and rate is None and len(times) > 1:
        rate = 1 / float(np.median(np.diff(times)))
    facts = Facts(str(path), rate, channels=tuple(columns))
    return Whole(facts, np.stack(list(columns.values()), 1), None if times is None else times - times[0], asked.block(rate))
