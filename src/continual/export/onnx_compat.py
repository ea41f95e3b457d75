"""`co.onnx.export`: ONNX models, with the arguments of `torch.onnx.export`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import Tensor

from ..convert.graph.graph_module import GraphModule
from ..core.module import CoModule
from ..errors import ContinualError, ExportError
from .api import check_net, check_path

__all__ = ["export"]


class LegacyOptions(TypedDict, total=False):
    """Options of torch's older exporter."""

    export_params: bool
    verbose: bool | None
    do_constant_folding: bool
    keep_initializers_as_inputs: bool | None
    custom_opsets: Mapping[str, int] | None
    export_modules_as_functions: bool
    autograd_inlining: bool | None
    training: object
    operator_export_type: object
    dynamo: bool


LEGACY = {  # options of torch's older exporter, and their values without effect
    "export_params": (True,),
    "verbose": (False, None),
    "do_constant_folding": (True,),
    "keep_initializers_as_inputs": (None, False),
    "custom_opsets": (None,),
    "export_modules_as_functions": (False,),
    "autograd_inlining": (True, None),
    "training": (None,),
    "operator_export_type": (None,),
    "dynamo": (True,),
}


def export(
    model: CoModule,
    args: Tensor | Sequence[Tensor],
    f: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamic_axes: Mapping[str, Any] | Sequence[str] | None = None,
    **options: Unpack[LegacyOptions],
) -> Path:
    """Write a network as an ONNX model of one call, as :func:`continual.export` does, with the arguments of ``torch.onnx.export``.

    Args:
        model: a streaming network, in eval mode.
        args: an example step, or a tuple with one for each input.
        f: the file.
        input_names: names for the inputs instead of ``x``, ``x1``, ….
        output_names: names for the outputs instead of ``y``, ``y1``, ….
        opset_version: the version of the operators; ``None``: torch's default.
        dynamic_axes: ``None``: as many rows as the step has; otherwise any number of rows, the only axis that may vary.
        options: other options of ``torch.onnx.export``, at values without effect: ``export_params=True``, ``do_constant_folding=True`` ….

    Returns:
        The path.

    Raises:
        ExportError: as :func:`continual.export`, or for an option that ONNX models of streams do not have.

    Example:
        >>> import tempfile, os
        >>> net = co.Sequential(co.Conv1d(2, 4, 3), nn.ReLU()).eval()
        >>> path = co.onnx.export(net, torch.zeros(1, 2), os.path.join(tempfile.mkdtemp(), "net.onnx"), input_names=["frame"])
        >>> co.load(path).metadata.input_names
        ['frame', 'end', 'state.calls', 'state.0.window']
    """
    check_net(model, "co.onnx.export")
    for name, value in options.items():
        if name not in LEGACY:
            raise TypeError(f"co.onnx.export: there is no option {name!r}")
        if value not in LEGACY[name]:
            raise ExportError(
                f"co.onnx.export: {name}={value!r} is not possible: models of streams are written by torch's new exporter"
            )
    from .writing import write  # here: `import continual.onnx` loads no format

    steps = [args] if isinstance(args, Tensor) else list(args)
    step, first = steps if len(steps) > 1 else steps[0], steps[0]
    if len(steps) > 1 and not isinstance(model, GraphModule):
        _check_inputs(model, steps)
    batch = None if dynamic_axes is not None else first.shape[0]
    names = list(input_names or ()), list(output_names or ())
    path = Path(f)
    check_path(path)
    return write(model, step, path, "onnx", batch=batch, names=names, opset=opset_version)


def _check_inputs(model: CoModule, steps: list[Tensor]) -> None:
    """Refuse more inputs than a network takes, such as its states.

    Raises:
        ExportError: it does not take so many.
    """
    try:
        model.init_state(steps)
    except (ContinualError, AttributeError) as error:
        raise ExportError(
            f"co.onnx.export: {type(model).__name__} does not take {len(steps)} inputs. `args` is the step alone, or one for each input: "
            "states need no example; they are zeros when a stream begins, and the file's metadata names them"
        ) from error
