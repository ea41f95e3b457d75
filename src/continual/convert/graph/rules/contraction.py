"""Sums over the frames of the clip, each with its own weight: linear maps of a window of the clip's length."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..axes import BATCH, TIME, Dim, dim_of, fixed, joined_dims, where
from ..op_call import Misfit, OpCall, Refused, RowsMixed, as_tensor
from ..rule_context import RuleContext, rule
from ..time_layers import WindowLinear
from ..values import Const, Stream, TensorValue, Value
from .elementwise import lead
from .reduce import rows_first
from .score_einsum import einsum_scores
from .time_filters import filtered_by_einsum


def over_window(ctx: RuleContext, call: OpCall, x: Stream, weight: Const, bias: Const | None) -> Stream:
    """A linear map of the clip's frames and what is merged with them: in a stream, of a sliding window of that length."""
    size, merged, batch = ctx.shapes.length(x.wire).now, x.dims[-1], where(x.dims, BATCH)
    others = [d for d in x.dims[:-1] if BATCH not in d and d != ()]
    if merged != (TIME,) and others:
        raise Misfit("`linear` maps frames that are merged with several other dimensions", "flatten (B, C, T, …) to (B, C·T·…)")
    if batch is None:
        raise RowsMixed("`linear` mixes the rows of the batch", "the batch in a dimension of its own")
    flat = merged != (TIME,) or len(x.dims) == 2
    layer = WindowLinear(size, flat, time_first=merged[0] == TIME and len(merged) > 1)
    out = (*((*d, TIME) if i == batch else d for i, d in enumerate(x.dims[:-1])), dim_of(weight.value.shape[0]))
    weights = {"weight": weight} | ({"bias": bias} if bias is not None else {})
    ctx.draft.window_note(call, f"maps the {size} frames of a clip; in a stream those of a sliding window")
    y = ctx.emit.layer(call, x, layer, out, weights=weights, label=f"linear over {size} frames", windows=True)
    return ctx.origin.reduced(rows_first(ctx, call, y), call, f"`{call.op}`")


def over_frames(ctx: RuleContext, call: OpCall, x: TensorValue, y: TensorValue) -> Stream | None:
    """``x @ y`` of the clip and a constant for its frames; ``None`` for other products."""
    emit = ctx.emit
    if isinstance(x, Stream) and isinstance(y, Const) and x.dims[-1] == (TIME,) and len(y.dims) < 3:
        weight = emit.const("aten.t.default", [y]) if len(y.dims) == 2 else emit.const("aten.unsqueeze.default", [y, 0])
        out = over_window(ctx, call, x, weight, None)
        return out if len(y.dims) == 2 else emit.squeeze(call, out, [len(out.dims) - 1])
    if isinstance(x, Const) and isinstance(y, Stream) and len(y.dims) > 1 and y.dims[-2] == (TIME,) and len(x.dims) < 3:
        rank = len(y.dims)
        swapped = [*range(rank - 2), rank - 1, rank - 2]
        weight = x if len(x.dims) == 2 else emit.const("aten.unsqueeze.default", [x, 0])
        out = emit.permute(call, over_window(ctx, call, emit.permute(call, y, swapped), weight, None), swapped)
        return out if len(x.dims) == 2 else emit.squeeze(call, out, [rank - 2])
    return None


@rule("aten.einsum.default", keeps_length_dependent=True)
def einsum(ctx: RuleContext, call: OpCall) -> Value:
    """Sums over other dimensions than time and batch; sums over time with weights for all pairs of frames."""
    if (filtered := filtered_by_einsum(ctx, call)) is not None:
        return filtered
    call = ctx.lengths.materialise(call)
    operands = [as_tensor(v) for v in call.sequence("tensors")]
    equation, terms, right = _with_letters(str(call["equation"]).replace(" ", ""), [len(v.dims) for v in operands])
    if (scores := einsum_scores(ctx, call, terms, right, operands)) is not None:
        return scores
    if (weighted := _weighted(ctx, call, terms, right, operands)) is not None:
        return weighted
    found: dict[str, Dim] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, dim in zip(term, operand.dims, strict=True):
            known = found.get(letter, ())
            joined = joined_dims([(known,), (dim,)])  # flattened channels are as many as those of the weight
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
            raise RowsMixed(
                f"einsum '{equation}' sums over the rows of the batch ('{letter}')", "keep the batch among the results"
            )
    return ctx.emit.local(call, tuple(found[c] for c in right), lead(call.streams))


def _with_letters(equation: str, ranks: list[int]) -> tuple[str, list[str], str]:
    """The equation, its terms and its result, with a letter for each axis of an ellipsis."""
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "..." not in equation:
        return equation, terms, right if arrow else _implied("".join(terms))
    letters = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in equation]
    hidden_ranks = [rank - len(t.replace("...", "")) if "..." in t else 0 for t, rank in zip(terms, ranks, strict=True)]
    hidden = "".join(letters[: max(hidden_ranks, default=0)])
    rests = [hidden[len(hidden) - rank :] for rank in hidden_ranks]
    if not arrow:  # the axes of an ellipsis come first
        right = "..." + _implied("".join(terms).replace(".", ""))
    return equation, [t.replace("...", rest) for t, rest in zip(terms, rests, strict=True)], right.replace("...", hidden)


def _implied(letters: str) -> str:
    """The result where the equation states none: the letters that occur once, in order."""
    return "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


def _weighted(ctx: RuleContext, call: OpCall, terms: list[str], right: str, operands: Sequence[TensorValue]) -> Stream | None:
    """A product of the clip with a constant for its frames, ``"bct,tk->bck"``."""
    if len(terms) != 2 or sum(isinstance(v, Stream) for v in operands) != 1:
        return None
    own = 0 if isinstance(operands[0], Stream) else 1
    x, term, const, other = operands[own], terms[own], operands[1 - own], terms[1 - own]
    at = next((i for i, d in enumerate(x.dims) if d == (TIME,)), None)
    if at is None or not isinstance(const, Const) or not isinstance(x, Stream):
        return None
    letter, new = term[at], [c for c in other if c != term[at]]
    if letter in right or letter not in other or len(set(term)) < len(term) or len(set(other)) < len(other):
        return None
    if any(c in term or c not in right for c in new) or any(c not in right for c in term if c != letter):
        return None
    emit, kept = ctx.emit, [i for i in range(len(term)) if i != at]
    sizes = [const.value.shape[other.index(c)] for c in new]
    weight = emit.const("aten.permute.default", [const, [other.index(c) for c in (*new, letter)]])
    weight = emit.const("aten.reshape.default", [weight, [math.prod(sizes), -1]])
    y = over_window(ctx, call, emit.permute(call, x, [*kept, at]), weight, None)
    y = emit.reshape(call, y, (*y.dims[:-1], *fixed(sizes)))
    letters = [term[i] for i in kept] + new
    return emit.permute(call, y, [letters.index(c) for c in right])
