"""torchvision beside a CPU torch. No tests are in this file."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch

_DECLARED: list[Any] = []  # operators are gone with the object that declared them


@cache
def torchvision() -> Any:
    """``torchvision``, ``None`` if it is not installed. Its wheel is a CUDA build: beside a CPU torch two operators must be declared
    to import it, and whatever imports it (ptflops does)."""
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    return importlib.import_module("torchvision")
