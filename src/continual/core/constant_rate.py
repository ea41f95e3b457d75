"""Counts that are a delay and a stride: what the fast path of single steps needs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class ConstantRate(NamedTuple):
    """Counts that depend on ``n`` alone: output ``j`` comes with input ``delay + j*stride``, one at most per input.

    Attributes:
        delay: as said; below 0 for padding beyond the window, of which :meth:`~continual.core.timing.Timing.eventually_constant` tells.
        stride: inputs from one output to the next.
        lead: ``e - n`` of the output wire while it runs, where that is one number, else ``None``.
        first: no output comes before so many inputs. With ``delay + 1 < first`` the first outputs come in a burst.
        after: inputs after which there are no bursts any more, on the wires inside either.
    """

    delay: int
    stride: int
    lookahead: int | None
    first: int = 1
    after: int = 0


def in_a_row(parts: Sequence[ConstantRate]) -> ConstantRate:
    """What modules one after another become once no wire bursts any more."""
    delay, stride, after = 0, 1, 0
    for part in parts:
        if part.after:
            after = max(after, delay + stride * (part.after - 1) + 1)
        delay, stride = delay + stride * part.delay, stride * part.stride
    return ConstantRate(delay, stride, parts[-1].lookahead, after=after)


def burst_absorbed(parts: Sequence[ConstantRate]) -> bool:
    """Whether windows behind each burst swallow it, as a causal convolution does with the padding before it."""
    behind = 0
    for part in reversed(parts):
        behind = part.delay + part.stride * behind  # the delay from this part on
        if behind + 1 < part.first:
            return False
    return True


def whole(value: int | Fraction) -> int | Fraction:
    """Fractions that are whole numbers as ints."""
    return int(value) if Fraction(value).denominator == 1 else Fraction(value)
