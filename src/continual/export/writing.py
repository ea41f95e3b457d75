"""Writing files: what all formats share."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..core.module import CoModule
from ..core.program.context import INLINE_ROWS, Target
from ..errors import ExportError
from . import executorch, onnx, openvino, pt2
from .artefact_digest import seal_file
from .flat_call import FlatCall
from .int8 import FORMATS, MODES, Calibration
from .metadata import Metadata, Port

WRITERS: dict[str, Callable[..., None]] = {
    "executorch": executorch.write,
    "onnx": onnx.write,
    "openvino": openvino.write,
    "pt2": pt2.write,
}


def write(
    net: CoModule,
    step: Any,
    path: Path,
    format: str,
    chunk: int | None = None,
    batch: int | None = None,
    flush: bool = True,
    rate: float | None = None,
    int8: str | None = None,
    calibration: Any = None,
    names: tuple[Sequence[str], Sequence[str]] = ((), ()),
    **options: Any,
) -> Path:
    """As :func:`continual.export`, with names for inputs and outputs, and with options of the format."""
    _check_int8(format, int8, calibration)
    if format == "executorch" and batch is None:
        first = step[0] if isinstance(step, (list, tuple)) else step
        batch = first.shape[0]
    call = FlatCall(net, step, chunk, batch, flush, _target(format, batch))
    metadata = _named(call.metadata(format, rate), *names)
    if int8 is not None:
        options["int8"] = (int8, Calibration(net, calibration, call))
    folder = Path(tempfile.mkdtemp(prefix=".continual-", dir=path.parent))
    try:
        WRITERS[format](call, folder / path.name, metadata, **options)
        seal_file(folder / path.name, format)
        for made in sorted(folder.iterdir(), key=lambda p: p.name == path.name):  # files that belong to it come first
            os.replace(made, path.with_name(made.name))
    except OSError as error:
        raise ExportError(f"co.export: can't write {str(path)!r}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _target(format: str, batch: int | None) -> Target:
    """What runs a file of a format."""
    compiled = format == "pt2"
    return Target(
        compiler_fuses=compiled,
        inline_rows=INLINE_ROWS if compiled and batch is not None else 0,
        conv3d_as_2d=format == "executorch",
        int32=format == "openvino",
        annotate=True,
        real=not compiled,
    )


def _check_int8(format: str, int8: str | None, calibration: Any) -> None:
    """Check the arguments of a quantisation.

    Raises:
        ExportError: the format has no tools for it, or there is no clip for static ranges.
        ValueError: an unknown mode.
    """
    if int8 is None:
        return
    if int8 not in MODES:
        raise ValueError(f"co.export: int8 is one of {', '.join(map(repr, MODES))}, or None, not {int8!r}")
    if format not in FORMATS:
        reason = "OpenVINO needs another package for it (nncf)" if format == "openvino" else "AOTInductor compiles float networks"
        raise ExportError(f"co.export: no 8-bit networks in format {format!r}: {reason}. Use {' or '.join(map(repr, FORMATS))}")
    if int8 == "static" and calibration is None:
        raise ExportError("co.export: int8='static' measures ranges on a clip: give one of real data as calibration=…")


def _named(metadata: Metadata, inputs: Sequence[str], outputs: Sequence[str]) -> Metadata:
    """The metadata with other names for the first inputs and outputs."""

    def renamed(what: str, ports: tuple[Port, ...], names: Sequence[str]) -> tuple[Port, ...]:
        if len(names) > len(ports):
            raise ExportError(
                f"co.onnx.export: {len(names)} names for {len(ports)} {what}s of {metadata.network}. States, `end` and `valid` have names "
                f"of their own: {', '.join(metadata.input_names if what == 'input' else metadata.output_names)}"
            )
        return tuple(dataclasses.replace(p, name=n) for p, n in zip(ports, names, strict=False)) + ports[len(names) :]

    found = dataclasses.replace(
        metadata, inputs=renamed("input", metadata.inputs, inputs), outputs=renamed("output", metadata.outputs, outputs)
    )
    for names in (found.input_names, found.output_names):
        if len(set(names)) < len(names):
            raise ExportError(f"co.onnx.export: names are given twice: {', '.join(names)}")
    return found
