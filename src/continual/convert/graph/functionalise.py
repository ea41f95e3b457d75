"""Replaces writes into tensors by new values: after ``x[:, 1:] = y`` later uses of ``x``, and of views of it, see another value."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.fx import Node as Fx

from .axes import TIME, where
from .export_regions import why_region
from .instructions import resolve
from .length_constants import LengthConstants
from .needed_nodes import asserts
from .op_call import Apply, OpCall, Refused, hint
from .shape_queries import ShapeQueries
from .values import (
    ITEM,
    Const,
    LengthDependent,
    NotStreamed,
    Size,
    Stream,
    SymScalar,
    Unknown,
    Value,
    as_int,
    as_sequence,
    computed,
)

SCATTERS = {
    "aten.slice.Tensor": "aten.slice_scatter.default", "aten.narrow.default": "aten.slice_scatter.default",
    "aten.select.int": "aten.select_scatter.default",
}  # fmt: skip
RESHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "_unsafe_view"}
PERMUTATIONS = {"permute", "transpose", "t", "mT", "numpy_T", "movedim", "moveaxis", "swapaxes", "swapdims", "adjoint"}
SPLITS = {"split", "split_with_sizes", "chunk", "unbind", "tensor_split", "unsafe_chunk", "unsafe_split"}
PASSED_ON = {"alias", "detach", "to", "lift_fresh", "lift_fresh_copy", "dropout", "feature_dropout", "alpha_dropout",
             "expand_as", "type_as"}  # fmt: skip
LAYOUT_ONLY = {
    "detach_",
    "squeeze_",
    "unsqueeze_",
    "transpose_",
    "t_",
    "swapaxes_",
    "swapdims_",
}  # in place, but no element changes


def functional(name: str) -> str:
    """The name of the out-of-place form of an operation that changes a layout in place."""
    return "aten.transpose.int" if name == "aten.transpose_.default" else name.replace("_.", ".", 1)


def op_of(node: Fx) -> str:
    """The name of a node's aten operation, without namespace and overload; ``""`` for others."""
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""


def writes(name: str) -> bool:
    """Whether an operation writes into its first argument."""
    op = name.split(".")[1] if name.startswith("aten.") else ""
    return op.endswith("_") and not op.endswith("__") and op not in LAYOUT_ONLY


def base_of(node: Fx) -> Fx | None:
    """The node of which a node is a view, if it is one."""
    if op_of(node) in PASSED_ON and node.args:
        return node.args[0] if isinstance(node.args[0], Fx) else None
    if node.target is operator.getitem:
        return _node(node.args[0])
    own = node.meta.get("val")
    first = own[0] if isinstance(own, (list, tuple)) and own else own
    for source in node.all_input_nodes if isinstance(first, Tensor) else ():
        other = source.meta.get("val")
        if isinstance(other, Tensor) and torch._C._is_alias_of(first, other):  # type: ignore[attr-defined]
            return source
    return None


class Functionaliser:
    """Evaluates nodes, some of which are overwritten later.

    Args:
        values: the values of nodes.
        shapes: answers questions on sizes.
        lengths: builds what depends on the clip's length.
        apply: evaluates an operation.
    """

    def __init__(self, values: dict[Fx, Value], shapes: ShapeQueries, lengths: LengthConstants, apply: Apply):
        self._values, self._shapes, self._lengths, self._apply = values, shapes, lengths, apply
        self._base: dict[Fx, Fx] = {}  # of a view
        self._writes: dict[Fx, int] = {}  # how often a tensor was written into
        self._seen_writes: dict[Fx, int] = {}  # as many writes are in a view's value

    def value(self, node: Fx) -> Value:
        """The current value of a node."""
        values = self._values
        if node in self._base and self._seen_writes.get(node, 0) < self._writes.get(self._root(node), 0):
            self._seen_writes[node] = self._writes[self._root(node)]
            values[node] = self.evaluate(node, again=True)
        return values[node]

    def _root(self, node: Fx) -> Fx:
        while node in self._base:
            node = self._base[node]
        return node

    def current(self, arg: Any) -> Value:
        """An argument, with current values."""
        if isinstance(arg, Fx):
            return self.value(arg)
        if isinstance(arg, (list, tuple)):
            return [self.current(a) for a in arg]
        return arg

    def bound(self, node: Fx, name: str = "") -> OpCall:
        """A node's operation with its arguments by name.

        Args:
            node: the node.
            name: of the operation, if not the node's.
        """
        schema = node.target._schema  # type: ignore[union-attr]
        args: dict[str, Value] = {}
        positional: list[str] = []
        for i, argument in enumerate(schema.arguments):
            if i < len(node.args):
                args[argument.name] = self.current(node.args[i])
                positional.append(argument.name)
            elif argument.name in node.kwargs:
                args[argument.name] = self.current(node.kwargs[argument.name])
            elif argument.has_default_value() and not argument.kwarg_only:  # for the rules
                args[argument.name] = argument.default_value
        return OpCall(node, name or str(node.target), args, tuple(positional))

    def evaluate(self, node: Fx, again: bool = False) -> Value:
        """The value of a node.

        Args:
            node: the node.
            again: it is a view, evaluated before its base was written into.
        """
        target, name = node.target, str(node.target)
        if target is operator.getitem:
            self._track_view(node, again)
            return _item(node, self.value(_node(node.args[0])))
        if not hasattr(target, "_schema"):
            return self._function(node)
        if name in ("aten.sym_size.int", "aten.sym_stride.int"):
            of, dim = self.current(node.args[0]), as_int(self.current(node.args[1]))
            return self._size(of, dim) if name == "aten.sym_size.int" else self._stride(of, dim, _node(node.args[0]))
        if asserts(name) or (node.users and all(asserts(str(user.target)) for user in node.users)):
            return None
        if writes(name):
            return self.value(self._base[node]) if again else self._write(node, name)
        self._track_view(node, again)
        return self._apply(self.bound(node, _out_of_place(node)))

    def _track_view(self, node: Fx, again: bool) -> None:
        """Record the base of a view."""
        if not again and (base := base_of(node)) is not None and (node.target is not operator.getitem or base in self._base):
            self._base[node] = base
            self._seen_writes[node] = self._writes.get(self._root(node), 0)

    def _size(self, of: Value, dim: int) -> Value:
        if isinstance(of, Unknown):
            return of.shape[dim] if -len(of.shape) <= dim < len(of.shape) else Unknown(())
        if not isinstance(of, (Stream, Const, LengthDependent)):
            raise TypeError(f"{type(of).__name__} has no size")
        return self._lengths.size(of, dim)

    def _stride(self, of: Value, dim: int, node: Fx) -> Value:
        """The stride of a dimension of a contiguous tensor, in elements."""
        x: Tensor = node.meta["val"]
        if not x.is_contiguous():
            raise Refused(
                "asks for the strides of a tensor whose elements do not lie in order", "x.contiguous() before x.stride()"
            )
        sizes = [Size.of(self._size(of, d), len(self._shapes.lengths)) for d in range(dim % x.ndim + 1, x.ndim)]
        return sizes[0].combine(lambda *s: math.prod(s), *sizes[1:]) if sizes else 1

    def _function(self, node: Fx) -> Value:
        if isinstance(node.target, HigherOrderOperator) and node.target.name() == "scan":
            arguments = {n: self.current(a) for n, a in zip(("init", "xs", "same"), node.args[1:4], strict=True)}
            return self._apply(OpCall(node, "higher_order.scan", arguments, tuple(arguments)))
        if (reason := why_region(node)) is not None:
            raise Refused(*reason)
        if isinstance(node.target, HigherOrderOperator):
            raise Refused(f"`{node.target}` is control flow, which torch.export keeps as it is", "plain operations on tensors")
        args = [self.current(a) for a in node.args]
        name = getattr(node.target, "__name__", str(node.target))
        if any(isinstance(a, Unknown) for a in args):
            return Unknown(())
        if (lost := next((a for a in args if isinstance(a, NotStreamed)), None)) is not None:
            return lost
        if callable(node.target) and any(isinstance(a, (Size, SymScalar, int, float)) for a in args) and not node.kwargs:
            return computed(node.target, *args)
        if name.startswith("return_types_"):  # a tuple with named fields
            return args[0]
        raise Refused(f"`{name}` is a function of Python that torch.export keeps as it is", "plain operations on tensors")

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write(self, node: Fx, name: str) -> Value:
        target = _node(node.args[0])
        if op_of(node) == "copy_" and self._view_key(target) == self._view_key(node.args[1]):
            self._base[node] = target  # x[:, 1:] += y ends with x[:, 1:] = x[:, 1:]
            return self.value(target)
        op, overload = name.split(".")[1][:-1], name.split(".")[2]
        new = self._apply(self.bound(node, f"aten.{op}.{overload}"))
        self._mutate(target, new, node)
        self._base[node] = target
        for known in (node, target):
            self._values[known] = new
            self._seen_writes[known] = self._writes[self._root(target)]
        return new

    def invalidate(self, node: Fx, result: Value) -> None:
        """A refused operation would have written into a tensor without time, so this tensor may have time now.

        Args:
            node: the refused operation.
            result: the placeholder of its result.
        """
        if not writes(str(node.target)) or not isinstance(node.args[0], Fx):
            return
        root, values = self._root(node.args[0]), self._values
        if isinstance(values[root], (LengthDependent, Const)) and (val := root.meta.get("val")) is not None:
            like = result if isinstance(result, Stream) else result.like if isinstance(result, Unknown) else None
            values[root] = Unknown(tuple(map(hint, val.shape)), like)
            self._writes[root] = self._writes.get(root, 0) + 1

    def _mutate(self, node: Fx, new: Value, by: Fx) -> None:
        """Replace the value of a view, and with it part of its base."""
        root, views = self._views(node)
        if root.op == "placeholder" and not isinstance(self._values[root], Stream):
            raise Refused(
                f"the module changes its own {root.name.removeprefix('b_').removeprefix('p_')} in forward, at each call",
                "keep such state out of the module: a stream has its own; or compute it of the frames, by cumsum or a recurrent layer",
            )
        base, strange = self.value(root), next((v for v in views if not _can_write(v)), None)
        if strange is None:
            changed = self._scattered(base, self._time_last(base, views), new, by)
        else:  # the result may be unused
            dims, dtype = (base.dims, base.dtype) if isinstance(base, (Stream, Const)) else ((), torch.get_default_dtype())
            reason = f"was written into through a view made by `{op_of(strange)}`"
            changed = NotStreamed(dims, dtype, reason, "write into slices, or use torch.cat and torch.where")
        self._values[root] = changed
        self._writes[root] = self._writes.get(root, 0) + 1

    def _views(self, node: Fx) -> tuple[Fx, list[Fx]]:
        """The base of a view, and the views between. Operations that pass a tensor on are left out."""
        found: list[Fx] = []
        while node in self._base:
            if not (writes(str(node.target)) or op_of(node) in PASSED_ON):
                found.append(node)
            node = self._base[node] if node.target is not operator.getitem else self._base.get(self._base[node], self._base[node])
        return node, found[::-1]

    def _view_key(self, node: object) -> object:
        """The key that nodes of the same view share."""
        if not isinstance(node, Fx):
            return None
        root, views = self._views(node)
        return root, [(v.target, v.args[1:], v.kwargs) for v in views] if views else [node]

    def _time_last(self, base: Value, views: list[Fx]) -> list[Fx]:
        """Slices of time after slices of other dimensions, whose bounds are then known."""
        if not isinstance(base, Stream) or any(str(v.target) != "aten.slice.Tensor" for v in views):
            return views
        time, dims = where(base.dims, TIME), [self.bound(v).dim(len(base.dims)) for v in views]
        if len(set(dims)) < len(dims):
            return views
        return [v for _, v in sorted(zip(dims, views, strict=True), key=lambda pair: pair[0] == time)]

    def _scattered(self, base: Value, views: list[Fx], new: Value, by: Fx) -> Value:
        """A tensor in which one view is replaced."""
        if not views:
            return new
        view, *rest = views
        if rest:
            new = self._scattered(self._viewed(base, view), rest, new, by)
        name, op, call = str(view.target), op_of(view), OpCall(by, "", {})
        if name in SCATTERS or view.target is operator.getitem:
            target, place = self._place(view)
            return self._apply(call.other(target, **{"self": base, "src": new} | place))
        if op in PERMUTATIONS or op.removesuffix("_") in PERMUTATIONS:
            order = _order(view)
            back = [order.index(i) for i in range(len(order))]
            return self._apply(call.other("aten.permute.default", self=new, dims=back))
        if not isinstance(base, (Stream, Const, LengthDependent)):
            raise TypeError(f"{type(base).__name__} has no view")
        rank = len(self._lengths.concrete(base).shape) if isinstance(base, LengthDependent) else len(base.dims)
        sizes = [self._lengths.size(base, i) for i in range(rank)]
        return self._apply(call.other("aten.view.default", self=new, size=sizes))

    def _viewed(self, base: Value, view: Fx) -> Value:
        """A view of a value."""
        maker = _node(view.args[0]) if view.target is operator.getitem else view
        call = self.bound(maker, _out_of_place(maker))
        found = self._apply(call.with_args(**{next(iter(call.args)): base}))
        return as_sequence(found)[as_int(self.current(view.args[1]))] if view.target is operator.getitem else found

    def _place(self, view: Fx) -> tuple[str, dict[str, Value]]:
        """The operation that writes into a view, and its arguments."""
        maker = _node(view.args[0]) if view.target is operator.getitem else view
        call = self.bound(maker)
        dim = call.get("dim", 0)
        if view.target is not operator.getitem:
            if "length" in call.args:
                end = self._shapes.sized(call["start"]).combine(operator.add, self._shapes.sized(call["length"]))
                return SCATTERS[str(view.target)], {"dim": dim, "start": call["start"], "end": end}
            return SCATTERS[str(view.target)], {n: v for n, v in call.args.items() if n != "self"}
        index = as_int(self.current(view.args[1]))
        if op_of(maker) == "unbind":
            return SCATTERS["aten.select.int"], {"dim": dim, "index": index}
        sizes = [int(v.shape[dim]) for v in maker.meta["val"][: index + 1]]
        return SCATTERS["aten.slice.Tensor"], {"dim": dim, "start": sum(sizes[:-1]), "end": sum(sizes)}


def _node(arg: object) -> Fx:
    """An argument that is a node."""
    if not isinstance(arg, Fx):
        raise TypeError(f"expected a node, got {type(arg).__name__}")
    return arg


def _item(node: Fx, results: Value) -> Value:
    """One of several results."""
    index = node.args[1]
    if isinstance(results, LengthDependent) and isinstance(index, int):
        return LengthDependent(node, ITEM, {"values": results, "index": index}, ("values", "index"))
    if isinstance(results, Unknown):
        return results
    if not isinstance(results, (list, tuple)) or not isinstance(index, int):
        raise TypeError(f"{type(results).__name__} has no items")
    return results[index]


def _out_of_place(node: Fx) -> str:
    """The name of a node's operation, out of place where it only changes a layout."""
    return functional(str(node.target)) if op_of(node) in LAYOUT_ONLY else str(node.target)


def _can_write(view: Fx) -> bool:
    """Whether writes into a view are understood."""
    if view.target is operator.getitem:
        return op_of(_node(view.args[0])) in SPLITS
    op = op_of(view).removesuffix("_")
    return str(view.target) in SCATTERS or op in RESHAPES or op in PERMUTATIONS


def _order(view: Fx) -> list[int]:
    """The order of the dimensions after a permutation."""
    marks = torch.empty(tuple(range(2, 2 + _node(view.args[0]).meta["val"].ndim)), device="meta")
    permuted: Any = resolve(_out_of_place(view))(marks, *view.args[1:], **view.kwargs)
    return [s - 2 for s in permuted.shape]
