"""`operations`: what a network computes per step, per output and per clip, as papers count it, and what is really executed.

Papers on streaming networks report what the counter ptflops 0.6 counts: multiply-adds and biases of convolutions and linear maps, 2 per
value for batch norm, 1 for a ReLU, and 1 per value that enters a pooling layer. Matrix products between data (``x @ A``, attention),
softmax, swish, sigmoid and additions count nothing. In transformers, attention counts ``2 n d`` per query, LayerNorm and residual
additions 1 per value, and the bias of the attention's output projection nothing. :func:`operations` counts so, and beside it the plain
multiply-adds of convolutions and linear maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from ..core.module import CoModule
from ..core.state import StateNode, StepSpec, frames, rewire
from ..core.step_spec import Inputs
from ..core.timing import Timing
from .counting import flop_formulas


@dataclass(frozen=True)
class Count:
    """Operations on one row of a batch.

    Attributes:
        published: as papers count.
        macs: multiply-adds of convolutions and linear maps alone.
    """

    published: Fraction = Fraction(0)
    macs: Fraction = Fraction(0)

    def __add__(self, other: Count) -> Count:
        return Count(self.published + other.published, self.macs + other.macs)

    def __mul__(self, times: int | Fraction) -> Count:
        return Count(self.published * times, self.macs * times)


@dataclass(frozen=True)
class Part:
    """A module's own operations, without those of the modules in it.

    Attributes:
        path: in the names of the network's state.
        type: class name.
        count: for one of its outputs in a stream.
        in_steps: outputs in each of the steps of one period.
        of_clip: for a clip of ``clip_length`` steps, in all.
    """

    path: str
    type: str
    count: Count
    in_steps: tuple[int, ...]
    of_clip: Count


@dataclass(frozen=True)
class Operations:
    """What a network computes. Prints as a table.

    Attributes:
        params: parameters; ``trainable``: those that are trained.
        parts: module by module.
        stride: outputs come every so many steps.
        delay: of the network.
        emits: for the steps of one period, after which all repeats, whether they bring an output. The first is that at the delay.
        clip_length: steps of the clip for :attr:`clip`.
        executed: multiply-adds of all convolutions and matrix products that ran in these steps; data times data included.
    """

    params: int
    trainable: int
    parts: tuple[Part, ...]
    stride: int | Fraction
    delay: int
    emits: tuple[bool, ...]
    clip_length: int
    executed: tuple[int, ...]

    @property
    def steps(self) -> tuple[Count, ...]:
        """The useful operations of the steps of one period."""
        return tuple(sum((p.count * p.in_steps[i] for p in self.parts), Count()) for i in range(len(self.emits)))

    @property
    def mean(self) -> Count:
        """Useful operations per step: the mean over a period."""
        return sum(self.steps, Count()) * Fraction(1, len(self.emits))

    @property
    def per_output(self) -> Count:
        """Useful operations per output of the network."""
        return self.mean * Fraction(self.stride)

    @property
    def clip(self) -> Count:
        """Operations of ``forward`` on a clip of ``clip_length`` steps."""
        return sum((p.of_clip for p in self.parts), Count())

    @property
    def mean_executed(self) -> Fraction | None:
        """Executed multiply-adds per step: the mean over a period; ``None`` if no steps were run."""
        return Fraction(sum(self.executed), len(self.executed)) if self.executed else None

    def __str__(self) -> str:
        lines = [("", "as published (M)", "multiply-adds (M)", "executed (M)")]
        for name, count, run in self._rows():
            lines.append((name, _mega(count.published), _mega(count.macs), "" if run is None else _mega(run)))
        widths = [max(len(line[i]) for line in lines) for i in range(4)]
        table = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip() for line in lines
        ]
        return "\n".join([f"{self.params:,} parameters ({self.trainable:,} trained)", *table])

    def _rows(self) -> Iterator[tuple[str, Count, Fraction | None]]:
        for name, emits in (("step with an output", True), ("step without", False)):
            which = [i for i, e in enumerate(self.emits) if e == emits]
            if which and not all(self.emits):
                share = Fraction(1, len(which))
                run = sum(self.executed[i] for i in which) * share if self.executed else None
                yield name, sum((self.steps[i] for i in which), Count()) * share, run
        run = self.mean_executed
        yield "mean per step", self.mean, run
        yield "per output", self.per_output, None if run is None else run * Fraction(self.stride)
        yield f"clip of {self.clip_length}", self.clip, None


def _mega(number: Fraction | int) -> str:
    return f"{float(number) / 1e6:,.3f}"


def operations(net: CoModule, step: Inputs, *, clip_length: int | None = None, execute: bool = True) -> Operations:
    """Count what a network computes: per step, per output, per clip, and what its steps execute.

    With temporal strides not all modules run in every step: a step that brings an output costs more than the ones between. *Useful* is
    worked out from the layers' sizes; *executed* is counted by torch's ``FlopCounterMode`` while steps run on zeros (depthwise
    ``Conv1d``, a sum of products, counts nothing there).

    Args:
        net: the network; its stream stays as it is.
        step: an example step ``(B, C, *S)``. Operations are for one row of it.
        clip_length: steps of the clip to count too; by default the receptive field.
        execute: run steps to count what they execute: as many as the delay, and a period.

    Returns:
        The counts, which print as a table.

    Raises:
        ShapeMismatch: the network can't take such a step.

    Example:
        >>> net = co.Sequential(co.Conv2d(64, 64, (3, 1)), nn.BatchNorm2d(64), nn.ReLU(), co.AvgPool2d((2, 1))).eval()
        >>> print(co.operations(net, torch.zeros(1, 64, 25), clip_length=8))
        12,480 parameters (12,480 trained)
                             as published (M)  multiply-adds (M)  executed (M)
        step with an output             0.315              0.307         0.307
        step without                    0.315              0.307         0.307
        mean per step                   0.315              0.307         0.307
        per output                      0.630              0.614         0.614
        clip of 8                       1.891              1.843
    """
    state = net.init_state(step)
    steps = clip_length or net.receptive_field
    parameters = list(net.parameters())
    timing = net.timing
    stride, period = timing.stride, int(timing.period)
    late = net.delay + (timing.transient // period + 1) * period  # at the phase of the delay, when all has settled
    phases = range(late, late + period)
    return Operations(
        params=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        parts=tuple(_parts(net, state.node, steps, phases)),
        stride=int(stride) if stride == int(stride) else stride,
        delay=net.delay,
        emits=tuple(n > 0 for n in _delivered(timing, phases)),
        clip_length=steps,
        executed=_executed(net, step, period) if execute else (),
    )


def _delivered(timing: Timing, steps: range) -> tuple[int, ...]:
    """How many outputs each of these steps brings."""
    return tuple(timing.delivered(t + 1) - timing.delivered(t) for t in steps)


def _parts(net: CoModule, node: StateNode, clip_length: int, phases: range) -> Iterator[Part]:
    for child in node.children:
        yield from _parts(net, child, clip_length, phases)
    if node.kind in ("queue", "positions") or node.kind.startswith("windows of "):  # they belong to no module
        return
    module: Any = net.part(node.path) if node.path else net
    pools = module.counts_inputs
    timing = node.before if pools else node.before.then(module.timing)
    n_in, n_out = node.before.ended(clip_length), timing.ended(clip_length)
    macs, of_clip, beside = Fraction(0), Fraction(0), 0
    for frame in frames(node.in_spec or node.out) if pools else frames(node.out):
        if pools:
            beside += _values(frame)
        else:
            macs += module.macs_per_output(node, frame)
            of_clip += module.macs_of_clip(node, frame, n_in, n_out)
            beside += module.extra_ops(node, frame)
    if macs or beside:
        counts = Count(macs + beside, macs), Count(of_clip + beside * n_out, of_clip)
        yield Part(node.path, type(module).__name__, counts[0], _delivered(timing, phases), counts[1])


def _executed(net: CoModule, step: Inputs, period: int) -> tuple[int, ...]:
    """Multiply-adds of the steps of one period, by torch's counter, of one row."""
    from torch.utils.flop_counter import FlopCounterMode  # imports much that `import continual` does without

    batch = frames(StepSpec.of(step))[0].shape[0]
    zeros = rewire(torch.zeros_like, step)
    counts = []
    with torch.no_grad():
        before = net.get_state()
        try:
            net.set_state(None)
            for _ in range(net.delay + period):  # a period more, for the fast path of what has no delay
                net.forward_step(zeros)
            for _ in range(period):
                with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
                    net.forward_step(zeros)
                counts.append(counter.get_total_flops() // 2 // batch)
        finally:
            net.set_state(before)
    return tuple(counts)


def _values(frame: StepSpec) -> int:
    return math.prod(frame.shape[1:])
