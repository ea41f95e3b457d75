"""Sound by PyAV: addresses, pipes and the sound of films, for networks that take signals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..target import BadInput
from .base import Asked, Block, Facts, moments
from .video import container, pyav, said


class Heard:
    """The first stream of sound in what PyAV opens; frames are ``(channels,)``, between −1 and 1.

    Raises:
        BadInput: it can't be opened, or there is no sound in it.
    """

    def __init__(self, source: str, asked: Asked):
        self._container, name, live = container(source, "sound")
        if not self._container.streams.audio:
            self.close()
            raise BadInput(f"there is no sound in '{name}', and the network takes a signal")
        self._stream = self._container.streams.audio[0]
        channels = tuple(str(i + 1) for i in range(self._stream.channels))
        self.facts = Facts(name, float(self._stream.rate), None, live, channels)

    def blocks(self) -> Iterator[Block]:
        av, start = pyav(), 0
        to_floats = av.AudioResampler(format="fltp")
        try:
            for frame in self._container.decode(self._stream):
                for part in to_floats.resample(frame):
                    samples = np.ascontiguousarray(part.to_ndarray().T)
                    yield Block(samples, moments(start, len(samples), self.facts))
                    start += len(samples)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadInput(f"'{self.facts.name}' is damaged or cut off after sample {start:,} ({said(error)})") from error

    def close(self) -> None:
        self._container.close()
