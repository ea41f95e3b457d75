"""From a network to a pure function of static shapes: the frames of each call on every wire, and the state between calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..containers.base import open_child
from ..convert.graph.graph_module import GraphModule
from ..core.module import CoModule
from ..core.program.context import ANY_TARGET, CallRows, ProgramPlan, Run, Target, built
from ..core.program.frame_schedule import OPEN, FrameSchedule, chunk_of, start_of
from ..core.state import InitContext, StateNode, Wire, frames, rewire
from ..core.timing import Timing
from ..errors import NotStreamable

__all__ = ["Planned", "planned"]


class Planned(nn.Module):
    """A network as a pure function of static shapes.

    Attributes:
        net: the network, whose parameters are this module's.
        plan: the chunk, and the state tensors.
        out_schedule: the schedule of the output.
    """

    def __init__(self, net: CoModule, plan: ProgramPlan, run: Run, node: StateNode):
        super().__init__()
        self.net = net
        self.plan, self.node, self.timing = plan, node, net.timing
        self.out_schedule: FrameSchedule = plan.schedule(net.timing)
        self.__dict__["_run"] = run
        self.training = net.training

    def forward(self, x: Wire, clock: Tensor, end: Tensor, active: Tensor | None, state: list[Tensor]) -> tuple[Any, ...]:
        """Run one call.

        Args:
            x: the chunk ``(B, C, chunk, *S)``, or a list of them.
            clock: the index of the first frame of the chunk, for each row ``(B,)``.
            end: the number of frames of each row's stream; far away while it goes on.
            active: the rows that take part; the others keep their state. ``None``: all.
            state: the state tensors.

        Returns:
            The outputs ``(B, C', m, *S')``, which of them exist ``(B, m)``, the clock, and the state tensors.
        """
        plan = self.plan
        calls = clock - plan.start if plan.start else clock
        calls = calls.div(plan.chunk, rounding_mode="floor") if plan.chunk > 1 else calls
        y, valid, new_state = self.call(x, calls, end, active, state)
        later = clock + plan.chunk
        return y, valid, later if active is None else torch.where(active, later, clock), new_state

    def call(
        self,
        x: Wire,
        calls: Tensor,
        end: Tensor,
        active: Tensor | None,
        state: list[Tensor],
        opened: tuple[Tensor, int] | None = None,
    ) -> tuple[Wire, Tensor, list[Tensor]]:
        """As :meth:`forward`, by the number of calls of each row. Returns the outputs, which of them exist, and the state tensors.

        Args:
            opened: as :class:`~continual.core.program.context.CallRows` takes it.
        """
        rows = CallRows(calls, end, state, active, opened)
        y = cast(Run, self._run)(x, rows)
        index = rows.index(self.out_schedule)
        valid = index >= 0
        if self.plan.flush:
            valid = valid & (index < rows.ended(self.timing).unsqueeze(1))
        new_state = rows.new_state
        if active is not None:
            valid = valid & active.unsqueeze(1)
            triples = zip(self.plan.state_specs, new_state, state, strict=True)
            new_state = [n if spec.keeps_inactive else _of_active(active, n, o) for spec, n, o in triples]
        return y, valid, [n.to(o.dtype) for n, o in zip(new_state, state, strict=True)]

    def cold(self, batch: int) -> list[Tensor]:
        """The state tensors of streams that start. They contain the padding of padding layers before the first frame."""
        plan = self.plan
        with torch.inference_mode(False), torch.no_grad():
            state = [spec.cold(1) for spec in plan.state_specs]
            if plan.warmup_calls and state:
                device = state[0].device
                x = rewire(lambda f: f.resized(1, *f.shape[1:]).zeros(plan.chunk), self.node.in_spec)
                for call in range(-plan.warmup_calls, 0):
                    clock = torch.full((1,), plan.start + call * plan.chunk, device=device)
                    _, _, _, state = self(x, clock, torch.full_like(clock, OPEN), None, state)
            return [t.expand(batch, *t.shape[1:]).clone() for t in state]


def _of_active(active: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The new state of active rows, and the old state of other rows."""
    return torch.where(active.view(-1, *(1,) * (new.ndim - 1)), new, old)


def planned(
    net: CoModule,
    frame: Any,
    chunk: int | None,
    *,
    flush: bool = True,
    target: Target = ANY_TARGET,
) -> Planned:
    """Plan a program.

    Args:
        net: the network, in eval mode.
        frame: the frame of a step.
        chunk: input frames per call; ``None``: the smallest that the strides allow.
        flush: whether streams may end.
        target: what runs the program.

    Raises:
        NotStreamable: the network is in training mode, or no program of static shapes computes it.
        ValueError: a chunk that does not fit the strides.
    """
    if net.training:
        raise NotStreamable(
            f"co.compile: {type(net).__name__} is in training mode, and programs are for inference. Call net.eval()"
        )
    node = open_child(net, frame, InitContext())
    timings = list(_wires(net, node))
    least = chunk_of(timings)
    if chunk is None:
        chunk = least
    if chunk < 1 or chunk % least:
        raise ValueError(f"co.compile: chunk={chunk} does not fit this network, whose strides need a multiple of {least} steps")
    plan = _phased(net.timing, timings, ProgramPlan(chunk, start_of(net.timing, chunk), flush, target))
    if _bursts(net.timing, plan):
        raise NotStreamable(
            f"co.compile: {type(net).__name__} pads the start by more than its window, so its first outputs wait for an input that they "
            "do not see, and come all at once. Each call of a program has the same number of outputs: pad less, or cut these outputs off "
            "by co.Trim"
        )
    if plan.warmup_calls and any(i.time is None for m in net.modules() if isinstance(m, GraphModule) for i in m.io_layout.inputs):
        raise NotStreamable(
            f"co.compile: {type(net).__name__} has an input that is not a stream, and a padding layer at the start: the state before the "
            "first frame may depend on that input, which is unknown then. Pad in the next layer, or make the input a buffer"
        )
    run = built(plan, net, node)
    if target.real and any(t.is_complex for t in (*_dtypes(frame), *_dtypes(node.out), *(s.dtype for s in plan.state_specs))):
        raise NotStreamable(
            f"co.compile: {type(net).__name__} takes, gives or keeps complex numbers, which this runtime lacks. Remedies: their parts in "
            "a last dimension of 2 (co.STFT(…, return_complex=False), torch.view_as_real); or backend='aot', format 'pt2'"
        )
    return Planned(net, plan, run, node)


def _dtypes(frame: Any) -> list[torch.dtype]:
    """The dtypes of the frames of a wire."""
    return [f.dtype for f in frames(frame)]


def _phased(timing: Timing, wires: list[Timing], plan: ProgramPlan) -> ProgramPlan:
    """The plan with the start at which the fewest wires have outputs in a burst.

    By default the last frame of a chunk completes an output. With reflect padding, the first output may need more frames. If chunks
    end that much later, each call returns all outputs that its frames complete.
    """
    rates = [rate for wire in wires if (rate := wire.eventually_constant()) is not None and rate.bursts]
    later = sorted({0, *(rate.first - rate.delay - 1 for rate in rates)})
    plans = [_starting(plan, plan.start + n, wires) for n in later if n < plan.chunk]
    return min(plans, key=lambda p: (_bursts(timing, p), sum(_bursts(wire, p) for wire in wires))) if len(plans) > 1 else plans[0]


def _starting(plan: ProgramPlan, start: int, wires: list[Timing]) -> ProgramPlan:
    """The plan with another start, and the warmup calls that it needs."""
    made = replace(plan, start=start if start <= 0 else start - plan.chunk)
    made.warmup_calls = max(math.ceil(max(0, s.first) / s.frames) for s in map(made.schedule, wires))
    return made


def _bursts(timing: Timing, plan: ProgramPlan) -> bool:
    """Whether a program would give outputs early or late: outputs that come in a burst, or that see only padding."""
    out_schedule, steps = plan.schedule(timing), timing.transient + timing.period
    for call in range(-plan.warmup_calls, steps // plan.chunk + 2):
        n_in = max(0, plan.start + plan.chunk * (call + 1))
        if max(0, out_schedule.first + out_schedule.frames * (call + 1)) != timing.counts(n_in, n_in)[0]:
            return True
    return False


def _wires(module: Any, node: StateNode) -> Iterator[Timing]:
    """The timings of all wires, from the network's input on."""
    yield node.before
    yield node.before.then(module.timing) if isinstance(module, CoModule) else node.before
    if isinstance(module, GraphModule):
        program = module._program
        for wire in range(program.wires):
            yield node.before.then(program.timing.at(wire))
        for layer in program.layers:
            yield from _wires(layer.module, node.children[layer.state_node])
        return
    modules: Any = getattr(module, "_children", None) or ([module.heads] if node.children else [])
    for child, child_node in zip(modules, node.children, strict=False):
        yield from _wires(child, child_node)
