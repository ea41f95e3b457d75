"""Sums over the frames of the clip, each with a weight of its own: linear maps of a window of the clip's length."""

from __future__ import annotations

import math

from ..axes import BATCH, TIME, Dim, Dims, joined_dims, where
from ..instructions import Ref, Shape
from ..op_call import Call, Misfit, Refused, rule
from ..time_layers import WindowLinear
from ..values import Const, Stream, Value
from ..walker import Builder
from .elementwise import lead
from .reduce import settled
from .scores import einsum_scores


def over_window(b: Builder, call: Call, x: Stream, weight: Const, bias: Const | None) -> Stream:
    """A linear map of the clip's frames (and of what is merged with them): of a sliding window of as many."""
    size, merged, batch = b.length(x.wire).now, x.dims[-1], where(x.dims, BATCH)
    others = [d for d in x.dims[:-1] if BATCH not in d and d != ()]
    if merged != (TIME,) and others:
        raise Misfit("`linear` maps frames that are merged with several other dimensions", "flatten (B, C, T, …) to (B, C·T·…)")
    if batch is None:
        raise Refused("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    flat = merged != (TIME,) or len(x.dims) == 2
    layer = WindowLinear(size, flat, time_first=merged[0] == TIME and len(merged) > 1)
    features = (weight.value.shape[0],) if weight.value.shape[0] != 1 else ()
    out = (*((*d, TIME) if i == batch else d for i, d in enumerate(x.dims[:-1])), features)
    given = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    b.window_note(call, f"maps the {size} frames of a clip; in a stream those of a sliding window")
    y = b.layer(call, x, layer, out, weights=given, label=f"linear over {size} frames", windows=True)
    return b.reduced(settled(b, call, y), call, f"`{call.op}`")


def over_frames(b: Builder, call: Call, x: Stream | Const, y: Stream | Const) -> Stream | None:
    """``x @ y`` where one is the clip and the other a constant for its frames; ``None`` where that is not so."""
    if isinstance(x, Stream) and isinstance(y, Const) and x.dims[-1] == (TIME,) and len(y.dims) < 3:
        weight = b.const("aten.t.default", [y]) if len(y.dims) == 2 else b.const("aten.unsqueeze.default", [y, 0])
        out = over_window(b, call, x, weight, None)
        return out if len(y.dims) == 2 else _without(b, call, out, len(out.dims) - 1)
    if isinstance(x, Const) and isinstance(y, Stream) and len(y.dims) > 1 and y.dims[-2] == (TIME,) and len(x.dims) < 3:
        rank = len(y.dims)
        weight = x if len(x.dims) == 2 else b.const("aten.unsqueeze.default", [x, 0])
        out = over_window(b, call, _turned(b, call, y, [*range(rank - 2), rank - 1, rank - 2]), weight, None)
        out = _turned(b, call, out, [*range(rank - 2), rank - 1, rank - 2])
        return out if len(x.dims) == 2 else _without(b, call, out, rank - 2)
    return None


def _turned(b: Builder, call: Call, x: Stream, order: list[int]) -> Stream:
    dims = tuple(x.dims[i] for i in order)
    return b.local(call, dims, x, target="aten.permute.default", args=(Ref(x.slot), order), kwargs={}, inputs=[x])


def _without(b: Builder, call: Call, x: Stream, dim: int) -> Stream:
    dims = tuple(d for i, d in enumerate(x.dims) if i != dim)
    return b.local(call, dims, x, target="aten.squeeze.dims", args=(Ref(x.slot), [dim]), kwargs={}, inputs=[x])


@rule("aten.einsum.default")
def einsum(b: Builder, call: Call) -> Value:
    """Sums over other axes than time, with time and the batch among those that stay."""
    operands: list[Value] = call["tensors"]
    equation, terms, right = _named(str(call["equation"]).replace(" ", ""), [len(v.dims) for v in operands])
    if (scores := einsum_scores(b, call, terms, right, operands)) is not None:
        return scores
    if (weighted := _weighted(b, call, terms, right, operands)) is not None:
        return weighted
    found: dict[str, Dim] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, dim in zip(term, operand.dims, strict=True):
            known = found.get(letter, ())
            joined = joined_dims([(known,), (dim,)])  # channels that were flattened are as many as the weight's
            if joined is None:
                if TIME in known or TIME in dim:
                    raise Refused(
                        f"einsum '{equation}' multiplies frames with a constant of one clip length", "a constant without time"
                    )
                raise Misfit(f"einsum '{equation}' joins axes '{letter}' that do not fit", "reshape one of the operands")
            (found[letter],) = joined
    for letter, dim in found.items():
        if letter not in right and TIME in dim:
            raise Refused(
                f"einsum '{equation}' sums over the frames of the clip ('{letter}')",
                "a mean over time at the end of the network, or attention by F.scaled_dot_product_attention(is_causal=True)",
            )
        if letter not in right and BATCH in dim:
            raise Refused(f"einsum '{equation}' sums over the rows of the batch ('{letter}')", "keep the batch among the results")
    return b.local(call, tuple(found[c] for c in right), lead(call.streams))


def _named(equation: str, ranks: list[int]) -> tuple[str, list[str], str]:
    """The equation, its terms and its result with a letter for each axis, those of an ellipsis too."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "..." in equation:
        letters = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in equation]
        counts = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True) if "..." in t]
        hidden = "".join(letters[: max(counts, default=0)])
        rests = [
            hidden[len(hidden) - (rank - len(t.replace("...", ""))) :] if "..." in t else ""
            for t, rank in zip(terms, ranks, strict=True)
        ]
        if not arrow:  # what is hidden comes first
            right = "..." + _implied("".join(terms).replace(".", ""))
        terms = [t.replace("...", rest) for t, rest in zip(terms, rests, strict=True)]
        return equation, terms, right.replace("...", hidden)
    return equation, terms, right if arrow else _implied("".join(terms))


def _implied(letters: str) -> str:
    """The result where none is written: letters that occur once, in order."""
    return "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


def _weighted(b: Builder, call: Call, terms: list[str], right: str, operands: list[Value]) -> Stream | None:
    """A product of the clip with a constant for its frames, ``"bct,tk->bck"``."""
    if len(terms) != 2 or sum(isinstance(v, Stream) for v in operands) != 1:
        return None
    own = 0 if isinstance(operands[0], Stream) else 1
    x, term, const, other = operands[own], terms[own], operands[1 - own], terms[1 - own]
    at = next((i for i, d in enumerate(x.dims) if d == (TIME,)), None)
    if at is None or not isinstance(const, Const):
        return None
    letter, new = term[at], [c for c in other if c != term[at]]
    if letter in right or letter not in other or len(set(term)) < len(term) or len(set(other)) < len(other):
        return None
    if any(c in term or c not in right for c in new) or any(c not in right for c in term if c != letter):
        return None
    kept = [i for i in range(len(term)) if i != at]
    weight = b.const("aten.permute.default", [const, [other.index(c) for c in (*new, letter)]])
    sizes = [const.value.shape[other.index(c)] for c in new]
    weight = b.const("aten.reshape.default", [weight, [math.prod(sizes), -1]])
    y = over_window(b, call, _turned(b, call, x, [*kept, at]), weight, None)
    dims: Dims = (*y.dims[:-1], *((s,) if s != 1 else () for s in sizes))
    y = b.local(call, dims, y, target="aten.reshape.default", args=(Ref(y.slot), Shape(dims)), kwargs={}, inputs=[y])
    letters = [term[i] for i in kept] + new
    return _turned(b, call, y, [letters.index(c) for c in right])
