"""Reading a recording: one signal from a .csv, .npy or .wav file, or the ECG that PyWavelets ships."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pywt
import soundfile

ECG_RATE = 360.0  # samples per second of the record that the ECG is an excerpt of
LONGEST = 20_000  # samples that a demonstration streams
ASSUMED_RATE = 100.0  # samples per second, where neither the file nor the user says it


class BadRecording(ValueError):
    """A file that holds no signal that can be used; the message is one line."""


@dataclass(frozen=True)
class Recording:
    """One signal.

    Attributes:
        name: what to call it.
        samples: float64, one dimension.
        rate: samples per second.
        notes: what was done to it.
    """

    name: str
    samples: np.ndarray
    rate: float
    notes: tuple[str, ...] = ()


def ecg() -> Recording:
    """A real electrocardiogram of 1024 samples."""
    return Recording("ECG (pywt.data.ecg)", np.asarray(pywt.data.ecg(), dtype=np.float64), ECG_RATE)


def load(path: Path | None, rate: float | None, column: str | None, least: int) -> Recording:
    """Read a file, or the ECG if there is none.

    Args:
        path: the file.
        rate: samples per second; ``None`` for what the file says.
        column: of a .csv file, by its heading or by its number from 1; ``None`` if there is only one.
        least: samples that are needed.

    Raises:
        BadRecording: the file can't be used; says why.
    """
    kind = "" if path is None else path.suffix.lower()
    if column is not None and kind != ".csv":
        raise BadRecording("--column chooses from a .csv file, given by --input")
    if path is None:
        found = ecg()
        return Recording(found.name, found.samples, rate or found.rate)
    if path.is_dir():
        raise BadRecording(f"'{path}' is a folder; give a .csv, .npy or .wav file")
    if not path.is_file():
        raise BadRecording(f"there is no file '{path}'")
    readers = {".csv": lambda path: _csv(path, column), ".npy": _npy, ".wav": _wav}
    if kind not in readers:
        raise BadRecording(f"'{path}': don't know the ending '{path.suffix}'; give a .csv, .npy or .wav file")
    if path.stat().st_size == 0:
        raise BadRecording(f"'{path}' is empty")
    try:
        samples, found_rate, notes = readers[kind](path)
    except OSError as error:
        raise BadRecording(f"'{path}' can't be read ({error.strerror or error})") from error
    if samples.size < least:
        raise BadRecording(f"'{path}' has {samples.size} samples, at least {least} are needed")
    if not np.isfinite(samples).all():
        where = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise BadRecording(f"'{path}': sample {where + 1} is {samples[where]}; only finite numbers can be used")
    if np.ptp(samples) == 0:
        raise BadRecording(f"'{path}': all samples are {samples[0]:g}; there is no signal")
    if samples.size > LONGEST:
        notes = (*notes, f"only the first {LONGEST} samples are used")
        samples = samples[:LONGEST]
    if not rate and not found_rate:
        notes = (*notes, f"{ASSUMED_RATE:g} samples per second are assumed: --rate says it better")
    return Recording(path.name, samples, rate or found_rate or ASSUMED_RATE, notes)


def _csv(path: Path, column: str | None) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    """Numbers in text, a sample a line. A line of headings may come first; ``#`` begins a comment."""
    values: list[float] = []
    notes: tuple[str, ...] = ()
    at = -1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in _rows(file):
                if at < 0:
                    headings = row if all(_number(cell) is None for cell in row) else []
                    at = _place(path, column, headings, len(row))
                    if headings:
                        notes = (f"the first line is taken as a heading: {row[at]}",)
                        continue
                if len(row) <= at:
                    raise BadRecording(f"'{path}', line {number}: there is no column {at + 1}, the line has {len(row)}")
                value = _number(row[at])
                if value is None:
                    raise BadRecording(f"'{path}', line {number}: {row[at][:40]!r} is no number")
                if not math.isfinite(value):
                    raise BadRecording(f"'{path}', line {number}: {row[at][:40]} is no finite number")
                values.append(value)
                if len(values) > LONGEST:
                    break
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRecording(f"'{path}' is no text file with numbers ({error})") from error
    return np.asarray(values, dtype=np.float64), None, notes


def _rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of each line that holds something."""
    held = ((number, line.strip("\r\n ")) for number, line in enumerate(file, start=1))
    lines = ((number, line) for number, line in held if line.strip() and not line.startswith("#"))
    first = list(itertools.islice(lines, 2))  # a heading and numbers, or numbers: they tell what separates the cells
    separator = next((mark for mark in ";\t," for _, line in first if mark in line), None)
    if separator is None:
        start, _, more = first[-1][1].partition(" ") if first else ("", "", "")
        separator = " " if more and _number(start) is not None else ","
    for number, line in itertools.chain(first, lines):
        yield number, [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _place(path: Path, column: str | None, headings: list[str], columns: int) -> int:
    """Where in a row the wanted column is. A guess could be wrong: the first of several is often the time."""
    if column is None and columns > 1:
        named = f" ({', '.join(headings)})" if headings else ""
        raise BadRecording(f"'{path}' has {columns} columns{named}: choose one with --column")
    if column is None:
        return 0
    if column in headings:
        return headings.index(column)
    if column.isdecimal() and 1 <= int(column) <= columns:
        return int(column) - 1
    known = f"it has {', '.join(headings)}" if headings else f"it has {columns}, without headings"
    raise BadRecording(f"'{path}': there is no column '{column}', {known}")


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _npy(path: Path) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)  # a pickle can run code
    except (ValueError, EOFError, MemoryError) as error:
        raise BadRecording(f"'{path}' can't be read as an array of numbers ({str(error).splitlines()[0]})") from error
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 1
        or not np.issubdtype(array.dtype, np.number)
        or np.iscomplexobj(array)
    ):
        shown = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise BadRecording(f"'{path}' holds {shown}; a one-dimensional array of real numbers is needed")
    return array[: LONGEST + 1].astype(np.float64), None, ()


def _wav(path: Path) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    try:
        with soundfile.SoundFile(path) as file:
            samples, rate = file.read(LONGEST + 1, dtype="float64", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadRecording(f"'{path}' can't be read as a .wav file ({error})") from error
    notes = (f"{samples.shape[1]} channels are averaged",) if samples.shape[1] > 1 else ()
    return samples.mean(1), float(rate), notes
