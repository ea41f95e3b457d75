"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....core.module import CoModule
from ....layers.recurrent import stacked
from ..axes import BATCH, TIME, Dims, dim_of, joined_dims
from ..exec_context import Ref
from ..op_call import Misfit, OpCall, Refused, as_tensor, hint, results_of
from ..rule_context import RuleContext, rule
from ..values import Const, LengthDependent, Stream, TensorValue, Value
from .recurrent_states import over_cells
from .reduce import at_end

LAYERS: dict[str, Callable[..., CoModule]] = {
    "lstm": stacked.LSTM,
    "gru": stacked.GRU,
    "rnn_tanh": stacked.RNN,
    "rnn_relu": stacked.RNN,
}


@rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input", keeps_length_dependent=True)
def recurrent(ctx: RuleContext, call: OpCall) -> Sequence[Value]:
    """A streaming recurrent layer. Its hidden state after the clip follows the stream."""
    x, time = call.tensor("input"), 1 if call["batch_first"] else 0
    if isinstance(x, Stream) and len(x.dims) == 3 and not any(f in x.dims[i] for i in (time, 2) for f in (TIME, BATCH)):
        return _within_frames(ctx, call, x, 1 - time)
    if not isinstance(x, Stream) or len(x.dims) != 3 or x.dims[time] != (TIME,) or BATCH not in x.dims[1 - time]:
        raise Misfit(f"`{call.op}` does not run over time here", "(B, T, C) with batch_first=True, or (T, B, C)")
    if call["bidirectional"]:
        raise Refused(
            "a bidirectional layer reads the clip from its end, which a stream has not seen",
            "train it with bidirectional=False; or run the backward half on clips of the past",
        )
    params, layers = _parameters(call), call.integer("num_layers")
    used = {user.args[1] for user in call.node.users if user.users}
    if all(_is_zero(ctx, h) for h in call.sequence("hx")) and 2 not in used:
        outs = _layers(ctx, call, x, params, separate=1 in used)
        return [outs[-1], _after(ctx, call, outs, time) if 1 in used else None, None]
    y, *states = over_cells(ctx, call, x, time, params)
    kinds = [states[:layers], states[layers:]]
    return [y, *(_after(ctx, call, own, time) if i in used else None for i, own in enumerate(kinds, 1))]


def _parameters(call: OpCall) -> list[Const]:
    params = [p for p in call.sequence("params") if isinstance(p, Const)]
    if len(params) < len(call.sequence("params")):
        raise Refused(f"the weights of `{call.op}` depend on the stream", "parameters")
    return params


def _within_frames(ctx: RuleContext, call: OpCall, x: Stream, rows: int) -> list[Stream]:
    """The layer itself, where its sequence is not time. Frames are among its rows, and it may be bidirectional."""
    _parameters(call)
    sizes = [[hint(n) for n in y.shape] for y in results_of(call.node)]
    sequences = (*x.dims[:2], dim_of(sizes[0][2]))
    states = [(dim_of(size[0]), x.dims[rows], dim_of(size[2])) for size in sizes[1:]]
    hx = [_first_state(ctx, call, h, dims, x) for h, dims in zip(call.sequence("hx"), states, strict=True)]
    args, kwargs = ctx.emit.arguments(call.with_args(hx=hx if call.op == "lstm" else hx[0]))
    made = ctx.emit.local(call, sequences, x, args=args, kwargs=kwargs, inputs=[x, *(h for h in hx if isinstance(h, Stream))])
    return [ctx.emit.op(call, "helper_ops:item", made, dims, i, dtype=x.dtype) for i, dims in enumerate((sequences, *states))]


def _first_state(ctx: RuleContext, call: OpCall, h: Value, dims: Dims, x: Stream) -> TensorValue:
    """The hidden state before the sequence, for all rows of the frames."""
    if _is_zero(ctx, h):
        return ctx.emit.filled(call, dims, x, 0.0, x.dtype)
    first = as_tensor(ctx.lengths.beside(h, x) if isinstance(h, LengthDependent) else h)
    if joined_dims([first.dims, dims]) != dims:
        raise Misfit(f"`{call.op}` begins with a hidden state of other rows than its input", "one state, expanded to the rows")
    if first.dims == dims:
        return first
    return ctx.emit.expand(call, first, dims, [s for s in (x, first) if isinstance(s, Stream)], x)


def _layers(ctx: RuleContext, call: OpCall, x: Stream, params: Sequence[Const], separate: bool) -> list[Stream]:
    """The outputs of the layers: one layer with all of them, or several where the hidden state of each is used."""
    layers, bias = call.integer("num_layers"), bool(call["has_biases"])
    gates, per = {"lstm": 4, "gru": 3}.get(call.op, 1), len(params) // layers
    width = params[0].value.shape[0] // gates
    projected = call.op == "lstm" and per == (5 if bias else 3)
    size = params[per - 1].value.shape[0] if projected else width
    options: dict[str, str | int] = {"nonlinearity": call.op[4:]} if call.op.startswith("rnn") else {}
    if projected:
        options["proj_size"] = size
    suffixes = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else []), *(["weight_hr"] if projected else [])]
    outs, y = list[Stream](), x
    for group in [[i] for i in range(layers)] if separate else [list(range(layers))]:
        layer = LAYERS[call.op](ctx.shapes.shape(y)[2], width, len(group), bias=bias, device="meta", **options)
        weights = {f"{s}_l{j}": params[i * per + k] for j, i in enumerate(group) for k, s in enumerate(suffixes)}
        label = f"{type(layer).__name__} {width}"
        y = ctx.emit.layer(call, y, layer, (*x.dims[:2], dim_of(size)), weights=weights, label=label)
        outs.append(y)
    return outs


def _after(ctx: RuleContext, call: OpCall, states: Sequence[Stream], time: int) -> Stream:
    """The states of the layers after the clip, ``(layers, B, H)``."""
    last = [at_end(ctx, call, y, time) for y in states]
    dims, args = (dim_of(len(last)), *last[0].dims), ([Ref(h.slot) for h in last], 0)
    return ctx.emit.local(call, dims, last[0], target="aten.stack.default", args=args, inputs=last)


def _is_zero(ctx: RuleContext, value: Value) -> bool:
    if isinstance(value, Const):
        return not bool(value.value.any())
    if isinstance(value, Stream):
        return value.fill == 0
    return isinstance(value, LengthDependent) and not bool(ctx.lengths.concrete(value).any())
