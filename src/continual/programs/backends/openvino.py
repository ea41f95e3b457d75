"""OpenVINO: conversion of torch graphs, compilation, and step programs that run in OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Callable
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


def openvino(planned: Planned, example: tuple[Any, ...]) -> CompiledCall:
    """Run a program in OpenVINO, with as many threads as torch has. Streams have at most 2³⁰ frames on any wire."""
    name = type(planned.net).__name__
    check_runtime("openvino", example)
    ov = package("openvino", "openvino", "co.compile")

    def open(program: torch.export.ExportedProgram) -> Bind:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = converted(ov, program, "co.compile", name)
        code = compiled(ov, model, torch.get_num_threads())

        def bind(inputs: list[Tensor], outputs: list[Tensor]) -> Callable[[], Any]:
            request = code.create_infer_request()
            for i, t in enumerate(inputs):
                request.set_input_tensor(i, ov.Tensor(t.numpy(), shared_memory=True))

            def run() -> None:
                request.infer()
                for i, t in enumerate(outputs):  # not bound: OpenVINO does not write outputs that equal an input
                    t.copy_(torch.from_numpy(request.get_output_tensor(i).data))

            return run

        return bind

    return Runtime(planned, example, open)


def converted(ov: Any, program: torch.export.ExportedProgram, who: str, network: str) -> Any:
    """Convert a graph of torch operations to OpenVINO.

    Raises:
        ExportError: OpenVINO lacks an operation.
    """
    program = rewritten(program, "openvino")
    try:
        return ov.convert_model(program)
    except Exception as error:
        raise ExportError(f"{who}: OpenVINO can't take {network}: {diagnose(error, program, network)}") from error


def compiled(ov: Any, model: Any, threads: int | None) -> Any:
    """Compile a model for the CPU, in float32."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return ov.Core().compile_model(model, "CPU", options)
