"""What runs a step program, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..planning import Planned
from .base import CompiledCall
from .onnxruntime import onnxruntime
from .openvino import openvino
from .torch import aot, cudagraph, eager, inductor

MAKERS: dict[str, Callable[[Planned, tuple[Any, ...]], CompiledCall]] = {
    "eager": eager,
    "inductor": inductor,
    "aot": aot,
    "cudagraph": cudagraph,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
BACKENDS = tuple(MAKERS)
RUNTIMES = ("onnxruntime", "openvino")  # of other packages, which name an operation that they lack by its module
