"""Which inputs each output of a network sees, and which moment it is about."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ..core.closed_form import whole
from ..core.timing import Timing
from ..programs.schedule import CallSchedule, OutputCount


@dataclass(frozen=True)
class Moments:
    """The outputs of a stream on the axis of its inputs.

    Output ``j`` is about the moment ``stride*j + lost``, where ``lost`` is how many frames the network takes from a clip: outputs are
    aligned with the end of a clip, so that an output is about the last input that it sees, less the end padding that ``forward`` needs.
    It is never about an input that has not come.

    Attributes:
        stride: inputs from one output to the next.
        lost: the moment of output 0.
        spans: the first and the last input that outputs see, for the outputs of one period.
        period: inputs after which the pattern repeats.
        reach: the number of inputs that an output sees, at most.
        lookahead: inputs from the moment of an output to the last one that it sees, at most.

    Example:
        >>> m = Moments.of(co.Conv1d(1, 1, 3, padding=1, stride=2))
        >>> [str(m.moment(j)) for j in range(3)], [m.span(j) for j in range(3)], m.lookahead
        (['0', '2', '4'], [(-1, 1), (1, 3), (3, 5)], 1)
    """

    stride: int | Fraction
    lost: int | Fraction
    spans: tuple[tuple[int, int], ...]
    period: int

    def moment(self, j: int) -> int | Fraction:
        """The moment of an output, in inputs; below 0 for outputs of start padding alone."""
        return whole(self.stride * j + self.lost)

    def span(self, j: int) -> tuple[int, int]:
        """The first and the last input that an output sees, padding included."""
        turns, i = divmod(j, len(self.spans))
        first, last = self.spans[i]
        return first + turns * self.period, last + turns * self.period

    @property
    def reach(self) -> int:
        return max(last - first + 1 for first, last in self.spans)

    @property
    def lookahead(self) -> int | float:
        found = whole(max(last - self.moment(j) for j, (_, last) in enumerate(self.spans)))
        return found if isinstance(found, int) else float(found)

    @staticmethod
    def of(net: Any) -> Moments:
        """The moments of a streaming network, or of an opened file.

        Args:
            net: has a ``timing``. That of a file knows its outputs by number, and each of them sees ``receptive_field`` inputs; in calls of
            several steps of networks that upsample inside, these may be some steps off.
        """
        timing = net.timing
        streamed = isinstance(timing, Timing)
        count = OutputCount.of(timing) if streamed else timing.totals
        stride = Fraction(count.period, count.more)
        known = range(len(count.table), len(count.table) + count.period)
        lost = min(n - 1 - stride * (count.count(n)[0] - 1) for n in known)
        if streamed:
            spans = tuple(timing.span(j, j) for j in range(count.more))
        else:
            ends = [_arrival(timing, j) if timing.chunk == 1 else net.delay + int(stride * j) for j in range(count.more)]
            spans = tuple((end - net.receptive_field + 1, end) for end in ends)
        return Moments(whole(stride), whole(lost), spans, count.period)


def _arrival(schedule: CallSchedule, j: int) -> int:
    """The step with which an output comes."""
    step = 0
    while schedule.delivered(step + 1) <= j:
        step += 1
    return step
