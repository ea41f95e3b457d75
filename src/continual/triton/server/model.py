"""A streaming network in Triton's Python backend: each sequence has a row in a table of states, and sequences move together.

The server's Python needs numpy and onnxruntime (see requirements.txt), and neither torch nor continual.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton
from slot_table import Chunk, NoSlot, SlotError, SlotTable


class TritonPythonModel:
    """The class that the server loads."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._inputs = [i["name"] for i in config["input"]]
        self._outputs = [o["name"] for o in config["output"]]
        threads = parameters.get("intra_op_thread_count")
        self._table = SlotTable(
            str(Path(__file__).with_name("model.onnx")),
            slots=int(parameters["max_streams"]),
            idle=int(config["sequence_batching"]["max_sequence_idle_microseconds"]) / 1e6,
            threads=None if threads is None else int(threads),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Take the next steps of the sequences of all requests."""
        # The strategy "direct" fills its batches with empty requests.
        there = [i for i, request in enumerate(requests) if _flag(request, "READY", missing=True)]
        answers = dict(zip(there, self._table.step([self._chunk(requests[i]) for i in there])))
        return [self._response(answers.get(i)) for i in range(len(requests))]

    def _chunk(self, request: Any) -> Chunk:
        inputs = [triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs]
        stream = int(triton.get_input_tensor_by_name(request, "CORRID").as_numpy().item())
        return Chunk(stream, inputs, _flag(request, "START"), _flag(request, "END"))

    def _response(self, answer: Any) -> Any:
        if isinstance(answer, SlotError):
            code = triton.TritonError.UNAVAILABLE if isinstance(answer, NoSlot) else triton.TritonError.INVALID_ARG
            return triton.InferenceResponse(output_tensors=[], error=triton.TritonError(str(answer), code))
        return triton.InferenceResponse([triton.Tensor(name, value) for name, value in zip(self._outputs, answer or ())])


def _flag(request: Any, name: str, missing: bool = False) -> bool:
    control = triton.get_input_tensor_by_name(request, name)
    return missing if control is None else bool(control.as_numpy().item())
