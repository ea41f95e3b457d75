"""`continual(module, clip)`: capture, walk, and what the streaming twin is made of."""

from __future__ import annotations

import copy as copying
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NotStreamable
from ..foreign import meta_input, opaque, valueless
from ..local import named
from ..module import CoModule
from ..rows import format_refusals
from . import rules  # noqa: F401 (they register themselves)
from .account import rows_of
from .builder import Builder
from .capture import Captured, capture
from .layout import TIME, View, fixed
from .ports import Input, Output
from .program import Instruction, Layer, Op, slots_of
from .queues import Meet, Positions
from .switches import Switches
from .twin import GraphModule
from .values import Stream

POOLINGS = (None, "window", "frame")


def graph_twin(
    module: nn.Module, clip: Any, *, time_dim: Any = 2, time_pooling: str | None = None, copy: bool = False, check: bool = True
) -> CoModule:
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
    switches = Switches(module)
    captured = capture(module, clip, time_dim)
    builder, outputs = build(captured, module, time_pooling)
    if builder.refusals:
        raise refused(module, builder)
    net = assemble(builder, module, outputs)
    if check:
        check_clip(net, module, captured, builder)
    net.__dict__["_switches"] = switches.settle()
    return net


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
    refusals = tuple(builder.refusals)
    return NotStreamable(format_refusals(type(module).__name__, refusals), refusals, rows)


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
    return GraphModule(
        module, program, constants, sources, builder.tensors, builder.slots, inputs, leaving, timing, len(builder.wires.entries),
        builder.nested, builder.notes, builder.names,
    )  # fmt: skip


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
    """Compare the twin's clip computation with the module's: a wrong rule must not go unnoticed."""
    if builder.middle:
        return
    with torch.no_grad():
        compare(module, net(*captured.inputs), module(*captured.inputs), "the example")
        if builder.windowed:
            return
        longer = captured.longer
        try:
            want = module(*longer)
        except Exception:  # a module for clips of one length
            return
        compare(module, net(*longer), want, f"a clip of {2 * captured.steps} steps")


def compare(module: nn.Module, got: Any, want: Any, what: str) -> None:
    """Refuse a twin that computes something else than the module."""
    for a, b in zip(_flat(got), _flat(want), strict=True):
        if a.shape != b.shape:
            raise NotStreamable(
                f"{type(module).__name__}: the streaming twin gives {tuple(a.shape)} for {what}, the module {tuple(b.shape)}. This is a "
                "bug of the conversion, or the module does something else for clips of other lengths"
            )
        if not a.numel() or not a.is_floating_point():
            continue
        tolerance = {torch.float64: 1e-8, torch.float32: 1e-3}.get(a.dtype, 5e-2)
        off = float((a.double() - b.double()).abs().nan_to_num(0.0).max()) / max(
            1.0, float(b.double().abs().nan_to_num(0.0).max())
        )
        if off > tolerance:
            raise NotStreamable(
                f"{type(module).__name__}: the streaming twin differs from the module on {what} by {off:.1e}. This is a bug of the "
                "conversion, or the module gives other results each time, or does something else for clips of other lengths"
            )


def _flat(y: Any) -> list[Tensor]:
    return [t for v in y for t in _flat(v)] if isinstance(y, (list, tuple)) else [y]
