"""Operations that write into tensors, as values: after ``x[:, 1:] = y`` every later use of ``x``, and of views of it, is another one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from torch.fx import Node as Fx

from .call import Refused
from .values import Clocked, Size, Unknown, Value, Varying, computed

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
            elif argument.has_default_value() and not argument.kwarg_only:
                args[argument.name] = argument.default_value
                positional.append(argument.name)
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
                return of.shape[dim]
            return self._size_of_clocked(of, dim) if isinstance(of, Clocked) else builder.size(of, dim)
        if _asserts(name) or (node.users and all(_asserts(str(user.target)) for user in node.users)):
            return None
        if writes(name):
            return self._write(node, name)
        if name in VIEWS and not again:
            self._of[node] = node.args[0]  # type: ignore[assignment]
            self._stamp[node] = self._written.get(self._root(node), 0)
        return builder.apply(node, *self.bound(node))

    def _size_of_clocked(self, of: Any, dim: int) -> Size:
        found = tuple(int(self._builder.concrete(of, i).shape[dim]) if i in (0, 3, 4) else 0 for i in range(5))
        rate = found[3] - found[0]  # a far example would be costly to compute
        lengths = self._builder.lengths
        return Size(
            (found[0], found[0] + rate * (lengths[1] - lengths[0]), found[0] + rate * (lengths[2] - lengths[0]), *found[3:])
        )

    def _function(self, node: Fx) -> Value:
        args = [self.given(a) for a in node.args]
        name = getattr(node.target, "__name__", str(node.target))
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
        builder, parent = self._builder, self._of.get(node)
        name = str(node.target)
        if parent is None:
            builder.values[node] = new
            self._written[node] = self._written.get(node, 0) + 1
            return
        if name in VIEWS and name not in SCATTERS and name not in ("aten.alias.default", "aten.detach.default"):
            raise Refused(
                f"writes into a view made by `{name.split('.')[1]}`", "write into slices, or use torch.cat and torch.where"
            )
        if name in SCATTERS:
            _, args, positional = self.bound(node)
            given = {"self": self.value(parent), "src": new} | {n: v for n, v in args.items() if n != "self"}
            order = ("self", "src", *(n for n in positional if n != "self"))
            new = builder.apply_named(by, SCATTERS[name], given, order)
        self._mutate(parent, new, by)
        builder.values[node] = self.evaluate(node, again=True)
        self._stamp[node] = self._written[self._root(node)]
