"""A network on the steps of a source: each output with the moment that it is about.

Without ``--gaps`` frames follow each other, whatever their stamps say, and a block of them is one call of the network. With it a
:class:`~continual.Stream` places them by their stamps, fills what is missing, and interpolates between frames.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import continual as co

from ..export.runner import Runner
from ..streams.clock import Axis
from ..streams.moments import Moments
from ..streams.network import Outputs as Parts
from ..streams.network import layout_of
from ..streams.output import Numbering
from ..streams.policy import Policy
from .fitting import Layout
from .target import BadInput


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        value: without a batch.
        index: the step that it is about, from 0.
        time: the moment of this step in seconds; ``None`` where the source has none.
        flags: what it was computed from, as of :class:`~continual.Stream`.
    """

    value: Tensor
    index: int | float
    time: float | None
    flags: frozenset[str] = frozenset()


class Outputs:
    """One frame after another.

    Args:
        net: a streaming network, or an opened file.
        layout: of its input.
        rate: steps per second; ``None`` where they are not known.
        device: of the network.
    """

    def __init__(self, net: Any, layout: Layout, rate: float | None, device: torch.device):
        self._net, self._layout, self._device = net.new_stream(), layout, device
        self._parts, self._moments = Parts(layout_of(net)[2]), Moments.of(net)
        self._bursts = net.timing.per_call > 1 if isinstance(net, Runner) else net.timing.bursts  # several outputs of a step
        self._numbering = Numbering(Axis("order", Policy("hold", rate), 0, 0))
        self._times: list[float | None] = []  # of the steps that outputs to come may be about
        self._first = 0  # the step of the first of them
        self.steps = 0

    @property
    def counters(self) -> dict[str, int]:
        """What was made of gaps: nothing."""
        return {}

    @property
    def lookahead(self) -> float:
        """Steps from the moment that an output is about to its arrival, at most."""
        return self._moments.lookahead

    def take(self, steps: Tensor, times: Sequence[float | None]) -> list[Output]:
        """The outputs that some steps ``(n, *step)`` complete; ``times`` are their moments."""
        self._times += times
        self.steps += len(times)
        self._numbering.took(len(times), gap=False, between=False)
        chunk = self._layout.chunk(steps).to(self._device)
        with torch.inference_mode():
            if len(times) > 1 or self._bursts:
                return self._numbered(self._parts.apart(self._net.forward_steps(chunk)))
            y = self._net.forward_step(chunk.select(self._layout.time, 0))
            return self._numbered([] if y is None else [y])

    def finish(self) -> list[Output]:
        """The outputs that the end of the stream brings."""
        empty = self._layout.chunk(torch.empty(0, *self._layout.step)).to(self._device)
        with torch.inference_mode():
            return self._numbered(self._parts.apart(self._net.forward_steps(empty, pad_end=True)))

    def _numbered(self, values: list[Any]) -> list[Output]:
        found = self._numbering.numbered([row_of(value) for value in values], self._moments)
        outputs = [Output(out.value, out.index, self._time_of(out), out.flags) for out in found]
        if outputs and (drop := max(0, math.floor(outputs[-1].index) - self._first)):  # outputs to come are about later steps
            self._first += len(self._times[:drop])
            del self._times[:drop]
        return outputs

    def _time_of(self, out: Any) -> float | None:
        """The source's own stamp of a step; where it has none, by the rate."""
        place = int(out.index) - self._first
        if 0 <= place < len(self._times) and int(out.index) == out.index:
            return self._times[place]
        return None if out.time is None else float(out.time)


class ClockedOutputs:
    """Frames by their stamps.

    Args:
        net: a streaming network, or an opened file.
        layout: of its input.
        rate: steps per second.
        source_rate: frames per second of the source, where they are others.
        gaps: what stands for missing frames; frames with numbers that are not finite are missing.
        device: of the network.
    """

    def __init__(self, net: Any, layout: Layout, rate: float, source_rate: float | None, gaps: Any, device: torch.device):
        try:
            self._stream = co.Stream(net, rate=rate, gaps=gaps, source_rate=source_rate)
        except ValueError as error:
            raise BadInput(f"--gaps {gaps}: {error}") from error
        self._layout, self._device, self.steps = layout, device, 0

    @property
    def counters(self) -> dict[str, int]:
        """Of the stream."""
        return copy.copy(self._stream.counters)

    @property
    def lookahead(self) -> float:
        """Steps from the moment that an output is about to its arrival, at most."""
        return self._stream.lookahead

    def take(self, steps: Tensor, times: Sequence[float | None]) -> list[Output]:
        """The outputs that some frames ``(n, *step)`` complete."""
        frames = self._layout.chunk(steps).to(self._device).unbind(self._layout.time)
        whole = steps.isfinite().flatten(1).all(1).tolist()
        inputs = [frame if kept else None for frame, kept in zip(frames, whole, strict=True)]
        stamps = [at for at in times if at is not None]
        found = self._stream.steps(inputs, times=stamps if len(stamps) == len(times) else None)  # without stamps: in their order
        self.steps += len(times)
        return [Output(row_of(out.value), out.index, out.time, out.flags) for out in found]

    def finish(self) -> list[Output]:
        """The outputs that the end of the stream brings."""
        return [Output(row_of(out.value), out.index, out.time, out.flags) for out in self._stream.finish()]


def row_of(value: Any) -> Tensor:
    """The one row of an output.

    Raises:
        BadInput: it is not one tensor.
    """
    if not isinstance(value, Tensor):
        raise BadInput(f"the network gives a {type(value).__name__} for a step; what can be shown and written is one tensor")
    return value.squeeze(0)
