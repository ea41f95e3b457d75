"""Modules of registered classes, and streaming modules."""

from __future__ import annotations

from ..axes import BATCH, TIME, dim_of
from ..op_call import Misfit, OpCall, Refused
from ..registered_calls import CALLS
from ..rule_context import RuleContext, rule
from ..values import Const, Stream


@rule("continual.registered_call.default")
def registered(ctx: RuleContext, call: OpCall) -> Stream:
    """The streaming version, on the weights of the module."""
    entry = CALLS[call.integer("number")]
    x, batch, name = call.tensor("input"), entry.batch_dim, type(entry.layer).__name__
    time = entry.time_dim(len(x.dims))
    rest = [] if not isinstance(x, Stream) else [d for i, d in enumerate(x.dims) if i not in (batch, time)]
    if (
        not isinstance(x, Stream)
        or x.dims[time] != (TIME,)
        or BATCH not in x.dims[batch]
        or any({BATCH, TIME} & set(d) for d in rest)
    ):
        raise Misfit(f"{name} does not run over time here", f"clips with the batch in dim {batch} and time in dim {time}")
    constants = [w for w in call.sequence("weights") if isinstance(w, Const)]
    if len(constants) < len(call.sequence("weights")):
        raise Refused(f"the weights of {name} depend on the stream", "parameters")
    weights = {n: constants[i] for n, i in entry.weights.items()}
    sizes = tuple(ctx.shapes.shape(x)[i] for i in range(len(x.dims)) if i not in (batch, time))
    out = [x.dims[batch], *map(dim_of, entry.out[sizes].shape[1:])]
    out.insert(time, (TIME,))
    return ctx.emit.layer(call, x, entry.copy_of_layer(), tuple(out), weights=weights, label=name)
