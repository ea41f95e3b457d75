"""When frames come whose number at the end follows from a length: padding to a multiple, a crop to the clip's length."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from .constant_rate import ConstantRate
from .length_function import LengthFunction
from .timing import Counts, Timing


@dataclass(frozen=True)
class Fitted(Timing):
    """The frames of a wire, as many as a function of a length says: the last ones are cut off, or padding follows them.

    The length is that of the wire itself or, in a graph, of another wire. Before the end, a frame leaves as soon as no clip that
    begins like this one can lack it: the function is monotone, so the length if the stream ended now decides.

    Args:
        length: the function.
        cuts: whether frames that have come may have to wait for more, since it is open whether they will be cut off.
        least: a clip where the length is shorter is refused.

    Example:
        >>> from continual.core.length_function import LengthFunction, Step
        >>> fours = Fitted(LengthFunction((Step(1, 4, 4),)))  # padding to a multiple of 4
        >>> fours.counts(5, 5), fours.delay
        ((5, 8), 0)
        >>> crop = Fitted(LengthFunction((Step(4, 4, 4),)), cuts=True)  # a crop to one
        >>> [crop.delivered(n) for n in range(9)]
        [0, 0, 0, 0, 4, 4, 4, 4, 8]
    """

    length: LengthFunction
    cuts: bool = False
    least: int = 1

    receptive_field = 1
    stride = 1
    start = 0
    end = 0

    def counts(self, n: int, n_if_ended: int) -> Counts:
        return self.of_wires((n, n_if_ended), (n, n_if_ended))

    def of_wires(self, *pairs: Counts) -> Counts:
        (n, _), (_, to) = pairs[0], pairs[-1]
        ended = self.length(to)
        return min(n, ended), ended if to >= self.least else 0

    def eventually_constant(self, lookahead: int | None = 0) -> ConstantRate | None:
        return None if self.cuts else ConstantRate(0, 1, None)

    @property
    def causal_counts(self) -> bool:
        return not self.cuts

    @property
    def pulse(self) -> int:
        return self.length.period if self.cuts else 1

    @property
    def period(self) -> int:
        return self.length.period

    @property
    def fits(self) -> Hashable:
        return self.length, self.least

    @property
    def transient(self) -> int:
        return max(self.length.transient, self.least) + self.length.period
