"""Recurrent layers. They start with the window, so windows share none of their outputs."""

from __future__ import annotations

from typing import Any

from ...axes import BATCH
from ...values import Const
from ..rolling import Recurrent
from ..sizes import Unfollowed
from ..tasks import Task
from ..walk import Walk, rule
from ..window_call import Call
from ..wire import sized
from .pointwise import alike, timed


@rule("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
def recurrent(w: Walk, call: Call) -> Any:
    """All positions one after another."""
    x: Task = call["input"]
    wire = alike(timed([x]))
    if wire.dim != (1 if call["batch_first"] else 0) or not wire.alone:
        raise Unfollowed("over something else than time")
    width = w.result_shape(call, 0)[-1]
    dims = (*wire.dims[:-1], sized(width))
    params, layers, biased = call["params"], call["num_layers"], call["has_biases"]
    begins = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    both = bool(call["bidirectional"])
    plain = (
        all(isinstance(p, Const) for p in params)
        and len(params) == layers * (4 if biased else 2) * (1 + both)  # others project their states
        and all(isinstance(h, Task) and h.uniform == 0.0 for h in begins)
        and wire.dims[1 - wire.dim] == (BATCH,)
    )
    own = {"kind": call.op, "params": tuple(p.slot for p in params if isinstance(p, Const)), "biased": biased, "layers": layers}
    own["sizes"] = tuple(p.value.numel() for p in params if isinstance(p, Const) and p.value.ndim == 2)
    rest = [None] * (len(call.node.meta["val"]) - 1)
    return w.window(
        call, [dims, *rest], wire, cls=Recurrent, **own, width=width // (1 + both), simple=plain and not both, both=plain and both
    )
