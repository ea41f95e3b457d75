"""The digest of an exported file: of all its bytes, and of those of the files beside it that belong to it."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from .. import seal
from ..errors import ArtefactMismatch

_LOCATION = re.compile(
    rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])", re.DOTALL
)  # of ONNX's external data, and its length


def beside(path: Path, format: str) -> list[Path]:
    """Files that belong to an exported one: the weights of an OpenVINO model, and those that a large ONNX model keeps apart."""
    if format == "openvino":
        named = [path.with_suffix(".bin")]
    elif format == "onnx" and path.stat().st_size:
        named = [path.with_name(name) for name in _external(path)]
    else:
        named = []
    return [p for p in named if p.is_file()]


def _external(path: Path) -> list[str]:
    """Names of files in the folder of an ONNX model that it takes tensors from."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = set()
        for found in _LOCATION.finditer(content):
            low, *high = found[1]
            size = (low & 0x7F) | (high[0] << 7 if high else 0)
            names.add(content[found.end() : found.end() + size].decode(errors="replace"))
    return sorted(n for n in names if n and Path(n).name == n and "\0" not in n)


def seal_file(path: Path, format: str) -> None:
    """Write the digest of an exported file into it; again, if it was changed on purpose."""
    seal.seal(path, beside(path, format))


def digest_in(path: Path, format: str) -> seal.Seal | None:
    """The digest in an exported file; ``None`` in files of version 1."""
    return seal.seal_of(path, beside(path, format))


def check_file(path: Path, format: str) -> bool:
    """Whether a file has a digest.

    Raises:
        ArtefactMismatch: it has one, and is not what was written.
    """
    found = digest_in(path, format)
    if found is not None and not found.intact:
        others = {"openvino": " or the .bin file beside it", "onnx": " or a file of weights beside it"}.get(format, "")
        raise ArtefactMismatch(
            f"co.load: {str(path)!r}{others} is damaged, or was changed by another tool: its content has not the digest that co.export "
            "wrote into it. If it was changed on purpose: co.load(path, allow_changed=True)"
        )
    return found is not None
