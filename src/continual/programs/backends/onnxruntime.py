"""onnxruntime: conversion of torch graphs to ONNX, sessions, and step programs that run in a session."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.optional_packages import package
from ...errors import ExportError
from ..diagnose import diagnose
from ..planning import Planned
from ..rewrites.passes import rewritten
from .base import CompiledCall
from .runtime import Bind, Runtime, check_runtime

_NUMPY = {"float32": "float32", "float64": "float64", "float16": "float16", "int64": "int64", "int32": "int32", "int16": "int16"}
_NUMPY |= {"int8": "int8", "uint8": "uint8", "bool": "bool_"}


def onnxruntime(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Run a program in onnxruntime, with as many threads as torch has."""
    name = type(planned.net).__name__
    check_runtime("onnxruntime", example)
    ort = package("onnxruntime", "onnx", "co.compile")
    package("onnxscript", "onnx", "co.compile")

    def open(program: torch.export.ExportedProgram) -> Bind:
        with tempfile.TemporaryDirectory(prefix="continual-") as folder:
            path = Path(folder, "program.onnx")
            converted(program, "co.compile", name).save(str(path))
            session = opened(ort, path, torch.get_num_threads())
        names = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]

        def bind(inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
            bound_inputs, made = (zip(n, tensors, strict=True) for n, tensors in zip(names, (inputs, outputs), strict=True))
            binding = bound(session, bound_inputs, made)
            return lambda: session.run_with_iobinding(binding)

        return bind

    return Runtime(planned, example, open)


def converted(program: torch.export.ExportedProgram, who: str, network: str, opset: int | None = None) -> Any:
    """Convert a graph of torch operations to ONNX.

    Raises:
        ExportError: ONNX lacks an operation.
    """
    program = rewritten(program, "onnx")
    with warnings.catch_warnings(), _less_talk():
        warnings.simplefilter("ignore")
        try:
            return torch.onnx.export(program, dynamo=True, verbose=False, opset_version=opset)
        except Exception as error:
            raise ExportError(f"{who}: ONNX can't take {network}: {diagnose(error, program, network)}") from error


@contextlib.contextmanager
def _less_talk() -> Iterator[None]:
    """Keep the exporter from logging which optional packages, such as torchvision, it has no use for here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def opened(ort: Any, path: Path, threads: int | None) -> Any:
    """Open a session of onnxruntime on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bound(session: Any, inputs: Iterable[tuple[str, Tensor]], outputs: Iterable[tuple[str, Tensor]]) -> Any:
    """Bind a session's inputs and outputs to the addresses of tensors."""
    binding = session.io_binding()
    for name, t in inputs:
        binding.bind_input(name, "cpu", 0, _element(t), tuple(t.shape), t.data_ptr())
    for name, t in outputs:
        binding.bind_output(name, "cpu", 0, _element(t), tuple(t.shape), t.data_ptr())
    return binding


def _element(t: Tensor) -> Any:
    import numpy as np  # here: torch works without it

    return getattr(np, _NUMPY[str(t.dtype).removeprefix("torch.")])
