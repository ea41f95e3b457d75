"""The backends of step programs, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...core.program.context import INLINE_ROWS, Target
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
TARGETS = {
    "eager": Target(),
    "inductor": Target(compiler_fuses=True, inline_rows=INLINE_ROWS),
    "aot": Target(compiler_fuses=True, inline_rows=INLINE_ROWS),
    "cudagraph": Target(),
    "onnxruntime": Target(annotate=True, real=True),
    "openvino": Target(annotate=True, int32=True, real=True),
}
BACKENDS = tuple(MAKERS)
