"""Reading files: their format, by their first bytes, and whether they are unchanged."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..errors import ArtefactMismatch
from . import executorch, onnx, openvino, pt2
from .artefact_digest import check_file
from .metadata import FIRST
from .runner import Runner

READERS = {"executorch": executorch.read, "onnx": onnx.read, "openvino": openvino.read, "pt2": pt2.read}


def read(path: Path, threads: int | None, allow_changed: bool) -> Runner:
    """As :func:`continual.load`."""
    with path.open("rb") as file:
        format = format_in(file.read(4096))
    if format is None:
        raise ArtefactMismatch(
            f"co.load: {str(path)!r} is none of the files that co.export writes (ONNX, AOTInductor, ExecuTorch, OpenVINO), or it is damaged"
        )
    sealed = allow_changed or check_file(path, format)  # before a runtime opens it
    metadata, open_streams = READERS[format](path, threads)
    if not allow_changed:
        if sealed == (metadata.format_version == FIRST):
            raise ArtefactMismatch(f"co.load: the metadata of {str(path)!r} is damaged: it has lost the digest of the file")
        if not sealed:
            warnings.warn(
                f"co.load: {str(path)!r} is of version 1 of the format, which has no digest: damage of its weights can't be noticed. "
                "Export the network again, or say that it is meant: co.load(path, allow_changed=True)",
                stacklevel=3,
            )
    try:
        return Runner(metadata, open_streams)
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise ArtefactMismatch(f"co.load: the metadata of {str(path)!r} is damaged ({error!r})") from error


def format_in(head: bytes) -> str | None:
    """The format of a file with these first bytes; ``None`` if it is unknown."""
    if head[:4] == b"PK\x03\x04":
        return "pt2"
    if head[4:6] == b"ET":
        return "executorch"
    if head.lstrip()[:5] == b"<?xml":
        return "openvino"
    return "onnx" if head[:1] == b"\x08" else None  # the first field of an ONNX model is its version
