"""Lengths that a module's code uses as plain numbers: ``int(n)``, ``max(n, 1)``, ``if n % 4``.

An export follows the code as Python runs it, with a symbol for the length. Python's ``int``, ``min`` and ``max`` take the example's number
for the symbol, and the export is for lengths that have this number alone. torch can also follow the bytecode, where these functions are
operations on symbols. That takes longer, so it is done for modules that ask.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

TORCH = str(Path(str(torch.__file__)).parent)
CALLS_FORWARD = str(Path("nn", "modules", "module.py"))  # where the line of a module's own code is not known


def is_pinned(program: ExportedProgram) -> bool:
    """Whether an export with a symbolic length is valid only for some lengths, because the module's code used a plain number."""
    asked = [guard.expr for guard in _guards(program) if _of_user(guard)]
    bounded = any(constraint.upper < sys.maxsize // 2 for constraint in program.range_constraints.values())
    return any(expr.func.__name__ == "Equality" for expr in asked) or (bounded and bool(asked))


def asks(program: ExportedProgram) -> bool:
    """Whether the module's code used a plain number."""
    return any(_of_user(guard) for guard in _guards(program))


def reads_values(program: ExportedProgram) -> bool:
    """Whether an export reads numbers from tensors."""
    return any(str(n.target) in ("aten.item.default", "aten._local_scalar_dense.default") for n in program.graph.nodes)


def _guards(program: ExportedProgram) -> list[Any]:
    """The comparisons that were decided for the example, and the lines that made them."""
    modes = (getattr(n.meta.get("val"), "fake_mode", None) for n in program.graph.nodes if n.op == "placeholder")
    return next((list(m.shape_env.guards) for m in modes if m is not None and m.shape_env is not None), [])


def _of_user(guard: Any) -> bool:
    """Whether a comparison was made outside of torch's operations."""
    place = getattr(guard.sloc.framework_loc, "filename", "")
    return not place.startswith(TORCH) or place.endswith(CALLS_FORWARD)
