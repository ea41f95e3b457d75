"""Recurrent layers of torch that begin with a state, or whose cell states are used, as loops over their cells."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import BATCH, Dim, dim_of
from ..exec_context import Ref
from ..loops.cell import Cell, CellMaker
from ..loops.emit import put_loop, same_for_all, seeds_of
from ..loops.layer import Loop
from ..loops.layout import Layout, merged
from ..op_call import Misfit, OpCall, Refused, as_tensor
from ..rule_context import RuleContext
from ..values import ITEM, Const, LengthDependent, Stream, Value

CELLS = {"lstm": "lstm_cell", "gru": "gru_cell", "rnn_tanh": "rnn_tanh_cell", "rnn_relu": "rnn_relu_cell"}


def over_cells(ctx: RuleContext, call: OpCall, x: Stream, time: int, params: Sequence[Const]) -> list[Stream]:
    """The outputs, and every state at each frame: the hidden states of all layers, then the cell states.

    Args:
        x: the sequences; rows of the batch are in its other dimension.
        time: the dimension of time in it.
        params: the weights of all layers, one layer after the other.

    Raises:
        Refused: the states begin with a function of the clip; a projected layer.
    """
    layers, rows = call.integer("num_layers"), x.dims[1 - time]
    per, kinds = len(params) // layers, len(call.sequence("hx"))
    if per == (5 if call["has_biases"] else 3):
        raise Refused(
            f"`{call.op}` with a projection begins with a state, or gives its cell state",
            "zeros, and no proj_size; or the outputs",
        )
    width, unit = params[1].value.shape[1], merged(rows)
    layout = Layout((unit, width), 0)
    begins = [_of_layer(ctx, call, x, h, i, rows) for h in call.sequence("hx") for i in range(layers)]
    seeds, initial = seeds_of(begins, [(layout, x.dtype)] * (kinds * layers), x, len(params))
    body = _cell(call.op, layers, per, kinds)
    outs = [((*x.dims[:2], dim_of(width)), x.dtype)] * (1 + kinds * layers)
    return put_loop(ctx, call, Loop(body, (), tuple(seeds), len(params), unit), [x], [*same_for_all(params), *initial], outs)


def _of_layer(ctx: RuleContext, call: OpCall, x: Stream, h: Value, layer: int, rows: Dim) -> Value:
    """The state ``(rows, H)`` that a layer begins with, of one ``(layers, rows, H)``."""
    h = as_tensor(ctx.lengths.beside(h, x) if isinstance(h, LengthDependent) else h)
    if h.fill is not None:
        return h
    if BATCH in h.dims[1] and h.dims[1] != rows:
        raise Misfit(f"`{call.op}` begins with a state of other rows than its input", "one state, expanded to the rows")
    found: Value = ctx.apply(call.other("aten.select.int", self=h, dim=0, index=layer))
    return found


def _cell(op: str, layers: int, per: int, kinds: int) -> Cell:
    """One step of all layers."""
    make = CellMaker(None)
    x = make.take("x")
    states = [[make.take((kind, layer)) for layer in range(layers)] for kind in range(kinds)]
    weights = [make.take(("weight", i)) for i in range(layers * per)]
    for layer in range(layers):
        own = [Ref(w) for w in weights[layer * per : (layer + 1) * per]]
        before = [Ref(of[layer]) for of in states]
        y = make.apply(f"aten.{CELLS[op]}.default", x, before if kinds > 1 else before[0], *own)
        new = [make.apply(ITEM, y, kind) for kind in range(kinds)] if kinds > 1 else [y]
        for of, value in zip(states, new, strict=True):
            of[layer] = value
        x = new[0]
    flat = [slot for of in states for slot in of]
    return make.made([x, *flat], flat)
