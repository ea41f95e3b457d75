"""`config.pbtxt`: the configuration of a model, from the metadata of its file."""

from __future__ import annotations

from typing import Any

from ..errors import ExportError
from ..export.metadata import NEW, VALID, Metadata, Port
from .notes import notes
from .pbtxt import Word, pbtxt
from .settings import Settings

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
CONTROLS = {"START": "CONTROL_SEQUENCE_START", "END": "CONTROL_SEQUENCE_END", "READY": "CONTROL_SEQUENCE_READY"}

Message = tuple[tuple[str, Any], ...]


def config(metadata: Metadata, settings: Settings) -> str:
    """The text of ``config.pbtxt``.

    Raises:
        ExportError: the first dimension of an input or output is not rows, or the backend lacks a type.
    """
    _check(metadata, settings)
    python = settings.backend == "python"
    fields: list[tuple[str, Any]] = [
        ("name", settings.name),
        ("backend", settings.backend),
        ("max_batch_size", settings.rows),
    ]
    fields += [("input", _tensor(p, open_time=python and metadata.chunk > 1)) for p in metadata.inputs]
    # In the Python backend the last response of a sequence has more outputs than others: those of the end of the stream.
    outputs = (*metadata.outputs, Port(VALID, (None, metadata.per_call), "bool", 1))
    fields += [("output", _tensor(p, open_time=python)) for p in outputs]
    fields += [("sequence_batching", _sequences(metadata, settings)), ("instance_group", _instances())]
    fields += [("parameters", _parameter(*p)) for p in _parameters(settings)]
    return notes(metadata, settings) + pbtxt(fields)


def _check(metadata: Metadata, settings: Settings) -> None:
    for port in (*metadata.inputs, *metadata.outputs):
        if port.batch != 0:
            raise ExportError(
                f"co.triton.write_repository: {port.name} of {metadata.network} is {port}, and batches of the server have their "
                f"rows first. Give the network a layout with rows first (time_dim above 0), and make a shared input a buffer"
            )
    known = TYPES.keys() - ({"bfloat16"} if settings.backend == "python" else set())  # numpy has no bfloat16
    for port in (*metadata.inputs, *metadata.outputs, *metadata.states):
        if port.dtype not in known:
            raise ExportError(
                f"co.triton.write_repository: {port.name} is {port}, a type that the backend {settings.backend} has not"
            )


def _tensor(port: Port, open_time: bool) -> Message:
    dims = [-1 if open_time and dim == port.time else n for dim, n in enumerate(port.shape)]
    return ("name", port.name), ("data_type", Word(TYPES[port.dtype])), ("dims", dims[1:])


def _sequences(metadata: Metadata, settings: Settings) -> Message:
    delay = ("max_queue_delay_microseconds", _microseconds(settings.queue_delay))
    strategy: Message = (delay,)
    if settings.batcher == "oldest":
        strategy = (("max_candidate_sequences", settings.candidates), delay)
        if settings.preferred_batches:
            strategy += (("preferred_batch_size", list(settings.preferred_batches)),)
    fields: Message = (("max_sequence_idle_microseconds", _microseconds(settings.idle)), (settings.batcher, strategy))
    if settings.backend == "onnxruntime":
        return fields + tuple(("state", _state(p)) for p in metadata.states)
    controls = [c for c in CONTROLS if c != "READY" or settings.batcher == "direct"]
    return fields + tuple(("control_input", _control(c)) for c in controls) + (("control_input", _correlation()),)


def _state(port: Port) -> Message:
    """A state that the server keeps for each sequence. It starts with zeros, as streams do."""
    kind, dims = ("data_type", Word(TYPES[port.dtype])), ("dims", list(port.shape[1:]) or [1])
    initial: Message = (("name", f"zeros of {port.name}"), kind, dims, ("zero_data", True))
    return ("input_name", port.name), ("output_name", NEW + port.name), kind, dims, ("initial_state", initial)


def _control(name: str) -> Message:
    return ("name", name), ("control", (("kind", Word(CONTROLS[name])), ("bool_false_true", [False, True])))


def _correlation() -> Message:
    return ("name", "CORRID"), ("control", (("kind", Word("CONTROL_SEQUENCE_CORRID")), ("data_type", Word("TYPE_UINT64"))))


def _instances() -> Message:
    """One instance: several would have separate slot tables."""
    return ("count", 1), ("kind", Word("KIND_CPU"))


def _parameters(settings: Settings) -> list[tuple[str, str]]:
    found = [("max_streams", str(settings.max_streams))] if settings.backend == "python" else []
    if settings.threads is not None:
        found.append(("intra_op_thread_count", str(settings.threads)))  # the name in the onnxruntime backend
    return found


def _parameter(key: str, value: str) -> Message:
    return ("key", key), ("value", (("string_value", value),))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
