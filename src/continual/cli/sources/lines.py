"""Frames as text: a JSON array of numbers a line, or an object of what a sink writes. Files, pipes and WebSockets carry them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..target import BadInput
from .base import Asked, Block, Facts


class Lines:
    """Frames as they come, one in each message.

    Args:
        name: for messages.
        messages: the messages.
        close: gives back what they come from.
        asked: the rate.
        live: whether they come as time passes.
    """

    def __init__(self, name: str, messages: Iterable[str | bytes], close: Callable[[], None], asked: Asked, live: bool):
        self.facts = Facts(name, asked.rate, None, live)
        self._messages, self.close = messages, close

    def blocks(self) -> Iterator[Block]:
        first = None
        for number, message in enumerate(self._messages):
            if not message.strip():
                continue
            frame, at = frame_of(message, f"'{self.facts.name}': frame {number + 1}")
            if at is None and self.facts.rate:
                at = number / self.facts.rate
            first = at if first is None else first
            yield Block(frame[None], None if at is None else np.array([at - (first or 0.0)]))


def frame_of(message: str | bytes, where: str) -> tuple[np.ndarray, float | None]:
    """The numbers of a message and their moment: a JSON array, an object with ``frame`` or ``output`` and ``time``, or float32 bytes.

    Raises:
        BadInput: it is something else.
    """
    if isinstance(message, bytes) and message[:1] not in (b"[", b"{"):
        if len(message) % 4:
            raise BadInput(f"{where} has {len(message)} bytes, which are no float32 numbers")
        return np.frombuffer(message, dtype="<f4"), None
    try:
        data: Any = json.loads(message)
        at = data.get("time") if isinstance(data, dict) else None
        found = np.asarray(data.get("frame", data.get("output")) if isinstance(data, dict) else data, dtype=np.float64)
    except (ValueError, TypeError) as error:
        shown = (message if isinstance(message, str) else message.decode(errors="replace")).strip()[:60]
        raise BadInput(f"{where} is {shown!r}: give a JSON array of numbers, or an object with frame and time") from error
    return np.atleast_1d(found), None if at is None else float(at)
