"""What rules that select or write parts of tensors share."""

from __future__ import annotations

from ..axes import BATCH, TIME, Dims
from ..instructions import resolve
from ..op_call import CAUSAL, Merged, Misfit, OpCall, RowsMixed, hint
from ..rule_context import RuleContext
from ..values import Stream, TensorValue
from .elementwise import lead

PAIRS = "as attention with relative positions to all frames of the clip (bidirectional) makes them"


def refuse_merged(ctx: RuleContext, call: OpCall, x: Stream, dim: int, what: str) -> None:
    """Refuse an operation over a dimension in which time is merged with others."""
    frames = ctx.shapes.length(x.wire).now
    if any(d == (frames,) for i, d in enumerate(x.dims) if i != dim):  # a view that shifts each row against the next one
        raise Misfit(f"`{call.op}` {what} values of all pairs of {frames} frames, {PAIRS}", CAUSAL)
    raise Merged(
        f"`{call.op}` {what} time merged with another dimension, in a tensor of {ctx.shapes.described(x)}",
        "do it before the dimensions are merged",
    )


def is_time(ctx: RuleContext, call: OpCall, x: Stream, dim: int, what: str) -> bool:
    """Whether a dimension is time. The batch, and time merged with other dimensions, are refused."""
    own = x.dims[dim]
    if own == (TIME,):
        return True
    if TIME in own:
        refuse_merged(ctx, call, x, dim, what)
    if BATCH in own:
        raise RowsMixed(f"`{call.op}` {what} the rows of the batch", "keep the batch as it is")
    return False


def with_streams(ctx: RuleContext, call: OpCall, new: dict[str, TensorValue], dims: Dims) -> Stream:
    """The operation with some of its arguments exchanged."""
    call = call.with_args(**new)
    args, kwargs = ctx.emit.arguments(call)
    kwargs = {n: v for n, v in kwargs.items() if n in call.node.kwargs}
    return ctx.emit.local(call, dims, lead(call.streams), args=args, kwargs=kwargs, inputs=call.streams)


def expanded_argument(ctx: RuleContext, call: OpCall, name: str, like: Stream) -> TensorValue:
    """An argument that the module repeats over frames and rows, repeated in the program too: this operation does not broadcast."""
    value = call.tensor(name)
    names = [a.name for a in resolve(call.name)._schema.arguments]  # type: ignore[attr-defined]
    at = names.index(name)
    node = call.node.args[at] if at < len(call.node.args) else call.node.kwargs[name]
    sizes = [hint(s) for s in node.meta["val"].shape]  # type: ignore[union-attr]
    each = zip(value.dims, like.dims, sizes, ctx.shapes.shape(like), strict=True)
    dims = tuple(d if own == () and s == n and (TIME in d or BATCH in d) else own for own, d, s, n in each)
    if dims == value.dims:
        return value
    return ctx.emit.expand(call, value, dims, [s for s in (value, like) if isinstance(s, Stream)], like)
