"""Rewrites operations that a format lacks, or computes differently from torch, in terms of operations that it has."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram

from . import volumes
from .average_pools import averages

_ATEN: Any = torch.ops.aten
_AVERAGES = (_ATEN.avg_pool1d.default, _ATEN.avg_pool2d.default, _ATEN.avg_pool3d.default)
_MAXIMA = (_ATEN.adaptive_max_pool1d.default, _ATEN.adaptive_max_pool2d.default, _ATEN.adaptive_max_pool3d.default)


def _with_options(dims: int, *args: Any, **options: Any) -> Any:
    """An average pool with options, rewritten; one without options stays as it is."""
    return averages(dims, *args, **options) if _has_options(_AVERAGES[dims - 1], args, options) else NotImplemented


def _has_options(op: Any, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    arguments = {a.name: v for a, v in zip(op._schema.arguments, args, strict=False)} | options
    return bool(arguments.get("ceil_mode")) or arguments.get("divisor_override") is not None


_PLAIN: dict[Any, Callable[..., Any]] = {op: functools.partial(_with_options, n) for n, op in enumerate(_AVERAGES, 1)}
_ADAPTIVE: dict[Any, Callable[..., Any]] = {
    _ATEN.adaptive_avg_pool3d.default: volumes.adaptive_average_pool,
    **dict.fromkeys(_MAXIMA, volumes.adaptive_maximum_pool),
}
TABLES: dict[str, dict[Any, Callable[..., Any]]] = {
    "onnx": _PLAIN | _ADAPTIVE,
    "openvino": _PLAIN | _ADAPTIVE,
    "executorch": _ADAPTIVE
    | {
        _ATEN.conv3d.default: volumes.convolution,
        _ATEN.conv3d.padding: volumes.convolution,
        _ATEN.conv_transpose3d.input: volumes.transposed_convolution,
        _ATEN.avg_pool3d.default: volumes.average_pool,
        _ATEN.max_pool3d.default: volumes.maximum_pool,
    },
}


def rewritten(program: ExportedProgram, format: str) -> ExportedProgram:
    """The same function in operations of a format; the program itself if it needs no rewrite."""
    table = dict(TABLES[format])
    for node in program.graph.nodes:
        if node.target in _MAXIMA and any(user.args[1] and user.users for user in node.users):
            table.pop(node.target, None)  # the rewrites compute no indices of maxima
    if not any(_replaced(node, table) for node in program.graph.nodes):
        return program
    with warnings.catch_warnings(), torch.fx.traceback.preserve_node_meta():
        warnings.simplefilter("ignore")
        return program.run_decompositions(table)


def _replaced(node: torch.fx.Node, table: dict[Any, Callable[..., Any]]) -> bool:
    if node.target not in table:
        return False
    return table[node.target] is not _PLAIN.get(node.target) or _has_options(node.target, node.args, node.kwargs)
