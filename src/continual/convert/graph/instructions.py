"""The program of a converted network: a list of instructions over numbered slots, for clips, chunks and single steps.

Most instructions are operations of the module, run on the current frames in the module's own layout. Operations over time are layers of
this library, between two changes of layout. Where branches with different delays meet, queues align them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ...containers.base import open_child, run_chunk, run_clip
from ...core.kernel import only_frame
from ...core.module import CoModule
from ...core.state import InitContext, StateNode, StepSpec, rewire
from ...core.step_spec import length
from ...core.stream import shallow
from .axes import Dims, View
from .bound_calls import bound, concrete, refs, varies
from .exec_context import Arg, Env, ExecContext, Run
from .torch_functions import native

Step = Callable[[ExecContext], None]
INDICES = (torch.int64, torch.int32)
MAX_CACHED = 64  # pairs of batch size and frame count for which an operation keeps its arguments


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
    """Base class: how one instruction runs on a clip, on a chunk and on a step.

    Attributes:
        path: where in the module, for tables and for the names of state tensors.
        label: the operation, for tables.
        source: the line of code.
        inputs: slots of the streams that it takes.
        outs: the slots that it fills.
        wire: the wire of its results.
        reads: other slots that it reads.
    """

    path: str
    label: str
    source: str
    inputs: tuple[int, ...]
    outs: tuple[int, ...]
    wire: int
    note: str = ""
    reads: Any = ()
    has_dtypes = False  # whether dtypes of the example may be in it

    def open(self, m: ExecContext, init: InitContext) -> list[StateNode]:
        """The cold state. The environment gets the result for zeros; integers are 0 in it, since a table has this index always."""
        self.chunk(m)
        for slot in self.outs:
            y = m.env[slot]
            if isinstance(y, Tensor) and y.dtype in INDICES:
                m.env[slot] = torch.zeros_like(y)
        return []

    def chunk(self, m: ExecContext) -> None:
        """Run on a chunk of frames."""

    def step(self, m: ExecContext) -> None:
        """Run on one frame, where the counts have a constant rate."""
        self.chunk(m)

    def stepper(self, framed: frozenset[int]) -> Step:
        """:meth:`step` for a network whose slots ``framed`` hold frames in a step. What does not change is decided here."""
        return self.step

    def clip(self, m: ExecContext) -> None:
        """Run on a clip."""
        self.chunk(m)

    def layer(self) -> CoModule | None:
        """Its streaming layer, if it has one."""
        return None

    @property
    def taken(self) -> list[tuple[int, View]]:
        """The slots that it takes chunks from, and their views."""
        return []

    @property
    def made(self) -> list[tuple[int, View]]:
        """The slots that it fills with chunks, and their views."""
        return []


@dataclass(eq=False)
class Op(Instruction):
    """An operation of the module that is local in time. ``dims``: the layout of its result, where that is known."""

    path: str
    label: str
    source: str
    target: str
    args: tuple[Arg, ...]
    kwargs: dict[str, Arg]
    inputs: tuple[int, ...]
    out: int
    wire: int
    note: str = ""
    dims: Dims | None = None
    fn: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.fn = self._function()
        self._prepare()

    def _function(self) -> Callable[..., Any]:
        return native(self.target) or resolve(self.target)

    def _prepare(self) -> None:
        self.outs = (self.out,)
        self._ready: dict[tuple[int, int, torch.device], Run] = {}
        # the call, where it is the same for all batch sizes, frame counts and devices
        self._same = None if any(map(varies, (*self.args, *self.kwargs.values()))) else bound(self.fn, self.args, self.kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("fn", "_ready", "_same")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def chunk(self, m: ExecContext) -> None:
        env = m.env
        if self.inputs and env[self.inputs[0]] is None:
            env[self.out] = None
            return
        env[self.out] = self.call(m)

    def call(self, m: ExecContext) -> Any:
        """Its result, of the values that are in the slots."""
        return (self._same or self.prepared(m))(m.env)

    step = chunk
    clip = chunk

    def stepper(self, framed: frozenset[int]) -> Step:
        run, out = self._same, self.out
        if run is None or type(self).chunk is not Op.chunk:
            return self.step
        if not self.inputs:
            return lambda m: _put(m.env, out, run(m.env))
        first = self.inputs[0]

        def step(m: ExecContext) -> None:
            env = m.env
            env[out] = None if env[first] is None else run(env)

        return step

    @property
    def varies(self) -> bool:
        """Whether its arguments differ from call to call, beside the streams."""
        return self._same is None

    def prepared(self, m: ExecContext) -> Run:
        """The call for the current batch size and frame count, as a function of the slots."""
        frames = m.frames[self.wire]
        cached = type(m.batch) is int and type(frames) is int
        run = self._ready.get((m.batch, frames, m.device)) if cached else None
        if run is None:
            args, kwargs = (
                [concrete(a, m, frames) for a in self.args],
                {k: concrete(v, m, frames) for k, v in self.kwargs.items()},
            )
            run = bound(self.fn, args, kwargs)
            if cached:
                if len(self._ready) >= MAX_CACHED:
                    self._ready.clear()
                self._ready[m.batch, frames, m.device] = run
        return run

    def rewire(self, args: tuple[Arg, ...], out: int) -> None:
        """Change arguments and result."""
        self.args, self.out = args, out
        self._prepare()


def _put(env: Env, slot: int, value: Any) -> None:
    env[slot] = value


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
    state_node: int
    weights: dict[str, int] = field(default_factory=dict)  # slots of the layer's parameters, by name
    late: bool = False  # whether the program computes weights while it runs
    note: str = ""

    def __post_init__(self) -> None:
        self.inputs, self.outs = (self.slot,), (self.out,)

    def layer(self) -> CoModule | None:
        return self.module

    def bind(self, env: Env) -> None:
        """Give the layer its current weights."""
        own = self.module._parameters
        for name, slot in self.weights.items():
            if name in own:
                own[name] = env[slot]
            else:
                table, last = self._table(name)
                table[last] = env[slot]

    def _table(self, name: str) -> tuple[dict[str, Any], str]:
        """Where a weight of a module inside the layer, or a buffer, is bound."""
        path, _, last = name.rpartition(".")
        holder = self.module.get_submodule(path)
        return (holder._buffers if last in holder._buffers else holder._parameters), last

    def unbind(self) -> None:
        """Release the weights; the next call binds them again."""
        for name in self.weights:
            table, last = self._table(name)
            table[last] = None

    def rewire(self, bias: int, out: int) -> None:
        """Change the slots of bias and result."""
        self.weights["bias"], self.out, self.outs = bias, out, (out,)

    def with_own_weights(self) -> Layer:
        """The same layer with its own table of weights."""
        module = shallow(self.module)
        module.__dict__["_parameters"] = dict(self.module._parameters)
        if any(name not in self.module._parameters for name in self.weights):  # tables of modules inside
            shared = {id(t): t for t in (*self.module.parameters(), *self.module.buffers())}
            module = copy.deepcopy(self.module, cast(dict[int, Any], shared))
        return replace(self, module=module)

    def arriving(self, m: ExecContext, count: int) -> Any:
        """What the layer takes: ``count`` frames of the stream, as a chunk."""
        return self.enter.enter(m.env[self.slot], m.batch, count)

    def leaving(self, m: ExecContext, y: Any, count: int) -> None:
        """Fill the slots with what the layer gives; ``None``: nothing."""
        m.env[self.out] = None if y is None else self.leave.leave(y, m.batch, count)

    def frames(self, m: ExecContext) -> Any:
        """What the layer takes in a step."""
        return m.frame(self.slot, self.enter)

    def put_frames(self, m: ExecContext, y: Any) -> None:
        """Fill the slots with what the layer gives in a step; ``None``: nothing."""
        m.put_frame(self.out, self.leave, y)

    @property
    def taken(self) -> list[tuple[int, View]]:
        return [(self.slot, self.enter)]

    @property
    def made(self) -> list[tuple[int, View]]:
        return [(self.out, self.leave)]

    def take(self, taken: Sequence[tuple[int, View]]) -> None:
        """Take the same chunks from other slots."""
        ((self.slot, self.enter),) = taken
        self.inputs = (self.slot,)

    def open(self, m: ExecContext, init: InitContext) -> list[StateNode]:
        if self.late:
            self.bind(m.env)
        node = open_child(self.module, StepSpec.of(rewire(only_frame, self.arriving(m, 1))), init)
        m.frames[self.wire] = 1
        self.leaving(m, rewire(lambda out: out.zeros(1), node.out), 1)
        return [node]

    def chunk(self, m: ExecContext) -> None:
        if self.late:
            self.bind(m.env)
        x = None if m.env[self.slot] is None else self.arriving(m, m.frames[self.before])
        y, m.ends[self.wire] = run_chunk(self.module, x, m.nodes[self.state_node], m.ends[self.before], m.call)
        m.frames[self.wire] = length(y)
        self.leaving(m, y, length(y))

    def step(self, m: ExecContext) -> None:
        if m.env[self.slot] is None:
            self.put_frames(m, None)
            return
        if self.late:
            self.bind(m.env)
        self.put_frames(m, self.module.advance_step(self.frames(m), m.nodes[self.state_node], m.call))

    def stepper(self, framed: frozenset[int]) -> Step:
        plain = type(self).frames is Layer.frames and type(self).put_frames is Layer.put_frames
        if self.late or not plain or not {self.slot, self.out} <= framed:
            return self.step
        slot, out, number, module = self.slot, self.out, self.state_node, self.module

        def step(m: ExecContext) -> None:
            env = m.env
            x = env[slot]
            env[out] = None if x is None else module.advance_step(x, m.nodes[number], m.call)

        return step

    def clip(self, m: ExecContext) -> None:
        if self.late:
            self.bind(m.env)
        y = run_clip(self.module, self.arriving(m, m.frames[self.before]))
        m.frames[self.wire] = length(y)
        self.leaving(m, y, length(y))


def slots_of(instruction: Instruction) -> tuple[int, ...]:
    """The slots that an instruction reads."""
    found = [*instruction.inputs, *instruction.reads]
    if isinstance(instruction, Op):
        found += refs([*instruction.args, *instruction.kwargs.values()])
    if isinstance(instruction, Layer):
        found += instruction.weights.values()
    return tuple(dict.fromkeys(found))
