"""The front end: `torch.export` of a module, with a symbolic batch and length where it can have them."""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.modules import transformer

from ...errors import NotStreamable, ShapeMismatch
from .export_errors import why
from .recurrent_ops import Whole, restore
from .symbolic_sizes import Bounded


@dataclass(frozen=True)
class Captured:
    """An exported module.

    Attributes:
        program: what `torch.export` made of it.
        inputs: the example, of two rows at least.
        time_dims: where time is in each input; ``None`` for inputs that are no streams.
        batch_dims: where the rows are in each input; ``None`` for constants that have none.
        symbolic: whether the length of the streams has stayed a symbol in the export.
    """

    program: ExportedProgram
    inputs: tuple[Tensor, ...]
    time_dims: tuple[int | None, ...]
    batch_dims: tuple[int | None, ...]
    symbolic: bool = True

    @property
    def longer(self) -> tuple[Tensor, ...]:
        """A clip of twice the length."""
        return self.of_length(2 * self.steps, self.batch)

    def of_length(self, steps: int, rows: int = 2) -> tuple[Tensor, ...]:
        """A clip of another length, of the first rows: the example's frames again and again, every other time in reverse."""
        found = []
        for given, t, b in zip(self.inputs, self.time_dims, self.batch_dims, strict=True):
            x = given
            if t is not None:
                x = torch.cat([x.flip(t) if i % 2 else x for i in range(-(-steps // x.shape[t]))], t).narrow(t, 0, steps)
            found.append(_lying_as(given, x if b is None else x.narrow(b, 0, min(rows, x.shape[b]))))
        return tuple(found)

    @property
    def batch(self) -> int:
        """Rows of the example."""
        i = next(i for i, d in enumerate(self.time_dims) if d is not None)
        return self.inputs[i].shape[self.batch_dims[i] or 0]

    @property
    def steps(self) -> int:
        """Frames of the example."""
        i = next(i for i, d in enumerate(self.time_dims) if d is not None)
        return self.inputs[i].shape[self.time_dims[i] or 0]


def layout_of(inputs: Sequence[Any], time_dim: Any) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Where time and rows are in each input, checked."""
    dims = tuple(time_dim) if isinstance(time_dim, (tuple, list)) else (time_dim,) * len(inputs)
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
                "Say where time is: co.continual(module, clip, time_dim=…), None for an input that is no stream"
            )
        times.append(dim % x.ndim)
    streams = [i for i, d in enumerate(times) if d is not None]
    if not streams:
        raise ValueError("continual: no input of the clip is a stream (time_dim is None for all of them)")
    lengths = {i: inputs[i].shape[times[i]] for i in streams}
    if len(set(lengths.values())) > 1:
        raise ShapeMismatch(
            f"continual: streams are fed together and have equal lengths, got {lengths} frames. For an input "
            "that is no stream give None: co.continual(module, clip, time_dim=(2, None, …))"
        )
    rows = {i: inputs[i].shape[0 if times[i] else 1] for i in streams}
    if len(set(rows.values())) > 1:
        raise ShapeMismatch(f"continual: the streams of the clip have different numbers of rows, {rows}")
    if next(iter(lengths.values())) < 2:
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
    """Where the rows are, when inputs that are no streams are only known to be as long as the example has rows.

    Those that the module takes as they are beside a stream of one row more have none: a matrix is as large as it is by chance.
    """
    doubtful = [i for i, (t, b) in enumerate(zip(times, batches, strict=True)) if t is None and b is not None]
    for count in range(len(doubtful)):
        for rows in itertools.combinations(doubtful, count):
            found = tuple(None if i in doubtful and i not in rows else b for i, b in enumerate(batches))
            more = [x.clone() if b is None else torch.cat((x, x.narrow(b, 0, 1)), b) for x, b in zip(inputs, found, strict=True)]
            with left_alone(module), torch.no_grad(), contextlib.suppress(Exception):
                module(*more)
                return found
    return tuple(batches)


def capture(module: nn.Module, clip: Any, time_dim: Any) -> Captured:
    """Export a module on an example clip.

    Raises:
        NotStreamable: what the module does depends on its input's values, or `torch.export` can't follow it.
    """
    inputs = tuple(clip) if isinstance(clip, (tuple, list)) else (clip,)
    times, batches = layout_of(inputs, time_dim)
    batches = _with_rows(module, inputs, times, batches)
    tiled = []
    for x, t, b in zip(inputs, times, batches, strict=True):
        x = x.detach()
        if t is not None and b is not None and x.shape[b] == 1:  # one row would be taken for a constant
            x = torch.cat((x, x.flip(t)), b)
        tiled.append(x)
    inputs = tuple(tiled)
    shapes: list[dict[int, Any] | None] = [
        {d: Dim.AUTO for d in (t, b) if d is not None} or None for t, b in zip(times, batches, strict=True)
    ]
    with left_alone(module), quiet(), _no_look_at_masks(), torch.no_grad():
        try:
            with Bounded():
                program = export(module, fresh(inputs), dynamic_shapes=_arranged(module, shapes), strict=False)
        except Exception as first:
            try:  # some modules make the symbolic solver give up, or take minutes
                with Whole():
                    program = export(module, fresh(inputs), strict=False)
            except Exception:
                raise NotStreamable(why(module, inputs, times, first)) from first
    restore(program.graph)
    return Captured(program, inputs, times, batches, _symbolic(program, times))


def _symbolic(program: ExportedProgram, times: Sequence[int | None]) -> bool:
    """Whether the length has stayed a symbol: what a module asks of it may fix it."""
    users = program.graph_signature.user_inputs
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    lengths = [v.shape[t] for v, t in zip(values, times, strict=True) if t is not None]
    return all(isinstance(n, torch.SymInt) and n.node.maybe_as_int() is None for n in lengths)


def _arranged(module: nn.Module, shapes: Sequence[Any]) -> tuple[Any, ...]:
    """What is said of each input, as torch.export wants it: that of ``*inputs`` in a tuple of its own."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(shapes)
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], *((tuple(shapes[first:]),) if len(shapes) > first else ()))


def _lying_as(example: Tensor, x: Tensor) -> Tensor:
    """A tensor in the example's order in memory, on which it depends whether `contiguous` makes a copy."""
    order = sorted(range(x.ndim), key=lambda d: example.stride()[d], reverse=True)
    return x.permute(order).contiguous().permute([order.index(d) for d in range(x.ndim)])


def fresh(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors that a module may write into, and torch.export may mark as it likes: marks of an attempt that failed would stay."""
    return tuple(x.clone() for x in inputs)


@contextlib.contextmanager
def left_alone(module: nn.Module) -> Iterator[None]:
    """What running and exporting set on the modules is taken back, also when they are broken off."""
    tables = ("_parameters", "_buffers", "_modules")
    held = [(m, dict(m.__dict__), {name: dict(m.__dict__[name]) for name in tables}) for m in module.modules()]
    try:
        yield
    finally:
        for m, before, entries in held:
            for name in [n for n in m.__dict__ if n not in before]:
                del m.__dict__[name]
            m.__dict__.update(before)
            for name, own in entries.items():
                now = m.__dict__[name]
                if [(k, id(v)) for k, v in now.items()] != [(k, id(v)) for k, v in own.items()]:
                    now.clear()
                    now.update(own)


@contextlib.contextmanager
def _no_look_at_masks() -> Iterator[None]:
    """Encoders of torch do not ask whether the values of a mask are causal: the answer only chooses the kernel."""
    before = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch.export's own words: on references to weights, which all recurrent layers keep, and on what it can't follow."""
    loud = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("torch")]
    loud = [log for log in loud if not log.disabled]
    for log in loud:
        log.disabled = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in loud:
            log.disabled = False


def source_line(node: Any) -> str:
    """The user's line of code that made a node: the innermost one that is not torch's own."""
    found = re.findall(r'File "([^"]+)", line (\d+), in .+(?:\n\s*(?!File ")(.+))?', node.meta.get("stack_trace") or "")
    found = [f for f in found if not f[0].startswith("<eval_with_key>")]  # written by torch
    mine = [f for f in found if f"{'torch'}/nn/" not in f[0]] or found
    if not mine:
        return ""
    file, line, code = mine[-1]
    return f"{file.rpartition('/')[2]}:{line}  {code.strip()}".rstrip()


def module_path(node: Any) -> str:
    """The path of the module in whose forward a node was made."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""
