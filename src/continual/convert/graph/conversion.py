"""`continual(module, clip)`: capture, walk, and what the streaming twin is made of."""

from __future__ import annotations

import contextlib
import copy as copying
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.module import CoModule
from ...core.naming import named
from ...core.op_rows import Refusal, format_refusals
from ...core.opaque_modules import meta_input, opaque, valueless
from ...core.progress import Progress
from ...core.registry import chosen_in
from ...errors import NotStreamable, ShapeMismatch
from ..fuse import Uses, fold
from . import rules  # noqa: F401 (they register themselves)
from .axes import TIME, View, fixed
from .capture import Captured, capture, fresh
from .check_lengths import affordable, other_lengths
from .cost_table import rows_of
from .dtypes import Dtypes, Origin, is_bound
from .frame_loops import shortened
from .graph_module import GraphModule
from .instructions import Instruction, Layer, Op, slots_of
from .io_layout import Input, Output
from .mistakes import is_mistake
from .queues import Meet, Positions
from .switches import Switches
from .values import Stream
from .walker import Builder

POOLINGS = (None, "window", "frame")


def graph_twin(
    module: nn.Module, clip: Any, *, time_dim: Any = 2, time_pooling: str | None = None, copy: bool = False, check: bool = True,
    progress: bool | None = None,
) -> CoModule:  # fmt: skip
    """The streaming twin of any module; see :func:`continual.continual`."""
    if time_pooling not in POOLINGS:
        raise ValueError(f"continual: time_pooling is None, 'window' or 'frame', not {time_pooling!r}")
    if isinstance(module, CoModule):
        return module
    if not isinstance(module, nn.Module):
        raise NotStreamable(f"continual: takes an nn.Module, not {type(module).__name__}")
    refuse_opaque(module, clip)
    training = sorted({type(m).__name__ for m in module.modules() if m.training})
    if module.training:
        raise NotStreamable(
            f"{type(module).__name__} is in training mode ({', '.join(training[:4])}): a stream runs what clips give in eval mode. Call "
            "module.eval() before"
        )
    if copy:
        module = copying.deepcopy(module)
    inputs = tuple(clip) if isinstance(clip, (tuple, list)) else (clip,)
    switches = Switches(module)
    with Progress(f"converting {type(module).__name__}", progress) as doing:
        short = shortened(module, clip, time_dim)
        if short is not None:  # what is refused of a short clip is refused of a long one
            doing("exporting it on a short clip, since it loops over frames")
            walked(module, short, time_dim, time_pooling)
        doing("exporting it")
        builder, outputs = walked(module, clip, time_dim, time_pooling)
        builder.notes += [
            f"{path or type(module).__name__}: {co_class}, registered for {cls}, is not used: with a clip the module's own forward is "
            "followed"
            for path, (cls, co_class) in chosen_in(module).items()
        ]
        with plainly(module, "put together"):
            net = assemble(builder, module, outputs)
        if check:
            doing("comparing the result with it, on clips of several lengths")
            with plainly(module, "checked"):
                check_clip(net, module, builder.captured, builder)
    again = partial(remade, time_dim=time_dim, time_pooling=time_pooling)
    net.__dict__["_dtypes"] = Dtypes(net, Origin(module, inputs, builder.captured.time_dims, again, is_bound(net)))
    net.__dict__["_switches"] = switches.settle()
    return net


def walked(module: nn.Module, clip: Any, time_dim: Any, time_pooling: str | None) -> tuple[Builder, list[Stream]]:
    """Export a module and walk its graph.

    Raises:
        NotStreamable: what can't be streamed.
    """
    builder, outputs = build(capture(module, clip, time_dim), module, time_pooling)
    if builder.refusals:
        raise refused(module, builder) from builder.unforeseen
    return builder, outputs


def remade(
    module: nn.Module, clip: tuple[Tensor, ...], onto: GraphModule, *, time_dim: Any, time_pooling: str | None
) -> GraphModule:
    """The twin of a module in other dtypes, on the names and weights of the twin that there is."""
    builder, outputs = walked(module, clip if len(clip) > 1 else clip[0], time_dim, time_pooling)
    return assemble(builder, onto, outputs)


@contextlib.contextmanager
def plainly(module: nn.Module, done: str) -> Iterator[None]:
    """Errors that nobody expects here become refusals, except the library's own mistakes."""
    name = type(module).__name__
    try:
        yield
    except NotStreamable:
        raise
    except ShapeMismatch as error:  # of the twin, on a clip that the module takes
        raise NotStreamable(
            f"{name}: the streaming version refuses a clip that the module takes: {error}. Remedies: an example whose length the network's "
            "strides divide; or branches that are as long as each other for every clip (the module crops or pads one to the other's length)"
        ) from error
    except Exception as error:
        if is_mistake(error):
            raise
        raise NotStreamable(
            f"{name}: its streaming version can't be {done}, although every operation of it is known. Report it with this message: it is "
            "a gap of the library"
        ) from error


def refuse_opaque(module: nn.Module, clip: Any) -> None:
    """Refuse modules whose operations or values can't be seen, before torch.export does in its own words."""
    for path, part in module.named_modules():
        if reason := opaque(part) or valueless(part):
            raise NotStreamable(f"{named(path, part)}: {reason}")
    if reason := meta_input(tuple(clip) if isinstance(clip, (tuple, list)) else (clip,)):
        raise NotStreamable(f"{type(module).__name__}: {reason}")


def build(captured: Captured, module: nn.Module, time_pooling: str | None) -> tuple[Builder, list[Stream]]:
    """Walk the graph, once more where means in the middle of the network are to be pooled as `time_pooling` says."""
    middle: frozenset[str] = frozenset()
    while True:
        builder = Builder(captured, module, time_pooling, middle)
        outputs = builder.run()
        if time_pooling is None or builder.middle_found <= middle:
            return builder, outputs
        middle = middle | builder.middle_found


def refused(module: nn.Module, builder: Builder) -> NotStreamable:
    """All refusals of a module as one error."""
    entries = {s.slot: int(s.name) for s in builder.sources if s.kind == "input"}
    known = [i for i in builder.instructions if isinstance(i, (Op, Layer, Meet, Positions))]
    rows, _ = rows_of(known, entries, builder.wires.timing)
    refusals = tuple(_with_registered(r, module) for r in builder.refusals)
    return NotStreamable(format_refusals(type(module).__name__, refusals), refusals, rows)


def _with_registered(refusal: Refusal, module: nn.Module) -> Refusal:
    """A refusal with one more remedy, where it lies in a module for which users have registered a streaming class."""
    for path, (cls, co_class) in chosen_in(module).items():
        if not path or refusal.path == path or refusal.path.startswith(f"{path}."):
            more = f"co.continual(module) without a clip, which takes {co_class} for {cls} (and knows the classes of all other modules)"
            return replace(refusal, remedy=f"{refusal.remedy}; or {more}")
    return refusal


def assemble(builder: Builder, module: nn.Module, outputs: list[Stream]) -> GraphModule:
    """The twin, of what its outputs need."""
    program = needed(builder.instructions, {o.slot for o in outputs})
    used = {slot for i in program for slot in slots_of(i)} | {o.slot for o in outputs}
    constants = needed_constants(builder.constants, used)
    used |= {slot for c in constants for slot in slots_of(c)}
    kid = 0
    for instruction in program:
        if isinstance(instruction, (Layer, Meet, Positions)):
            instruction.kid = kid
            kid += len(instruction.inputs) if isinstance(instruction, Meet) else 1
    captured = builder.captured
    inputs = [Input(t, b, x) for x, t, b in zip(captured.inputs, captured.time_dims, captured.batch_dims, strict=True)]
    for source in builder.sources:
        if source.kind == "input" and inputs[int(source.name)].time is not None:
            own = inputs[int(source.name)]
            dims = list(fixed(own.shape))
            dims[own.batch or 0], dims[own.time or 0] = ("B",), (TIME,)
            source.view = View(tuple(dims))
    sources = [s for s in builder.sources if s.slot in used or s.kind == "input"]
    wire = outputs[0].wire
    timing = builder.wires.timing(len(builder.wires.entries) - 1).at(wire)
    leaving = [(Output(View(o.dims), o.windows), o.slot, o.wire) for o in outputs]
    net = GraphModule(
        module, program, constants, sources, builder.tensors, builder.slots, inputs, leaving, timing, len(builder.wires.entries),
        builder.nested, builder.notes, builder.names,
    )  # fmt: skip
    alone = builder.windowed or builder.middle
    net.__dict__["lengths"] = "own" if alone else "same rest" if builder.divided else "any"
    return net


def needed(instructions: list[Instruction], wanted: set[int]) -> list[Instruction]:
    """The instructions without which some slots would stay empty."""
    kept: list[Instruction] = []
    wanted = set(wanted)
    for instruction in reversed(instructions):
        if wanted & set(instruction.outs):
            kept.append(instruction)
            wanted |= set(slots_of(instruction))
    return kept[::-1]


def needed_constants(constants: list[Op], wanted: set[int]) -> list[Op]:
    """The constants that are used."""
    return [c for c in needed(list(constants), wanted) if isinstance(c, Op)]


def check_clip(net: GraphModule, module: nn.Module, captured: Captured, builder: Builder) -> None:
    """Compare the twin's clip computation with the module's: a wrong rule, or a number of the example in it, must not go unnoticed.

    Lengths that the module refuses say nothing, and neither do those that the twin refuses by name.
    """
    if builder.middle:
        return
    with torch.no_grad():
        try:
            got = net(*fresh(captured.inputs))
        except ShapeMismatch as error:
            raise NotStreamable(f"{type(module).__name__}: the streaming twin can't take the example: {error}") from error
        compare(module, got, module(*fresh(captured.inputs)), "the example", builder)
        if builder.windowed:
            return
        left, refused_by_twin, agreed = affordable(captured), list[str](), False
        for steps in other_lengths(captured, net.timing.period, builder.divided):
            clip = captured.of_length(steps)
            try:
                want = module(*fresh(clip))
            except Exception:  # not a length of this module
                continue
            try:
                compare(module, net(*clip), want, f"a clip of {steps} steps (the example has {captured.steps})", builder)
                agreed = True
            except ShapeMismatch as error:
                refused_by_twin.append(f"{steps} ({error})")
            left -= 1
            if not left:
                break
    if refused_by_twin and not agreed:
        raise NotStreamable(
            f"{type(module).__name__}: the streaming twin takes clips of the example's {captured.steps} steps alone, the module others, "
            f"such as {refused_by_twin[0]}. Remedies: pad or cut branches that meet by fixed numbers of frames, not by the difference of "
            "their lengths"
        )


def compare(module: nn.Module, got: Any, want: Any, what: str, builder: Builder) -> None:
    """Refuse a twin that computes something else than the module."""
    for a, b in zip(_flat(got), _flat(want), strict=True):
        if a.shape != b.shape:
            raise _differs(module, f"gives {tuple(a.shape)} for {what}, the module {tuple(b.shape)}", builder)
        if not a.numel() or not (a.is_floating_point() or a.is_complex()):
            continue
        tolerance = {torch.float64: 1e-8, torch.complex128: 1e-8, torch.float32: 1e-3, torch.complex64: 1e-3}.get(a.dtype, 5e-2)
        wide = torch.complex128 if a.is_complex() else torch.float64
        off = float((a.to(wide) - b.to(wide)).abs().nan_to_num(0.0).max()) / max(
            1.0, float(b.to(wide).abs().nan_to_num(0.0).max())
        )
        if off > tolerance:
            raise _differs(module, f"differs from the module on {what} by {off:.1e}", builder)


def _differs(module: nn.Module, how: str, builder: Builder) -> NotStreamable:
    """What to say of a twin that is another function than its module, and of where that comes from if it is known."""
    found = f"{type(module).__name__}: the streaming twin {how}. "
    if builder.baked:
        places = "; ".join(list(dict.fromkeys(builder.baked))[:3])
        return NotStreamable(
            f"{found}A size fits the length of the example alone: {places}. Remedies: a reshape that keeps time a dimension of its own, or "
            "merges it with the batch as a whole; tensor.unfold or a strided convolution for groups of frames"
        )
    return NotStreamable(
        f"{found}This is a bug of the conversion, or the module gives other results each time, or does something else for clips of other "
        "lengths"
    )


def _flat(y: Any) -> list[Tensor]:
    return [t for v in y for t in _flat(v)] if isinstance(y, (list, tuple)) else [y]


@fold.register
def _of_graph(net: GraphModule, uses: Uses) -> None:
    from .fold_norms import Folding  # here: few networks are fused

    Folding(net).run()
