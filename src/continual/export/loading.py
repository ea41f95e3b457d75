"""Reading files: which format they are of, by their first bytes, and whether they are as they were written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ..errors import ArtefactMismatch
from .artefact_digest import check_file
from .metadata import FIRST
from .runner import Runner


def read(path: Path, threads: int | None, allow_changed: bool) -> Runner:
    """As :func:`continual.load`."""
    with path.open("rb") as file:
        format = format_in(file.read(4096))
    if format is None:
        raise ArtefactMismatch(
            f"co.load: {str(path)!r} is none of the files that co.export writes (ONNX, AOTInductor, ExecuTorch, OpenVINO), or it is damaged"
        )
    sealed = allow_changed or check_file(path, format)  # before a runtime sees it
    metadata, open_rows = _reader(format)(path, threads)
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
        return Runner(metadata, open_rows)
    except (AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise ArtefactMismatch(f"co.load: the metadata of {str(path)!r} is damaged ({error!r})") from error


def format_in(head: bytes) -> str | None:
    """The format of a file that begins so."""
    if head[:4] == b"PK\x03\x04":
        return "pt2"
    if head[4:6] == b"ET":
        return "executorch"
    if head.lstrip()[:5] == b"<?xml":
        return "openvino"
    return "onnx" if head[:1] == b"\x08" else None  # the first field of an ONNX model is its version


def _reader(format: str) -> Any:
    if format == "pt2":
        from .pt2 import read
    elif format == "executorch":
        from .executorch import read
    elif format == "openvino":
        from .openvino import read
    else:
        from .onnx import read
    return read
