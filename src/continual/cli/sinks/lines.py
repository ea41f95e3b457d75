"""JSON lines: an object for each output, to a file or to standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TextIO

from .base import Result, Sink, safely

STDOUT = "-"


class Lines(Sink):
    """Writes a line for each output as it comes."""

    def __init__(self, name: str):
        self.name = name
        path = Path(name)
        self._file: TextIO = sys.stdout if name == STDOUT else safely(name, lambda: path.open("w", encoding="utf-8"))

    def write(self, result: Result) -> None:
        line = json.dumps(result.data())
        safely(self.name, lambda: (self._file.write(f"{line}\n"), self._file.flush()))

    def close(self) -> None:
        if self._file is not sys.stdout:
            safely(self.name, self._file.close)
