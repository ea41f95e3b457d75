"""What a converted graph runs: a list of instructions over numbered slots, for clips, for chunks and for single steps.

Most instructions are the module's own operations, run on the frames that have come in the module's own layout. Operations over time are
layers of this library, between two changes of layout. Where branches with different delays meet, their frames wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...containers.base import OPEN, open_child, run_chunk, run_clip
from ...core.module import CoModule
from ...core.state import Call, Frame, Node, Opening
from ...core.stream import shallow
from .axes import Dims, View, shape_of
from .torch_functions import native

Env = list[Any]
REMEMBERED = 64  # numbers of rows and frames for which arguments are kept


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
        return cast(Callable[..., Any], getattr(importlib.import_module(f"{__package__}.{module}"), name))
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
        self.fn = native(self.target) or resolve(self.target)
        self.outs = (self.out,)
        self._ready: dict[Any, Callable[[Env], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("fn", "_ready")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def chunk(self, m: Moment) -> None:
        env = m.env
        if self.inputs and env[self.inputs[0]] is None:
            env[self.out] = None
            return
        key = m.batch, m.frames[self.wire], m.device
        run = self._ready.get(key) if type(m.batch) is int and type(key[1]) is int else self._prepared(m)
        if run is None:
            if len(self._ready) >= REMEMBERED:
                self._ready.clear()
            run = self._ready[key] = self._prepared(m)
        env[self.out] = run(env)

    step = chunk
    clip = chunk

    def _prepared(self, m: Moment) -> Callable[[Env], Any]:
        """The call for so many rows and frames, as a function of the slots: ``lambda env: fn(env[3], a1, [env[4], env[5]])``."""
        names: dict[str, Any] = {"fn": self.fn}

        def shown(arg: Any, name: str) -> str:
            if isinstance(arg, Ref):
                return f"env[{arg.slot}]"
            if isinstance(arg, (list, tuple)) and any(isinstance(a, Ref) for a in arg):
                return f"[{', '.join(shown(a, f'{name}_{i}') for i, a in enumerate(arg))}]"
            names[name] = _filled(arg, m, m.frames[self.wire])
            return name

        given = [shown(a, f"a{i}") for i, a in enumerate(self.args)]
        given += [f"{k}={shown(v, f'k_{k}')}" for k, v in self.kwargs.items()]
        run: Callable[[Env], Any] = eval(f"lambda env: fn({', '.join(given)})", names)
        return run


def _filled(arg: Any, m: Moment, frames: int) -> Any:
    """An argument with the sizes of now."""
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

    def apart(self) -> Layer:
        """The same layer with a table of weights of its own."""
        module = shallow(self.module)
        module.__dict__["_parameters"] = dict(self.module._parameters)
        return replace(self, module=module)

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
