"""Changes of layout that a converted network does without.

Layers take chunks ``(B, C, n, *S)`` and give such, between two views of the module's own layout. A permutation before a layer or an output
goes into its view. And in a step, most slots hold the frame ``(B, C, *S)``, which needs no view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch

from .axes import TIME, View
from .bound_calls import refs
from .exec_context import Ref
from .instructions import Instruction, Layer, Op, resolve, slots_of

_PERMUTATIONS = (
    "aten.permute.default",
    "aten.transpose.int",
    "aten.movedim.int",
    "aten.swapaxes.default",
    "aten.swapdims.default",
    "aten.mT.default",
)
Taken = tuple[int, View]  # a slot that chunks are taken from, and its view


def without_permutations(instructions: Sequence[Instruction], outputs: Sequence[Taken]) -> list[Taken]:
    """Let layers and outputs take the same chunks from before permutations.

    Args:
        instructions: of a network. Its layers are changed.
        outputs: what leaves the network.

    Returns:
        What leaves it, from other slots.
    """
    makers = {i.out: i for i in instructions if isinstance(i, Op) and i.target in _PERMUTATIONS}

    def before(taken: Taken) -> Taken:
        slot, view = taken
        while slot in makers and (source := _source(makers[slot], view)) is not None:
            slot, view = source
        return slot, view

    for layer in instructions:
        if isinstance(layer, Layer):
            layer.take([before(own) for own in layer.taken])
    return [before(own) for own in outputs]


def _source(op: Op, view: View) -> Taken | None:
    """Where the chunks of a permuted tensor are found before the permutation, if they are."""
    rank = len(view.dims)
    if op.dims != view.dims or op.kwargs or len(view.pieces) != rank or not isinstance(op.args[0], Ref):
        return None
    order = [n - 1 for n in op.fn(torch.empty(*range(1, rank + 1), device="meta"), *op.args[1:]).shape]
    source = View(tuple(view.dims[order.index(i)] for i in range(rank)))
    return (op.args[0].slot, source) if tuple(order[i] for i in view.order) == source.order else None


def framed_slots(instructions: Sequence[Instruction], inputs: Sequence[Taken], outputs: Sequence[Taken]) -> frozenset[int]:
    """The slots that hold a frame in a step: all that use them take the same view of them, or work on frames as on chunks.

    Args:
        instructions: of a network.
        inputs: the slots of its streams, and their views.
        outputs: those of its outputs.
    """
    alike = {i for i in instructions if isinstance(i, Op) and _takes_frames(i)}
    made = dict([*inputs, *(own for i in instructions for own in i.made), *((op.out, View(op.dims or ())) for op in alike)])
    taken = [*outputs, *(own for i in instructions for own in i.taken)]
    unlike = {slot for slot, view in taken if slot in made and view.dims != made[slot].dims}
    for instruction in instructions:
        if instruction not in alike:
            unlike |= {*slots_of(instruction)} - {slot for slot, _ in instruction.taken} | {*instruction.reads}
    together = [{op.out, *op.inputs} for op in alike]
    unlike = unlike.union(*({op.out, *op.inputs} for op in alike if not _alike_on_frames(op, made)))
    framed, before = made.keys() - unlike, -1
    while len(framed) != before:  # a slot without a frame takes those that meet it along
        before = len(framed)
        for streams in together:
            if not streams <= framed:
                framed -= streams
    return frozenset(framed)


def _takes_frames(op: Op) -> bool:
    """Whether an operation may be one that computes the same on a frame as on a chunk of one."""
    if type(op) is not Op or op.dims is None or not op.inputs or op.varies:
        return False
    slots = {slot for arg in (*op.args, *op.kwargs.values()) for slot in refs(arg)}
    return op.target in _ON_FRAMES or (slots == {*op.inputs} and torch.Tag.pointwise in getattr(resolve(op.target), "tags", ()))


def _alike_on_frames(op: Op, made: Mapping[int, View]) -> bool:
    """Whether it is one, for the layouts of what it takes and gives."""
    if not {*op.inputs} <= made.keys():
        return False
    views = [made[op.out], *(made[slot] for slot in op.inputs)]
    kept = _ON_FRAMES.get(op.target)
    if kept is None:
        return all(view.dims == views[0].dims for view in views)
    return len(views) == 2 and all(view.in_order and kept(op, view) for view in views)


# Operations with parameters: whether a frame has the dimensions that they belong to where they are, from the front or from the back.
_ON_FRAMES: dict[str, Callable[[Op, View], bool]] = {
    "aten.batch_norm.default": lambda op, view: TIME not in view.dims[1],
    "aten.linear.default": lambda op, view: TIME not in view.dims[-1],
    "aten.layer_norm.default": lambda op, view: not any(TIME in dim for dim in view.dims[-len(cast(list[int], op.args[1])) :]),
}
