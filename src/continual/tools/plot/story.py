"""What a picture of a stream shows, as arrays: what came in, what came out, of which moment, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...core.module import CoModule
from ...errors import NotStreamable, ShapeMismatch
from ...streams.network import layout_of, name_of
from ...streams.stream import Stream

Kind = Literal["lines", "image", "video"]
FEW = 8  # channels that are drawn as lines


@dataclass(frozen=True)
class Story:
    """A stream of one row.

    Attributes:
        name: of the network.
        rate: steps per second; ``None``: times are steps.
        inputs: ``(T, C, *S)`` of the first input.
        kind: how the inputs are drawn.
        outputs: ``(n, C', *S')`` of the first output.
        about: the moment of each output, in steps.
        came: the step with which each output came; ``T`` for those that the end of the clip brought.
        marked: the output that is explained.
        seen: the first and the last step that it sees.
        delay: steps before the first output.
    """

    name: str
    rate: float | None
    inputs: Tensor
    kind: Kind
    outputs: Tensor
    about: tuple[float, ...]
    came: tuple[int, ...]
    marked: int
    seen: tuple[int, int]
    delay: int

    @property
    def unit(self) -> float:
        """A step on the axis of time."""
        return 1.0 if self.rate is None else 1 / self.rate

    @property
    def lookahead(self) -> float:
        """Steps from the moment of the marked output to its arrival."""
        return self.came[self.marked] - self.about[self.marked]

    def duration(self, steps: float) -> str:
        """A number of steps, with their time."""
        shown = f"{steps:g} step{'' if steps == 1 else 's'}"
        return shown if self.rate is None else f"{shown} = {1000 * steps / self.rate:.4g} ms"


def story_of(net: Any, clip: Any, rate: float | None) -> Story:
    """Stream the first row of a clip through a network.

    Raises:
        NotStreamable: not a streaming network or file.
        ShapeMismatch: the clip gives no output.
    """
    stream = Stream(net, rate=rate)
    times = layout_of(net)[0]
    parts = [t.detach() for t in ([clip] if isinstance(clip, Tensor) else clip)]
    if len(parts) != len(times) or not all(isinstance(p, Tensor) for p in parts):
        raise ShapeMismatch(f"co.plot: the network takes {len(times)} inputs, got {len(parts)} clips")
    if any(n > 1 for n in getattr(net, "frames_per_step", ())):
        raise NotStreamable("co.plot draws networks with one frame of each input in a step")
    steps = next(p.shape[time] for p, time in zip(parts, times, strict=True) if time is not None)
    came, outputs = [], []
    for t in range(steps + 1):
        frame = [p if time is None else p.select(time, min(t, steps - 1)) for p, time in zip(parts, times, strict=True)]
        found = stream.finish() if t == steps and _ends(net) else [] if t == steps else stream.step(frame)
        outputs += found
        came += [t] * len(found)
    if not outputs:
        raise ShapeMismatch(
            f"co.plot: a clip of {steps} steps gives no output: the first one takes {net.delay + 1} steps or more"
        )
    moments = stream.moments
    marked = _marked(came, steps)
    row = [_row(out.value) for out in outputs]
    first = next(i for i, time in enumerate(times) if time is not None)
    inputs = _steps_first(parts[first], times[first] or 0)
    return Story(
        name_of(net),
        stream.rate,
        inputs,
        _kind(inputs),
        torch.stack(row),
        tuple(float(out.index) for out in outputs),
        tuple(came),
        marked,
        moments.span(marked),
        net.delay,
    )


def _ends(net: Any) -> bool:
    return isinstance(net, CoModule) or net.metadata.flush


def _marked(came: Sequence[int], steps: int) -> int:
    """The output that came when two thirds of the clip had: late enough to see all that it looks at."""
    return min(range(len(came)), key=lambda j: (abs(came[j] - 2 * steps // 3), j))


def _row(value: Any) -> Tensor:
    """The first row of the first tensor of an output."""
    first = next(t for t in tree_leaves(value) if isinstance(t, Tensor))
    return first[0].detach().float().cpu()


def _steps_first(clip: Tensor, time: int) -> Tensor:
    """The first row of a clip, time first."""
    batch = 1 if time == 0 else 0
    row = clip.select(batch, 0).movedim(time - (batch < time), 0)
    return row.float().cpu()


def _kind(inputs: Tensor) -> Kind:
    """How inputs ``(T, C, *S)`` are drawn."""
    if inputs.ndim == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) >= 8:
        return "video"
    return "lines" if inputs[0].numel() <= FEW else "image"


def probabilities(outputs: Tensor) -> Tensor:
    """Scores ``(n, classes)`` as probabilities, if they are none yet."""
    if bool((outputs >= 0).all()) and torch.allclose(outputs.sum(1), torch.ones(len(outputs)), atol=1e-3):
        return outputs
    return outputs.softmax(1)
