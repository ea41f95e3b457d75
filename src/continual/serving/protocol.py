"""The protocol ``continual.v1``: JSON text for control, and binary messages for frames and outputs.

A binary message is ``u8 type, u8 flags, u16 credit, u32 count, u64 seq`` and data, little endian. Of one stream the data is
``count × (C, *S)`` for each input or output, one after another. Multiplexed it is ``count × (u32 stream, u32 seq, data)``, with the
lowest 32 bits of ``seq``.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

SUBPROTOCOL, PATH = "continual.v1", "/v1/stream"
HEADER = struct.Struct("<BBHIQ")
DATA, MULTIPLEXED = 1, 2  # types of messages
REPLAYED, END, GAP = 1, 2, 4  # flags
LOW = 0xFFFFFFFF

CODES = (
    "full", "draining", "shape", "dtype", "sequence", "overrun", "slow_reader", "not_finite", "too_big", "idle", "unknown_stream",
    "other_model", "protocol", "internal",
)  # fmt: skip
CONTROL = 1 << 16  # characters of a control message
PASSING = ("full", "draining", "idle", "slow_reader")  # the same may succeed later, or elsewhere

Array = np.ndarray[Any, Any]


class Refused(Exception):
    """A refusal of a server, with the code of the protocol.

    Attributes:
        code: one of :data:`CODES`.
        retry_after: seconds after which it may succeed; ``None``: it will not.
        more: for the message.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None, **more: Any):
        super().__init__(message)
        self.code, self.retry_after, self.more = code, retry_after, more

    def message(self) -> dict[str, Any]:
        """As the message ``error``."""
        return {"type": "error", "code": self.code, "message": str(self), "retry_after": self.retry_after, **self.more}


class Spec(NamedTuple):
    """A frame of an input, or an output of one moment."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @staticmethod
    def of(shape: Sequence[int], dtype: Any) -> Spec:
        """With the byte order of the protocol."""
        return Spec(tuple(int(n) for n in shape), np.dtype(dtype).newbyteorder("<"))

    @property
    def nbytes(self) -> int:
        """Bytes of one."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Format:
    """What the frames, or the outputs, of a stream are: one specification each."""

    specs: tuple[Spec, ...]

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of one frame of all inputs."""
        return sum(s.nbytes for s in self.specs)

    @functools.cached_property
    def _parts(self) -> list[tuple[np.dtype[Any], int, tuple[int, ...]]]:
        """The dtype, the number of values and the shape of each."""
        return [(s.dtype, math.prod(s.shape), s.shape) for s in self.specs]

    @functools.cached_property
    def entry(self) -> np.dtype[Any]:
        """An entry of a multiplexed message."""
        fields: list[Any] = [("stream", "<u4"), ("seq", "<u4")]
        return np.dtype(fields + [(f"f{i}", s.dtype, s.shape) for i, s in enumerate(self.specs)])

    def described(self) -> dict[str, Any]:
        """For JSON: ``shape`` and ``dtype``, lists for several."""
        shapes, dtypes = [list(s.shape) for s in self.specs], [s.dtype.name for s in self.specs]
        return {"shape": shapes, "dtype": dtypes}

    @staticmethod
    def from_json(found: Any) -> Format:
        """From :meth:`described`."""
        return Format(tuple(Spec.of(s, d) for s, d in zip(found["shape"], found["dtype"], strict=True)))

    # ---- messages -------------------------------------------------------------------------------------------------------

    def data(self, message: bytes, count: int) -> list[Array]:
        """The arrays ``(count, C, *S)`` of a message of one stream. They are read only.

        Raises:
            Refused: it has another size.
        """
        if len(message) != HEADER.size + count * self.nbytes:
            raise Refused(
                "shape", f"{count} frames of {self._text()} are {count * self.nbytes} bytes, got {len(message) - HEADER.size}"
            )
        found, at = [], HEADER.size
        for dtype, values, shape in self._parts:
            found.append(np.frombuffer(message, dtype, count * values, at).reshape(count, *shape))
            at += count * values * dtype.itemsize
        return found

    def entries(self, message: bytes, count: int) -> Array:
        """The entries of a multiplexed message.

        Raises:
            Refused: it has another size.
        """
        entry = self.entry
        if len(message) != HEADER.size + count * entry.itemsize:
            raise Refused(
                "shape", f"{count} entries of {self._text()} are {count * entry.itemsize} bytes, got {len(message) - HEADER.size}"
            )
        return np.frombuffer(message, entry, count, HEADER.size)

    def message(self, seq: int, parts: Sequence[Array], flags: int = 0, credit: int = 0, count: int | None = None) -> bytes:
        """A message of one stream."""
        count = len(parts[0]) if count is None else count
        head = HEADER.pack(DATA, flags, credit, count, seq)
        if not count:
            return head
        return head + b"".join(np.ascontiguousarray(x, s.dtype).tobytes() for x, s in zip(parts, self.specs, strict=True))

    def multiplexed(
        self, streams: Array, seqs: Array, parts: Sequence[Array], flags: int = 0, credit: int = 0, seq: int = 0
    ) -> bytes:
        """A multiplexed message."""
        made = np.empty(len(streams), self.entry)
        made["stream"], made["seq"] = streams, np.asarray(seqs, np.int64) & LOW
        for i, x in enumerate(parts):
            made[f"f{i}"] = x
        return HEADER.pack(MULTIPLEXED, flags, min(credit, 0xFFFF), len(made), seq) + made.tobytes()

    def checked(self, frames: Any) -> list[Array]:
        """Frames of a caller as arrays ``(n, C, *S)``.

        Raises:
            Refused: another shape or dtype.
        """
        parts = [np.asarray(x) for x in (frames if isinstance(frames, (list, tuple)) else [frames])]
        if len(parts) != len(self.specs):
            raise Refused("shape", f"takes {len(self.specs)} inputs, got {len(parts)}")
        for x, spec in zip(parts, self.specs, strict=True):
            if x.dtype != spec.dtype:
                raise Refused("dtype", f"takes {spec.dtype.name}, got {x.dtype.name}: frames.astype({spec.dtype.name!r})")
            if x.shape[1:] != spec.shape or len(x) != len(parts[0]):
                raise Refused("shape", f"takes frames (n, {', '.join(map(str, spec.shape))}), got {x.shape}")
        return parts

    def _text(self) -> str:
        return ", ".join(f"{s.dtype.name} {s.shape}" for s in self.specs)


def header(message: bytes) -> tuple[int, int, int, int, int]:
    """The type, flags, credit, count and seq of a binary message.

    Raises:
        Refused: it is none.
    """
    if len(message) < HEADER.size:
        raise Refused("protocol", f"a binary message has at least {HEADER.size} bytes, got {len(message)}")
    found = HEADER.unpack_from(message)
    if found[0] not in (DATA, MULTIPLEXED):
        raise Refused("protocol", f"a binary message is of type {DATA} or {MULTIPLEXED}, got {found[0]}")
    return found


def parsed(text: str) -> dict[str, Any]:
    """A control message.

    Raises:
        Refused: it is none, or too long.
    """
    if len(text) > CONTROL:
        raise Refused("too_big", f"a control message has at most {CONTROL} characters, got {len(text)}")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Refused("protocol", f"a control message is JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise Refused("protocol", 'a control message is an object with a "type"')
    return found
