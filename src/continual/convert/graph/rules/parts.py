"""What rules of parts of tensors share."""

from __future__ import annotations

from typing import Any

from ..axes import BATCH, TIME, Dim, Dims
from ..instructions import Ref, Shape, resolve
from ..op_call import CAUSAL, Call, Misfit, Refused, hint
from ..values import Const, Stream, Value
from ..walker import Builder
from .elementwise import lead


def whole(size: int) -> Dim:
    """A dimension that knows neither batch nor time."""
    return (size,) if size != 1 else ()


def with_dim(dims: Dims, at: int, dim: Dim) -> Dims:
    """A layout with another dimension in one place."""
    return (*dims[:at], dim, *dims[at + 1 :])


PAIRS = "as attention with relative positions to all frames of the clip (bidirectional) makes them"


def merged(b: Builder, call: Call, x: Stream, dim: int, what: str) -> None:
    """Refuse an operation over time where that is merged with other dimensions."""
    frames = b.length(x.wire).now
    if any(d == (frames,) for i, d in enumerate(x.dims) if i != dim):  # by a view, which shifts one row against the other
        raise Misfit(f"`{call.op}` {what} values of all pairs of {frames} frames, {PAIRS}", CAUSAL)
    raise Misfit(
        f"`{call.op}` {what} time merged with another dimension, in a tensor of {b.described(x)}",
        "do it before the dimensions are merged",
    )


def alone(b: Builder, call: Call, x: Stream, dim: int, what: str) -> bool:
    """Whether a dimension is time. Refuses time that is merged with others, and the batch."""
    own = x.dims[dim]
    if own == (TIME,):
        return True
    if TIME in own:
        merged(b, call, x, dim, what)
    if BATCH in own:
        raise Refused(f"`{call.op}` {what} the rows of the batch", "keep the batch as it is")
    return False


def positional(b: Builder, call: Call, new: dict[str, Value], dims: Dims) -> Stream:
    """The operation, some of its arguments exchanged."""
    given = {n: new.get(n, v) for n, v in call.args.items()}
    streams = [v for v in given.values() if isinstance(v, Stream)]
    args = [b.template(given[n]) for n in call.positional]
    kwargs = {n: b.template(v) for n, v in given.items() if n not in call.positional and n in call.node.kwargs}
    return b.local(call, dims, lead(streams), args=args, kwargs=kwargs, inputs=streams)


def spread_out(b: Builder, call: Call, name: str, like: Stream) -> Any:
    """An argument that is repeated over frames and rows in the module, really repeated: this operation does not broadcast."""
    value: Stream | Const = call[name]
    names = [a.name for a in resolve(call.name)._schema.arguments]  # type: ignore[attr-defined]
    node: Any = call.node.args[names.index(name)] if names.index(name) < len(call.node.args) else call.node.kwargs[name]
    sizes = [hint(s) for s in node.meta["val"].shape]
    each = zip(value.dims, like.dims, sizes, b.shape(like), strict=True)
    dims = tuple(d if own == () and s == n and (TIME in d or BATCH in d) else own for own, d, s, n in each)
    if dims == value.dims:
        return value
    streams = [s for s in (value, like) if isinstance(s, Stream)]
    dtype = value.dtype if isinstance(value, Stream) else value.value.dtype
    return b.local(
        call,
        dims,
        like,
        target="aten.expand.default",
        args=(Ref(value.slot), Shape(dims)),
        kwargs={},
        inputs=streams,
        dtype=dtype,
    )
