"""`continual inspect` for exported files: a table or JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

import continual as co

from ..export import api as exporting
from ..export.artefact_digest import beside, digest_in
from ..export.metadata import END, VALID, Metadata, Port
from . import state_file
from .errors import one_line
from .stages import Stages
from .tables import pairs
from .tables import show as shown
from .target import BadInput, check_file
from .zoo import dumped

SHOWN = 8  # states


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        title: its name.
        needs: the packages that run its files.
        states: the place of the states.
    """

    title: str
    needs: str
    states: str = "inputs and outputs of every call"


FORMATS = {
    "onnx": Format("ONNX", "onnxruntime"),
    "pt2": Format("AOTInductor package", "torch", states="changed in place by every call"),
    "executorch": Format("ExecuTorch program", "executorch"),
    "openvino": Format("OpenVINO model", "openvino", "inside the model"),
}


def format_of(path: Path, format: str | None) -> str:
    """The requested format, or that of the suffix of the path.

    Raises:
        BadInput: there is no such format, or the suffix is unknown.
    """
    if format is None:
        found = exporting.format_of(path)
        if found is None:
            raise BadInput(f"'{path}' does not say its format: end it in {exporting.ENDINGS}, or give --format")
        return found
    if format not in FORMATS:
        raise BadInput(f"--format {format}: give {', '.join(FORMATS)}")
    return format


def inspect(path: Path, as_json: bool, allow_changed: bool) -> None:
    """Describe an exported file or a state file."""
    with one_line("inspect"):
        check_file(path)
        if state_file.is_state(path):
            data = state_file.data_of(path)
            typer.echo(dumped(data)) if as_json else _print(path, state_file.lines_of(data, SHOWN))
            return
        with Stages() as stage, stage("loading"):
            metadata = co.load(path, allow_changed=allow_changed).metadata
        typer.echo(dumped(data_of(path, metadata))) if as_json else show(path, metadata)


def data_of(path: Path, metadata: Metadata) -> dict[str, Any]:
    """The metadata, and the size of the file with the files that belong to it; sizes of states for one stream."""
    ends = [Port(END, (None,), "int64")] if metadata.flush else []
    states = [{**_port(p), "bytes": _bytes(p)} for p in metadata.states]
    return {
        "file": str(path),
        "bytes": sum(p.stat().st_size for p in (path, *beside(path, metadata.format))),
        "format": metadata.format,
        "needs": FORMATS[metadata.format].needs,
        "network": metadata.network,
        "inputs": [_port(p) for p in (*metadata.inputs, *ends)],
        "outputs": [_port(p) for p in (*metadata.outputs, Port(VALID, (None, metadata.per_call), "bool"))],
        "states": states,
        "state_bytes": sum(s["bytes"] for s in states),
        "receptive_field": metadata.receptive_field,
        "unbounded": metadata.unbounded,
        "delay": metadata.delay,
        "delay_ms": None if metadata.rate is None else 1000 * metadata.delay / metadata.rate,
        "stride": metadata.stride,
        "chunk": metadata.chunk,
        "batch": metadata.batch,
        "flush": metadata.flush,
        "rate": metadata.rate,
        "quantised": metadata.quantised,
        "weights": metadata.weights or None,
        **state_file.digest_of(digest_in(path, metadata.format)),
        "package_version": metadata.package_version,
        "format_version": metadata.format_version,
    }


def _port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}


def _bytes(port: Port) -> int:
    """Of one stream."""
    return math.prod(port.sized(1)) * getattr(torch, port.dtype).itemsize


def show(path: Path, metadata: Metadata) -> None:
    """Print it as a table."""
    _print(path, _lines(data_of(path, metadata), FORMATS[metadata.format]))


def _print(path: Path, lines: Iterable[tuple[str, str]]) -> None:
    shown(pairs(str(path), lines))


def _lines(data: dict[str, Any], format: Format) -> Iterator[tuple[str, str]]:
    yield "format", f"{format.title}, of continual {data['package_version']}"
    yield "size", f"{data['bytes']:,} bytes"
    yield "runs with", f"the package {data['needs']}"
    yield "network", data["network"]
    yield "inputs", "\n".join(_shown(p) for p in data["inputs"])
    yield "outputs", "\n".join(_shown(p) for p in data["outputs"])
    states = data["states"]
    listed = [f"{_shown(s)}: {s['bytes']:,} bytes" for s in states[:SHOWN]]
    more = [f"… and {len(states) - SHOWN} more (--json lists all)"] if len(states) > SHOWN else []
    head = f"{len(states)} tensors, {data['state_bytes']:,} bytes a stream, {format.states}"
    yield "states", "\n".join([head, *listed, *more])
    yield "receptive field", "all steps so far" if data["unbounded"] else f"{data['receptive_field']} steps"
    yield "delay", f"{data['delay']} steps" + ("" if data["delay_ms"] is None else f" = {data['delay_ms']:,.1f} ms")
    yield "stride", str(data["stride"])
    yield "chunk", f"{data['chunk']} step{'' if data['chunk'] == 1 else 's'} a call"
    yield "rows (B)", "any number" if data["batch"] is None else str(data["batch"])
    yield "streams may end", "yes" if data["flush"] else "no"
    if data["rate"] is not None:
        yield "rate", f"{data['rate']:g} steps per second"
    if (found := data["quantised"]) is not None:
        cost = f"off by {found['largest']:.1e} of the largest output at most ({found['snr_db']} dB), on {found['on']}"
        yield "in 8 bits", f"{found['mode']}, by {found['by']}: {cost}"
    yield from state_file.digests(data)


def _shown(port: dict[str, Any]) -> str:
    return f"{port['name']} {Port(port['name'], tuple(port['shape']), port['dtype'])}"
