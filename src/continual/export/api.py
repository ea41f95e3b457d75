"""`co.export` and `co.load`: networks as files that stream without Python."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.module import CoModule
from ..core.step_spec import Inputs
from ..errors import ExportError

if TYPE_CHECKING:
    from .runner import Runner

Format = Literal["onnx", "pt2", "executorch", "openvino"]
FORMATS: dict[Format, str] = {
    "onnx": ".onnx",
    "pt2": ".pt2",
    "executorch": ".pte",
    "openvino": ".xml",
}  # and the endings of their files
ENDINGS = ", ".join(f"{ending} ({name})" for name, ending in FORMATS.items())


def export(
    net: CoModule,
    step: Inputs,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    flush: bool = True,
    rate: float | None = None,
    int8: Literal["dynamic", "static"] | None = None,
    calibration: Inputs | None = None,
) -> Path:
    """Write a network as a file that streams in a runtime without this library: with its state, its cold start and its metadata.

    The file is one call of a step program. It takes ``chunk`` steps of each row (``x``), how many steps each row's stream has in all
    (``end``, 0 while it goes on) and the states; it gives the outputs (``y``), which of them exist (``valid``), and the new states.
    Every row is a stream of its own. States of zeros are the beginning of a stream: nothing else is to be prepared.

    Args:
        net: a streaming network, in eval mode.
        step: a step like those to come, ``(B, C, *S)``; several inputs as a list. Its values do not matter.
        path: the file; it is replaced at once, when all is written. OpenVINO's weights go beside it.
        format: ``"onnx"`` (any runtime for ONNX), ``"pt2"`` (AOTInductor: compiled for this machine's processor; its states are changed
            in place), ``"executorch"`` (for phones and small devices, by XNNPACK), or ``"openvino"`` (the states are inside).
            ``None``: by the path's ending, ``.onnx``, ``.pt2``, ``.pte`` or ``.xml``.
        chunk: steps per call, a multiple of what the strides need (``None``: no more than that).
        batch: rows per call; ``None``: any number, in ExecuTorch that of ``step``. Give it to ``"pt2"`` files of networks with
            convolutions: with any number of rows torch arranges their weights anew in every call.
        flush: whether streams may end. Without, there is no input ``end``, and files are a little smaller and faster.
        rate: steps per second, for whoever reads the metadata.
        int8: ``"dynamic"`` or ``"static"`` for layers in 8 bits (ONNX, ExecuTorch), by the runtime's own tools. What that costs in accuracy
            is measured on the calibration clip and stands in the metadata: ``co.load(path).metadata.quantised``.
        calibration: a clip as ``forward_steps`` takes it, a tuple for several inputs. Needed for ``"static"``, whose ranges are measured
            on it; without one the cost of ``"dynamic"`` is measured on noise.

    Returns:
        The path.

    Raises:
        ExportError: the path can't be written; an operation that the format has not, with the module that it is of; a package is missing.
        NotStreamable: as :func:`~continual.compile`.
        ValueError: an unknown format, a path that does not tell it, or a chunk that the strides do not divide.

    Example:
        >>> import tempfile, os
        >>> net = co.Sequential(co.GRU(4, 8), co.Linear(8, 2, channel_dim=1)).eval()
        >>> path = co.export(net, torch.zeros(1, 4), os.path.join(tempfile.mkdtemp(), "gru.onnx"), rate=100)
        >>> runner = co.load(path)
        >>> clip = torch.randn(1, 4, 20)
        >>> co.verify(runner, clip, reference=net).passed
        True
    """
    check_net(net, "co.export")
    if format is not None and format not in FORMATS:
        raise ValueError(f"co.export: format is one of {', '.join(map(repr, FORMATS))}, not {format!r}")
    path = Path(path)
    check_path(path)
    format = format or format_of(path)
    if format is None:
        raise ValueError(f"co.export: {path.name!r} does not say its format: end it in {ENDINGS}, or give format=…")
    from .writing import write

    return write(net, step, path, format, chunk, batch, flush, rate, int8, calibration)


def load(path: str | os.PathLike[str], *, threads: int | None = None, allow_changed: bool = False) -> Runner:
    """Open a file that :func:`export` wrote, of any format.

    Files of the formats ``"pt2"`` and ``"executorch"`` are programs: open none that you would not run.

    Args:
        path: the file.
        threads: of the runtime, where it has threads of its own (ONNX, OpenVINO); ``None``: as many as it likes.
        allow_changed: whether the file may have been changed since it was written (by a tool that makes ONNX models smaller, say), so that
            its digest is not looked at.

    Returns:
        A stream: ``forward_step``, ``forward_steps``, ``get_state``, ``set_state``, ``clean_state``.

    Raises:
        FileNotFoundError: there is no such file.
        ArtefactMismatch: the file is damaged or was changed, is of another version of the format, or not one of ours.
        ExportError: the runtime's package is missing.

    Warns:
        UserWarning: the file is of version 1 of the format, which has no digest; not with ``allow_changed``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"co.load: there is no file {os.fspath(path)!r}")
    from .loading import read

    return read(Path(path), threads, allow_changed)


def check_net(net: Any, who: str) -> None:
    """Refuse what is no streaming network."""
    if not isinstance(net, CoModule):
        raise TypeError(
            f"{who} takes a streaming network, not {type(net).__name__}: convert it by co.continual(module, clip) before"
        )


def format_of(path: Path) -> Format | None:
    """The format that a path's ending tells."""
    return next((name for name, ending in FORMATS.items() if ending == path.suffix.lower()), None)


def check_path(path: Path) -> None:
    """Refuse a path that can't be written, before minutes are spent.

    Raises:
        ExportError: it can't.
    """
    folder = path.parent
    if path.is_dir():
        raise ExportError(f"co.export: {str(path)!r} is a folder; give the name of a file in it")
    if not folder.is_dir():
        raise ExportError(f"co.export: there is no folder {str(folder)!r} to write {path.name!r} to")
    if not os.access(folder, os.W_OK):
        raise ExportError(f"co.export: may not write to the folder {str(folder)!r}")
    try:  # a file system may refuse what permissions allow
        with tempfile.TemporaryDirectory(prefix=".continual-", dir=folder):
            pass
    except OSError as error:
        raise ExportError(f"co.export: can't write to the folder {str(folder)!r} ({error.strerror})") from error
