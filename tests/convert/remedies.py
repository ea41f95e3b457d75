"""Remedies that can be tried: what an error says to give to `co.continual` is given to it. No tests are in this file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import continual as co

OPTION = re.compile(r'\b(time_pooling|time_norm|norm_window|sequence_len|causal|time_dim|copy)=("[a-z]+"|True|False|N\b|…|\d+)')
IN_CALL = re.compile(r"co\.continual\(([^()]*)\)")
FREEZE = "co.calibrate("


def options_in(text: str) -> list[dict[str, Any]]:
    """What to give to `co.continual` as a remedy says: the options of one call together, others one by one."""
    alone = [{name: _value(value)} for name, value in OPTION.findall(IN_CALL.sub("", text))]
    return in_calls(text) + alone


def in_calls(text: str) -> list[dict[str, Any]]:
    """The options of every call of `co.continual` that a text writes down."""
    calls = [OPTION.findall(inner) for inner in IN_CALL.findall(text)]
    return [{name: _value(value) for name, value in found} for found in calls if found]


def _value(text: str) -> Any:
    known = {"True": True, "False": False, "N": 3, "…": 3}
    return known[text] if text in known else text.strip('"') if text.startswith('"') else int(text)


def check(error: co.NotStreamable, convert: Callable[..., Any], calibrated: Callable[[], Any] | None = None) -> int:
    """No remedy is refused for the operation for which it is offered.

    Args:
        error: the refusals.
        convert: converts the same module with options.
        calibrated: converts it after `co.calibrate`.

    Returns:
        How many remedies were tried.
    """
    tried = 0
    for refusal in error.refusals:
        found: list[Callable[[], Any]] = [lambda o=options: convert(**o) for options in options_in(refusal.remedy)]
        if FREEZE in refusal.remedy and calibrated is not None:
            found.append(calibrated)
        for attempt in found:
            tried += 1
            again = [r for r in _refused(attempt) if (r.path, r.op, r.source) == (refusal.path, refusal.op, refusal.source)]
            assert not again, f"refused in turn: {refusal.remedy}\n{again}"
    return tried


def _refused(attempt: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        attempt()
    except co.NotStreamable as error:
        return tuple(error.refusals)
    return ()
