"""Tables of outputs: CSV, and Parquet by pyarrow. A row is an output: its step, its moment, its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Result, Sink, safely, vector

WIDEST = 10_000  # numbers in a row
GROUP = 4096  # rows that are written at once


class Csv(Sink):
    """Writes a row of text for each output as it comes."""

    def __init__(self, name: str):
        self.name, self._headed = name, False
        path = Path(name)
        self._file = safely(name, lambda: path.open("w", encoding="utf-8"))

    def write(self, result: Result) -> None:
        numbers = vector(result, self.name, WIDEST)
        if not self._headed:
            self._put(",".join(names(numbers.size)))
            self._headed = True
        time = "" if result.time is None else repr(result.time)
        self._put(",".join([str(result.index), time, *(repr(float(x)) for x in numbers)]))

    def _put(self, line: str) -> None:
        safely(self.name, lambda: (self._file.write(f"{line}\n"), self._file.flush()))

    def close(self) -> None:
        safely(self.name, self._file.close)


class Parquet(Sink):
    """Writes rows in groups; the file is complete once it is closed."""

    def __init__(self, name: str):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise BadInput(f"--sink '{name}' is written with pyarrow: {pip_install('pyarrow')} ({error})") from error
        self.name, self._arrow = name, pyarrow
        self._writer: Any = None
        self._rows: list[tuple[float, float | None, np.ndarray]] = []

    def write(self, result: Result) -> None:
        self._rows.append((result.index, result.time, vector(result, self.name, WIDEST)))
        if len(self._rows) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        indices, times, values = zip(*self._rows, strict=True)
        columns: list[Any] = [indices, self._arrow.array(times, self._arrow.float64()), *np.stack(values).T]
        table = self._arrow.table(columns, names=names(len(columns) - 2))
        if self._writer is None:
            self._writer = safely(self.name, lambda: self._arrow.parquet.ParquetWriter(self.name, table.schema))
        safely(self.name, lambda: self._writer.write_table(table))
        self._rows = []

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            safely(self.name, self._writer.close)


def names(count: int) -> list[str]:
    """The headings."""
    return ["index", "time", *(["output"] if count == 1 else [f"output_{i}" for i in range(count)])]
