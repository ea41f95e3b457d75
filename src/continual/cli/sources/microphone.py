"""A microphone, by PortAudio (sounddevice)."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked, Block, Facts

RATE = 16_000.0  # where neither the network nor the user says another
WAITING = 256  # blocks that wait for a slow network, before the oldest is dropped


class Microphone:
    """A microphone that is open.

    Args:
        device: its number or a part of its name; empty for the default one.
        asked: the rate and the number of channels.

    Raises:
        BadInput: there is no such device, or no driver.
    """

    def __init__(self, device: str, asked: Asked):
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio itself is not
            raise BadInput(f"a microphone needs sounddevice and PortAudio: {pip_install('sounddevice')} ({error})") from error
        rate = asked.rate or RATE
        self._blocks: queue.Queue[tuple[Any, float]] = queue.Queue(WAITING)
        self.dropped = 0
        try:
            self._stream = sounddevice.InputStream(
                samplerate=rate,
                blocksize=asked.block(rate),
                device=int(device) if device.isdigit() else device or None,
                channels=asked.channels,
                dtype="float32",
                callback=self._heard,
            )
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise BadInput(f"the microphone {device or '(default)'} can't be opened ({error})") from error
        channels = tuple(str(i + 1) for i in range(asked.channels))
        self.facts = Facts(f"the microphone {device}".strip(), rate, None, True, channels)

    def _heard(self, data: Any, count: int, time: Any, status: Any) -> None:
        """Called by the driver in a thread of its own: the data are its own and must be copied."""
        try:
            self._blocks.put_nowait((np.array(data), time.inputBufferAdcTime))
        except queue.Full:
            self.dropped += count

    def blocks(self) -> Iterator[Block]:
        first = None
        while True:
            try:
                data, at = self._blocks.get(timeout=0.2)  # awake now and then, so that Ctrl-C is seen
            except queue.Empty:
                if not self._stream.active:
                    return
                continue
            first = at if first is None else first
            yield Block(data, at - first + np.arange(len(data)) / (self.facts.rate or 1))

    def close(self) -> None:
        self._stream.close()
