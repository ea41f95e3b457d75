"""The network of a stream, as frames in and values out: a streaming network or an opened file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..convert.graph.program_module import ProgramModule
from ..core.module import CoModule
from ..errors import NotStreamable
from ..export.runner import Runner
from .frames import Frames
from .moments import Moments


class Steps(Protocol):
    """What a stream runs."""

    def forward_step(self, x: Any, /) -> Any:
        """One step."""

    def forward_steps(self, x: Any, /, *, pad_end: bool = ...) -> Any:
        """A chunk of steps."""

    def clean_state(self) -> None:
        """Start again."""

    def get_state(self) -> Any:
        """A snapshot."""

    def set_state(self, state: Any) -> None:
        """Go on from a snapshot."""


class Network:
    """A network of a stream, with what a stream needs to know of it.

    Args:
        net: a streaming network, of which this is a stream of its own; or a file that :func:`continual.load` has opened.

    Attributes:
        times: the dimension of time in the chunks of each input.
        several: whether a step of an input has several frames.
        moments: of the outputs.
        rate: steps per second, if the file says so.

    Raises:
        NotStreamable: neither of them.
    """

    def __init__(self, net: CoModule | Runner):
        if not isinstance(net, (CoModule, Runner)):
            raise NotStreamable(
                f"Stream takes a streaming network or an opened file, not {type(net).__name__}: convert it by co.continual(module, clip), "
                "or open it by co.load(path)"
            )
        self.net: Steps = net.new_stream()
        self.name = name_of(net)
        self.delay = net.delay
        self.rate: float | None = net.rate if isinstance(net, Runner) else None
        self.times, self.several, times, _ = layout_of(net)
        self._outputs = Outputs(times)
        self.moments = Moments.of(net)
        self._one_by_one = None in self.times  # inputs that are no streams have one value in a chunk
        self._chunks_alone = net.timing.per_call > 1 if isinstance(net, Runner) else net.timing.bursts

    def calls(self, steps: Any) -> int:
        """How many calls of the network a block of steps takes, at most."""
        return len(steps) if isinstance(steps, list) and self._one_by_one else 1

    @torch.no_grad()
    def feed(self, frames: Frames, made: Sequence[list[Tensor]]) -> list[Any]:
        """Take some steps, and return the outputs that they complete.

        Args:
            frames: the layout.
            made: the frame of each step.
        """
        if self._one_by_one and len(made) > 1:
            return [value for frame in made for value in self.feed(frames, [frame])]
        if len(made) == 1 and not self._chunks_alone:
            y = self.net.forward_step(frames.nested(made[0]))
            return [] if y is None else [y]
        return self._outputs.apart(self.net.forward_steps(frames.chunk(made, made[-1])))

    @torch.no_grad()
    def end(self, empty: Any) -> list[Any]:
        """The outputs that the end of the stream brings; ``empty`` is a chunk of no steps."""
        return self._outputs.apart(self.net.forward_steps(empty, pad_end=True))


class Outputs:
    """Outputs of several steps in one, by the dimension of time of each tensor.

    Args:
        times: these dimensions; one for any number of tensors.
    """

    def __init__(self, times: Sequence[int]):
        self.times = list(times)

    def apart(self, y: Any) -> list[Any]:
        """The outputs, one by one; none of ``None``."""
        return [] if y is None else list(self._each(y))

    def _each(self, y: Any) -> Iterator[Any]:
        leaves, structure = tree_flatten(y)
        tensors = [t for t in leaves if isinstance(t, Tensor)]
        times = self.times if len(self.times) == len(tensors) else self.times[:1] * len(tensors)
        for own in zip(*(t.unbind(time) for t, time in zip(tensors, times, strict=True)), strict=True):
            rest = iter(own)
            yield tree_unflatten([next(rest) if isinstance(t, Tensor) else t for t in leaves], structure)


def name_of(net: CoModule | Runner) -> str:
    """The class of a network; of a converted module, that of the module."""
    if isinstance(net, Runner):
        return net.metadata.network
    return str(net.name) if isinstance(net, ProgramModule) else type(net).__name__


def layout_of(net: CoModule | Runner) -> tuple[list[int | None], list[bool], list[int], list[int]]:
    """Where frames and outputs have time.

    Returns:
        The dimension of time in the chunks of each input, and whether a step has several frames of it; the dimensions of time and of the
        batch in the chunks of each output.
    """
    if isinstance(net, Runner):
        inputs, outputs = net.metadata.inputs, net.metadata.outputs
        return [p.time for p in inputs], [False] * len(inputs), [p.time or 0 for p in outputs], [p.batch or 0 for p in outputs]
    times: list[int | None] = list(getattr(net, "time_dims", (net.time_dim,)))
    several = [n > 1 for n in getattr(net, "frames_per_step", (1,) * len(times))]
    out_times = list(getattr(net, "output_time_dims", (net.time_dim,)))
    return times, several, out_times, list(getattr(net, "output_batch_dims", [int(time == 0) for time in out_times]))
