"""Outputs as sound: a WAV file of 32-bit numbers, a channel for each number of an output."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import About, Result, Sink, vector

MOST = 64  # channels
GROUP = 4096  # samples that are written at once


class Sound(Sink):
    """Writes samples as they come; the rate is that of the outputs."""

    def __init__(self, name: str, about: About):
        try:
            import soundfile
        except ImportError as error:
            raise BadInput(f"--sink '{name}' is written with soundfile: {pip_install('soundfile')} ({error})") from error
        rate = about.outputs_per_second
        if rate is None or rate != int(rate):
            raise BadInput(f"--sink '{name}' needs a whole number of outputs per second, and there are {rate}: --rate sets it")
        self.name, self._rate, self._library = name, int(rate), soundfile
        self._file: Any = None
        self._waiting: list[np.ndarray] = []

    def write(self, result: Result) -> None:
        self._waiting.append(vector(result, self.name, MOST))
        if len(self._waiting) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        samples = np.stack(self._waiting).astype(np.float32)
        try:
            if self._file is None:
                self._file = self._library.SoundFile(self.name, "w", self._rate, samples.shape[1], "FLOAT", format="WAV")
            self._file.write(samples)
        except (self._library.LibsndfileError, OSError) as error:
            raise BadInput(f"can't write to --sink '{self.name}' ({error})") from error
        self._waiting = []

    def close(self) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()
