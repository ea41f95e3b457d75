"""What a function is called in a ``repr``: its name, or the source of a lambda."""

from __future__ import annotations

import functools
import linecache
from types import CodeType
from typing import Any

from torch import nn


def shown(fn: Any) -> str:
    """A function's name, a lambda's source, what a module prints, or the class of another callable object."""
    if isinstance(fn, functools.partial):
        return shown(fn.func)
    if isinstance(fn, nn.Module):
        return repr(fn)
    name = getattr(fn, "__name__", type(fn).__name__)
    code = getattr(fn, "__code__", None)
    return _source(code) or name if name == "<lambda>" and code is not None else name


def _source(code: CodeType) -> str:
    """The text of a lambda, in one line; empty where its file is not at hand."""
    spans = [(a, b, c, d) for a, b, c, d in code.co_positions() if a and b and c is not None and d]
    lines = [line.encode() for line in linecache.getlines(code.co_filename)]  # columns count bytes
    if not spans or not lines:
        return ""
    starts = min((row, column) for row, _, column, _ in spans)
    ends = max((row, column) for _, row, _, column in spans)
    text = b"".join(lines)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    first, last = offsets[starts[0] - 1] + starts[1], offsets[ends[0] - 1] + ends[1]
    begin = text.rfind(b"lambda", 0, first)
    if begin < 0:
        return ""
    found = text[begin:last].decode()
    closing = found.count("(") - found.count(")")  # brackets around the whole body belong to no instruction
    rest = text[last:].decode()
    while closing > 0 and ")" in rest:
        cut = rest.index(")") + 1
        found, rest, closing = found + rest[:cut], rest[cut:], closing - 1
    return " ".join(found.split())
