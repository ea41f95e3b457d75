"""Reading files: which format they are of, by their first bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ArtefactMismatch
from .runner import Runner


def read(path: Path, threads: int | None) -> Runner:
    """As :func:`continual.load`."""
    with path.open("rb") as file:
        head = file.read(4096)
    metadata, open_rows = _reader(head, path)(path, threads)
    return Runner(metadata, open_rows)


def _reader(head: bytes, path: Path) -> Any:
    if head[:4] == b"PK\x03\x04":
        from .pt2_file import read
    elif head[4:6] == b"ET":
        from .executorch_file import read
    elif head.lstrip()[:5] == b"<?xml":
        from .openvino_file import read
    elif head[:1] == b"\x08":  # the first field of an ONNX model is its version
        from .onnx_file import read
    else:
        raise ArtefactMismatch(
            f"co.load: {str(path)!r} is none of the files that co.export writes (ONNX, AOTInductor, ExecuTorch, OpenVINO), or it is damaged"
        )
    return read
