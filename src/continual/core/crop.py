"""When outputs come that are the inputs, without some at the ends."""

from __future__ import annotations

from dataclasses import dataclass

from .constant_rate import ConstantRate
from .timing import Counts, Timing


@dataclass(frozen=True)
class Crop(Timing):
    """Cut ``first`` frames at the start and ``last`` at the end.

    An output exists only once its position can no longer be cut off. So a causal convolution written as padding on both
    sides and a cut of the end has no delay:

    Example:
        >>> from continual.core.timing import Window
        >>> Window(3, start=2, end=2).then(Crop(0, 2)).delay
        0
        >>> Crop(1, 2).delay
        3
    """

    first: int = 0
    last: int = 0

    receptive_field = 1
    stride = 1

    @property
    def start(self) -> int:  # type: ignore[override]
        return -self.first

    @property
    def end(self) -> int:  # type: ignore[override]
        return -self.last

    def counts(self, n: int, n_if_ended: int) -> Counts:
        return max(0, min(n, n_if_ended - self.last) - self.first), max(0, n_if_ended - self.first - self.last)

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        if lookahead is None:
            return ConstantRate(self.first, 1, None) if self.last == 0 else None
        return ConstantRate(self.first + max(0, self.last - lookahead), 1, max(0, lookahead - self.last))

    @property
    def transient(self) -> int:
        return self.first + self.last + 1
