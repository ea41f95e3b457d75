"""What a converted graph runs: a list of instructions over numbered slots, for clips, for chunks and for single steps.

Most instructions are the module's own operations, run on the frames that have come in the module's own layout. Operations over time are
layers of this library, between two changes of layout. Where branches with different delays meet, their frames wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ..alignment import waiting
from ..composite import OPEN, open_child, run_chunk, run_clip
from ..delay import queued
from ..errors import ShapeMismatch
from ..module import CoModule
from ..rings import ring_zeros
from ..state import Call, Frame, Node, Opening
from .layout import Dims, View, shape_of

Env = list[Any]


@dataclass(frozen=True)
class Ref:
    """The value of a slot."""

    slot: int


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor with the rows and frames of now."""

    dims: Dims


@dataclass(frozen=True)
class Home:
    """The device of now."""


class Moment:
    """What a run of the program knows: values, and for every wire the number of frames and how many there would be at the end."""

    __slots__ = ("batch", "call", "device", "ends", "env", "frames", "kids")

    def __init__(self, env: Env, wires: int, batch: int, device: torch.device, kids: list[Node], call: Call | None):
        self.env, self.batch, self.device, self.kids = env, batch, device, kids
        self.call: Call = cast(Call, call)
        self.frames = [0] * wires
        self.ends = [OPEN] * wires


def resolve(target: str) -> Callable[..., Any]:
    """An operation of torch by its name, ``"aten.add.Tensor"``, or a function of this package, ``"module:name"``."""
    if ":" in target:
        import importlib  # here, since few operations need it

        module, name = target.split(":")
        return cast(Callable[..., Any], getattr(importlib.import_module(f"continual.graph.{module}"), name))
    found: Any = torch.ops
    for part in target.split("."):
        found = getattr(found, part)
    return cast(Callable[..., Any], found)


class Instruction:
    """Base class: how one step of the program runs on a clip, on a chunk and on a step.

    Attributes:
        path: where in the module, for people and for the names of state tensors.
        inputs: slots of the streams that it takes.
        out: the slot, or slots, that it fills.
        wire: of what it gives.
    """

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    outs: tuple[int, ...]
    wire: int
    note: str = ""

    def open(self, m: Moment, opening: Opening) -> list[Node]:
        """The cold state, and in the environment a frame of zeros of what it gives."""
        self.chunk(m)
        return []

    def chunk(self, m: Moment) -> None:
        """Run on the frames that have come."""

    def step(self, m: Moment) -> None:
        """Run on one frame, where the counts are plain."""
        self.chunk(m)

    def clip(self, m: Moment) -> None:
        """Run on a clip."""
        self.chunk(m)

    def layer(self) -> CoModule | None:
        """The streaming layer in it, if it has one."""
        return None


@dataclass(eq=False)
class Op(Instruction):
    """An operation of the module that is local in time."""

    path: str
    label: str
    source: str
    target: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    out: int
    wire: int
    note: str = ""
    fn: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.fn = resolve(self.target)
        self.outs = (self.out,)
        flat = [*self.args, *self.kwargs.values()]
        self._refs = [(i, a.slot) for i, a in enumerate(self.args) if isinstance(a, Ref)]
        self._simple = not self.kwargs and all(isinstance(a, Ref) or not _refers(a) for a in flat)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("fn", "_refs", "_simple")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def chunk(self, m: Moment) -> None:
        env = m.env
        if self.inputs and env[self.inputs[0]] is None:
            env[self.out] = None
            return
        if self._simple:
            args = list(self.args)
            for i, slot in self._refs:
                args[i] = env[slot]
            env[self.out] = self.fn(*args)
            return
        frames = m.frames[self.wire]
        given = [_filled(a, m, frames) for a in self.args]
        env[self.out] = self.fn(*given, **{k: _filled(v, m, frames) for k, v in self.kwargs.items()})

    step = chunk
    clip = chunk


def _refers(arg: Any) -> bool:
    if isinstance(arg, (list, tuple)):
        return any(_refers(a) for a in arg)
    return isinstance(arg, (Ref, Shape, Home))


def _filled(arg: Any, m: Moment, frames: int) -> Any:
    """An argument with the values of now."""
    if isinstance(arg, Ref):
        return m.env[arg.slot]
    if isinstance(arg, Shape):
        return shape_of(arg.dims, m.batch, frames)
    if isinstance(arg, Home):
        return m.device
    if isinstance(arg, (list, tuple)):
        return type(arg)(_filled(a, m, frames) for a in arg)
    return arg


@dataclass(eq=False)
class Layer(Instruction):
    """A layer that works over time."""

    path: str
    label: str
    source: str
    module: CoModule
    slot: int
    out: int
    before: int
    wire: int
    enter: View
    leave: View
    kid: int
    weights: dict[str, int] = field(default_factory=dict)  # names of the layer's parameters, and slots
    late: bool = False  # whether some weights are computed while the program runs
    note: str = ""

    def __post_init__(self) -> None:
        self.inputs, self.outs = (self.slot,), (self.out,)

    def layer(self) -> CoModule | None:
        return self.module

    def bind(self, env: Env) -> None:
        """Give the layer its weights of now."""
        own = self.module._parameters
        for name, slot in self.weights.items():
            own[name] = env[slot]

    def unbind(self) -> None:
        """Let go of the weights; they are bound anew at the next call."""
        self.module._parameters.update(dict.fromkeys(self.weights))

    def open(self, m: Moment, opening: Opening) -> list[Node]:
        if self.late:
            self.bind(m.env)
        x = self.enter.enter(m.env[self.slot], m.batch, 1)
        node = open_child(self.module, Frame.of(x.select(2, 0)), opening)
        m.frames[self.wire] = 1
        m.env[self.out] = self.leave.leave(node.out.zeros(1), m.batch, 1)
        return [node]

    def chunk(self, m: Moment) -> None:
        if self.late:
            self.bind(m.env)
        x = m.env[self.slot]
        if x is not None:
            x = self.enter.enter(x, m.batch, m.frames[self.before])
        y, m.ends[self.wire] = run_chunk(self.module, x, m.kids[self.kid], m.ends[self.before], m.call)
        self._leave(m, y)

    def _leave(self, m: Moment, y: Tensor | None) -> None:
        if y is None:
            m.env[self.out], m.frames[self.wire] = None, 0
            return
        m.frames[self.wire] = y.shape[2]
        m.env[self.out] = self.leave.leave(y, m.batch, y.shape[2])

    def step(self, m: Moment) -> None:
        x = m.env[self.slot]
        if x is None:
            m.env[self.out] = None
            return
        if self.late:
            self.bind(m.env)
        y = self.module.advance_step(self.enter.enter(x, m.batch, 1).squeeze(2), m.kids[self.kid], m.call)
        m.env[self.out] = None if y is None else self.leave.leave(y.unsqueeze(2), m.batch, 1)

    def clip(self, m: Moment) -> None:
        if self.late:
            self.bind(m.env)
        self._leave(m, run_clip(self.module, self.enter.enter(m.env[self.slot], m.batch, m.frames[self.before])))


@dataclass(eq=False)
class Meet(Instruction):
    """Streams of different delays wait for each other, in queues."""

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    outs: tuple[int, ...]
    before: tuple[int, ...]
    wire: int
    views: tuple[View, ...]
    timings: tuple[Any, ...]  # of the inputs, from the network's input on
    kid: int
    note: str = ""

    def depths(self) -> list[int]:
        """How many frames of each input wait at most."""
        return waiting(self.timings)

    def open(self, m: Moment, opening: Opening) -> list[Node]:
        nodes = []
        m.frames[self.wire] = 1
        for i, (slot, out, view, depth) in enumerate(zip(self.inputs, self.outs, self.views, self.depths(), strict=True)):
            frame = Frame.of(view.enter(m.env[slot], m.batch, 1).select(2, 0))
            place = Opening(f"{opening.path}.{i}", opening.before)
            nodes.append(Node(place, "queue", frame, {"queue": ring_zeros(frame, depth)} if depth else None))
            m.env[out] = m.env[slot]
        return nodes

    def chunk(self, m: Moment) -> None:
        queues = m.kids[self.kid : self.kid + len(self.inputs)]
        given = []
        for slot, view, wire in zip(self.inputs, self.views, self.before, strict=True):
            x = m.env[slot]
            given.append(None if x is None else view.enter(x, m.batch, m.frames[wire]))
        have = [q.seen + (0 if x is None else x.shape[2]) for q, x in zip(queues, given, strict=True)]
        ends = [m.ends[w] for w in self.before]
        call, sent = m.call, queues[0].sent
        if call.final and len(set(ends)) > 1 and min(ends) > 0:
            raise ShapeMismatch(
                f"{self.path}: the stream ends here, and the streams that meet have {ends} steps for this clip (forward refuses it "
                "too). End the stream where the network's strides divide its length"
            )
        m.ends[self.wire] = min(ends)
        stop = sent if call.final and min(ends) == 0 else min(have)
        m.frames[self.wire] = stop - sent
        for queue, x, view, n, out in zip(queues, given, self.views, have, self.outs, strict=True):
            if x is not None and queue.tensors:
                call.ring(queue, 0, queue.seen, x)
            call.tick(queue, n, stop)
            if stop == sent:
                m.env[out] = None
                continue
            y = queued(queue, 0, x, queue.seen, sent, stop) if queue.tensors or x is None or x.shape[2] != stop - sent else x
            m.env[out] = view.leave(y, m.batch, stop - sent)

    def step(self, m: Moment) -> None:
        env, call = m.env, m.call
        queues = m.kids[self.kid : self.kid + len(self.inputs)]
        sent = queues[0].sent
        values = [env[s] for s in self.inputs]
        stop = sent + all(x is not None or q.seen > sent for x, q in zip(values, queues, strict=True))
        for queue, x, view, out in zip(queues, values, self.views, self.outs, strict=True):
            seen = queue.seen
            if stop > sent and seen == sent:
                env[out] = x  # has just come and leaves at once
            else:
                env[out] = None
                if queue.tensors:
                    rings = queue.memo
                    if rings is None:
                        ring = queue.tensors[0]
                        rings = queue.memo = [ring.select(1, i) for i in range(ring.shape[1])]
                    if stop > sent:
                        env[out] = view.leave(rings[sent % len(rings)].clone().unsqueeze(2), m.batch, 1)
                    if x is not None:
                        call.slots.append((rings[seen % len(rings)], view.enter(x, m.batch, 1).squeeze(2)))
            call.ticks.append((queue, seen if x is None else seen + 1, stop))

    def clip(self, m: Moment) -> None:
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
    """The positions of the frames that have come: 0, 1, 2, …"""

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    out: int
    wire: int
    kid: int
    limit: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        self.outs = (self.out,)

    def open(self, m: Moment, opening: Opening) -> list[Node]:
        m.env[self.out] = torch.zeros(1, dtype=torch.long, device=m.device)
        return [Node(opening, "positions", [])]

    def chunk(self, m: Moment) -> None:
        node, count = m.kids[self.kid], m.frames[self.wire]
        if m.env[self.inputs[0]] is None:
            m.env[self.out] = None
            return
        m.env[self.out] = self._from(m, node.seen, count)
        m.call.tick(node, node.seen + count, node.seen + count)

    def _from(self, m: Moment, first: int, count: int) -> Tensor:
        if self.limit is not None and first + count > self.limit:
            raise ShapeMismatch(
                f"{self.path}: the stream has come to frame {first + count}, and the module has positions for {self.limit}. "
                "Start anew with clean_state(), or train with positions that go on (co.RecyclingPositionalEncoding, rotary, ALiBi)"
            )
        return torch.arange(first, first + count, device=m.device)

    def clip(self, m: Moment) -> None:
        m.env[self.out] = self._from(m, 0, m.frames[self.wire])


def refs(value: Any) -> Iterator[int]:
    """The slots in an argument."""
    if isinstance(value, Ref):
        yield value.slot
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from refs(v)


def slots_of(instruction: Instruction) -> tuple[int, ...]:
    """The slots that an instruction reads."""
    found = list(instruction.inputs)
    if isinstance(instruction, Op):
        found += refs([*instruction.args, *instruction.kwargs.values()])
    if isinstance(instruction, Layer):
        found += instruction.weights.values()
    return tuple(dict.fromkeys(found))
