"""A network on chunks of a source: each output with the moment that it is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from ..export.runner import Runner
from .target import BadInput


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        value: without a batch.
        index: the step that it is about, from 0.
        time: the moment of this step in seconds; ``None`` where the source has none.
    """

    value: Tensor
    index: int
    time: float | None


class Outputs:
    """Takes chunks, gives outputs.

    Args:
        net: a streaming network, or an opened file.
        period: seconds of a step; ``None`` where they are not known.
    """

    def __init__(self, net: Any, period: float | None):
        self._net, self._period = net, period
        self._time, self._batch = getattr(net, "output_time_dims", (getattr(net, "time_dim", 2),))[0], 0
        self.steps = self.count = 0
        self._times: list[float | None] = []  # of the steps that outputs to come may be about
        self._first = 0  # the step of the first of them
        net.clean_state()

    @torch.inference_mode()
    def take(self, chunk: Tensor, times: Sequence[float | None]) -> list[Output]:
        """The outputs that a chunk of one stream completes; ``times`` are the moments of its steps."""
        self._times += times
        self.steps += len(times)
        return list(self._apart(self._net.forward_steps(chunk)))

    @torch.inference_mode()
    def finish(self, empty: Tensor) -> list[Output]:
        """The outputs that the end of the stream brings; ``empty`` is a chunk of no steps."""
        return list(self._apart(self._net.forward_steps(empty, pad_end=True)))

    def _apart(self, found: Any) -> Iterator[Output]:
        if found is None:
            return
        if not isinstance(found, Tensor):
            raise BadInput(
                f"the network gives {type(found).__name__} for a step; a stream of one tensor can be shown and written"
            )
        for value in found.unbind(self._time):
            index = self._moment(self.count)
            self.count += 1
            yield Output(value.squeeze(0), index, self._time_of(index))

    def _moment(self, output: int) -> int:
        """The step that an output is about: that of its arrival, less what the end of a clip would be padded by."""
        if isinstance(self._net, Runner):  # a file does not say how far it looks ahead
            return int(output * Fraction(self._net.metadata.stride) + self._net.delay)
        timing = self._net.timing
        return int(output * Fraction(timing.stride) + timing.receptive_field - 1 - timing.start - timing.end)

    def _time_of(self, index: int) -> float | None:
        if drop := min(max(0, index - self._first), len(self._times)):
            del self._times[:drop]
            self._first += drop
        inside = 0 <= index - self._first < len(self._times)
        if inside:
            return self._times[index - self._first]
        return None if self._period is None else index * self._period
