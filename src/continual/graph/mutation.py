"""Operations that write into tensors, as values: after ``x[:, 1:] = y`` every later use of ``x``, and of views of it, is another one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from torch.fx import Node as Fx

from .call import Refused
from .layout import TIME, where
from .values import Clocked, Size, Stream, Unknown, Value, Varying, computed

if TYPE_CHECKING:
    from .builder import Builder

VIEWS = {
    "aten.slice.Tensor", "aten.select.int", "aten.narrow.default", "aten.transpose.int", "aten.permute.default", "aten.view.default",
    "aten.unsqueeze.default", "aten.squeeze.dim", "aten.squeeze.default", "aten.expand.default", "aten.alias.default", "aten.t.default",
    "aten.detach.default", "aten.detach_.default", "aten.view_as.default", "aten.expand_as.default", "aten.movedim.int",
}  # fmt: skip
SCATTERS = {"aten.slice.Tensor": "aten.slice_scatter.default", "aten.select.int": "aten.select_scatter.default"}


def writes(name: str) -> bool:
    """Whether an operation writes into its first argument."""
    op = name.split(".")[1] if name.startswith("aten.") else ""
    return op.endswith("_") and not op.endswith("__") and op != "detach_"


def _asserts(name: str) -> bool:
    """Whether an operation only looks whether something is as it should be."""
    return "_assert" in name or name.startswith("aten.sym_constrain")


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
            many = self.value(node.args[0])  # type: ignore[arg-type]
            return many if isinstance(many, Unknown) else many[node.args[1]]
        if not hasattr(target, "_schema"):
            return self._function(node)
        if name == "aten.sym_size.int":
            of, dim = self.given(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
            if isinstance(of, Unknown):
                return of.shape[dim] if -len(of.shape) <= dim < len(of.shape) else Unknown(())
            return self.size_of_clocked(of, dim) if isinstance(of, Clocked) else builder.size(of, dim)
        if _asserts(name) or (node.users and all(_asserts(str(user.target)) for user in node.users)):
            return None
        if writes(name):
            return self.value(self._of[node]) if again else self._write(node, name)
        if name in VIEWS and not again:
            self._of[node] = node.args[0]  # type: ignore[assignment]
            self._stamp[node] = self._written.get(self._root(node), 0)
        return builder.apply(node, *self.bound(node))

    def size_of_clocked(self, of: Any, dim: int) -> Size:
        """The size of a dimension of what depends on the clip's length alone."""
        found = tuple(int(self._builder.concrete(of, i).shape[dim]) if i in (0, 3, 4) else 0 for i in range(5))
        rate = found[3] - found[0]  # a far example would be costly to compute
        lengths = self._builder.lengths
        return Size(
            (found[0], found[0] + rate * (lengths[1] - lengths[0]), found[0] + rate * (lengths[2] - lengths[0]), *found[3:])
        )

    def _function(self, node: Fx) -> Value:
        args = [self.given(a) for a in node.args]
        name = getattr(node.target, "__name__", str(node.target))
        if any(isinstance(a, Unknown) for a in args):
            return Unknown(())
        if any(isinstance(a, (Size, Varying, int, float, bool)) for a in args) and not node.kwargs:
            return computed(node.target, *args)  # type: ignore[arg-type]
        if name.startswith("return_types_"):  # a tuple whose parts have names
            return args[0]
        raise Refused(f"`{name}` is control flow or a function that torch.export keeps as it is", "plain operations on tensors")

    def _write(self, node: Fx, name: str) -> Value:
        builder = self._builder
        target: Fx = node.args[0]  # type: ignore[assignment]
        _, args, positional = self.bound(node)
        op, overload = name.split(".")[1][:-1], name.split(".")[2]
        new = builder.apply_named(node, f"aten.{op}.{overload}", args, positional)
        self._mutate(target, new, node)
        self._of[node] = target
        self._stamp[node] = self._written[self._root(target)]
        return new

    def _mutate(self, node: Fx, new: Value, by: Fx) -> None:
        """Give a tensor, and what it is a view of, another value."""
        root, views = self._views(node)
        if root.op == "placeholder" and not isinstance(self._builder.values[root], Stream):
            raise Refused(
                f"the module changes its own {root.name.removeprefix('b_').removeprefix('p_')} in forward, at each call",
                "keep such state out of the module: a stream has its own; or compute it of the frames, by cumsum or a recurrent layer",
            )
        base = self.value(root)
        self._builder.values[root] = self._scattered(base, self._in_order(base, views), new, by)
        self._written[root] = self._written.get(root, 0) + 1

    def _views(self, node: Fx) -> tuple[Fx, list[Fx]]:
        """The tensor at which a node looks, and the views through which it does. What only hands a tensor on is left out."""
        found: list[Fx] = []
        while node in self._of:
            name = str(node.target)
            if name in SCATTERS:
                found.append(node)
            elif name in VIEWS and name not in ("aten.alias.default", "aten.detach.default"):
                raise Refused(
                    f"writes into a view made by `{name.split('.')[1]}`", "write into slices, or use torch.cat and torch.where"
                )
            node = self._of[node]
        return node, found[::-1]

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
        name = str(view.target)
        _, args, positional = self.bound(view)
        others = {n: v for n, v in args.items() if n != "self"}
        if rest:
            inner = self._builder.apply_named(view, name, {"self": base} | others, positional)
            new = self._scattered(inner, rest, new, by)
        order = ("self", "src", *(n for n in positional if n != "self"))
        return self._builder.apply_named(by, SCATTERS[name], {"self": base, "src": new} | others, order)
