"""Recurrent layers."""

from __future__ import annotations

from typing import Any

from ....layers.recurrent import stacked
from ..axes import BATCH, TIME
from ..instructions import Ref
from ..op_call import Call, Misfit, Refused, rule
from ..values import Clocked, Const, Fragment, Stream, Value
from ..walker import Builder
from .reduce import at_frame

KINDS: Any = {"lstm": stacked.LSTM, "gru": stacked.GRU, "rnn_tanh": stacked.RNN, "rnn_relu": stacked.RNN}


@rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input", keeps_clocked=True)
def recurrent(b: Builder, call: Call) -> list[Value]:
    """A streaming recurrent layer. Its hidden state after the clip is that of a sliding end."""
    x: Stream = call["input"]
    time = 1 if call["batch_first"] else 0
    if len(x.dims) != 3 or x.dims[time] != (TIME,) or BATCH not in x.dims[1 - time]:
        raise Misfit(f"`{call.op}` does not run over time here", "(B, T, C) with batch_first=True, or (T, B, C)")
    if call["bidirectional"]:
        raise Refused(
            "a bidirectional layer reads the clip from its end, which a stream has not seen",
            "train it with bidirectional=False; or run the backward half on clips of the past",
        )
    hidden = call["hx"]
    for h in hidden if isinstance(hidden, (list, tuple)) else [hidden]:
        if not _is_zero(b, h):
            raise Refused(
                f"`{call.op}` begins with a hidden state other than zero",
                "no initial state; or net.set_state on a converted layer",
            )
    params: list[Const] = call["params"]
    if any(not isinstance(p, Const) for p in params):
        raise Refused(f"the weights of `{call.op}` depend on the stream", "parameters")
    layers, bias = int(call["num_layers"]), bool(call["has_biases"])
    gates = {"lstm": 4, "gru": 3}.get(call.op, 1)
    width = params[0].value.shape[0] // gates
    per = len(params) // layers
    projected = call.op == "lstm" and per == (5 if bias else 3)
    out = params[per - 1].value.shape[0] if projected else width
    options: dict[str, Any] = (
        {"nonlinearity": call.op[4:]} if call.op.startswith("rnn") else {"proj_size": out} if projected else {}
    )
    suffixes = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else []), *(["weight_hr"] if projected else [])]
    used = {user.args[1] for user in call.node.users if user.users}
    apart = layers > 1 and 1 in used  # the hidden state of every layer is wanted: so they run one after another
    y, finals = x, []
    for group in [[i] for i in range(layers)] if apart else [list(range(layers))]:
        size = b.shape(y)[2]
        layer = KINDS[call.op](size, width, len(group), bias=bias, device="meta", **options)
        given = {f"{s}_l{j}": params[i * per + k] for j, i in enumerate(group) for k, s in enumerate(suffixes)}
        y = b.layer(
            call, y, layer, (*x.dims[:2], (out,) if out != 1 else ()), weights=given, label=f"{type(layer).__name__} {width}"
        )
        finals.append(y)
    cells = Fragment((), x.dtype, f"the cell state of `{call.op}` after the clip", "the outputs, or the hidden state h")
    return [y, _hidden(b, call, finals, time) if 1 in used else None, cells]


def _hidden(b: Builder, call: Call, outs: list[Stream], time: int) -> Stream:
    """The hidden state after the clip, ``(layers, B, H)``."""
    last = [at_frame(b, call, y, time, b.length(y.wire).now - 1, keep=False) for y in outs]
    dims = ((len(last),) if len(last) > 1 else (), *last[0].dims)
    return b.local(
        call, dims, last[0], target="aten.stack.default", args=([Ref(h.slot) for h in last], 0), kwargs={}, inputs=last
    )


def _is_zero(b: Builder, value: Value) -> bool:
    if isinstance(value, Const):
        return not bool(value.value.any())
    if isinstance(value, Stream):
        return value.fill == 0
    return isinstance(value, Clocked) and not bool(b.concrete(value).any())
