"""Adds loops to programs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..axes import BATCH, TIME, Dim, Dims, View, shape_of
from ..op_call import Misfit, OpCall, Refused
from ..rule_context import RuleContext
from ..values import STATIC, Const, Stream, TensorValue, Value
from .instruction import LoopCall
from .layer import Loop, LoopLayer, Seed
from .layout import Layout, merged

SEEN = "a stream has not seen all of them"


def as_streams(values: Sequence[Value], time: int) -> list[Stream]:
    """The streams that a loop reads frame by frame.

    Raises:
        Refused: it is not a stream.
    """
    found = []
    for value in values:
        if not isinstance(value, Stream) or value.wire == STATIC:
            raise Refused(
                "a loop over frames takes a table apart that is as long as the clip, and a stream has no end",
                "a value that is the same for all frames; or positions computed from the state",
            )
        if value.dims[time] != (TIME,) or sum(TIME in d for d in value.dims) > 1:
            raise Misfit("a loop does not run over time here", "time as a dimension of its own before the loop")
        found.append(value)
    return found


def with_rows(
    ctx: RuleContext, call: OpCall, streams: Sequence[Stream], layouts: Sequence[Layout], unit: int
) -> tuple[list[Stream], Dim]:
    """Streams whose rows are the same, and these rows: what is merged with them in some of the streams gets a dimension of its own.

    Args:
        layouts: of a frame of each stream.
        unit: rows for each entry of the batch.

    Raises:
        Misfit: they have other rows.
    """
    found, rows = list[Stream](), list[Dim]()
    for s, own in zip(streams, layouts, strict=True):
        at = next((i for i, d in enumerate(s.dims) if BATCH in d), 0)
        if (
            TIME in s.dims[at]
            or merged(s.dims[at]) != own.rate
            or (own.rate != unit and (unit > 1 or at != 1 or s.dims[at][0] != BATCH))
        ):
            raise Misfit("the streams of a loop have different rows", "the batch as a dimension of its own in all of them")
        if own.rate != unit:
            s = ctx.emit.reshape(call, s, (s.dims[0], (BATCH,), (own.rate,), *s.dims[2:]))
        found.append(s)
        rows.append(s.dims[at])
    if len(set(rows)) > 1:
        raise Misfit("the streams of a loop have different rows", "the batch as a dimension of its own in all of them")
    return found, rows[0]


def same_for_all(values: Sequence[Value]) -> list[TensorValue]:
    """The values that all iterations use.

    Raises:
        Refused: it has frames.
    """
    found: list[TensorValue] = []
    for value in values:
        if isinstance(value, Stream) and value.wire != STATIC:
            raise Refused(f"every iteration of a loop uses frames of the whole clip: {SEEN}", "the frame of the iteration alone")
        if not isinstance(value, (Stream, Const)):
            raise Misfit("a loop uses a value that depends on the length of the clip", "numbers that are the same for all clips")
        found.append(value)
    return found


def seeds_of(
    values: Sequence[Value], states: Sequence[tuple[Layout, torch.dtype]], like: Stream, first: int
) -> tuple[list[Seed], list[TensorValue]]:
    """The states before the first iteration, and which of them the module provides.

    Args:
        values: what the module begins with.
        states: their layouts and types.
        like: a stream whose type states of the same type follow.
        first: the index of the first initial value among the tensors of the loop.

    Raises:
        Refused: they depend on the clip.
    """
    seeds, initial = list[Seed](), list[TensorValue]()
    for value, (layout, dtype) in zip(values, states, strict=True):
        if isinstance(value, Stream) and value.wire != STATIC:
            raise Refused(
                f"the state of a loop begins with a function of the clip: {SEEN}", "a state that begins with zeros or a parameter"
            )
        fill = value.fill if isinstance(value, (Stream, Const)) else None
        if fill is not None:
            seeds.append(Seed(layout, dtype, fill, follows=dtype == like.dtype))
        else:
            seeds.append(Seed(layout, dtype, None, first + len(initial)))
            initial += same_for_all([value])
    return seeds, initial


def put_loop(
    ctx: RuleContext, call: OpCall, loop: Loop, streams: Sequence[Stream], tensors: Sequence[TensorValue],
    outs: Sequence[tuple[Dims, torch.dtype]],
) -> list[Stream]:  # fmt: skip
    """Add a loop to the program.

    Args:
        loop: the loop.
        streams: what it takes, frame by frame.
        tensors: what is the same for all iterations, and what states begin with.
        outs: layout and type of what it gives.
    """
    draft, layer = ctx.draft, LoopLayer(loop).eval()
    before = streams[0].wire
    wire = draft.wires.then(before, layer.timing)
    made = [Stream(draft.new_slot(), dims, wire, dtype, streams[0].windows) for dims, dtype in outs]
    path, _, source = ctx.emit.label(call)
    first, last = View(streams[0].dims), View(made[0].dims)
    weights = {f"given{i}": value.slot for i, value in enumerate(tensors)}
    draft.instructions.append(
        LoopCall(
            path, "loop", source, layer, streams[0].slot, made[0].slot, before, wire, first, last, draft.new_state_node(), weights,
            any(isinstance(v, Stream) for v in tensors), takes=tuple((s.slot, View(s.dims)) for s in streams),
            gives=tuple((s.slot, View(s.dims)) for s in made),
        )
    )  # fmt: skip
    return made


def mixes_rows(loop: Loop, streams: Sequence[Stream], same: Sequence[TensorValue], unknown: bool) -> bool:
    """Whether a step's results for one row depend on other rows, on random numbers.

    Args:
        unknown: the answer where a step takes inputs that are not streams.
    """
    if not all(isinstance(v, Const) for v in same):
        return unknown
    layer = LoopLayer(loop)
    layer._parameters.update({f"given{i}": v.value for i, v in enumerate(same) if isinstance(v, Const)})  # type: ignore[misc]
    generator = torch.Generator().manual_seed(0)

    def filled(x: torch.Tensor) -> torch.Tensor:
        return torch.rand(x.shape, generator=generator).to(x)

    views = [View(s.dims) for s in streams]
    device = same[0].value.device if same and isinstance(same[0], Const) else None
    chunks = [torch.zeros(shape_of(v.dims, 2, 1), dtype=s.dtype, device=device) for v, s in zip(views, streams, strict=True)]
    steps = [filled(v.enter(x, 2, 1).squeeze(2)) for v, x in zip(views, chunks, strict=True)]
    with torch.no_grad():
        state = {name: filled(value) for name, value in layer.blank(steps[0]).items()}
        found = [layer.results(steps, state)]
        for x in (*steps, *state.values()):
            if x.is_floating_point():  # others may be indices
                x[x.shape[0] // 2 :] += 1
        found.append(layer.results(steps, state))
    halves = [[y[: y.shape[0] // 2].nan_to_num() for y in ys] for ys in found]
    return not all(map(torch.equal, *halves))
