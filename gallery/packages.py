"""Packages of other people: whether they are there, and how to import those that need help beside a CPU build of torch."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch

_DECLARED: list[Any] = []  # operators are gone with the object that declared them
NEED_TORCHVISION = ("torchvision", "timm", "pytorchvideo", "tsai", "segmentation_models_pytorch", "monai", "transformers")


def missing(package: str) -> bool:
    """Whether a package is not installed. Nothing is imported."""
    return bool(package) and importlib.util.find_spec(package.partition(".")[0]) is None


@cache
def load(name: str) -> ModuleType:
    """A module of a package.

    torchvision's wheel is a CUDA build: beside a CPU torch, two operators must be declared before it, or what needs it, is imported.
    """
    if name.partition(".")[0] in NEED_TORCHVISION and not _DECLARED and not missing("torchvision"):
        _declare()
    return importlib.import_module(name)


def _declare() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)


def cls(name: str) -> Any:
    """A class or function by its full name: ``"braindecode.models.EEGNet"``."""
    module, _, own = name.rpartition(".")
    return getattr(load(module), own)
