"""Texts in a drawing: escaped, measured, cut to a width."""

from __future__ import annotations

import re
from html import escape

MONO, OP, SMALL, TITLE = 6.4, 7.6, 6.3, 10.5  # mean width of a letter, a little on the safe side
_FORBIDDEN = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML can't hold


def safe(text: str) -> str:
    """Text for XML and HTML, in elements and in attributes."""
    return escape(_FORBIDDEN.sub("\ufffd", text), quote=True)


def cut(text: str, width: float, letter: float, end: bool = False) -> str:
    """As much as fits: the beginning, or with ``end`` the end and some of the beginning (of paths, whose ends tell them apart)."""
    room = int(width / letter)
    if len(text) <= room:
        return text
    if room < 2:
        return "…"
    before = (room - 1) // 3 if end else room - 1
    return text[:before] + "…" + text[len(text) - (room - 1 - before) :]


def size(count: int) -> str:
    """Bytes, for people."""
    if count < 1000:
        return f"{count} B"
    power = next((k for k in (1, 2, 3) if count < 999.5 * 1000**k), 4)
    return f"{count / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
