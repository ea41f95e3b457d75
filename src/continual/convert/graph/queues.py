"""Instructions with counters: queues that align streams, and positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.alignment import waiting
from ...core.count_table import CountTable
from ...core.ring_buffer import match_memory_format, ring_zeros
from ...core.state import InitContext, StateNode, StepSpec
from ...core.timing import IDENTITY, Timing, Wiring
from ...errors import ShapeMismatch
from ...layers.delay import queued
from .axes import View
from .exec_context import ExecContext
from .instructions import Instruction


@dataclass(eq=False)
class AlignDelays(Instruction):
    """Queues in which streams of smaller delays wait for the others.

    Attributes:
        timings: of the inputs, from the network's input on.
        counts: of all wires of the network, until the depths are known.
    """

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    outs: tuple[int, ...]
    before: tuple[int, ...]
    wire: int
    views: tuple[View, ...]
    timings: tuple[Wiring, ...]
    state_node: int
    note: str = ""
    counts: CountTable | None = None
    known_depths: list[int] | None = None

    @property
    def taken(self) -> list[tuple[int, View]]:
        return list(zip(self.inputs, self.views, strict=True))

    @property
    def made(self) -> list[tuple[int, View]]:
        return list(zip(self.outs, self.views, strict=True))

    def depths(self, before: Timing = IDENTITY) -> list[int]:
        """How many frames of each input wait at most, after the timing ``before``."""
        if before != IDENTITY:
            return waiting(self.timings, before)
        if self.known_depths is None:
            self.known_depths = waiting(self.timings, shared=None if self.counts is None else (self.counts, self.before))
            self.counts = None
        return self.known_depths

    def open(self, m: ExecContext, init: InitContext) -> list[StateNode]:
        nodes = []
        m.frames[self.wire] = 1
        for i, (slot, out, view, depth) in enumerate(
            zip(self.inputs, self.outs, self.views, self.depths(init.before), strict=True)
        ):
            frame = StepSpec.of(view.enter(m.env[slot], m.batch, 1).select(2, 0))
            place = InitContext(f"{init.path}.{i}", init.before)
            nodes.append(StateNode(place, "queue", frame, {"queue": ring_zeros(frame, depth)} if depth else None))
            m.env[out] = m.env[slot]
        return nodes

    def chunk(self, m: ExecContext) -> None:
        queues = m.nodes[self.state_node : self.state_node + len(self.inputs)]
        chunks = []
        for slot, view, wire in zip(self.inputs, self.views, self.before, strict=True):
            x = m.env[slot]
            chunks.append(None if x is None else view.enter(x, m.batch, m.frames[wire]))
        have = [q.n_in + (0 if x is None else x.shape[2]) for q, x in zip(queues, chunks, strict=True)]
        ends = [m.ends[w] for w in self.before]
        call, sent = m.call, queues[0].n_out
        if call.final and len(set(ends)) > 1 and min(ends) > 0:
            raise ShapeMismatch(
                f"{self.path}: the stream ends here, and the streams that meet have {ends} steps for this clip (forward refuses it "
                "too). End the stream where the network's strides divide its length"
            )
        m.ends[self.wire] = min(ends)
        stop = sent if call.final and min(ends) == 0 else min(have)
        m.frames[self.wire] = stop - sent
        for queue, x, view, n, out in zip(queues, chunks, self.views, have, self.outs, strict=True):
            if x is not None and queue.tensors:
                match_memory_format(queue, [x])
                call.ring(queue, 0, queue.n_in, x)
            call.tick(queue, n, stop)
            if stop == sent:
                m.env[out] = None
                continue
            y = queued(queue, 0, x, queue.n_in, sent, stop) if queue.tensors or x is None or x.shape[2] != stop - sent else x
            m.env[out] = view.leave(y, m.batch, stop - sent)

    def step(self, m: ExecContext) -> None:
        env, call, framed = m.env, m.call, m.framed
        queues = m.nodes[self.state_node : self.state_node + len(self.inputs)]
        sent = queues[0].n_out
        values = [env[s] for s in self.inputs]
        stop = sent + all(x is not None or q.n_in > sent for x, q in zip(values, queues, strict=True))
        for queue, x, view, slot, out in zip(queues, values, self.views, self.inputs, self.outs, strict=True):
            seen = queue.n_in
            if stop > sent and seen == sent:  # arrives and leaves in one step
                env[out] = x
                if (slot in framed) != (out in framed):
                    m.put_frame(out, view, m.frame(slot, view))
            else:
                env[out] = None
                if queue.tensors:
                    frame = None if x is None else m.frame(slot, view)
                    if frame is not None:
                        match_memory_format(queue, [frame])
                    rings = queue.memo
                    if rings is None:
                        ring = queue.tensors[0]
                        rings = queue.memo = [ring.select(1, i) for i in range(ring.shape[1])]
                    if stop > sent:
                        m.put_frame(out, view, rings[sent % len(rings)].clone())
                    if frame is not None:
                        call.slots.append((rings[seen % len(rings)], frame))
            call.ticks.append((queue, seen if x is None else seen + 1, stop))

    def clip(self, m: ExecContext) -> None:
        lengths = [m.frames[w] for w in self.before]
        if len(set(lengths)) > 1:
            raise ShapeMismatch(
                f"{self.path}: the streams that meet have {lengths} steps for this clip. Give clips whose length the network's "
                "strides divide"
            )
        m.frames[self.wire] = lengths[0]
        for slot, out in zip(self.inputs, self.outs, strict=True):
            m.env[out] = m.env[slot]


@dataclass(eq=False)
class Positions(Instruction):
    """The positions of the frames: 0, 1, 2, …"""

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    out: int
    wire: int
    state_node: int
    limit: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.outs = (self.out,)

    def open(self, m: ExecContext, init: InitContext) -> list[StateNode]:
        m.env[self.out] = torch.zeros(1, dtype=torch.long, device=m.device)
        return [StateNode(init, "positions", [])]

    def chunk(self, m: ExecContext) -> None:
        node, count = m.nodes[self.state_node], m.frames[self.wire]
        if m.env[self.inputs[0]] is None:
            m.env[self.out] = None
            return
        m.env[self.out] = self._from(m, node.n_in, count)
        m.call.tick(node, node.n_in + count, node.n_in + count)

    def _from(self, m: ExecContext, first: int, count: int) -> Tensor:
        if self.limit is not None and first + count > self.limit:
            raise ShapeMismatch(
                f"{self.path}: the stream has come to frame {first + count}, and the module has positions for {self.limit}. "
                "Restart with clean_state(), or train with positions that continue (co.RecyclingPositionalEncoding, rotary, ALiBi)"
            )
        return torch.arange(first, first + count, device=m.device)

    def clip(self, m: ExecContext) -> None:
        m.env[self.out] = self._from(m, 0, m.frames[self.wire])
