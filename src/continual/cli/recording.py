"""Reading a recording: one signal from a .csv, .npy or .wav file, or the ECG that PyWavelets ships."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pywt
import soundfile

ECG_RATE = 360.0  # samples per second of the record that the ECG is an excerpt of
LONGEST = 20_000  # samples that a demonstration streams


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


def load(path: Path | None, rate: float | None, column: int, least: int) -> Recording:
    """Read a file, or the ECG if there is none.

    Args:
        path: the file.
        rate: samples per second; ``None`` for what the file says.
        column: of a .csv file, from 1.
        least: samples that are needed.

    Raises:
        BadRecording: the file can't be used; says why.
    """
    if path is None:
        found = ecg()
        return Recording(found.name, found.samples, rate or found.rate)
    if not path.is_file():
        raise BadRecording(f"there is no file '{path}'")
    readers = {".csv": _csv, ".npy": _npy, ".wav": _wav}
    if path.suffix.lower() not in readers:
        raise BadRecording(f"'{path}': don't know the ending '{path.suffix}'; give a .csv, .npy or .wav file")
    if path.stat().st_size == 0:
        raise BadRecording(f"'{path}' is empty")
    samples, found_rate, notes = readers[path.suffix.lower()](path, column)
    if samples.size < least:
        raise BadRecording(f"'{path}' has {samples.size} samples, at least {least} are needed")
    if not np.isfinite(samples).all():
        where = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise BadRecording(f"'{path}': sample {where} is {samples[where]}; only finite numbers can be used")
    if np.ptp(samples) == 0:
        raise BadRecording(f"'{path}': all samples are {samples[0]:g}; there is no signal")
    if samples.size > LONGEST:
        notes = (*notes, f"the first {LONGEST} of {samples.size} samples are used")
        samples = samples[:LONGEST]
    return Recording(path.name, samples, rate or found_rate or 100.0, notes)


def _csv(path: Path, column: int) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    values: list[float] = []
    notes: tuple[str, ...] = ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) < column:
                    raise BadRecording(f"'{path}', line {number}: there is no column {column}, the line has {len(row)}")
                try:
                    values.append(float(row[column - 1]))
                except ValueError:
                    if not values and number == 1:
                        notes = (f"the first line is taken as a heading: {row[column - 1].strip()}",)
                        continue
                    raise BadRecording(f"'{path}', line {number}: {row[column - 1]!r} is no number") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRecording(f"'{path}' is no text file with numbers ({error})") from error
    return np.asarray(values, dtype=np.float64), None, notes


def _npy(path: Path, column: int) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadRecording(f"'{path}' can't be read as an array of numbers ({str(error).splitlines()[0]})") from error
    if (
        not isinstance(array, np.ndarray)
        or array.ndim != 1
        or not np.issubdtype(array.dtype, np.number)
        or np.iscomplexobj(array)
    ):
        shown = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise BadRecording(f"'{path}' holds {shown}; a one-dimensional array of real numbers is needed")
    return array.astype(np.float64), None, ()


def _wav(path: Path, column: int) -> tuple[np.ndarray, float | None, tuple[str, ...]]:
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadRecording(f"'{path}' can't be read as a .wav file ({error})") from error
    notes = (f"{samples.shape[1]} channels are averaged",) if samples.shape[1] > 1 else ()
    return samples.mean(1), float(rate), notes
