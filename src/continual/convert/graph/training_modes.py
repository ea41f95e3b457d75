"""Detects modules that differ in training mode. The export captures eval mode."""

from __future__ import annotations

import dis
import linecache
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

from torch import nn

_MODAL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
_NOT_COMPUTING = frozenset({"train", "eval", "extra_repr"})  # methods that compute no output


def modal(module: nn.Module) -> str:
    """How a module differs in training mode, with the line of code; empty if it does not."""
    if isinstance(module, _MODAL):
        return "computes something else in training"
    if isinstance(module, nn.RNNBase):
        return (
            f"drops between its layers in training (dropout={module.dropout})" if module.dropout and module.num_layers > 1 else ""
        )
    if isinstance(module, nn.MultiheadAttention):
        return f"drops attention in training (dropout={module.dropout})" if module.dropout else ""
    for cls in type(module).__mro__:
        if cls is nn.Module or cls.__module__.startswith("torch.nn.modules."):
            break
        for name, function in vars(cls).items():
            code = getattr(function, "__code__", None)
            if name not in _NOT_COMPUTING and not name.startswith("__") and code is not None:
                for line in _lines(code):
                    return f"asks whether it is training ({line})"
    return ""


def _lines(code: CodeType) -> Iterator[str]:
    """The lines of code that read ``training``, in inner functions too."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval == "training":
            line: Any = instruction.positions.lineno if instruction.positions else None
            text = linecache.getline(code.co_filename, line).strip() if line else ""
            yield f"{Path(code.co_filename).name}:{line}: `{text}`"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant)
