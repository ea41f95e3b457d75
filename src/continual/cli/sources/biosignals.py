"""Recordings of EEG, ECG and other signals of the body: EDF, BDF (pyedflib) and WFDB, the format of PhysioNet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked, Block, Facts, Whole, moments

EDF = (".edf", ".bdf")
WFDB = (".hea",)


class Edf:
    """An EDF or BDF file, open; frames are the signals with the highest rate, in their physical units."""

    def __init__(self, path: Path, asked: Asked):
        try:
            import pyedflib
        except ImportError as error:
            raise BadInput(f"'{path}' is read with pyedflib: {pip_install('pyedflib')} ({error})") from error
        try:
            self._file = pyedflib.EdfReader(str(path))
        except OSError as error:
            raise BadInput(f"'{path}' can't be read as a recording ({' '.join(str(error).split())})") from error
        rates = [self._file.getSampleFrequency(i) for i in range(self._file.signals_in_file)]
        labels = [name.strip() for name in self._file.getSignalLabels()]
        if not rates:
            self.close()
            raise BadInput(f"'{path}' has no signal")
        rate = max(rates)
        self._which = [i for i, r in enumerate(rates) if r == rate]
        count = int(self._file.getNSamples()[self._which[0]])
        self.facts = Facts(str(path), float(rate), count, channels=tuple(labels[i] for i in self._which))
        if slower := [f"{labels[i]} ({rates[i]:g})" for i in range(len(rates)) if rates[i] != rate]:
            self.facts.notes.append(
                f"'{path}': signals of fewer than {rate:g} samples per second are left out: {', '.join(slower)}"
            )
        self._block = asked.block(rate)

    def blocks(self) -> Iterator[Block]:
        count = self.facts.frames or 0
        for start in range(0, count, self._block):
            size = min(self._block, count - start)
            columns = [self._file.readSignal(i, start, size) for i in self._which]
            yield Block(np.stack(columns, 1), moments(start, size, self.facts))

    def close(self) -> None:
        self._file.close()


def wfdb(path: Path, asked: Asked) -> Whole:
    """A WFDB record, by its header (.hea); frames are its signals in their physical units.

    Raises:
        BadInput: it can't be read.
    """
    try:
        import wfdb as package
    except ImportError as error:
        raise BadInput(f"'{path}' is read with wfdb: {pip_install('wfdb')} ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that it uses
            record: Any = package.rdrecord(str(path.with_suffix("")))
    except Exception as error:  # its errors have no common class
        raise BadInput(f"'{path}' can't be read as a WFDB record ({str(error).splitlines()[0]})") from error
    if record.p_signal is None or not len(record.p_signal):
        raise BadInput(f"'{path}' has no sample")
    return Whole(
        Facts(str(path), float(record.fs), channels=tuple(record.sig_name)), record.p_signal, None, asked.block(record.fs)
    )
