"""Simplifies an exported graph: frames are taken only by ``select``, and joined only by ``stack`` and ``cat``."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx import Node as Fx

from ..filled_ops import EVERY, PLAIN
from ..needed_nodes import asserts
from ..op_evaluator import RANDOM

A = torch.ops.aten
SAME = ("aten.alias.default", "aten.lift_fresh_copy.default", "aten.detach.default", "aten.clone.default")
CONVERSIONS = ("to", "_to_copy", "type_as", "contiguous")  # a loop that converts a buffer exports as a chain of them
ANY_LAYOUT = {
    A.view.default: A.reshape.default,
    A._unsafe_view.default: A.reshape.default,
}  # copies that a view needs are left out
WIDE = 8  # frames of a slice that are taken one by one
FEWEST = 3  # slices or frames at equal distances that are those of a loop
WINDOW = "continual_window"  # marks frames of one iteration that were a slice
PACED = "continual_paced"  # marks a tensor that was made with one frame for each iteration
REST = 9223372036854775807  # the end of a slice that goes to the end


def name_of(node: Any) -> str:
    """The operation of a node; ``""`` for nodes that call none."""
    return str(node.target) if isinstance(node, Fx) and node.op == "call_function" else ""


def short(node: Any) -> str:
    """The operation without namespace and overload."""
    name = name_of(node)
    return name.split(".")[1] if name.count(".") > 1 else name


def sizes(node: Any) -> tuple[Any, ...]:
    """The shape of what a node gives; ``()`` if that is not a tensor."""
    val = node.meta.get("val") if isinstance(node, Fx) else None
    return tuple(val.shape) if isinstance(val, Tensor) else ()


def elements_of(node: Fx) -> list[Any]:
    """What ``cat`` or ``stack`` puts together."""
    found: Any = node.args[0]
    return list(found)


def argument(node: Fx, index: int, name: str, default: Any = None) -> Any:
    """An argument of an operation, by its place or its name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def dim_of(node: Fx, index: int = 1) -> int:
    """The dimension that an operation works on, counted from the start."""
    rank = len(sizes(node)) if short(node) == "stack" else len(sizes(node.args[0]))
    if short(node) == "cat":
        rank = len(sizes(node))
    return int(argument(node, index, "dim", 0)) % max(1, rank)


def put(graph: Graph, before: Fx, target: Any, args: tuple[Any, ...], like: Fx) -> Fx:
    """A new node, with its value."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta = {k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")}

    def value(a: Any) -> Any:
        if isinstance(a, Fx):
            return a.meta["val"]
        return [value(b) for b in a] if isinstance(a, (list, tuple)) else a

    first = next(a for a in node.all_input_nodes if isinstance(a.meta.get("val"), Tensor))
    with first.meta["val"].fake_mode:
        node.meta["val"] = target(*value(args))
    return node


def replace(old: Fx, new: Fx) -> None:
    """Use another node."""
    old.replace_all_uses_with(new)


def leave_out(graph: Graph) -> None:
    """Remove assertions and identity operations, and split multiple results, in place."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if asserts(name_of(node)) and not node.users:
            graph.erase_node(node)
        elif not _passed(node):
            _parts(graph, node)
    dead(graph)


def simplify(graph: Graph) -> None:
    """Simplify a functional graph in place, behind :func:`leave_out`, without changing what it computes."""
    for node in list(graph.nodes):
        _narrow(graph, node)
    _fold_selects(graph)
    _writes(graph)
    _wide_slices(graph)
    _fold_selects(graph)
    dead(graph)
    _merge_equal(graph)


def _passed(node: Fx) -> bool:
    """Remove an operation that returns its input."""
    source: Any = node.args[0] if node.args else None
    name = name_of(node)
    if (
        name in SAME
        or (short(node) == "slice" and sizes(node) == sizes(source))
        or (short(node) in CONVERSIONS and _alike(node, source))
    ):
        replace(node, source)
    elif name in ("aten.copy.default", "aten.slice_scatter.default") and _alike(node, node.args[1]):
        replace(node, node.args[1])  # type: ignore[arg-type]
    elif short(node) == short(source) == "permute" and _undoes(node, source):
        replace(node, source.args[0])
    else:
        return False
    return True


def _undoes(node: Fx, before: Fx) -> bool:
    """Whether a permutation undoes the one before it."""
    order: Any = node.args[1]
    first: Any = before.args[1]
    return [first[i] % len(first) for i in order] == list(range(len(first)))


def _alike(a: Any, b: Any) -> bool:
    if not isinstance(b, Fx) or sizes(a) != sizes(b):
        return False
    own, other = a.meta["val"], b.meta["val"]
    return own.dtype == other.dtype and own.device == other.device


def _parts(graph: Graph, node: Fx) -> None:
    """Frames out of several at once, by ``unbind`` or ``split``, as those of ``select`` and ``slice``."""
    if node.target is not operator.getitem or not isinstance(maker := node.args[0], Fx):
        return
    kind, index = short(maker), int(node.args[1])  # type: ignore[arg-type]
    if kind == "unbind":
        replace(node, put(graph, node, A.select.int, (maker.args[0], dim_of(maker), index), node))
    elif kind in ("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split"):
        dim = int(argument(maker, 2, "dim", 0)) % len(sizes(maker.args[0]))
        widths = [v.shape[dim] for v in maker.meta["val"]]
        if all(isinstance(w, int) for w in widths):
            start = sum(widths[:index])
            replace(node, put(graph, node, A.slice.Tensor, (maker.args[0], dim, start, start + widths[index]), node))


def range_of(node: Fx) -> tuple[int, int, int] | None:
    """Dimension, start and width of a slice without steps whose sizes are numbers."""
    dim = dim_of(node)
    size, width = sizes(node.args[0])[dim], sizes(node)[dim]
    start, step = argument(node, 2, "start", 0) or 0, argument(node, 4, "step", 1)
    if step != 1 or not all(isinstance(v, int) for v in (size, width, start)):
        return None
    return dim, max(0, start + size) if start < 0 else min(start, size), width


def _narrow(graph: Graph, node: Fx) -> None:
    """A slice of one frame as a frame with a dimension of size 1, and the same for writes."""
    if name_of(node) == "aten.slice.Tensor" and (found := range_of(node)) is not None and found[2] == 1:
        dim, start, _ = found
        frame = put(graph, node, A.select.int, (node.args[0], dim, start), node)
        replace(node, put(graph, node, A.unsqueeze.default, (frame, dim), node))
    elif name_of(node) == "aten.slice_scatter.default":
        dim, value = int(argument(node, 2, "dim", 0)) % len(sizes(node)), node.args[1]
        start = argument(node, 3, "start", 0) or 0
        if sizes(value)[dim] == 1 and isinstance(sizes(node)[dim], int) and isinstance(start, int):
            frame = put(graph, node, A.select.int, (value, dim, 0), node)
            replace(node, put(graph, node, A.select_scatter.default, (node.args[0], frame, dim, start % sizes(node)[dim]), node))


def _fold_selects(graph: Graph) -> None:
    for node in list(graph.nodes):
        if name_of(node) == "aten.select.int":
            _fold_select(graph, node)


def _fold_select(graph: Graph, node: Fx) -> None:
    """Take a frame from its source, through slices, joins and writes."""
    dim = dim_of(node)
    if not isinstance(node.args[0], Fx) or not isinstance(sizes(node.args[0])[dim], int) or not isinstance(node.args[2], int):
        return
    source, index = node.args[0], node.args[2] % sizes(node.args[0])[dim]
    found: Fx | None = None
    while found is None:
        kind = short(source)
        if kind == "slice" and dim_of(source) == dim and (at := range_of(source)) is not None:
            source, index = source.args[0], at[1] + index  # type: ignore[assignment]
        elif kind == "select_scatter" and int(source.args[2]) % len(sizes(source)) == dim:  # type: ignore[arg-type]
            if int(source.args[3]) % sizes(source)[dim] == index:  # type: ignore[arg-type]
                found = source.args[1]  # type: ignore[assignment]
            else:
                source = source.args[0]  # type: ignore[assignment]
        elif kind == "stack" and dim_of(source) == dim:
            found = source.args[0][index]  # type: ignore[index, assignment]
        elif kind == "unsqueeze" and int(source.args[1]) % len(sizes(source)) == dim:  # type: ignore[arg-type]
            found = source.args[0]  # type: ignore[assignment]
        elif kind == "cat" and dim_of(source) == dim and all(sizes(q)[dim] == 1 for q in source.args[0]):  # type: ignore[union-attr]
            source, index = source.args[0][index], 0  # type: ignore[index, assignment]
        else:
            break
    if found is None and short(source) in PLAIN:
        found = _smaller(graph, node, source, dim)
    if found is None:
        node.args = (source, dim, 0 if short(source) in EVERY else index)
    else:
        replace(node, found)


def _smaller(graph: Graph, node: Fx, source: Fx, dim: int) -> Fx:
    """A frame of a tensor of one value: a smaller such tensor."""
    size: Any = source.args[0]
    shape = [n for i, n in enumerate(size) if i != dim]
    with graph.inserting_before(node):
        made = graph.call_function(source.target, (shape, *source.args[1:]), dict(source.kwargs))  # type: ignore[arg-type]
    made.meta = dict(node.meta)
    return made


def _writes(graph: Graph) -> None:
    """Frames that are written into a tensor one after another, as frames that are joined."""
    for node in reversed(list(graph.nodes)):
        if name_of(node) != "aten.select_scatter.default":
            continue
        dim = int(node.args[2]) % len(sizes(node))
        size = sizes(node)[dim]
        if not isinstance(size, int) or (node.users and all(_writes_into(u, node, dim) for u in node.users)):
            continue
        got: dict[int, Any] = {}
        base: Any = node
        while name_of(base) == "aten.select_scatter.default" and int(base.args[2]) % len(sizes(base)) == dim:
            got.setdefault(int(base.args[3]) % size, base.args[1])
            base = base.args[0]
        if len(got) < 3:
            continue
        for i in range(size):
            if i not in got:
                got[i] = put(graph, node, A.select.int, (base, dim, 0 if short(base) in EVERY else i), node)
        replace(node, put(graph, node, A.stack.default, ([got[i] for i in range(size)], dim), node))
    dead(graph)


def _writes_into(user: Fx, node: Fx, dim: int) -> bool:
    return (
        name_of(user) == "aten.select_scatter.default" and user.args[0] is node and int(user.args[2]) % len(sizes(user)) == dim  # type: ignore[arg-type]
    )


def _wide_slices(graph: Graph) -> None:
    """Slices of several frames that begin one frame after another, or of what was written, as frames that are joined."""
    groups: dict[tuple[Any, int, int], list[tuple[Fx, int]]] = {}
    for node in graph.nodes:
        if name_of(node) == "aten.slice.Tensor" and (found := range_of(node)) is not None and 1 < found[2] <= WIDE:
            groups.setdefault((node.args[0], found[0], found[2]), []).append((node, found[1]))
    regular = {(s, dim) for (s, dim, _), own in groups.items() if is_regular(start for _, start in own)}
    for (source, dim, width), members in groups.items():
        if (source, dim) not in regular and not _is_written(source, dim):
            continue
        for node, start in members:  # the first ones may have fewer frames
            frames = [put(graph, node, A.select.int, (source, dim, start + i), node) for i in range(width)]
            made = put(graph, node, A.stack.default, (frames, dim), node)
            made.meta[WINDOW] = not _is_written(source, dim)
            replace(node, made)


def is_regular(numbers: Iterable[int], distance: int = 1) -> bool:
    """Whether some numbers, enough for a loop, follow each other at a distance; each may come several times."""
    found = sorted(set(numbers))
    return len(found) >= FEWEST and all(b - a == distance for a, b in itertools.pairwise(found))


def earliest(graph: Graph, nodes: Iterable[Fx]) -> Fx:
    """The first of some nodes in a graph."""
    wanted = set(nodes)
    return next(n for n in graph.nodes if n in wanted)


def _is_written(source: Any, dim: int) -> bool:
    """Whether frames were put into a tensor one by one, or it has one value."""
    if short(source) == "select_scatter":
        return int(source.args[2]) % len(sizes(source)) == dim
    return short(source) in EVERY or (short(source) == "stack" and dim_of(source) == dim)


def dead(graph: Graph) -> None:
    """Remove unused operations."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)


def _merge_equal(graph: Graph) -> None:
    """Compute equal operations once."""
    seen: dict[Any, Fx] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and short(node) not in RANDOM and "dropout" not in short(node):
            key = (name_of(node), frozen(node.args), frozen(sorted(node.kwargs.items())))
            if key in seen:
                replace(node, seen[key])
                graph.erase_node(node)
            else:
                seen[key] = node


def frozen(value: Any) -> Any:
    """A value that can be compared and hashed."""
    if isinstance(value, Fx):
        return ("node", value.name)
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v) for v in value)
    return (type(value).__name__, str(value))


def merge_constants(graph: Graph, constants: Iterable[tuple[str, Tensor]]) -> None:
    """Use one of several constants of the code that are equal."""
    places = {n.target: n for n in graph.nodes if n.op == "placeholder"}
    kept: list[tuple[Fx, Tensor]] = []
    for name, value in constants:
        node = places.get(name)
        if node is None or value.numel() > 4096:
            continue
        same = next((k for k, v in kept if v.dtype == value.dtype and v.shape == value.shape and torch.equal(v, value)), None)
        if same is None:
            kept.append((node, value))
        else:
            replace(node, same)
            graph.erase_node(node)


def flat(values: Sequence[Any]) -> list[Any]:
    """All leaves in nested lists."""
    return [w for v in values for w in (flat(v) if isinstance(v, (list, tuple)) else [v])]
