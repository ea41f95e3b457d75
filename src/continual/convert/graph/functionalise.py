"""Operations that write into tensors, as values: after ``x[:, 1:] = y`` every later use of ``x``, and of views of it, is another one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.fx import Node as Fx

from .axes import TIME, where
from .instructions import resolve
from .op_call import Refused, hint
from .values import ITEM, Clocked, Const, Fragment, Size, Stream, Unknown, Value, Varying, computed

if TYPE_CHECKING:
    from .walker import Builder

SCATTERS = {
    "aten.slice.Tensor": "aten.slice_scatter.default", "aten.narrow.default": "aten.slice_scatter.default",
    "aten.select.int": "aten.select_scatter.default",
}  # fmt: skip
SHAPED = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "_unsafe_view"}
TURNED = {"permute", "transpose", "t", "mT", "numpy_T", "movedim", "moveaxis", "swapaxes", "swapdims", "adjoint"}
PARTS = {
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "tensor_split",
    "unsafe_chunk",
    "unsafe_split",
    "hsplit",
    "vsplit",
    "dsplit",
}
HANDED_ON = {"alias", "detach", "to", "lift_fresh", "lift_fresh_copy", "dropout", "feature_dropout", "alpha_dropout",
             "expand_as", "type_as"}  # fmt: skip
LAYOUT = {"detach_", "squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_"}  # they write into no element


def functional(name: str) -> str:
    """The name of an operation that makes a tensor of its own, where this one changes the layout of a given one."""
    return "aten.transpose.int" if name == "aten.transpose_.default" else name.replace("_.", ".", 1)


def op_of(node: Fx) -> str:
    """The name of a node's operation, without the library's."""
    return str(node.target).split(".")[1] if str(node.target).startswith("aten.") else ""


def writes(name: str) -> bool:
    """Whether an operation writes into its first argument."""
    op = name.split(".")[1] if name.startswith("aten.") else ""
    return op.endswith("_") and not op.endswith("__") and op not in LAYOUT


def asserts(name: str) -> bool:
    """Whether an operation only looks whether something is as it should be."""
    return "_assert" in name or name.startswith("aten.sym_constrain")


def viewed(node: Fx) -> Fx | None:
    """The node whose elements a node looks at, if it makes none of its own."""
    if op_of(node) in HANDED_ON and node.args:
        return node.args[0] if isinstance(node.args[0], Fx) else None
    if node.target is operator.getitem:
        return node.args[0]  # type: ignore[return-value]
    own = node.meta.get("val")
    first = own[0] if isinstance(own, (list, tuple)) and own else own
    for given in node.all_input_nodes if isinstance(first, Tensor) else ():
        other = given.meta.get("val")
        if isinstance(other, Tensor) and torch._C._is_alias_of(first, other):  # type: ignore[attr-defined]
            return given
    return None


class Mutations:
    """The values of nodes, of which some are written into later."""

    def __init__(self, builder: Builder):
        self._builder = builder
        self._of: dict[Fx, Fx] = {}  # a view, and the node that it is a view of
        self._written: dict[Fx, int] = {}  # how often a tensor was written into
        self._stamp: dict[Fx, int] = {}

    def value(self, node: Fx) -> Value:
        """The value of a node now."""
        values = self._builder.values
        if node in self._of and self._stamp.get(node, 0) < self._written.get(self._root(node), 0):
            self._stamp[node] = self._written[self._root(node)]
            values[node] = self.evaluate(node, again=True)
        return values[node]

    def _root(self, node: Fx) -> Fx:
        while node in self._of:
            node = self._of[node]
        return node

    def given(self, arg: Any) -> Value:
        """An argument with the values of now."""
        if isinstance(arg, Fx):
            return self.value(arg)
        if isinstance(arg, (list, tuple)):
            return [self.given(a) for a in arg]
        return arg

    def bound(self, node: Fx) -> tuple[Any, dict[str, Value], tuple[str, ...]]:
        """A node's operation, its arguments by name, and which of them are positional."""
        schema = node.target._schema  # type: ignore[union-attr]
        args: dict[str, Value] = {}
        positional: list[str] = []
        for i, argument in enumerate(schema.arguments):
            if i < len(node.args):
                args[argument.name] = self.given(node.args[i])
                positional.append(argument.name)
            elif argument.name in node.kwargs:
                args[argument.name] = self.given(node.kwargs[argument.name])
            elif argument.has_default_value() and not argument.kwarg_only:  # for the rules; the operation knows it itself
                args[argument.name] = argument.default_value
        return node.target, args, tuple(positional)

    def evaluate(self, node: Fx, again: bool = False) -> Value:
        """The value of an operation, new or after what it is a view of was written into."""
        builder, target, name = self._builder, node.target, str(node.target)
        if target is operator.getitem:
            self._look(node, again)
            many = self.value(node.args[0])  # type: ignore[arg-type]
            if isinstance(many, Clocked):  # one of several results that depend on the clip's length alone
                return Clocked(node, ITEM, {"values": many, "index": node.args[1]}, ("values", "index"))
            return many if isinstance(many, Unknown) else many[node.args[1]]
        if not hasattr(target, "_schema"):
            return self._function(node)
        if name == "aten.sym_size.int":
            of, dim = self.given(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
            if isinstance(of, Unknown):
                return of.shape[dim] if -len(of.shape) <= dim < len(of.shape) else Unknown(())
            return builder.size_of_clocked(of, dim) if isinstance(of, Clocked) else builder.size(of, dim)
        if asserts(name) or (node.users and all(asserts(str(user.target)) for user in node.users)):
            return None
        if writes(name):
            return self.value(self._of[node]) if again else self._write(node, name)
        self._look(node, again)
        _, args, positional = self.bound(node)
        return builder.apply_named(node, functional(name) if op_of(node) in LAYOUT else name, args, positional)

    def _look(self, node: Fx, again: bool) -> None:
        """Note what a view looks at."""
        if not again and (other := viewed(node)) is not None and (node.target is not operator.getitem or other in self._of):
            self._of[node] = other
            self._stamp[node] = self._written.get(self._root(node), 0)

    def _function(self, node: Fx) -> Value:
        if isinstance(node.target, HigherOrderOperator):
            raise Refused(f"`{node.target}` is control flow, which torch.export keeps as it is", "plain operations on tensors")
        args = [self.given(a) for a in node.args]
        name = getattr(node.target, "__name__", str(node.target))
        if any(isinstance(a, Unknown) for a in args):
            return Unknown(())
        if (unknown := next((a for a in args if isinstance(a, Fragment)), None)) is not None:
            return unknown
        if any(isinstance(a, (Size, Varying, int, float, bool)) for a in args) and not node.kwargs:
            return computed(node.target, *args)  # type: ignore[arg-type]
        if name.startswith("return_types_"):  # a tuple whose parts have names
            return args[0]
        raise Refused(f"`{name}` is a function of Python that torch.export keeps as it is", "plain operations on tensors")

    # ---- writing ----------------------------------------------------------------------------------------------------

    def _write(self, node: Fx, name: str) -> Value:
        target: Fx = node.args[0]  # type: ignore[assignment]
        if op_of(node) == "copy_" and self._looks_at(target) == self._looks_at(
            node.args[1]
        ):  # x[:, 1:] += y ends with x[:, 1:] = x[:, 1:]
            self._of[node] = target
            return self.value(target)
        _, args, positional = self.bound(node)
        op, overload = name.split(".")[1][:-1], name.split(".")[2]
        new = self._builder.apply_named(node, f"aten.{op}.{overload}", args, positional)
        self._mutate(target, new, node)
        self._of[node] = target
        for known in (node, target):
            self._builder.values[known] = new
            self._stamp[known] = self._written[self._root(target)]
        return new

    def spoil(self, node: Fx, value: Value) -> None:
        """What a refused operation was to write into, if it had no time before: it may have now."""
        if not writes(str(node.target)) or not isinstance(node.args[0], Fx):
            return
        root, values = self._root(node.args[0]), self._builder.values
        if isinstance(values[root], (Clocked, Const)) and (val := root.meta.get("val")) is not None:
            like = value if isinstance(value, Stream) else getattr(value, "like", None)
            values[root] = Unknown(tuple(map(hint, val.shape)), like)
            self._written[root] = self._written.get(root, 0) + 1

    def _mutate(self, node: Fx, new: Value, by: Fx) -> None:
        """Give a tensor, and what it is a view of, another value."""
        root, views = self._views(node)
        if root.op == "placeholder" and not isinstance(self._builder.values[root], Stream):
            raise Refused(
                f"the module changes its own {root.name.removeprefix('b_').removeprefix('p_')} in forward, at each call",
                "keep such state out of the module: a stream has its own; or compute it of the frames, by cumsum or a recurrent layer",
            )
        base, strange = self.value(root), next((v for v in views if not _known(v)), None)
        if strange is None:
            changed = self._scattered(base, self._in_order(base, views), new, by)
        else:  # nobody may need it: then it does not matter
            dims, dtype = getattr(base, "dims", ()), getattr(base, "dtype", torch.get_default_dtype())
            changed = Fragment(dims, dtype, f"was written into through a view made by `{op_of(strange)}`",
                               "write into slices, or use torch.cat and torch.where")  # fmt: skip
        self._builder.values[root] = changed
        self._written[root] = self._written.get(root, 0) + 1

    def _views(self, node: Fx) -> tuple[Fx, list[Fx]]:
        """The tensor at which a node looks, and the views through which it does. What only hands a tensor on is left out."""
        found: list[Fx] = []
        while node in self._of:
            if not (writes(str(node.target)) or op_of(node) in HANDED_ON):
                found.append(node)
            node = self._of[node] if node.target is not operator.getitem else self._of.get(self._of[node], self._of[node])
        return node, found[::-1]

    def _looks_at(self, node: Any) -> Any:
        """What a node looks at, to be compared with what others do."""
        if not isinstance(node, Fx):
            return None
        root, views = self._views(node)
        return root, [(v.target, v.args[1:], v.kwargs) for v in views] if views else [node]

    def _in_order(self, base: Value, views: list[Fx]) -> list[Fx]:
        """Slices of time after those of other dimensions, so that it is known what is written in these."""
        if not isinstance(base, Stream) or any(str(v.target) != "aten.slice.Tensor" for v in views):
            return views
        time, dims = where(base.dims, TIME), [int(self.bound(v)[1].get("dim", 0)) % len(base.dims) for v in views]
        if len(set(dims)) < len(dims):
            return views
        return [v for v, d in zip(views, dims, strict=True) if d != time] + [
            v for v, d in zip(views, dims, strict=True) if d == time
        ]

    def _scattered(self, base: Value, views: list[Fx], new: Value, by: Fx) -> Value:
        """A tensor in which a view has another value."""
        if not views:
            return new
        view, *rest = views
        if rest:
            new = self._scattered(self._seen(base, view), rest, new, by)
        apply, name, op = self._builder.apply_named, str(view.target), op_of(view)
        if name in SCATTERS or view.target is operator.getitem:
            target, where_ = self._place(view, base)
            return apply(by, target, {"self": base, "src": new} | where_, ("self", "src", *where_))
        if op in TURNED or op.removesuffix("_") in TURNED:
            order = _order(view)
            back = [order.index(i) for i in range(len(order))]
            return apply(by, "aten.permute.default", {"self": new, "dims": back}, ("self", "dims"))
        rank = len(base.dims) if hasattr(base, "dims") else len(self._builder.concrete(base).shape)
        sizes = [self._builder.size_of(base, i) for i in range(rank)]
        return apply(by, "aten.view.default", {"self": new, "size": sizes}, ("self", "size"))

    def _seen(self, base: Value, view: Fx) -> Value:
        """What a view shows of a tensor."""
        maker: Fx = view.args[0] if view.target is operator.getitem else view  # type: ignore[assignment]
        _, args, positional = self.bound(maker)
        first = next(iter(args))
        name = functional(str(maker.target)) if op_of(maker) in LAYOUT else str(maker.target)
        found = self._builder.apply_named(maker, name, args | {first: base}, positional)
        return found[view.args[1]] if view.target is operator.getitem else found

    def _place(self, view: Fx, base: Value) -> tuple[str, dict[str, Value]]:
        """The operation that writes where a view looks, and its arguments."""
        maker: Fx = view.args[0] if view.target is operator.getitem else view  # type: ignore[assignment]
        _, args, _ = self.bound(maker)
        dim = args.get("dim", 0)
        if view.target is not operator.getitem:
            if "length" in args:
                end = Size.of(args["start"], len(self._builder.lengths)).combine(operator.add, args["length"])
                return SCATTERS[str(view.target)], {"dim": dim, "start": args["start"], "end": end}
            return SCATTERS[str(view.target)], {n: v for n, v in args.items() if n != "self"}
        index = int(view.args[1])  # type: ignore[arg-type]
        if op_of(maker) == "unbind":
            return SCATTERS["aten.select.int"], {"dim": dim, "index": index}
        sizes = [int(v.shape[dim]) for v in maker.meta["val"][: index + 1]]
        return SCATTERS["aten.slice.Tensor"], {"dim": dim, "start": sum(sizes[:-1]), "end": sum(sizes)}


def _known(view: Fx) -> bool:
    """Whether it is known what it means to write into a view."""
    if view.target is operator.getitem:
        return op_of(view.args[0]) in PARTS - {"hsplit", "vsplit", "dsplit"}  # type: ignore[arg-type]
    op = op_of(view).removesuffix("_")
    return str(view.target) in SCATTERS or op in SHAPED or op in TURNED


def _order(view: Fx) -> list[int]:
    """The order in which a permutation brings dimensions."""
    source: Fx = view.args[0]  # type: ignore[assignment]
    marks = torch.empty(tuple(range(2, 2 + source.meta["val"].ndim)), device="meta")
    name = str(view.target)
    turned = resolve(functional(name) if op_of(view) in LAYOUT else name)(marks, *view.args[1:], **view.kwargs)
    return [s - 2 for s in turned.shape]
