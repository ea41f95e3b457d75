"""What all backends share: the type of what they make, and the program as a graph of torch's operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.program.tracing import untraced
from ...errors import ExportError
from ..planning import Planned

CompiledCall = Callable[..., tuple[Any, Tensor, Tensor, list[Tensor]]]  # (x, clock, end, active, held) as Planned


def exported(planned: Planned, example: tuple[Any, ...], module: torch.nn.Module | None = None) -> torch.export.ExportedProgram:
    """The program as one graph of torch's operations, by ``torch.export``: a pure function, or what ``module`` makes of it."""
    with (
        warnings.catch_warnings(),
        torch.enable_grad(),
        torch.fx.traceback.preserve_node_meta(),
    ):  # with gradients nothing is kept
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module or planned, example, strict=False)
        except Exception as error:
            reason = untraced(error, type(planned.net).__name__)
            raise ExportError(f"co.compile: torch.export can't follow {reason}") from error
