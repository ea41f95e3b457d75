"""Changes of layout that a converted network does without.

Layers take chunks ``(B, C, n, *S)`` and give such, between two views of the module's own layout. A permutation before a layer or an output
goes into its view; and in a step, a slot between layers alone holds the frame ``(B, C, *S)``, which needs no view.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .axes import View
from .exec_context import Ref
from .instructions import Instruction, Layer, Op, slots_of

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
    """The slots that hold a frame in a step: only layers and the ends of the network use them, all through the same view.

    Args:
        instructions: of a network.
        inputs: the slots of its streams, and their views.
        outputs: those of its outputs.
    """
    layers = [i for i in instructions if isinstance(i, Layer)]
    made = dict([*inputs, *(own for layer in layers for own in layer.made)])
    taken = [*outputs, *(own for layer in layers for own in layer.taken)]
    unlike = {slot for slot, view in taken if slot in made and view.dims != made[slot].dims}
    for instruction in instructions:
        others = instruction.weights.values() if isinstance(instruction, Layer) else slots_of(instruction)
        unlike |= {*others, *instruction.reads}
    return frozenset(made.keys() - unlike)
