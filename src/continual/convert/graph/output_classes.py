"""Export of modules whose outputs are instances of dataclasses: `torch.export` accepts these once their class is registered."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from .export_regions import without_regions, without_vmap
from .undone import quiet, restored

UNKNOWN = "in output, which is not a known type"  # torch.export's words


def export(module: nn.Module, inputs: tuple[Any, ...], **options: Any) -> ExportedProgram:
    """``torch.export.export``, which registers the dataclasses among the outputs, and without regions that change nothing."""
    try:
        return without_vmap(without_regions(torch.export.export(module, inputs, **options)))
    except Exception as error:
        found = _classes_of(module, inputs) if UNKNOWN in str(error) else []
        if not found:
            raise
    for cls in found:
        with contextlib.suppress(ValueError):  # it is known by now
            torch.export.register_dataclass(cls)
    return without_vmap(without_regions(torch.export.export(module, inputs, **options)))


def _classes_of(module: nn.Module, inputs: Sequence[Any]) -> list[type]:
    """The dataclasses of a module's outputs, the inner ones too."""
    with restored(module), quiet(), torch.no_grad():
        return list(dict.fromkeys(_classes(module(*(x.clone() for x in inputs)))))


def _classes(outputs: Any) -> Iterator[type]:
    for leaf in tree_leaves(outputs):
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield type(leaf)
            for field in dataclasses.fields(leaf):
                yield from _classes(getattr(leaf, field.name))
