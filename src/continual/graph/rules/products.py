"""Matrix products, in which time is one of the rows."""

from __future__ import annotations

from ..builder import Builder
from ..call import Call, Refused, rule
from ..layers import WindowLinear
from ..layout import BATCH, TIME, Dim, Dims, where
from ..values import Const, Stream
from .elementwise import lead, with_explicit
from .reduce import settled


@rule("aten.linear.default")
def linear(b: Builder, call: Call) -> Stream:
    """A linear layer over channels; over the frames of the clip it becomes a window of the clip's length."""
    x: Stream = call["input"]
    weight = call["weight"]
    if not isinstance(weight, Const):
        raise Refused(
            "the weight of `linear` depends on the stream", "compute it of parameters, or write the product with matmul"
        )
    if BATCH in x.dims[-1]:
        raise Refused("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    features = weight.value.shape[0]
    if TIME in x.dims[-1]:
        return over_window(b, call, x, weight, call.get("bias"))
    return b.local(call, (*x.dims[:-1], (features,) if features != 1 else ()), x)


def over_window(b: Builder, call: Call, x: Stream, weight: Const, bias: Const | None) -> Stream:
    """A linear map of the clip's frames (and of what is merged with them): of a sliding window of as many."""
    size, merged, batch = b.length(x.wire).now, x.dims[-1], where(x.dims, BATCH)
    others = [d for d in x.dims[:-1] if BATCH not in d and d != ()]
    if merged != (TIME,) and others:
        raise Refused("`linear` maps frames that are merged with several other dimensions", "flatten (B, C, T, …) to (B, C·T·…)")
    if batch is None:
        raise Refused("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    flat = merged != (TIME,) or len(x.dims) == 2
    layer = WindowLinear(size, flat, time_first=merged[0] == TIME and len(merged) > 1)
    features = (weight.value.shape[0],) if weight.value.shape[0] != 1 else ()
    out = (*((*d, TIME) if i == batch else d for i, d in enumerate(x.dims[:-1])), features)
    given = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    b.window_note(call, f"maps the {size} frames of a clip; in a stream those of a sliding window")
    y = b.layer(call, x, layer, out, weights=given, label=f"linear over {size} frames", windows=True)
    return b.reduced(settled(b, call, y), call)


def _product(b: Builder, call: Call, x: Stream | Const, y: Stream | Const) -> Dims:
    """The layout of ``x @ y``."""
    inner = x.dims[-1], y.dims[-2] if len(y.dims) > 1 else y.dims[-1]
    if any(TIME in d for d in inner):
        raise Refused(
            f"`{call.op}` sums over the frames of the clip",
            "attention as F.scaled_dot_product_attention(is_causal=True); a mean over time at the end of the network",
        )
    if any(BATCH in d for d in inner):
        raise Refused(f"`{call.op}` mixes the rows of the batch", "the batch as a dimension of its own")
    rows: tuple[Dim, ...] = (x.dims[-2],) if len(x.dims) > 1 else ()
    columns: tuple[Dim, ...] = (y.dims[-1],) if len(y.dims) > 1 else ()
    heads = [v for v in (Const(0, x.dims[:-2], x.value) if isinstance(x, Const) else x, y) if v is not None]
    batch = _joined(b, call, [h.dims[:-2] for h in heads])
    return (*batch, *rows, *columns)


def _joined(b: Builder, call: Call, layouts: list[Dims]) -> Dims:
    from ..layout import joined_dims

    dims = joined_dims(layouts)
    if dims is None:
        raise Refused(f"`{call.op}` joins batches that do not fit", "reshape one of them")
    return dims


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default", "aten.mv.default", "aten.dot.default")
def matmul(b: Builder, call: Call) -> Stream:
    """A product whose rows or batch are time."""
    call = with_explicit(b, call)
    x, y = [v for v in call.args.values() if isinstance(v, (Stream, Const))][:2]
    return b.local(call, _product(b, call, x, y), lead(call.streams))


@rule("aten.addmm.default", "aten.baddbmm.default", "aten.addbmm.default", "aten.addmv.default")
def added(b: Builder, call: Call) -> Stream:
    """A product and a sum."""
    call = with_explicit(b, call)
    add, x, y = [v for v in call.args.values() if isinstance(v, (Stream, Const))][:3]
    return b.local(call, _joined(b, call, [add.dims, _product(b, call, x, y)]), lead(call.streams))


@rule("aten.einsum.default")
def einsum(b: Builder, call: Call) -> Stream:
    """Sums over other axes than time, with time and the batch among those that stay."""
    equation, operands = str(call["equation"]).replace(" ", ""), call["tensors"]
    if "." in equation:
        raise Refused("einsum with an ellipsis has no streaming rule", "name all axes")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        letters = left.replace(",", "")
        right = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    found: dict[str, Dim] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, dim in zip(term, operand.dims, strict=True):
            known = found.get(letter, ())
            if known and dim and known != dim:
                if TIME in known or TIME in dim:
                    raise Refused(
                        f"einsum '{equation}' multiplies frames with a constant of one clip length", "a constant without time"
                    )
                raise Refused(f"einsum '{equation}' joins axes '{letter}' that do not fit", "reshape one of the operands")
            found[letter] = known or dim
    for letter, dim in found.items():
        if letter not in right and TIME in dim:
            raise Refused(
                f"einsum '{equation}' sums over the frames of the clip ('{letter}')",
                "a mean over time at the end of the network, or attention by F.scaled_dot_product_attention(is_causal=True)",
            )
        if letter not in right and BATCH in dim:
            raise Refused(f"einsum '{equation}' sums over the rows of the batch ('{letter}')", "keep the batch among the results")
    return b.local(call, tuple(found[c] for c in right), lead(call.streams))


@rule("aten.embedding.default")
def embedding(b: Builder, call: Call) -> Stream:
    """A row of a table for every index."""
    weight, indices = call["weight"], call["indices"]
    if not isinstance(weight, Const) or not isinstance(indices, Stream):
        raise Refused("embedding of a table that depends on the stream", "a table of parameters")
    width = weight.value.shape[1]
    return b.local(call, (*indices.dims, (width,) if width != 1 else ()), indices)
