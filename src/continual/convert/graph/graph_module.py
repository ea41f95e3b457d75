"""`GraphModule`: the streaming twin of any module, in the module's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.op_rows import Graph
from ...core.program.context import KernelContext, Run
from ...core.state import InitContext, Node, State, StateUpdates, StepSpec, Wire
from ...core.stream import shallow
from ...core.timing import Timing
from ...core.timing_graph import Wiring
from ...core.tracing_guard import eagerly, in_dispatch, is_dynamo_compiling, is_tracing, leaves
from ...errors import ContinualError, ShapeMismatch
from .axes import View
from .cost_table import macs_of, rows_of
from .dtypes import InItsDtypes
from .instructions import Env, ExecContext, Instruction, Layer, Op
from .io_layout import Input, IOLayout, Output, with_flag
from .parameter_table import ParameterTable, Source
from .queues import AlignDelays, Positions
from .step_program import graph
from .submodule_tree import Converted, mirror


class GraphModule(Converted, InItsDtypes):
    """The streaming twin that :func:`continual.continual` makes of a module and an example clip.

    It has the module's names, parameters and layout: chunks are shaped as the module's input, and steps the same without time.
    Parameters and buffers are shared with the module; ``copy=True`` separates them.
    """

    runs_kernel = True
    # clips on which forward is the module's: of "any" length, of the "same rest" of a division, of its "own" alone
    lengths: str = "any"
    _program: list[Instruction]
    _layers: list[Layer]

    def __init__(
        self,
        module: nn.Module,
        instructions: Sequence[Instruction],
        constants: Sequence[Op],
        sources: Sequence[Source],
        tensors: dict[str, Tensor],
        slots: int,
        inputs: Sequence[Input],
        outputs: Sequence[Any],
        timing: Wiring,
        wires: int,
        nested: bool,
        notes: Sequence[str],
        names: Sequence[str],
    ):
        super().__init__()
        self.__dict__["name"] = type(module).__name__
        mirror(module, self, self.name)
        self.__dict__["_program"] = list(instructions)
        self.__dict__["_layers"] = [i for i in instructions if isinstance(i, Layer)]
        self._ports, self._nested, self._wires, self.notes = IOLayout(self.name, inputs), nested, wires, tuple(notes)
        self._outputs, self._timing, self._names = list(outputs), timing, list(names)
        self._given: list[tuple[int, int]] = []  # inputs that are no streams: number, slot
        self._streams: list[tuple[int, int, View]] = []
        self._bank = ParameterTable(constants, dict(tensors), slots)
        for source in sources:
            self._add_source(source)
        self._stand_for(module)

    def _add_source(self, source: Source) -> None:
        if source.kind == "constant":
            self._bank.add(source.slot, self._bank.tensors, source.name, source.name)
        elif source.view is not None:
            self._streams.append((int(source.name), source.slot, source.view))
        elif source.kind == "input":
            self._given.append((int(source.name), source.slot))
        else:
            for path in self._names_of(source.name):
                table, name = self.table_of(path)
                self._bank.add(source.slot, table, name, path)

    # ---- what it reports --------------------------------------------------------------------------------------------

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def time_dim(self) -> Any:  # type: ignore[override]
        """Where time is in the clips of the first stream."""
        return next(i.time for i in self._ports.inputs if i.time is not None)

    @property
    def time_dims(self) -> tuple[int | None, ...]:
        """Where time is in each input; ``None`` for what is no stream."""
        return tuple(i.time for i in self._ports.inputs)

    @property
    def output_time_dims(self) -> tuple[int, ...]:
        """Where time is in the chunks of each output."""
        return tuple(out.time for out, _, _ in self._outputs)

    @property
    def _clip_level(self) -> bool:  # type: ignore[override]
        return any(out.windows for out, _, _ in self._outputs)

    @property
    def _output_rank(self) -> int:
        """The number of dimensions of a chunk of the first output."""
        out = self._outputs[0][0]
        return len(out.view.dims) + out.windows

    @property
    def kind(self) -> str:
        return f"Graph of {self.name}"

    @property
    def unbounded_memory(self) -> bool:
        return any(layer.module.unbounded_memory for layer in self._layers)

    # ---- the three ways to run, in the module's layout --------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """The clip computation, in the module's own layout.

        Args:
            inputs: as the module's.
        """
        wire, given = self._ports.arrive(inputs, chunk=True)
        streams: list[Any] = wire if isinstance(wire, list) else [wire]
        self._refuse_edits()
        self.fit([*streams, *given])
        batch, frames = streams[0].shape[0], streams[0].shape[2]
        m = ExecContext(self._environment(given), self._wires, batch, streams[0].device, [], None)
        m.frames[0] = frames
        for (_, slot, view), x in zip(self._streams, streams, strict=True):
            m.env[slot] = view.leave(x, batch, frames)
        for instruction in self._program:
            instruction.clip(m)
        return self._nest([self._clip_output(m, out, slot, wire) for out, slot, wire in self._outputs])

    def _clip_output(self, m: ExecContext, out: Output, slot: int, wire: int) -> Tensor:
        y = m.env[slot]
        if out.windows:
            y = out.view.enter(y, m.batch, m.frames[wire])
            y = y.squeeze(1) if out.view.lonely else y
            return y.squeeze(min(2, y.ndim - 1)) if m.frames[wire] == 1 else y
        return cast(Tensor, y)

    def forward_step(self, *inputs: Any, update_state: bool = True) -> Any:
        """One step: as :meth:`CoModule.forward_step`, with inputs and outputs as the module's, without time."""
        if (is_dynamo_compiling() or in_dispatch() or is_tracing()) and leaves(self):
            return eagerly(partial(GraphModule.forward_step, update_state=update_state), self, *inputs)
        own, update_state = with_flag(inputs, update_state)
        wire, given = self._ports.arrive(own, chunk=False)
        y = super().forward_step(self._ports.together(wire, given, 0), update_state)
        return None if y is None else self._depart(y)

    def forward_steps(self, *inputs: Any, pad_end: bool = False, update_state: bool = True) -> Any:
        """A chunk of steps: as :meth:`CoModule.forward_steps`, with inputs and outputs as the module's."""
        if (is_dynamo_compiling() or in_dispatch() or is_tracing()) and leaves(self):
            return eagerly(partial(GraphModule.forward_steps, pad_end=pad_end, update_state=update_state), self, *inputs)
        wire, given = self._ports.arrive(inputs, chunk=True)
        y = self._chunk(self._ports.together(wire, given, 1), pad_end, update_state)
        return None if y is None else self._depart(y)

    # ---- the same, as pure functions --------------------------------------------------------------------------------

    def init_state(self, *step: Any) -> State:
        """The cold state of a stream of steps like this one: as :meth:`CoModule.init_state`."""
        wire, given = self._ports.arrive(step, chunk=False)
        return super().init_state(self._ports.together(wire, given, 0))

    def step(self, *x: Any) -> tuple[Any, State]:
        """One step as a pure function: ``inputs …, state → output or None, new state``."""
        *inputs, state = x
        wire, given = self._ports.arrive(inputs, chunk=False)
        y, new = super().step(self._ports.together(wire, given, 0), state)
        return (None if y is None else self._depart(y)), new

    def steps(self, *x: Any, pad_end: bool = False) -> tuple[Any, State]:
        """A chunk as a pure function: ``inputs …, state → outputs or None, new state``."""
        inputs, pad_end = (x[:-1], x[-1]) if isinstance(x[-1], bool) else (x, pad_end)
        *inputs, state = inputs  # type: ignore[assignment]
        wire, given = self._ports.arrive(inputs, chunk=True)
        y, new = self._pure_chunk(self._ports.together(wire, given, 1), state, pad_end)
        return (None if y is None else self._depart(y)), new

    def warm_up(self, step_shape: Sequence[int]) -> None:
        """Run ``delay`` dummy steps of zeros: as :meth:`CoModule.warm_up`; ``step_shape`` is that of the module's input without time."""
        if len(self._ports.inputs) > 1:
            raise ShapeMismatch(
                f"{self.name}: takes {len(self._ports.inputs)} inputs; warm it up by forward_step on zeros of their shapes"
            )
        super().warm_up(step_shape)

    # ---- layouts ----------------------------------------------------------------------------------------------------

    def _depart(self, y: Any) -> Any:
        """What leaves, in the module's layout."""
        found = []
        for (out, _, _), value in zip(self._outputs, y if isinstance(y, list) else [y], strict=True):
            chunk = value.ndim == len(out.view.order) + out.view.lonely
            found.append(out.chunk(value) if chunk else out.step(value))
        return self._nest(found)

    def _nest(self, values: list[Any]) -> Any:
        return values if self._nested else values[0]

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def _environment(self, given: Sequence[Tensor]) -> Env:
        """All slots, with the parameters and constants of now in theirs."""
        env, changed = self._bank.environment([slot for _, slot in self._given], given)
        if changed:
            for layer in self._layers:
                if not layer.late:
                    layer.bind(env)
        return env

    def open(self, frame: Any, opening: InitContext) -> Node:
        self._refuse_edits()
        self.fit(frame if isinstance(frame, list) else [frame])
        with torch.no_grad():
            m = self._zeros_moment(frame)
            kids = [kid for instruction in self._program for kid in self._opened(instruction, m, opening)]
            try:
                out = [StepSpec.of(o.view.enter(m.env[slot], m.batch, 1).select(2, 0)) for o, slot, _ in self._outputs]
            except (RuntimeError, IndexError) as error:
                raise ShapeMismatch(f"{self.name}: can't take these steps: {error}") from error
        rest = frame[len(self._streams) :] if isinstance(frame, list) else []
        tensors = {f"given{i or ''}": f.zeros() for i, f in enumerate(rest)}
        return Node(opening, self.kind, out if self._nested else out[0], tensors, kids, held=frame)

    def _zeros_moment(self, frame: Any) -> ExecContext:
        """A moment in which one frame of zeros has come on every input."""
        frames = list(frame) if isinstance(frame, list) else [frame]
        if len(frames) != len(self._ports.inputs):
            raise ShapeMismatch(f"{self.name}: takes {len(self._ports.inputs)} inputs, as the module does; got {len(frames)}")
        streams, rest = frames[: len(self._streams)], frames[len(self._streams) :]
        given = [self._ports.unpadded(i, f.zeros()) for i, f in enumerate(rest)]
        batch, device = streams[0].shape[0], streams[0].device
        m = ExecContext(self._environment(given), self._wires, batch, device, [], StateUpdates())
        m.frames = [1] * self._wires
        for (_, slot, view), f in zip(self._streams, streams, strict=True):
            m.env[slot] = view.leave(f.zeros(1), batch, 1)
        return m

    def _opened(self, instruction: Instruction, m: ExecContext, opening: InitContext) -> list[Node]:
        before = self._timing.at(getattr(instruction, "before", 0)) if isinstance(instruction, Layer) else self._timing.at(0)
        try:
            return instruction.open(m, opening.below(instruction.path, before))
        except ContinualError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise ShapeMismatch(f"{self.name}: '{instruction.path}' can't take these steps: {error}") from error

    def plan(self, node: Node, lead: int | None) -> tuple[int, int, int | None] | None:
        for layer in self._layers:
            before = self._timing.at(layer.before).eventual(lead)
            if before is None or layer.module.plan(node.kids[layer.state_node], before.lead) is None:
                return None
        return super().plan(node, lead)

    def _moment(self, x: Any, node: Node, updates: StateUpdates, time: int) -> ExecContext:
        """The environment of a call, with what has come in it."""
        self._fit_stream(node.held)
        if not self._given:
            streams, given = (x if isinstance(x, list) else [x]), []
        elif x is None:
            streams, given = [None], [self._ports.unpadded(i, t) for i, t in enumerate(node.tensors)]
        else:
            count = len(self._streams)
            streams, flat = x[:count], [g[:, :, -1] if time else g for g in x[count:]]
            given = [self._ports.unpadded(i, g) for i, g in enumerate(flat)]
            for i, g in enumerate(flat):
                updates.put(node, i, g)
        like = streams[0] if x is not None else None
        out = node.out[0] if isinstance(node.out, list) else node.out
        batch, device = (out.shape[0], out.device) if like is None else (like.shape[0], like.device)
        m = ExecContext(self._environment(given), self._wires, batch, device, node.kids, updates)
        if like is not None:
            for (_, slot, view), value in zip(self._streams, streams, strict=True):
                m.env[slot] = view.leave(value.unsqueeze(2) if not time else value, batch, 1 if not time else value.shape[2])
        return m

    def advance(self, x: Any, node: Node, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        if self.training:  # switched since the stream was opened
            self._refuse_training()
        m = self._moment(x, node, updates, 1)
        m.frames[0] = 0 if x is None else (x[0] if isinstance(x, list) else x).shape[2]
        m.ends[0] = n_if_ended
        updates.tick(node, node.n_in + m.frames[0], 0)
        for instruction in self._program:
            instruction.chunk(m)
        _, slot, wire = self._outputs[0]
        if m.env[slot] is None:
            return None, m.ends[wire]
        frames = m.frames[wire]
        found = [out.view.enter(m.env[s], m.batch, frames) for out, s, _ in self._outputs]
        return (found if self._nested else found[0]), m.ends[wire]

    def advance_step(self, x: Wire, node: Node, updates: StateUpdates) -> Wire | None:
        if self.training:
            self._refuse_training()
        m = self._moment(x, node, updates, 0)
        m.frames = [1] * self._wires
        updates.ticks.append((node, node.n_in + 1, 0))
        for instruction in self._program:
            instruction.step(m)
        env = m.env
        if env[self._outputs[0][1]] is None:
            return None
        found = [out.view.enter(env[s], m.batch, 1).squeeze(2) for out, s, _ in self._outputs]
        return found if self._nested else found[0]

    def recount(self, node: Node, n: int, n_if_ended: int) -> tuple[int, int]:
        node.n_in = n
        counts = self._timing.all_counts(n, n_if_ended)
        for instruction in self._program:
            if isinstance(instruction, Layer):
                instruction.module.recount(node.kids[instruction.state_node], *counts[instruction.before])
            elif isinstance(instruction, AlignDelays):
                for i, wire in enumerate(instruction.before):
                    queue = node.kids[instruction.state_node + i]
                    queue.n_in, queue.n_out = counts[wire][0], counts[instruction.wire][0]
            elif isinstance(instruction, Positions):
                kid = node.kids[instruction.state_node]
                kid.n_in = kid.n_out = counts[instruction.wire][0]
        return counts[self._timing.out]

    def macs_per_output(self, node: Node, frame: StepSpec) -> Fraction:
        """Of the operations that run as they are, for one output frame."""
        m = self._zeros_moment(node.given if node.held is None else node.held)
        for instruction in self._program:
            instruction.open(m, InitContext())
        return macs_of(self._program, m, self._timing.at) * Fraction(self._timing.stride)

    def part(self, path: str) -> nn.Module:
        for layer in self._layers:
            if layer.path == path:
                return layer.module
        return super().part(path)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles bind their own weights: what the layers hold now may be computed of others."""
        self._bank.forget()
        for layer in self._layers:
            layer.unbind()
        return super().__getstate__()

    def _apart(self) -> GraphModule:
        """With a bank of its own, and with own layers where weights are computed: streams that run at once bind theirs to them."""
        made = shallow(self)
        computed = {op.out for op in self._bank.constants}
        program = [
            i.with_own_weights() if isinstance(i, Layer) and (i.late or computed & {*i.weights.values()}) else i
            for i in self._program
        ]
        made.__dict__.update(_bank=self._bank.apart(), _program=program, _layers=[i for i in program if isinstance(i, Layer)])
        return made

    # ---- what people see --------------------------------------------------------------------------------------------

    def operation_graph(self, clip: Any = None) -> Graph:
        """The operations of the network, as :func:`co.explain` shows them.

        Args:
            clip: an example in the module's layout, for the bytes of the state; by default one like that of the conversion.
        """
        state = self._stream if clip is None and self._stream is not None else self._state_for(clip)
        nbytes = {
            i: sum(t.numel() * t.element_size() for n in kid.walk() for t in n.tensors) for i, kid in enumerate(state.node.kids)
        }
        entries = {slot: number for number, slot, _ in self._streams} | {slot: number for number, slot in self._given}
        rows, where = rows_of(self._program, entries, self._timing.at, nbytes)
        names = tuple(f"{name} {own}" for name, own in zip(self._names, self._ports.inputs, strict=True))
        return Graph(self.name, rows, tuple(where[slot] for _, slot, _ in self._outputs), self.notes, inputs=names)

    def _state_for(self, clip: Any) -> State:
        if clip is not None:
            inputs = clip if isinstance(clip, (list, tuple)) else [clip]
            given = zip(self._ports.inputs, inputs, strict=True)
            return self.init_state(*(x if i.time is None else x.select(i.time, 0) for i, x in given))
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        return self.init_state(*(i.example(device) for i in self._ports.inputs))

    def __str__(self) -> str:
        return str(self.operation_graph())

    def __repr__(self) -> str:
        return f"Continual({self.name}, receptive_field={self.receptive_field}, delay={self.delay}, stride={self.timing.stride})"

    def program(self, ctx: KernelContext) -> Run:
        return graph(ctx)
