"""ONNX models: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.file_digest import BLANK
from ..core.optional_packages import package
from ..errors import ArtefactMismatch, ExportError
from ..programs.backends.onnxruntime import bound, converted, opened
from .flat_call import FlatCall
from .int8 import Calibration, quantise_onnx
from .metadata import DIGEST, END, KEY, VALID, Metadata, Port
from .runtime_streams import OpenStreams

BINDINGS = 16  # bindings of pairs of old and new states in the cache


def write(
    call: FlatCall, path: Path, metadata: Metadata, opset: int | None = None, int8: tuple[str, Calibration] | None = None
) -> None:
    """Write a call as an ONNX model."""
    package("onnxscript", "onnx", "co.export")
    if any(t.dtype == torch.bfloat16 for t in call.example()):
        raise ExportError("co.export: onnxruntime has no kernels for bfloat16 on CPU. Export to 'pt2', or in float32")
    program = call.exported()
    found = converted(program, "co.export", metadata.network, opset)
    model = found.model
    model.metadata_props[KEY], model.metadata_props[DIGEST] = metadata.to_json(), BLANK
    model.producer_name, model.producer_version = "continual", metadata.package_version
    _rename(model, metadata)
    found.save(str(path))
    if int8 is not None:
        quantise_onnx(path, *int8, read)


def _rename(model: Any, metadata: Metadata) -> None:
    """Give inputs and outputs the metadata's names, and the dimension of rows a name."""
    shapes = {p.name: p for p in (*metadata.inputs, *metadata.outputs, *metadata.states)}
    for values, names in ((model.graph.inputs, metadata.input_names), (model.graph.outputs, metadata.output_names)):
        for value, name in zip(values, names, strict=True):
            value.name = name
            port = shapes.get(name.removeprefix("new_"))
            rows = (0 if port is None else port.batch) if metadata.batch is None else None
            if rows is not None and value.shape is not None:
                value.shape[rows] = "batch"


# ---- running ----------------------------------------------------------------------------------------------------------------


def read(path: Path, threads: int | None) -> tuple[Metadata, OpenStreams]:
    """The metadata of a model, and a function that opens streams of it."""
    ort = package("onnxruntime", "onnx", "co.load")
    try:
        session = opened(ort, path, threads)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        has = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    except Exception as error:  # onnxruntime's errors have no common class
        raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged, or no ONNX model: {error}") from error
    if text is None:
        raise ArtefactMismatch(
            f"co.load: {str(path)!r} is an ONNX model, but not one that co.export wrote: it has no metadata {KEY!r}"
        )
    metadata = Metadata.from_json(text, path)
    if has != (metadata.input_names, metadata.output_names):
        raise ArtefactMismatch(f"co.load: {str(path)!r} has other inputs and outputs than its metadata say: {has[0]}, {has[1]}")
    return metadata, lambda batch: OnnxStreams(session, metadata, batch)


class OnnxStreams:
    """Streams in onnxruntime. All tensors have fixed addresses; each call swaps the old and the new states."""

    def __init__(self, session: Any, metadata: Metadata, batch: int):
        self._session, self._metadata = session, metadata
        zeros = lambda ports: [p.zeros(batch) for p in ports]  # noqa: E731
        self._x, self._y = zeros(metadata.inputs), zeros(metadata.outputs)
        self._end = torch.zeros(batch, dtype=torch.int64)
        self._states = zeros(metadata.states), zeros(metadata.states)
        valid = Port(VALID, (None, metadata.per_call), "bool")
        self._fixed_in = [
            *zip((p.name for p in metadata.inputs), self._x, strict=True),
            *([(END, self._end)] if metadata.flush else []),
        ]
        # the runtime writes to their addresses
        self._fixed_out = [*zip((p.name for p in metadata.outputs), self._y, strict=True), (VALID, valid.zeros(batch))]
        self._bindings = [self._binding(old, new) for old, new in (self._states, self._states[::-1])]
        self._now = 0
        self._spare = self._states[1]  # of calls of rows
        self._row_bindings: dict[tuple[int, ...], Any] = {}

    def _binding(self, old: list[Tensor], new: list[Tensor]) -> Any:
        """A call from these states to those."""
        names = [p.name for p in self._metadata.states]
        inputs = [*self._fixed_in, *zip(names, old, strict=True)]
        return bound(self._session, inputs, [*self._fixed_out, *zip((f"new_{n}" for n in names), new, strict=True)])

    def call_rows(self, inputs: list[Tensor], ends: Tensor, states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As :class:`~continual.export.runtime_streams.RowStreams`. The states that are handed over become the spare ones."""
        with torch.no_grad():
            for own, x in zip(self._x, inputs, strict=True):
                own.copy_(x)
            self._end.copy_(ends)
        where = tuple(t.data_ptr() for t in (*states, *self._spare))
        if where not in self._row_bindings:
            if len(self._row_bindings) == BINDINGS:
                self._row_bindings.clear()
            self._row_bindings[where] = self._binding(states, self._spare)
        self._session.run_with_iobinding(self._row_bindings[where])
        states, self._spare = self._spare, states
        return [y.clone() for y in self._y], states

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        with torch.no_grad():
            for own, x in zip(self._x, inputs, strict=True):
                own.copy_(x)
            self._end.fill_(end)
        self._session.run_with_iobinding(self._bindings[self._now])
        self._now = 1 - self._now
        return [y.clone() for y in self._y]

    def states(self) -> list[Tensor]:
        return [t.clone() for t in self._states[self._now]]

    def load(self, states: list[Tensor]) -> None:
        for own, t in zip(self._states[self._now], states, strict=True):
            own.copy_(t)
