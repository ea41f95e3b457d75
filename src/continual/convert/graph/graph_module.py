"""`GraphModule`: a converted module, in the module's own layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ...core.module import CoModule
from ...core.op_rows import Graph
from ...core.program.context import KernelContext, Run
from ...core.state import InitContext, State, StateNode, StateUpdates, StepSpec, Wire
from ...core.step_spec import Inputs
from ...core.stream import shallow
from ...core.timing import Timing
from ...errors import ContinualError, ShapeMismatch
from .cost_table import macs_of, rows_of
from .dtypes import DtypePrograms
from .exec_context import ExecContext
from .fitted_ends import FittedEnd
from .instructions import Instruction, Layer
from .io_layout import tensors_of
from .program import Program, ProgramOutput
from .program_module import ProgramModule
from .queues import AlignDelays, Positions
from .step_program import step_program
from .windows.instruction import Windows
from .windows.scoring import Scoring

_NONE: list[Tensor] = []


class GraphModule(Scoring, ProgramModule):
    """The converted network that :func:`continual.continual` makes of a module and an example clip.

    It has the module's names, parameters and layout: chunks are shaped as the module's input, and steps the same without time.
    Parameters and buffers are shared with the module; ``copy=True`` separates them.
    """

    runs_kernel = True
    # lengths for which forward equals the module: "any"; those with the "same rest" as the example's when divided; its "own"
    lengths: str = "any"
    _dtypes: DtypePrograms | None = None

    # ---- properties -------------------------------------------------------------------------------------------------

    @property
    def timing(self) -> Timing:
        return self._program.timing

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know about the conversion."""
        return self._program.notes + self._window_notes

    @property
    def time_dim(self) -> Any:  # type: ignore[override]
        """The dimension of time in the clips of the first stream."""
        return next(i.time for i in self.io_layout.inputs if i.time is not None)

    @property
    def time_dims(self) -> tuple[int | None, ...]:
        """The dimension of time in each input; ``None`` for an input that is not a stream."""
        return tuple(i.time for i in self.io_layout.inputs)

    @property
    def frames_per_step(self) -> tuple[int, ...]:
        """How many frames of each input go in one step: 1, unless the example has streams of different lengths."""
        return tuple(i.rate for i in self.io_layout.inputs)

    @property
    def output_time_dims(self) -> tuple[int, ...]:
        """The dimension of time in the chunks of each output."""
        return tuple(out.time for out in self.io_layout.outputs)

    @property
    def output_batch_dims(self) -> tuple[int, ...]:
        """The dimension of the batch in the chunks of each output."""
        return tuple(out.batch for out in self.io_layout.outputs)

    @property
    def _clip_level(self) -> bool:  # type: ignore[override]
        return any(out.windows for out in self.io_layout.outputs)

    @property
    def _output_rank(self) -> int:
        """The number of dimensions of a chunk of the first output."""
        return self.io_layout.outputs[0].rank

    @property
    def kind(self) -> str:
        return f"Graph of {self.name}"

    @property
    def unbounded_memory(self) -> bool:
        return any(layer.module.unbounded_memory for layer in self._program.layers)

    # ---- clips ------------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """The clip computation, in the module's own layout.

        Args:
            inputs: as the module's.
        """
        return self._after_clip(self._sequences(*inputs))

    def _sequences(self, *inputs: Any) -> Any:
        """The clip computation, with the running values, such as states, of all steps stacked."""
        wire: Inputs = inputs if len(inputs) != 1 else inputs[0]
        streams, constants = self.io_layout.split(wire, chunk=True)
        self._refuse_edits()
        self.fit([*streams, *constants])
        program, frames = self._program, streams[0].shape[2]
        m = program.context(streams, constants, frames, [], None)
        m.frames[0] = frames
        for instruction in program.instructions:
            instruction.clip(m)
        return program.layout.as_module([self._clip_output(m, out) for out in program.outputs])

    def _clip_output(self, m: ExecContext, out: ProgramOutput) -> Tensor:
        """An output of ``forward``: that of a clip of one window has no dimension for windows."""
        y: Tensor = m.env[out.slot]
        if not out.layout.windows:
            return y if out.view == out.layout.view else out.layout.view.leave(out.chunk(m), m.batch, m.frames[out.wire])
        y = out.layout.chunk(out.chunk(m))
        return y.squeeze(out.layout.time) if self._is_single(m, out.wire) and not self.running else y

    # ---- the kernel -------------------------------------------------------------------------------------------------

    def open(self, frame: Any, init: InitContext) -> StateNode:
        self._refuse_edits()
        self.fit(_as_list(frame))
        program = self._program
        with torch.no_grad():
            m = self._on_zeros(frame)
            nodes = [node for instruction in program.instructions for node in self._opened(instruction, m, init)]
            try:
                outs = [StepSpec.of(out.view.enter(m.env[out.slot], m.batch, 1).select(2, 0)) for out in program.outputs]
            except (RuntimeError, IndexError) as error:
                raise ShapeMismatch(f"{self.name}: can't take these steps: {error}") from error
        rest = _as_list(frame)[len(program.streams) :]
        tensors = {f"given{i or ''}": f.zeros() for i, f in enumerate(rest)}
        return StateNode(init, self.kind, outs if self.io_layout.nested else outs[0], tensors, nodes, kept_spec=frame)

    def _on_zeros(self, frame: Any) -> ExecContext:
        """A run on one frame of zeros of every input."""
        program, frames = self._program, _as_list(frame)
        if len(frames) != len(self.io_layout.inputs):
            raise ShapeMismatch(f"{self.name}: takes {len(self.io_layout.inputs)} inputs, as the module does; got {len(frames)}")
        count = len(program.streams)
        constants = program.constants_of([f.zeros() for f in frames[count:]])
        m = program.context([f.zeros(1) for f in frames[:count]], constants, 1, [], StateUpdates())
        m.frames = [1] * program.wires
        return m

    def _opened(self, instruction: Instruction, m: ExecContext, init: InitContext) -> list[StateNode]:
        before = self._program.timing.at(instruction.before if isinstance(instruction, Layer) else 0)
        try:
            return instruction.open(m, init.below(instruction.path, before))
        except ContinualError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            raise ShapeMismatch(f"{self.name}: '{instruction.path}' can't take these steps: {error}") from error

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        for layer in self._program.layers:
            before = self._program.timing.at(layer.before).eventually_constant(lookahead)
            if before is None or layer.module.plan(node.children[layer.state_node], before.lookahead) is None:
                return None
        return super().plan(node, lookahead)

    def advance(self, x: Wire | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Wire | None, int]:
        if self.training:  # switched since the stream was opened
            self._refuse_training()
        self._fit_stream(node.kept_spec)
        program = self._program
        if x is None:
            m = self._without_frames(node, updates)
        else:
            tensors, count = tensors_of(x), len(program.streams)
            constants = self._kept([g[:, :, -1] for g in tensors[count:]], node, updates)
            m = program.context(tensors[:count], constants, tensors[0].shape[2], node.children, updates)
            m.frames[0] = tensors[0].shape[2]
        m.ends[0] = n_if_ended
        updates.tick(node, node.n_in + m.frames[0], 0)
        for instruction in program.instructions:
            instruction.chunk(m)
        first = program.outputs[0]
        if m.env[first.slot] is None:
            return None, m.ends[first.wire]
        return program.layout.leaving([out.chunk(m) for out in program.outputs]), m.ends[first.wire]

    def advance_step(self, x: Wire, node: StateNode, updates: StateUpdates) -> Wire | None:
        if self.training:
            self._refuse_training()
        if self._dtypes is not None and not self._dtypes.are_of(node.kept_spec):
            self._fit_stream(node.kept_spec)
        program = self._program
        streams, constants = tensors_of(x), _NONE
        if program.constants:
            count = len(program.streams)
            streams, constants = streams[:count], self._kept(streams[count:], node, updates)
        m = program.step_context(streams, constants, node.children, updates)
        updates.ticks.append((node, node.n_in + 1, 0))
        for step in program.steps:
            step(m)
        if m.env[program.outputs[0].slot] is None:
            return None
        return program.layout.leaving([m.frame(out.slot, out.view) for out in program.outputs])

    def _kept(self, constants: list[Tensor], node: StateNode, updates: StateUpdates) -> list[Tensor]:
        """The inputs that are not streams, in their own shapes. They are kept for a flush, which has no inputs."""
        for i, g in enumerate(constants):
            updates.put(node, i, g)
        return self._program.constants_of(constants)

    def _without_frames(self, node: StateNode, updates: StateUpdates) -> ExecContext:
        """A run without new frames, at the end of a stream."""
        program, out = self._program, _as_list(node.out)[0]
        env = program.environment(program.constants_of(node.tensors))
        return ExecContext(env, program.wires, out.shape[0], out.device, node.children, updates)

    def recount(self, node: StateNode, n: int, n_if_ended: int) -> tuple[int, int]:
        node.n_in = n
        counts = self._program.timing.all_counts(n, n_if_ended)
        for instruction in self._program.instructions:
            if isinstance(instruction, FittedEnd):
                end = node.children[instruction.state_node]
                end.n_in, end.n_out = counts[instruction.before][0], counts[instruction.wire][0]
            elif isinstance(instruction, Layer):
                instruction.module.recount(node.children[instruction.state_node], *counts[instruction.before])
            elif isinstance(instruction, AlignDelays):
                for i, wire in enumerate(instruction.before):
                    queue = node.children[instruction.state_node + i]
                    queue.n_in, queue.n_out = counts[wire][0], counts[instruction.wire][0]
            elif isinstance(instruction, Positions):
                own = node.children[instruction.state_node]
                own.n_in = own.n_out = counts[instruction.wire][0]
            elif isinstance(instruction, Windows):
                own = node.children[instruction.state_node]
                own.n_in, own.n_out = n, counts[instruction.wire][0]
        return counts[self._program.timing.out]

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> Fraction:
        """Of the module's own operations, for one output frame."""
        m, program = self._on_zeros(node.in_spec if node.kept_spec is None else node.kept_spec), self._program
        for instruction in program.instructions:
            instruction.open(m, InitContext())
        return macs_of(program.instructions, m, program.timing.at) * Fraction(self.timing.stride)

    def part(self, path: str) -> nn.Module:
        for layer in self._program.layers:
            if layer.path == path:
                return layer.module
        return super().part(path)

    def program(self, ctx: KernelContext) -> Run:
        self._refuse_training()

        def current() -> Program:
            self._fit_stream(ctx.node.kept_spec)
            return self._program

        return step_program(ctx, self._program, current)

    # ---- weights and dtypes -----------------------------------------------------------------------------------------

    def fit(self, inputs: Sequence[Tensor | StepSpec]) -> None:
        """Use the program for the dtypes of these inputs and of the current weights.

        Args:
            inputs: the streams, then the inputs that are not streams.

        Raises:
            ShapeMismatch: the module itself can't run so.
        """
        if self._dtypes is not None:
            self.__dict__["_dtypes"] = self._dtypes.for_inputs(self, inputs)

    def _fit_stream(self, specs: StepSpec | list[StepSpec]) -> None:
        """The same for a running stream: a module without weights may have streams of several dtypes."""
        own = self._dtypes
        if own is not None and not own.are_of(specs):
            self.fit(_as_list(specs))

    def _ready_for(self, fn: Callable[[Tensor], Tensor]) -> None:
        if self._dtypes is not None:
            self._dtypes.check_move(self, fn)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GraphModule:
        own = self._dtypes
        after = None if own is None or not recurse else own.moved(fn)
        for program in (self._program, *([] if own is None else own.others.values())):
            program.table.move(fn)
        super()._apply(fn, recurse)
        own = self._dtypes  # a running stream has changed it already
        if own is not None and after is not None:
            self.__dict__["_dtypes"] = own.changed(self, after)
        return self

    def _forget_other_dtypes(self) -> None:
        """Forget the programs for other dtypes, as after a change of the present one."""
        if self._dtypes is not None:
            self.__dict__["_dtypes"] = self._dtypes.without_others()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles bind their own weights: the layers may hold computed ones."""
        self._program.release()
        return super().__getstate__()

    def _apart(self) -> GraphModule:
        made = shallow(self)
        made._set_program(self._program.for_own_stream())
        return made

    # ---- reports ----------------------------------------------------------------------------------------------------

    def operation_graph(self, clip: Inputs | None = None) -> Graph:
        """The operations of the network, as :func:`co.explain` shows them.

        Args:
            clip: an example in the module's layout, for the bytes of the state; by default one like that of the conversion.
        """
        program = self._program
        state = self._stream if clip is None and self._stream is not None else self._state_for(clip)
        nbytes = {
            i: sum(t.numel() * t.element_size() for n in own.walk() for t in n.tensors)
            for i, own in enumerate(state.node.children)
        }
        entries = {entry.slot: entry.number for entry in program.streams} | {
            entry.slot: entry.number for entry in program.constants
        }
        rows, where = rows_of(program.instructions, entries, program.timing.at, nbytes)
        layouts = self.io_layout.inputs
        shapes = [own.shape for own in layouts] if clip is None else [tuple(x.shape) for x in _as_list(clip)]
        shown = [own.shape_in_words(shape) for own, shape in zip(layouts, shapes, strict=True)]
        names = tuple(f"{name} {own}" for name, own in zip(program.names, shown, strict=True))
        return Graph(self.name, rows, tuple(where[out.slot] for out in program.outputs), self.notes, inputs=names)

    def _state_for(self, clip: Inputs | None) -> State:
        if clip is None:
            device = next((p.device for p in self.parameters()), torch.device("cpu"))
            steps = [own.zeros(device) for own in self.io_layout.inputs]
        else:
            steps = [own.first(x) for own, x in zip(self.io_layout.inputs, _as_list(clip), strict=True)]
        return CoModule.init_state(self, steps if len(steps) > 1 else steps[0])

    def __str__(self) -> str:
        return str(self.operation_graph())

    def __repr__(self) -> str:
        return f"Continual({self.name}, receptive_field={self.receptive_field}, delay={self.delay}, stride={self.timing.stride})"


class MultiInputGraphModule(GraphModule):
    """A converted network of several inputs: callers give them one after another, as to the module, or as one list."""

    def forward_step(self, *inputs: Any, update_state: bool = True) -> Any:
        """One step: as :meth:`CoModule.forward_step`, of each input."""
        if isinstance(inputs[-1], bool):
            *inputs, update_state = inputs  # type: ignore[assignment]
        return super().forward_step(list(inputs), update_state)

    def forward_steps(self, *inputs: Any, pad_end: bool = False, update_state: bool = True) -> Any:
        """A chunk of steps: as :meth:`CoModule.forward_steps`, of each input."""
        return super().forward_steps(list(inputs), pad_end, update_state)

    def init_state(self, *step: Any) -> State:
        """The cold state: as :meth:`CoModule.init_state`, of a step of each input."""
        return super().init_state(list(step))

    def step(self, *x: Any) -> tuple[Any, State]:
        """One step as a pure function: ``inputs …, state → output or None, new state``."""
        return super().step(list(x[:-1]), x[-1])

    def steps(self, *x: Any, pad_end: bool = False) -> tuple[Any, State]:
        """A chunk as a pure function: ``inputs …, state → outputs or None, new state``."""
        if isinstance(x[-1], bool):
            x, pad_end = x[:-1], x[-1]
        return super().steps(list(x[:-1]), x[-1], pad_end)

    def warm_up(self, step_shape: Sequence[int]) -> None:
        """Refused: one shape is given, for several inputs."""
        raise ShapeMismatch(
            f"{self.name}: takes {len(self.io_layout.inputs)} inputs; warm it up by forward_step on zeros of their shapes"
        )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
