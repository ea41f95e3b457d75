"""A stream of the Lab Streaming Layer (pylsl): EEG, motion and other sensors of a laboratory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked, Block, Facts

PATIENCE = 5.0  # seconds to wait for a stream of the name
SILENCE = 5.0  # seconds without a sample, after which a stream whose sender is gone has ended


class Inlet:
    """A stream of a name, open.

    Raises:
        BadInput: there is none, or its samples are text.
    """

    def __init__(self, name: str, asked: Asked):
        try:
            import pylsl
        except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: the package is there, liblsl is not
            raise BadInput(f"lsl:{name} needs pylsl: {pip_install('pylsl')} ({str(error).splitlines()[0]})") from error
        found = pylsl.resolve_byprop("name", name, 1, PATIENCE)
        if not found:
            raise BadInput(f"there is no stream '{name}' of the Lab Streaming Layer in this network (waited {PATIENCE:g} s)")
        info = found[0]
        if info.channel_format() == pylsl.cf_string:
            raise BadInput(f"the stream '{name}' holds text; a signal of numbers is needed")
        self._inlet = pylsl.StreamInlet(info, recover=False)
        self._lost = pylsl.util.LostError if hasattr(pylsl, "util") else pylsl.LostError
        count = info.channel_count()
        rate = float(info.nominal_srate()) or asked.rate
        self.facts = Facts(f"lsl:{name}", rate, None, True, tuple(str(i + 1) for i in range(count)))
        self._block = asked.block(rate)

    def blocks(self) -> Iterator[Block]:
        first, silent = None, 0.0
        while silent < SILENCE:
            try:
                samples, stamps = self._inlet.pull_chunk(timeout=0.2, max_samples=self._block)
            except self._lost:
                return
            if not stamps:
                silent += 0.2
                continue
            first, silent = stamps[0] if first is None else first, 0.0
            yield Block(np.asarray(samples, dtype=np.float64), np.asarray(stamps) - first)

    def close(self) -> None:
        self._inlet.close_stream()
