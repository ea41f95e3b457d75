"""OpenVINO models that contain their states, as variables that start as zeros for any number of rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.file_digest import BLANK
from ..core.optional_packages import package
from ..errors import ArtefactMismatch, ExportError
from ..programs.backends.openvino import compiled, converted
from .flat_call import FlatCall
from .metadata import DIGEST, END, KEY, Metadata
from .runtime_streams import OpenStreams


def write(call: FlatCall, path: Path, metadata: Metadata) -> None:
    """Convert a call, make its states variables, and write the model (``.xml``) and its weights (``.bin``)."""
    if path.suffix != ".xml":
        raise ExportError(
            f"co.export: the path of an OpenVINO model ends with .xml, not {path.suffix!r}; the weights go beside it"
        )
    if any(t.dtype == torch.bfloat16 for t in call.example()):
        raise ExportError("co.export: OpenVINO's arrays have no bfloat16. Export to 'pt2', or in float32")
    ov = package("openvino", "openvino", "co.export")
    program = call.exported()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = converted(ov, program, "co.export", metadata.network)
        for node, name in zip(model.inputs, metadata.input_names, strict=True):
            node.get_tensor().set_names({name})
        for node, name in zip(model.outputs, metadata.output_names, strict=True):
            node.get_tensor().set_names({name})
        _move_states_inside(model, metadata)
        model.set_rt_info(metadata.to_json(), KEY)
        model.set_rt_info(BLANK, DIGEST)
        ov.save_model(model, str(path), compress_to_fp16=False)


def _move_states_inside(model: Any, metadata: Metadata) -> None:
    """Turn the states into variables of the model."""
    import numpy as np  # here, as OpenVINO: optional packages
    import openvino as ov
    from openvino import opset13 as ops
    from openvino.op.util import Variable, VariableInfo

    inputs = dict(zip(metadata.input_names, model.get_parameters(), strict=True))
    results = dict(zip(metadata.output_names, model.get_results(), strict=True))
    rows = next(p for p in metadata.inputs if p.batch is not None)
    shape = ops.shape_of(inputs[rows.name], output_type="i64")
    batch = ops.gather(shape, ops.constant(np.array([rows.batch]), np.int64), ops.constant(np.int64(0)))
    for port in metadata.states:
        parameter, result = inputs[port.name], results[f"new_{port.name}"]
        own = parameter.get_element_type()
        kind = ov.Type.i32 if own == ov.Type.i64 else own  # variables of the CPU have no int64
        rest = ops.constant(np.array(port.sized(1)[1:], np.int64))
        size = ops.concat([batch, rest], 0) if port.shape[1:] else batch
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = ov.PartialShape([-1, *port.shape[1:]]), kind, port.name
        variable = Variable(info)
        zeros = ops.constant(np.zeros(port.sized(1)), dtype=kind)
        stored = ops.broadcast(ops.read_value(zeros, variable), size)  # all rows start with the same row of zeros
        value = ops.convert(stored, own.get_type_name())  # OpenVINO removes conversions to the same type
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(value.output(0))
        model.add_variables([variable])
        source = ops.convert(result.input_value(0), kind.get_type_name())
        model.add_sinks([ops.assign(source, variable)])
        model.remove_result(result)
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def read(path: Path, threads: int | None) -> tuple[Metadata, OpenStreams]:
    """The metadata of a model, and a function that opens streams of it."""
    ov = package("openvino", "openvino", "co.load")
    try:
        model = ov.Core().read_model(str(path))
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
    except Exception as error:
        raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged, or no OpenVINO model: {error}") from error
    if text is None:
        raise ArtefactMismatch(
            f"co.load: {str(path)!r} is an OpenVINO model, but not one that co.export wrote: it has no {KEY!r}"
        )
    metadata = Metadata.from_json(text, path)
    try:
        code = compiled(ov, model, threads)
    except Exception as error:
        raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged, or not for this OpenVINO: {error}") from error
    return metadata, lambda batch: OpenvinoStreams(code, metadata, batch)


class OpenvinoStreams:
    """Streams in an inference request of OpenVINO, which holds their states."""

    def __init__(self, compiled: Any, metadata: Metadata, batch: int):
        self._request, self._metadata = compiled.create_infer_request(), metadata
        self._end = torch.zeros(batch, dtype=torch.int64)
        self._fresh, self._batch = True, batch

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        names = [p.name for p in self._metadata.inputs]
        arrays = {name: x.detach().contiguous().numpy() for name, x in zip(names, inputs, strict=True)}
        if self._metadata.flush:
            arrays[END] = self._end.fill_(end).numpy()
        self._request.infer(arrays, share_inputs=True)
        self._fresh = False
        return [torch.from_numpy(self._request.get_tensor(p.name).data.copy()) for p in self._metadata.outputs]

    def states(self) -> list[Tensor]:
        if self._fresh:
            return [p.zeros(self._batch) for p in self._metadata.states]
        found = {s.name: s.state.data for s in self._request.query_state()}
        dtypes = [getattr(torch, p.dtype) for p in self._metadata.states]
        return [torch.from_numpy(found[p.name].copy()).to(d) for p, d in zip(self._metadata.states, dtypes, strict=True)]

    def load(self, states: list[Tensor]) -> None:
        ov = package("openvino", "openvino", "co.load")
        values = dict(zip((p.name for p in self._metadata.states), states, strict=True))
        for state in self._request.query_state():
            value = values[state.name]
            state.state = ov.Tensor((value.int() if value.dtype == torch.int64 else value).contiguous().numpy().copy())
        self._fresh = False
