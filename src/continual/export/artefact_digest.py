"""The digest of an exported file: of all its bytes, and of the files beside it that belong to it."""

from __future__ import annotations

import mmap
from pathlib import Path

from ..core import file_digest as seal
from ..errors import ArtefactMismatch

LOCATION = b"\x0a\x08location\x12"  # precedes the length and the name of a file with ONNX tensors


def beside(path: Path, format: str) -> list[Path]:
    """Files that belong to an exported file: the weights of an OpenVINO model, and the external tensors of a large ONNX model."""
    if format == "openvino":
        named = [path.with_suffix(".bin")]
    elif format == "onnx" and path.stat().st_size:
        named = [path.with_name(name) for name in _external(path)]
    else:
        named = []
    return [p for p in named if p.is_file()]


def _external(path: Path) -> list[str]:
    """Names of the files with external tensors of an ONNX model, in its folder."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        names = set()
        for at in seal.places_behind(content, LOCATION):
            low, high = content[at : at + 2].ljust(2, b"\0")
            size, at = (low, at + 1) if low < 0x80 else ((low & 0x7F) | high << 7, at + 2)
            names.add(content[at : at + size].decode(errors="replace"))
    return sorted(n for n in names if n and Path(n).name == n and "\0" not in n)


def seal_file(path: Path, format: str) -> None:
    """Write the digest of an exported file into it; also after an intended change."""
    seal.seal(path, beside(path, format))


def digest_in(path: Path, format: str) -> seal.Seal | None:
    """The digest in an exported file; ``None`` in files of version 1."""
    return seal.seal_of(path, beside(path, format))


def check_file(path: Path, format: str) -> bool:
    """Whether a file has a digest.

    Raises:
        ArtefactMismatch: the digest does not match the content.
    """
    found = digest_in(path, format)
    if found is not None and not found.intact:
        others = {"openvino": " or the .bin file beside it", "onnx": " or a file of weights beside it"}.get(format, "")
        raise ArtefactMismatch(
            f"co.load: {str(path)!r}{others} is damaged, or was changed by another tool: its content has not the digest that co.export "
            "wrote into it. If it was changed on purpose: co.load(path, allow_changed=True)"
        )
    return found is not None
