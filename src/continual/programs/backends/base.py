"""What all backends share: the type of a compiled call, and the program as a graph of torch operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.program.tracing import untraced
from ...errors import ExportError
from ..planning import Planned

CompiledCall = Callable[..., tuple[Any, Tensor, Tensor, list[Tensor]]]  # the arguments and results of `Planned`


def exported(planned: Planned, example: tuple[Any, ...], module: torch.nn.Module | None = None) -> torch.export.ExportedProgram:
    """A program, or ``module``, which wraps it, as one graph of torch operations.

    Raises:
        ExportError: torch can't trace it.
    """
    with (
        warnings.catch_warnings(),
        torch.enable_grad(),
        torch.fx.traceback.preserve_node_meta(),
    ):  # torch.export keeps no tensors for gradients
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module or planned, example, strict=False)
        except Exception as error:
            reason = untraced(error, type(planned.net).__name__)
            raise ExportError(f"co.compile: torch.export can't follow {reason}") from error
