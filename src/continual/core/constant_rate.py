"""Counts that are a delay and a stride: what the fast path of single steps needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ConstantRate(NamedTuple):
    """Counts that depend on ``n`` alone: output ``j`` comes with input ``delay + j*stride``, one at most per input.

    Attributes:
        delay: the index of the input that brings output 0; below 0 where padding exceeds the window: the first outputs come in a burst.
        stride: inputs from one output to the next.
        lookahead: ``n_if_ended - n`` of the output wire while it runs, where that is one number, else ``None``.
        first: no output comes before so many inputs. With ``delay + 1 < first`` the first outputs come in a burst.
        after: inputs after which there are no bursts any more, on the wires inside either.
    """

    delay: int
    stride: int
    lookahead: int | None
    first: int = 1
    after: int = 0

    @property
    def bursts(self) -> bool:
        """Whether the first outputs come in a burst. A burst inside is absorbed if it has come when the first output is due."""
        return self.delay + 1 < self.first

    def then(self, other: ConstantRate) -> ConstantRate:
        """The rate of a wire behind this one; ``other`` is that of what is between them."""
        after = self.after if not other.after else max(self.after, self._until(other.after))
        first = max(self.first, self._until(other.first))
        return ConstantRate(self.delay + self.stride * other.delay, self.stride * other.stride, other.lookahead, first, after)

    def _until(self, frames: int) -> int:
        """The number of inputs with which so many frames have come."""
        return self.delay + self.stride * (frames - 1) + 1

    @staticmethod
    def meet(rates: Sequence[ConstantRate | None], same_length: bool) -> ConstantRate | None:
        """The rate of wires that wait for each other, if each has one; ``same_length``: they have equal lengths for every clip."""
        found = [r for r in rates if r is not None]
        if len(found) < len(rates):
            return None
        known = [r.lookahead for r in found if r.lookahead is not None]
        return ConstantRate(
            max(r.delay for r in found),
            found[0].stride,
            max(known) if same_length and len(known) == len(found) else None,
            max(r.first for r in found),
            max(r.after for r in found),
        )
