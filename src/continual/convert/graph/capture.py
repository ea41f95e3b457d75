"""Export of a module by `torch.export`, with symbolic batch size and length where possible."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx import Node as Fx

from ...errors import NotStreamable, ShapeMismatch
from .axes import BATCH, TIME, Dims, fixed
from .constant_numbers import GivenNumbers, constant_numbers
from .export_errors import one_row, takes_number, why
from .known_numbers import KnownNumbers
from .length_asks import asks, is_pinned, reads_values
from .masked_parts import with_masks
from .needed_nodes import writes_memory
from .output_classes import export
from .recurrent_ops import WholeOps, to_torch_ops
from .row_pairs import pair_rows, with_more_rows
from .symbolic_sizes import FormulaLimit, divisions_kept
from .undone import masks_not_inspected, quiet, restored
from .weight_writes import WeightWrites

TimeDims: TypeAlias = "int | Sequence[int | None] | None"  # where time is in each input; None for an input that is not a stream


@dataclass(frozen=True)
class Captured:
    """An exported module.

    Attributes:
        program: the export.
        inputs: the example, with a batch of at least two.
        time_dims: the dimension of time in each input; ``None`` for inputs that are not streams.
        batch_dims: the dimension of the batch in each input; ``None`` for constants without one.
        symbolic: whether the length of the streams is a symbol in the export.
        prefix: before the names of parameters and buffers in the export.
        numbers: buffers whose values the module's code reads: the export is valid for these values.
    """

    program: ExportedProgram
    inputs: tuple[Tensor, ...]
    time_dims: tuple[int | None, ...]
    batch_dims: tuple[int | None, ...]
    symbolic: bool = True
    prefix: str = ""
    numbers: frozenset[str] = frozenset()

    @property
    def rates(self) -> tuple[int, ...]:
        """How many frames of each input go in one step; 1 for inputs that are not streams."""
        return rates_of(self.inputs, self.time_dims)

    def cut(self, inputs: Sequence[Tensor], first: int, steps: int) -> tuple[Tensor, ...]:
        """Some steps of a clip, as a contiguous copy, because modules may need contiguous elements."""
        of = zip(inputs, self.time_dims, self.rates, strict=True)
        return tuple(x if t is None else x.narrow(t, first * r, steps * r).contiguous() for x, t, r in of)

    @property
    def longer(self) -> tuple[Tensor, ...]:
        """A clip of twice the length."""
        return self.of_length(2 * self.steps, self.batch)

    def of_length(self, steps: int, rows: int = 2) -> tuple[Tensor, ...]:
        """A clip of another length, of the first rows: the example's frames repeated, every other time in reverse."""
        return clip_of(self.inputs, self.time_dims, self.batch_dims, steps, rows)

    @property
    def batch(self) -> int:
        """Rows of the example."""
        i = next(i for i, d in enumerate(self.time_dims) if d is not None)
        return self.inputs[i].shape[self.batch_dims[i] or 0]

    @property
    def steps(self) -> int:
        """Steps of the example: the frames of its slowest stream."""
        return steps_of(self.inputs, self.time_dims)


def steps_of(inputs: Sequence[Tensor], times: Sequence[int | None]) -> int:
    """Steps of a clip: the frames of its slowest stream."""
    return min(x.shape[t] for x, t in zip(inputs, times, strict=True) if t is not None)


def rates_of(inputs: Sequence[Tensor], times: Sequence[int | None]) -> tuple[int, ...]:
    """How many frames of each input go in one step; 1 for inputs that are not streams."""
    steps = steps_of(inputs, times)
    return tuple(1 if t is None else x.shape[t] // steps for x, t in zip(inputs, times, strict=True))


def entry_dims(shape: Sequence[int], time: int | None, batch: int | None, rate: int) -> Dims:
    """The layout of an input. If a step has several frames, they have a dimension of their own after time."""
    dims = list(fixed(shape))
    if batch is not None:
        dims[batch] = (BATCH,)
    if time is not None:
        dims[time : time + 1] = [(TIME,)] if rate == 1 else [(TIME,), (rate,)]
    return tuple(dims)


def clip_of(
    inputs: Sequence[Tensor], times: Sequence[int | None], batches: Sequence[int | None], steps: int, rows: int
) -> tuple[Tensor, ...]:
    """A clip of another length: as :meth:`Captured.of_length`."""
    found = []
    for example, t, b, rate in zip(inputs, times, batches, rates_of(inputs, times), strict=True):
        x = example
        if t is not None:
            frames = steps * rate
            x = torch.cat([x.flip(t) if i % 2 else x for i in range(-(-frames // x.shape[t]))], t).narrow(t, 0, frames)
        found.append(_with_strides_of(example, x if b is None else x.narrow(b, 0, min(rows, x.shape[b]))))
    return tuple(found)


def rows_of(inputs: Sequence[Tensor], batches: Sequence[int | None]) -> int:
    """Rows of a clip."""
    return next((x.shape[b] for x, b in zip(inputs, batches, strict=True) if b is not None), 1)


def layout_of(inputs: Sequence[Tensor], time_dim: TimeDims) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """The dimensions of time and batch in each input, checked."""
    dims = (time_dim,) * len(inputs) if time_dim is None or isinstance(time_dim, int) else tuple(time_dim)
    if len(dims) != len(inputs):
        raise ValueError(f"continual: time_dim={time_dim!r} names {len(dims)} inputs, the clip has {len(inputs)}")
    times: list[int | None] = []
    for i, (x, dim) in enumerate(zip(inputs, dims, strict=True)):
        if not isinstance(x, Tensor):
            raise TypeError(f"continual: input {i} of the clip is a tensor, not {type(x).__name__}")
        if dim is None:
            times.append(None)
            continue
        if x.ndim < 2 or not -x.ndim <= dim < x.ndim:
            raise ShapeMismatch(
                f"continual: input {i} of the clip has the shape {tuple(x.shape)}, in which there is no time_dim={dim} beside a batch. "
                "Say where time is: co.continual(module, clip, time_dim=…), None for an input that is not a stream"
            )
        times.append(dim % x.ndim)
    streams = [i for i, d in enumerate(times) if d is not None]
    if not streams:
        raise ValueError("continual: no input of the clip is a stream (time_dim is None for all of them)")
    lengths = {i: x.shape[t] for i, (x, t) in enumerate(zip(inputs, times, strict=True)) if t is not None}
    if any(n % max(1, min(lengths.values())) for n in lengths.values()):
        raise ShapeMismatch(
            f"continual: streams are fed together and have equal lengths, or whole multiples of the shortest, got {lengths} frames. For an "
            "input that is not a stream give None: co.continual(module, clip, time_dim=(2, None, …))"
        )
    rows = {i: inputs[i].shape[0 if times[i] else 1] for i in streams}
    if len(set(rows.values())) > 1:
        raise ShapeMismatch(f"continual: the streams of the clip have different numbers of rows, {rows}")
    if min(lengths.values()) < 2:
        raise ShapeMismatch("continual: the example clip has 2 frames at least, and better a few receptive fields of them")
    batch = next(iter(rows.values()))
    batches = tuple(
        (0 if d else 1) if d is not None else (0 if batch > 1 and x.ndim and x.shape[0] == batch else None)
        for x, d in zip(inputs, times, strict=True)
    )
    return tuple(times), batches


def _with_rows(
    module: nn.Module, inputs: Sequence[Tensor], times: Sequence[int | None], batches: Sequence[int | None]
) -> tuple[int | None, ...]:
    """The dimension of the batch, also of inputs that are not streams but have as many entries as the example has rows.

    Such an input has no batch if the module takes it unchanged beside a stream of one more row: its size is a coincidence.
    """
    doubtful = [i for i, (t, b) in enumerate(zip(times, batches, strict=True)) if t is None and b is not None]
    for count in range(len(doubtful)):
        for rows in itertools.combinations(doubtful, count):
            found = tuple(None if i in doubtful and i not in rows else b for i, b in enumerate(batches))
            more = [x.clone() if b is None else torch.cat((x, x.narrow(b, 0, 1)), b) for x, b in zip(inputs, found, strict=True)]
            with restored(module), torch.no_grad(), contextlib.suppress(Exception):
                module(*more)
                return found
    return tuple(batches)


def capture(module: nn.Module, clip: Tensor | Sequence[Tensor], time_dim: TimeDims) -> Captured:
    """Export a module on an example clip, with one row where the module takes no more.

    Raises:
        NotStreamable: what the module does depends on its input's values, or `torch.export` can't follow it.
    """
    rows = tiled(module, clip, time_dim)
    try:
        return _captured(module, *rows)
    except NotStreamable as refusal:
        example = (clip,) if isinstance(clip, Tensor) else tuple(clip)
        if not _takes_one_row(module, example, rows[0]):
            raise
        try:
            return _captured(module, tuple(x.detach() for x in example), *rows[1:])
        except NotStreamable:
            raise one_row(module, example) from refusal


def _takes_one_row(module: nn.Module, example: Sequence[Tensor], two: Sequence[Tensor]) -> bool:
    """Whether a module runs on one row of the example, but not on two."""
    if all(a.shape == b.shape for a, b in zip(example, two, strict=True)):
        return False
    ran = []
    for inputs in (example, two):
        try:
            with restored(module), quiet(), torch.no_grad():
                module(*fresh(inputs))
            ran.append(True)
        except Exception:
            ran.append(False)
    return ran == [True, False]


def _captured(
    module: nn.Module, inputs: tuple[Tensor, ...], times: tuple[int | None, ...], batches: tuple[int | None, ...]
) -> Captured:
    """Export a module on the inputs as they are."""
    shapes: list[dict[int, Any] | None] = [
        {d: Dim.AUTO for d in (t, b) if d is not None} or None for t, b in zip(times, batches, strict=True)
    ]
    numbers, assumed = KnownNumbers(module), GivenNumbers()
    try:
        try:
            program = _open(module, inputs, shapes, numbers, assumed)
        except Exception as error:
            clips = (clip_of(inputs, times, batches, n * steps_of(inputs, times), rows) for n, rows in ((1, 2), (2, 2), (1, 1)))
            assumed = GivenNumbers(constant_numbers(module, clips) if takes_number(error) else ())
            if not assumed:
                raise
            program = _open(module, inputs, shapes, numbers, assumed)
        if is_pinned(program) or (asks(program) and not _symbolic(program, times)):
            program = _of_bytecode(module, inputs, times, shapes) or program
    except Exception as first:
        try:  # some modules defeat the symbolic solver, or take it minutes
            with _exporting(module), WholeOps(), numbers, WeightWrites(module):
                program = export(module, fresh(inputs), strict=False)
        except Exception:
            with _exporting(module):
                raise NotStreamable(why(module, inputs, times, first)) from first
    to_torch_ops(program.graph)
    with_masks(program.graph)
    read = assumed.read | numbers.read
    return Captured(program, inputs, times, batches, _symbolic(program, times), numbers=read)


def _open(
    module: nn.Module, inputs: Sequence[Tensor], shapes: Sequence[Any], numbers: KnownNumbers, assumed: GivenNumbers
) -> ExportedProgram:
    """An export with symbolic length and batch."""
    with _exporting(module), FormulaLimit(), numbers, WeightWrites(module), assumed:
        return export(module, fresh(inputs), dynamic_shapes=_arranged(module, shapes), strict=False)


def _of_bytecode(
    module: nn.Module, inputs: Sequence[Tensor], times: Sequence[int | None], shapes: Sequence[Any]
) -> ExportedProgram | None:
    """An export that follows the module's bytecode, if its length is symbolic."""
    with contextlib.suppress(Exception), _exporting(module), FormulaLimit():
        program = export(module, fresh(inputs), dynamic_shapes=_arranged(module, shapes), strict=True)
        if _symbolic(program, times) and not is_pinned(program) and not reads_values(program):
            return program
    return None


def capture_window(module: nn.Module, clip: Tensor | Sequence[Tensor], time_dim: TimeDims) -> Captured:
    """Export a module on one window: the length is that of the clip, the batch is symbolic, and no operation writes into a tensor.

    Raises:
        NotStreamable: what the module does depends on its input's values, or `torch.export` can't follow it.
    """
    inputs, times, batches = tiled(module, clip, time_dim)
    rows: list[Any] = [None if b is None else {b: Dim.AUTO} for b in batches]  # a symbol, unless the module asks for the number
    prefixed, first, numbers, assumed = _Prefixed(module), None, KnownNumbers(module), GivenNumbers()
    for part, shapes in ((module, rows), (prefixed, rows), (module, None)):  # torch can't export some names, such as `graph`
        try:
            program = _window(module, part, inputs, shapes, numbers, assumed)
            if shapes is not None and not _symbolic(program, batches):
                with contextlib.suppress(Exception):  # it takes no more rows
                    more = _window(module, part, with_more_rows(inputs, batches), None, numbers, assumed)
                    pair_rows(program, more, rows_of(inputs, batches), rows_of(inputs, batches) + 1)
            prefix = "module." if part is prefixed else ""
            return Captured(program, inputs, times, batches, False, prefix, assumed.read | numbers.read)
        except Exception as error:
            if first is None and takes_number(error):
                steps = steps_of(inputs, times)
                assumed = GivenNumbers(
                    constant_numbers(module, (clip_of(inputs, times, batches, steps, rows) for rows in (2, 1)))
                )
            first = first or error
    with _exporting(module):
        raise NotStreamable(why(module, inputs, times, first)) from first  # type: ignore[arg-type]


def _window(
    module: nn.Module, part: nn.Module, inputs: Sequence[Tensor], shapes: Any, numbers: KnownNumbers, assumed: GivenNumbers
) -> ExportedProgram:
    """Export a module as ``part`` calls it, in which no operation writes into a tensor."""
    with _exporting(module), WholeOps(), numbers, WeightWrites(module), assumed:
        found = None if shapes is None else _arranged(part, shapes)
        program = _functional(export(part, fresh(inputs), dynamic_shapes=found, strict=False))
        to_torch_ops(program.graph)
        with_masks(program.graph)
    return program


def _functional(program: ExportedProgram) -> ExportedProgram:
    """The program with new values in the place of writes into tensors. Torch traces it again, which takes longer than the export."""
    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, GraphModule)]
    return program.run_decompositions({}) if any(writes_memory(node) for graph in graphs for node in graph.nodes) else program


@contextlib.contextmanager
def _exporting(module: nn.Module) -> Iterator[None]:
    """The common part of every attempt to export a module. A failed attempt leaves tensors without values in some modules."""
    with restored(module), quiet(), masks_not_inspected(), divisions_kept(), torch.no_grad():
        yield


class _Prefixed(nn.Module):
    """A module whose parameters have a prefix in their names."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module, self.training = module, False

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def tiled(
    module: nn.Module, clip: Tensor | Sequence[Tensor], time_dim: TimeDims
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...], tuple[int | None, ...]]:
    """The example with a batch of at least two, and where time and batch are in it."""
    inputs = (clip,) if isinstance(clip, Tensor) else tuple(clip)
    times, batches = layout_of(inputs, time_dim)
    batches = _with_rows(module, inputs, times, batches)
    tiled = []
    for x, t, b in zip(inputs, times, batches, strict=True):
        x = x.detach()
        if t is not None and b is not None and x.shape[b] == 1:  # torch.export takes a size of 1 for a constant
            x = torch.cat((x, x.flip(t)), b)
        tiled.append(x)
    return tuple(tiled), times, batches


def _symbolic(program: ExportedProgram, times: Sequence[int | None]) -> bool:
    """Whether the length is still symbolic. A comparison in the module's code may fix it."""
    return all(isinstance(n, torch.SymInt) and n.node.maybe_as_int() is None for n in lengths_in(program, times))


def lengths_in(program: ExportedProgram, times: Sequence[int | None]) -> list[int | torch.SymInt]:
    """The length of each stream in an export."""
    users = program.graph_signature.user_inputs
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    return [v.shape[t] for v, t in zip(values, times, strict=True) if t is not None]


def _arranged(module: nn.Module, shapes: Sequence[Any]) -> tuple[Any, ...]:
    """Dynamic shapes as torch.export takes them: those of ``*inputs`` in a tuple of their own."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], *((tuple(shapes[first:]),) if len(shapes) > first else ()))


def _with_strides_of(example: Tensor, x: Tensor) -> Tensor:
    """A tensor in the example's memory order, which decides whether `contiguous` makes a copy."""
    order = sorted(range(x.ndim), key=lambda d: example.stride()[d], reverse=True)
    return x.permute(order).contiguous().permute([order.index(d) for d in range(x.ndim)])


def fresh(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies into which a module may write, and which torch.export may mark. On the originals, marks of a failed export would remain."""
    return tuple(x.clone() for x in inputs)


def source_line(node: Fx) -> str:
    """The user's line of code behind a node: the innermost one outside of torch."""
    found = re.findall(r'File "([^"]+)", line (\d+), in .+(?:\n\s*(?!File ")(.+))?', node.meta.get("stack_trace") or "")
    found = [f for f in found if not f[0].startswith("<eval_with_key>")]  # written by torch
    mine = [f for f in found if f"{'torch'}/nn/" not in f[0]] or found
    if not mine:
        return ""
    file, line, code = mine[-1]
    return f"{file.rpartition('/')[2]}:{line}  {code.strip()}".rstrip()


def module_path(node: Fx) -> str:
    """The path of the module whose forward contains a node."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""
