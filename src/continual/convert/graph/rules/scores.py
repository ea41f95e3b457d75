"""Attention that a module writes itself: queries times keys, masks, softmax, times values. It is followed, and never computed so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..axes import BATCH, TIME, Dims, joined_dims, regrouped
from ..helper_ops import HIDDEN
from ..instructions import Ref, Shape
from ..op_call import BANDED, CAUSAL, COMPARES, ON_SCORES, Call, Refused, hint
from ..values import Clocked, Const, Fragment, Scores, Size, Stream, Value, Varying
from ..walker import Builder
from .attention import DEPENDS, FULL, attend


def on_scores(*names: str) -> Callable[[Any], Any]:
    """Register what an operation does with scores, by its name without the overload."""

    def registered(fn: Any) -> Any:
        ON_SCORES.update(dict.fromkeys(names, fn))
        return fn

    return registered


def scores_of(b: Builder, call: Call, x: Value, y: Value) -> Scores | None:
    """The scores that ``x @ y`` is, if it is ``q @ k.transpose(-2, -1)``."""
    if not (isinstance(x, Stream) and isinstance(y, Stream)) or min(len(x.dims), len(y.dims)) < 3:
        return None
    if x.dims[-2] != (TIME,) or y.dims[-1] != (TIME,):
        return None
    if any(TIME in d for d in (*x.dims[:-2], x.dims[-1], *y.dims[:-1])) or BATCH in x.dims[-1]:
        return None
    rows = joined_dims([x.dims[:-2], y.dims[:-2]])
    return None if rows is None else Scores(x, permuted(b, call, y, [*range(len(y.dims) - 2), -1, -2]), rows, x.dtype)


def permuted(b: Builder, call: Call, x: Stream, order: list[int]) -> Stream:
    """Another order of the dimensions."""
    order = [i % len(x.dims) for i in order]
    if order == sorted(order):
        return x
    dims = tuple(x.dims[i] for i in order)
    return b.local(call, dims, x, target="aten.permute.default", args=(Ref(x.slot), order), kwargs={}, inputs=[x], dtype=x.dtype)


def fragment(call: Call, reason: str = "", remedy: str = "") -> Fragment:
    """What can't be followed, and may not be needed."""
    return Fragment((), torch.get_default_dtype(), reason or f"`{call.op}` {COMPARES}", remedy or BANDED)


def combined(b: Builder, call: Call, name: str, **args: Value) -> Const | Clocked:
    """An operation on masks."""
    if any(isinstance(v, Clocked) for v in args.values()):
        return Clocked(call.node, name, args, tuple(args))
    return b.const(name, list(args.values()))


def _pair(call: Call) -> tuple[Scores, Value]:
    """The scores, and the other operand."""
    values = [v for n, v in call.args.items() if n not in ("alpha", "rounding_mode", "beta")][:2]
    return (values[0], values[1]) if isinstance(values[0], Scores) else (values[1], values[0])


def _number(b: Builder, value: Value) -> float | None:
    """A number, also one in a tensor of one element that does not change."""
    if isinstance(value, (Size, Varying)):
        return float(b.number(value))
    if isinstance(value, Const) and value.value.numel() == 1 and not b.learned(value):
        return float(value.value)
    return float(value) if isinstance(value, (int, float)) else None


@on_scores("mul", "div")
def scaled(b: Builder, call: Call) -> Value:
    """A scale, a temperature, or a mask of zeros and ones."""
    s, other = _pair(call)
    if s.weights or isinstance(other, (Stream, Scores)) or call.get("rounding_mode"):
        return fragment(call)
    if call.op == "div" and not isinstance(call["self"], Scores):
        return fragment(call)
    number = _number(b, other)
    name = f"aten.{call.op}.Tensor"
    if number is not None:
        number = 1.0 / number if call.op == "div" else number
        bias = s.bias if s.bias is None else combined(b, call, "aten.mul.Scalar", self=s.bias, other=number)
        return replace(s, scale=s.scale * number, bias=bias)
    shape = b.for_example(other).value.shape
    if tuple(shape[-2:]) in ((), (1,), (1, 1)):  # for each head: it may as well be the queries that are scaled
        q = b.apply_named(call.node, name, {"self": s.query, "other": other}, ("self", "other"))
        bias = s.bias if s.bias is None else combined(b, call, name, self=s.bias, other=other)
        return replace(s, query=q, bias=bias)
    values = b.for_example(other).value
    if s.bias is not None or s.gate is not None or call.op == "div" or not bool(((values == 0) | (values == 1)).all()):
        return fragment(
            call, "multiplies the scores of attention by a number for each pair of frames", "a mask that is added: 0 or -inf"
        )
    return replace(s, gate=other)


@on_scores("add", "sub")
def biased(b: Builder, call: Call) -> Value:
    """A mask, or a bias for each distance."""
    s, other = _pair(call)
    if isinstance(other, Stream):
        return fragment(call, DEPENDS, CAUSAL)
    if s.weights or isinstance(other, Scores) or (call.op == "sub" and not isinstance(call["self"], Scores)):
        return fragment(call)
    if _number(b, other) is not None:
        return s
    alpha = float(call.get("alpha", 1)) * (-1 if call.op == "sub" else 1)
    return _plus(b, call, s, other if alpha == 1 else combined(b, call, "aten.mul.Scalar", self=other, other=alpha))


def _plus(b: Builder, call: Call, s: Scores, other: Const | Clocked) -> Scores:
    return replace(s, bias=other if s.bias is None else combined(b, call, "aten.add.Tensor", self=s.bias, other=other))


@on_scores("masked_fill", "where")
def hidden(b: Builder, call: Call) -> Value:
    """Scores of keys that are not to be seen."""
    if call.op == "where":
        s, filled = (call["self"], call["other"]) if isinstance(call["self"], Scores) else (call["other"], call["self"])
        mask, turned = call["condition"], s is call["self"]
    else:
        s, mask, filled, turned = call["self"], call["mask"], call["value"], False
    if not isinstance(s, Scores) or not isinstance(mask, (Const, Clocked)):
        return fragment(call, DEPENDS, CAUSAL)
    value = _number(b, filled)
    if isinstance(filled, (Const, Clocked)) and value is None:
        values = b.for_example(filled).value
        value = float(values.max()) if values.numel() else None
    mask = combined(b, call, "aten.logical_not.default", self=mask) if turned else mask
    if s.weights:
        wanted = b.for_example(mask).value.bool()
        known = b.for_example(s.bias).value <= HIDDEN if s.bias is not None else torch.zeros((), dtype=torch.bool)
        return s if value == 0 and not bool((wanted & ~known).any()) else fragment(call)
    if value is None or value > HIDDEN:
        return fragment(
            call, f"fills scores of attention with {value}, which does not hide them", "-inf, or torch.finfo(x.dtype).min"
        )
    mask = combined(b, call, "aten.to.dtype", self=mask, dtype=torch.bool)
    if s.bias is None:
        return replace(s, bias=combined(b, call, "aten.where.Scalar", condition=mask, self=-torch.inf, other=0.0))
    return replace(s, bias=combined(b, call, "aten.where.ScalarSelf", condition=mask, self=-torch.inf, other=s.bias))


@on_scores("softmax", "_softmax", "_safe_softmax")
def softmax(b: Builder, call: Call) -> Value:
    """The weights of the keys."""
    s: Scores = call["self"]
    rank = len(s.rows) + 2
    if s.weights or int(call["dim"]) % rank != rank - 1:
        return fragment(call, "softmax over time sees the whole clip", "softmax over the keys of causal attention")
    return replace(s, weights=True)


@on_scores("to", "_to_copy", "type_as", "clone", "contiguous", "alias", "detach", "dropout", "nan_to_num", "float")
def handed_on(b: Builder, call: Call) -> Value:
    """What changes nothing that matters here."""
    if call.op == "dropout" and call.get("train"):
        raise Refused("dropout is active although the module is in eval mode", "pass training=self.training")
    return call.get("self", call.get("input"))


@on_scores("transpose", "permute", "mT", "swapaxes", "swapdims")
def turned(b: Builder, call: Call) -> Value:
    """Keys and queries change places."""
    s: Scores = call["self"]
    rank = len(s.rows) + 2
    chosen = call.get("dims") if call.op == "permute" else [v for n, v in call.args.items() if n != "self"]
    order = [int(d) % rank for d in chosen or []]
    swaps = (
        order == [*range(rank - 2), rank - 1, rank - 2] if call.op == "permute" else sorted(order) in ([], [rank - 2, rank - 1])
    )
    if not swaps:
        return fragment(call)
    if s.weights:
        return replace(s, turned=not s.turned)
    bias, gate = (v if v is None else combined(b, call, "aten.transpose.int", self=v, dim0=-1, dim1=-2) for v in (s.bias, s.gate))
    return replace(s, query=s.key, key=s.query, bias=bias, gate=gate)


@on_scores("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "flatten", "unflatten")
def shaped(b: Builder, call: Call) -> Value:
    """Rows and heads are merged, or taken apart."""
    s: Scores = call["self"]
    shape = [hint(n) for n in call.node.meta["val"].shape]
    size = b.length(s.query.wire).now
    rows = regrouped(s.rows, shape[:-2], b.batches[0], size) if shape[-2:] == [size, size] else None
    bias, gate = (v if v is None else _bare(b, call, v) for v in (s.bias, s.gate))
    if rows is None or (bias is None) != (s.bias is None) or (gate is None) != (s.gate is None):
        return fragment(call)
    q, k = (_with_rows(b, call, v, s.rows, rows) for v in (s.query, s.key))
    return replace(s, query=q, key=k, rows=rows, bias=bias, gate=gate)


def _bare(b: Builder, call: Call, mask: Const | Clocked) -> Const | Clocked | None:
    """A mask without rows and heads; ``None`` if it has some."""
    shape = b.for_example(mask).value.shape
    if any(n != 1 for n in shape[:-2]):
        return None
    for _ in shape[:-2]:
        mask = combined(b, call, "aten.select.int", self=mask, dim=0, index=0)
    return mask


def _with_rows(b: Builder, call: Call, s: Stream, before: Dims, rows: Dims) -> Stream:
    """The same with rows and heads in another layout."""
    for target, dims in (("aten.expand.default", (*before, *s.dims[-2:])), ("aten.reshape.default", (*rows, *s.dims[-2:]))):
        if dims != s.dims:
            s = b.local(call, dims, s, target=target, args=(Ref(s.slot), Shape(dims)), kwargs={}, inputs=[s], dtype=s.dtype)
    return s


@on_scores("matmul", "bmm")
def product(b: Builder, call: Call) -> Value:
    """The weighted values: attention."""
    x, y = list(call.args.values())[:2]
    if isinstance(x, Scores) and isinstance(y, Stream) and not x.turned:
        return folded(b, call, x, y)
    if isinstance(y, Scores) and isinstance(x, Stream) and y.turned:  # (…, C, T) @ weights.mT
        turned_back = [*range(len(x.dims) - 2), -1, -2]
        return permuted(b, call, folded(b, call, y, permuted(b, call, x, turned_back)), turned_back)
    return fragment(call)


def folded(b: Builder, call: Call, s: Scores, v: Stream) -> Stream:
    """Attention with these weights and values ``(…, T, E)``."""
    if not s.weights or len(v.dims) < 3 or v.dims[-2] != (TIME,):
        raise Refused(f"`{call.op}` {COMPARES}", BANDED)
    mask = s.bias
    if s.gate is not None:
        mask = _gated(b, call, s)
    if mask is None:
        raise Refused(FULL, CAUSAL)
    return attend(b, call, (s.query, s.key, v), mask, s.scale)


def _gated(b: Builder, call: Call, s: Scores) -> Const | Clocked:
    """The mask of scores that were multiplied by zeros and ones, to which then a large negative number was added."""
    gate, bias = b.for_example(s.gate).value, None if s.bias is None else b.for_example(s.bias).value
    closed = gate == 0
    if bias is None or bool(((bias > HIDDEN) & closed).any()):
        raise Refused("scores of attention are multiplied by 0, which does not hide them", "a mask that is added: 0 or -inf")
    return combined(b, call, "aten.where.ScalarSelf", condition=combined(b, call, "aten.eq.Scalar", self=s.gate, other=0),
                    self=-torch.inf, other=s.bias)  # fmt: skip


@on_scores("baddbmm")
def added(b: Builder, call: Call) -> Value:
    """Weighted values and something else."""
    return fragment(call)


def masked_product(b: Builder, call: Call, s: Scores, mask: Value) -> Value:
    """``baddbmm(mask, q, k.mT)``: scores and a mask."""
    alpha, beta = float(call.get("alpha", 1)), float(call.get("beta", 1))
    s = replace(s, scale=s.scale * alpha)
    if not isinstance(mask, (Const, Clocked)):
        return fragment(call, DEPENDS, CAUSAL)
    return (
        s if beta == 0 else _plus(b, call, s, mask if beta == 1 else combined(b, call, "aten.mul.Scalar", self=mask, other=beta))
    )


# ---- einsum ---------------------------------------------------------------------------------------------------------


def einsum_scores(b: Builder, call: Call, terms: list[str], right: str, operands: list[Value]) -> Scores | None:
    """The scores that an einsum gives: ``"bihd,bjhd->bhij"``."""
    if len(terms) != 2 or not all(isinstance(v, Stream) for v in operands) or len(right) < 3:
        return None
    times = [next((c for c, d in zip(t, v.dims, strict=True) if d == (TIME,)), "") for t, v in zip(terms, operands, strict=True)]
    if "" in times or times[0] == times[1] or set(right[-2:]) != set(times):
        return None
    rows = right[:-2]
    found = {}
    for term, time, x in zip(terms, times, operands, strict=True):
        summed = [c for c in terms[0] if c in terms[1] and c not in right]
        if sorted(term) != sorted([*rows, time, *summed]):
            return None
        y = permuted(b, call, x, [term.index(c) for c in (*rows, time, *summed)])
        found[time] = _flat(b, call, y, len(rows) + 1)
    q, k = found[right[-2]], found[right[-1]]
    return Scores(q, k, q.dims[:-2], q.dtype) if joined_dims([q.dims[:-2], k.dims[:-2]]) else None


def _flat(b: Builder, call: Call, x: Stream, start: int) -> Stream:
    """All dimensions from one on as one."""
    if len(x.dims) == start + 1:
        return x
    dims = (*x.dims[:start], tuple(f for d in x.dims[start:] for f in d))
    return b.local(
        call, dims, x, target="aten.reshape.default", args=(Ref(x.slot), Shape(dims)), kwargs={}, inputs=[x], dtype=x.dtype
    )


@on_scores("einsum")
def einsum(b: Builder, call: Call) -> Value:
    """Attention by einsum: ``"bhij,bjhd->bihd"``."""
    terms, _, right = str(call["equation"]).replace(" ", "").partition("->")
    operands = call["tensors"]
    if "." in terms or not right or len(operands) != 2 or sum(isinstance(v, Scores) for v in operands) != 1:
        return fragment(call)
    at = 0 if isinstance(operands[0], Scores) else 1
    s, v, names, other = operands[at], operands[1 - at], terms.split(",")[at], terms.split(",")[1 - at]
    query, key = (names[-1], names[-2]) if s.turned else (names[-2], names[-1])
    rest = [c for c in other if c not in names]
    if not isinstance(v, Stream) or key in right or sorted(other) != sorted([*names[:-2], key, *rest]):
        return fragment(call)
    y = permuted(b, call, v, [other.index(c) for c in (*names[:-2], key, *rest)])
    sizes: Dims = y.dims[len(names) - 1 :]
    y = folded(b, call, s, _flat(b, call, y, len(names) - 1))
    dims = (*y.dims[:-1], *sizes)
    y = y if dims == y.dims else b.local(
        call, dims, y, target="aten.reshape.default", args=(Ref(y.slot), Shape(dims)), kwargs={}, inputs=[y])  # fmt: skip
    letters = [*names[:-2], query, *rest]
    return permuted(b, call, y, [letters.index(c) for c in right])
