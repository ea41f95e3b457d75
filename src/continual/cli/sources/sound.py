"""Sound: WAV, FLAC, OGG and MP3 files by libsndfile."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked, Block, Facts, moments

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aiff", ".aif")


class Sound:
    """A file of sound, open; frames are ``(channels,)``, between −1 and 1.

    Raises:
        BadInput: it can't be read, or holds no sample.
    """

    def __init__(self, path: Path, asked: Asked):
        try:
            import soundfile
        except ImportError as error:
            raise BadInput(f"'{path}' is read with soundfile: {pip_install('soundfile')} ({error})") from error
        self._errors = (soundfile.LibsndfileError, RuntimeError)
        try:
            self._file = soundfile.SoundFile(path)
        except self._errors as error:
            raise BadInput(f"'{path}' can't be read as sound ({error})") from error
        count = self._file.frames
        if count == 0:
            self._file.close()
            raise BadInput(f"'{path}' has a header, and no sample")
        self.facts = Facts(str(path), float(self._file.samplerate), count)
        self.facts.channels = tuple(str(i + 1) for i in range(self._file.channels))
        if note := cut_off(path, count):
            self.facts.notes.append(note)
        self._block = asked.block(self.facts.rate)

    def blocks(self) -> Iterator[Block]:
        start = 0
        while True:
            try:
                read = self._file.read(self._block, dtype="float32", always_2d=True)
            except self._errors as error:
                raise BadInput(f"'{self.facts.name}' is damaged after sample {start:,} ({error})") from error
            if not len(read):
                return
            yield Block(read, moments(start, len(read), self.facts))
            start += len(read)

    def close(self) -> None:
        self._file.close()


def cut_off(path: Path, found: int) -> str | None:
    """That a WAV file has fewer samples than its header says, with both counts; ``None`` if it has them all."""
    said = samples_of_header(path)
    if said is None or said <= found:
        return None
    return f"'{path}' is cut off: its header says {said:,} samples, and it has {found:,}"


def samples_of_header(path: Path) -> int | None:
    """The number of samples in each channel by the header of a WAV file; ``None`` for other files and where the header leaves it open."""
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return None
        align = 0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"fmt ":
                align = struct.unpack("<H", file.read(size)[12:14])[0]
                continue
            if name == b"data":
                open_end = size in (0, 0xFFFFFFFF)  # written to a pipe: the length was not known
                return None if open_end or not align else size // align
            file.seek(size + size % 2, 1)
    return None
