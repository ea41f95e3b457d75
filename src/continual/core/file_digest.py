"""The digest of a file, kept in the file: it tells whether all bytes are those that were written.

The digest stands in the file, as text behind :data:`MARK`, wherever the format keeps such text. It is the SHA-256 of the file's bytes with
zeros in the place of its own digits, and after them of the SHA-256 of each file beside it that belongs to it.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "continual:sha256:"
BLANK = MARK + 64 * "0"  # to write into a file that is then sealed
ZEROS = 64 * b"0"
_DIGITS = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True)
class Seal:
    """The digest in a file.

    Attributes:
        digest: of the file as it is.
        written: those that stand in it; they are all the same where nothing is damaged.
    """

    digest: str
    written: frozenset[str]

    @property
    def intact(self) -> bool:
        """Whether the file is what was written."""
        return self.written == {self.digest}


def seal(path: Path, beside: Iterable[Path] = ()) -> None:
    """Write a file's digest in the place of its :data:`BLANK`, or of an earlier digest.

    Args:
        path: the file.
        beside: files that belong to it, in their order.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        places = _places(content)
        if not places:
            raise ValueError(f"{str(path)!r} has no place for its digest")
        digest = _digest(content, places, beside)
        for place in places:
            content[place : place + 64] = digest.encode()


def seal_of(path: Path, beside: Iterable[Path] = ()) -> Seal | None:
    """The digest in a file; ``None`` where there is none."""
    if path.stat().st_size == 0:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        places = _places(content)
        if not places:
            return None
        written = frozenset(content[place : place + 64].decode() for place in places)
        return Seal(_digest(content, places, beside), written)


def places_behind(content: mmap.mmap, text: bytes) -> Iterator[int]:
    """Where a text in a file ends. It is found faster than by a regular expression."""
    at = content.find(text)
    while at >= 0:
        yield at + len(text)
        at = content.find(text, at + 1)


def _places(content: mmap.mmap) -> list[int]:
    return [at for at in places_behind(content, MARK.encode()) if _DIGITS.match(content[at : at + 64])]


def _digest(content: mmap.mmap, places: list[int], beside: Iterable[Path]) -> str:
    """The digest of a file, computed with zeros in place of the stored digest."""
    for place in places:
        content[place : place + 64] = ZEROS
    total = hashlib.sha256(content)
    for path in beside:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
