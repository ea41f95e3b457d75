"""Reads a recording: one signal from a .csv, .npy or .wav file, or the ECG of PyWavelets."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pywt
import soundfile

from .sources.sound import cut_off

ECG_RATE = 360.0  # samples per second of the ECG
LONGEST = 20_000  # the most samples of a demonstration
ASSUMED_RATE = 100.0  # samples per second by default


class BadRecording(ValueError):
    """A file without a usable signal; the message is one line."""


@dataclass(frozen=True)
class Recording:
    """One signal.

    Attributes:
        name: its title.
        samples: float64, one dimension.
        rate: samples per second.
        notes: changes and assumptions.
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
        rate: samples per second; ``None`` for the rate of the file.
        column: of a .csv file, by its heading or by its number from 1; ``None`` if there is only one.
        least: the fewest samples.

    Raises:
        BadRecording: the file can't be used; the message says why.
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
        notes = (*notes, f"only the first {LONGEST:,} samples are used, which are enough for a demonstration")
        samples = samples[:LONGEST]
    if not rate and not found_rate:
        notes = (*notes, f"{ASSUMED_RATE:g} samples per second are assumed: --rate sets another rate")
    return Recording(path.name, samples, rate or found_rate or ASSUMED_RATE, notes)


def _csv(path: Path, column: str | None) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    """Numbers in text, one sample in a row. A row of headings may come first; ``#`` begins a comment."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = (line for line in file if line.partition("#")[0].strip())
            first = list(itertools.islice(lines, 2))  # a heading and numbers, or numbers
            if not first:
                return np.empty(0), None, ()
            read = itertools.islice(itertools.chain(first, lines), LONGEST + 2)
            rows = np.char.strip(np.loadtxt(read, str, delimiter=_delimiter(first), quotechar='"', ndmin=2))
    except ValueError as error:  # also of text that is not UTF-8
        raise BadRecording(f"'{path}' is not a text file with a table of numbers ({str(error).partition(';')[0]})") from error
    headings = list(rows[0]) if all(_number(cell) is None for cell in rows[0]) else []
    at = _place(path, column, headings, rows.shape[1])
    cells = rows[bool(headings) :, at]
    notes = (f"the first row is taken as a heading: {headings[at]}",) if headings else ()
    try:
        return cells.astype(np.float64)[: LONGEST + 1], None, notes
    except ValueError as error:
        bad = next(i for i, cell in enumerate(cells) if _number(cell) is None)
        raise BadRecording(f"'{path}': sample {bad + 1} is {cells[bad][:40]!r}, which is not a number") from error


def _delimiter(first: list[str]) -> str | None:
    """The separator of cells: a mark in the first rows, else spaces (``None``) if they separate numbers."""
    marked = next((mark for mark in ";\t," for line in first if mark in line), None)
    start, *more = first[-1].split()
    return marked or (None if more and _number(start) is not None else ",")


def _place(path: Path, column: str | None, headings: list[str], columns: int) -> int:
    """The index of the wanted column. It is not guessed: the first of several is often the time."""
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
            count = file.frames
            samples, rate = file.read(LONGEST + 1, dtype="float64", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadRecording(f"'{path}' can't be read as a .wav file ({error})") from error
    if not len(samples):
        raise BadRecording(f"'{path}' has a header, and no sample")
    notes = [f"{samples.shape[1]} channels are averaged"] if samples.shape[1] > 1 else []
    if cut := cut_off(path, count):
        notes.append(cut)
    return samples.mean(1), float(rate), tuple(notes)
