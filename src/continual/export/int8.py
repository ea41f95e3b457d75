"""8-bit networks: integer weights and activations, by the runtimes' own tools, and their cost in accuracy.

*dynamic*: each call measures the range of activations. *static*: a clip sets the ranges once, which makes calls faster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..core.optional_packages import package, quiet
from ..errors import ExportError
from .flat_call import FlatCall
from .folding import folded
from .metadata import KEY, Metadata
from .runner import Runner
from .runtime_streams import OpenStreams, RuntimeStreams, TensorStreams

MODES = ("dynamic", "static")
FORMATS = ("onnx", "executorch")
LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default)
CALLS = 512  # of the calibration clip on which ranges are measured
Read = Callable[[Path, int | None], tuple[Metadata, OpenStreams]]


class ModuleStreams(TensorStreams):
    """Streams in a call that torch runs as it is."""

    def __init__(self, module: Callable[..., Any], metadata: Metadata, batch: int):
        super().__init__(metadata, batch)
        self._module = module

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        with torch.no_grad():
            found = self._module(*self._arguments(inputs, end))
        outputs = len(self._metadata.outputs)
        self._states = list(found[outputs + 1 :])
        return list(found[:outputs])


class _Recorder:
    """Streams that record the inputs of the first calls."""

    def __init__(self, streams: RuntimeStreams, metadata: Metadata, batch: int, recorded: list[dict[str, Any]]):
        self._streams, self._metadata, self._batch, self._recorded = streams, metadata, batch, recorded

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        if len(self._recorded) < CALLS:
            ends = [torch.full((self._batch,), end)] if self._metadata.flush else []
            arguments = [*(x.clone() for x in inputs), *ends, *self._streams.states()]
            self._recorded.append({n: t.numpy() for n, t in zip(self._metadata.input_names, arguments, strict=True)})
        return self._streams.call(inputs, end)

    def states(self) -> list[Tensor]:
        return self._streams.states()

    def load(self, states: list[Tensor]) -> None:
        self._streams.load(states)


class Calibration:
    """A clip for measuring ranges and the cost in accuracy.

    Args:
        net: the network.
        clip: as ``forward_steps`` takes it, a tuple for several inputs; ``None``: noise.
        call: the exported call.
    """

    def __init__(self, net: Any, clip: Any, call: FlatCall):
        self.on = "noise" if clip is None else "the clip that was given"
        self.inputs = call.noise(200) if clip is None else list(clip) if isinstance(clip, (list, tuple)) else [clip]
        with torch.no_grad():
            self._want = [t for t in pytree.tree_leaves(net.forward_steps(*self.inputs, update_state=False)) if t is not None]
        if not self._want:
            raise ExportError(f"co.export: the calibration clip is too short for any output (delay {net.delay})")

    def stream(self, runner: Runner) -> list[Tensor]:
        """All outputs of a runner on the clip, from a cold start."""
        runner.clean_state()
        found = pytree.tree_leaves(runner.forward_steps(*self.inputs))
        runner.clean_state()
        return found

    def cost(self, runner: Runner) -> dict[str, Any]:
        """The difference between a runner's outputs and the network's."""
        found = self.stream(runner)
        pairs = [(y[tuple(slice(n) for n in x.shape)], x) for x, y in zip(found, self._want, strict=True)]
        error = sum(float((a - b).double().square().sum()) for a, b in pairs)
        power = sum(float(a.double().square().sum()) for a, _ in pairs)
        largest = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)
        ratio = 10 * math.log10(power / error) if error else math.inf
        return {"largest": round(largest, 6), "snr_db": round(ratio, 1), "on": self.on}


def _share(weights: Iterable[tuple[int, bool]]) -> float:
    """The share of 8-bit weights among all weights but scalars, of pairs (number of elements, whether 8-bit)."""
    found = [(n, small) for n, small in weights if n > 1]
    return round(sum(n for n, small in found if small) / max(1, sum(n for n, _ in found)), 3)


# ---- onnxruntime ------------------------------------------------------------------------------------------------------------


def quantise_onnx(path: Path, mode: str, calibration: Calibration, read: Read) -> None:
    """Replace an ONNX file by one with 8-bit layers, whose metadata state the cost in accuracy. ``read`` opens such files."""
    tools = package("onnxruntime.quantization", "onnx", "co.export")
    shapes = package("onnxruntime.quantization.shape_inference", "onnx", "co.export")
    onnx, ort = package("onnx", "onnx", "co.export"), package("onnxruntime", "onnx", "co.export")
    prepared, made = path.with_suffix(".prepared"), path.with_suffix(".int8")
    try:
        with _silent():
            shapes.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            if mode == "dynamic":
                tools.quantize_dynamic(str(prepared), str(made), weight_type=tools.QuantType.QInt8)
            else:
                tools.quantize_static(
                    str(prepared),
                    str(made),
                    _reader(tools, _calls(path, calibration, read)),
                    quant_format=tools.QuantFormat.QDQ,
                    per_channel=True,
                    weight_type=tools.QuantType.QInt8,
                    op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                )
        metadata, open_streams = read(made, None)
        model = onnx.load(str(made))
        share = _share((math.prod(t.dims), t.data_type == onnx.TensorProto.INT8) for t in model.graph.initializer)
        if not share:
            raise ExportError(
                f"co.export: onnxruntime found no layer of {metadata.network} to hold in 8 bits: export it without int8"
            )
        cost = {"mode": mode, "by": f"onnxruntime {ort.__version__}", "share": share} | calibration.cost(
            Runner(metadata, open_streams)
        )
        entry = next(p for p in model.metadata_props if p.key == KEY)
        entry.value = dataclasses.replace(metadata, quantised=cost).to_json()
        onnx.save(model, str(path))
    finally:
        prepared.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def _calls(path: Path, calibration: Calibration, read: Read) -> list[dict[str, Any]]:
    """The inputs of the calls that a stream of the clip makes."""
    metadata, open_streams = read(path, None)
    recorded: list[dict[str, Any]] = []
    calibration.stream(Runner(metadata, lambda batch: _Recorder(open_streams(batch), metadata, batch, recorded)))
    return recorded


def _reader(tools: Any, calls: list[dict[str, Any]]) -> Any:
    """An iterator over calls, in the class that onnxruntime requires."""

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(calls)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

        def __len__(self) -> int:
            return len(calls)

    return Reader()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the tools' progress output."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.setLevel(before)


# ---- ExecuTorch ---------------------------------------------------------------------------------------------------------------


def quantised_program(
    call: FlatCall, mode: str, metadata: Metadata, calibration: Calibration
) -> tuple[torch.export.ExportedProgram, dict[str, Any]]:
    """A call with 8-bit layers for XNNPACK, and its cost in accuracy."""
    with quiet():
        steps = package("torchao.quantization.pt2e.quantize_pt2e", "executorch", "co.export")
        backend = package("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", "executorch", "co.export")
        version = package("torchao", "executorch", "co.export").__version__
    config = backend.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=mode == "dynamic")
    quantizer = backend.XNNPACKQuantizer().set_global(config)
    quantizer.set_filter_function(lambda node: node.target in LAYERS)
    quantizer.transform_for_annotation = lambda graph: graph  # the default turns counters of calls into floats
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = steps.prepare_pt2e(folded(call.exported()).module(check_guards=False), quantizer)
        calibration.stream(_runner(prepared, metadata))
        converted = steps.convert_pt2e(prepared)
    program = call.exported(_Flat(converted))
    tensors = [t for t in (*program.state_dict.values(), *program.constants.values()) if isinstance(t, Tensor)]
    share = _share((t.numel(), t.dtype == torch.int8) for t in tensors)
    if not share:
        raise ExportError(
            f"co.export: XNNPACK has no 8-bit layers for {metadata.network} (int8={mode!r}): it takes linear layers, and convolutions over "
            "time alone. Use format 'onnx', or no int8"
        )
    return program, {"mode": mode, "by": f"torchao {version}", "share": share} | calibration.cost(_runner(converted, metadata))


def _runner(module: nn.Module, metadata: Metadata) -> Runner:
    return Runner(metadata, lambda batch: ModuleStreams(module, metadata, batch))


class _Flat(nn.Module):
    """A graph as a module with the signature of a flat call."""

    def __init__(self, graph: nn.Module):
        super().__init__()
        self.inner = graph

    def forward(self, *tensors: Tensor) -> Any:
        return self.inner(*tensors)
