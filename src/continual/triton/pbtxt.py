"""The part of Protobuf's text format that model configurations need."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


class Word(str):
    """The name of an enum value, written without quotes."""


Fields = Iterable[tuple[str, Any]]


def pbtxt(fields: Fields, indent: int = 0) -> str:
    """Fields as text, one per line.

    Args:
        fields: names and values. A value is a :class:`Word`, a string, a bool, a number, a list of words and numbers, or the fields of a
            message as a tuple. A name may occur more than once.

    Example:
        >>> print(
        ...     pbtxt(
        ...         [
        ...             ("name", "x"),
        ...             ("data_type", Word("TYPE_FP32")),
        ...             ("dims", [3, 1]),
        ...             ("oldest", (("preserve_ordering", True),)),
        ...         ]
        ...     ),
        ...     end="",
        ... )
        name: "x"
        data_type: TYPE_FP32
        dims: [3, 1]
        oldest {
          preserve_ordering: true
        }
    """
    margin, lines = "  " * indent, []
    for name, value in fields:
        if isinstance(value, tuple):
            inside = pbtxt(value, indent + 1)
            lines.append(f"{margin}{name} {{\n{inside}{margin}}}\n" if inside else f"{margin}{name} {{}}\n")
        else:
            lines.append(f"{margin}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
