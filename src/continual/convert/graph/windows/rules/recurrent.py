"""Recurrent layers, which begin with the window: their outputs have positions, and windows share none of them."""

from __future__ import annotations

from typing import Any

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
    return w.window(call, [dims] + [None] * (len(call.node.meta["val"]) - 1), wire)
