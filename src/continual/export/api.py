"""`co.export` and `co.load`: networks as files that stream in other runtimes."""

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
}  # with the suffixes of their files
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
    """Write a network as a file that streams in a runtime without this library, with its state and its metadata.

    The file contains one call of a step program. Its inputs are ``chunk`` steps of each row (``x``), the number of steps of each row's
    stream (``end``, 0 while the stream goes on) and the states. Its outputs are the network's outputs (``y``), which of them exist
    (``valid``), and the new states. Each row is a stream of its own. A stream starts with states of zeros.

    Args:
        net: a streaming network, in eval mode.
        step: an example step ``(B, C, *S)``; several inputs as a list. Its values do not matter.
        path: the file. It is replaced atomically when everything is written. OpenVINO's weights go into a second file beside it.
        format: ``"onnx"`` (any ONNX runtime), or ``"pt2"`` (AOTInductor: compiled for this machine's processor; it updates the states in
            place). Or ``"executorch"`` (for phones and small devices, with XNNPACK), or ``"openvino"`` (the model contains the states).
            ``None``: by the path's suffix, ``.onnx``, ``.pt2``, ``.pte`` or ``.xml``.
        chunk: steps per call, a multiple of what the strides need; ``None``: the fewest.
        batch: rows per call; ``None``: any number, in ExecuTorch that of ``step``. Set it for ``"pt2"`` files of networks with
            convolutions: with any number of rows, torch packs their weights again in every call.
        flush: whether streams may end. Without it the file has no input ``end``, and is slightly smaller and faster.
        rate: steps per second, for readers of the metadata.
        int8: ``"dynamic"`` or ``"static"`` for 8-bit layers (ONNX, ExecuTorch), by the runtime's own tools. The cost in accuracy is
            measured on the calibration clip and recorded in the metadata: ``co.load(path).metadata.quantised``.
        calibration: a clip as ``forward_steps`` takes it, a tuple for several inputs. ``"static"`` measures its ranges on it. Without a
            clip, the cost of ``"dynamic"`` is measured on noise.

    Returns:
        The path.

    Raises:
        ExportError: the path can't be written, the format lacks an operation (the message names its module), or a package is missing.
        NotStreamable: as :func:`~continual.compile`.
        ValueError: an unknown format, a path without a known suffix, or a chunk that does not fit the strides.

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
    from .writing import write  # here: `import continual` loads no format

    return write(net, step, path, format, chunk, batch, flush, rate, int8, calibration)


def load(path: str | os.PathLike[str], *, threads: int | None = None, allow_changed: bool = False) -> Runner:
    """Open a file that :func:`export` wrote, of any format.

    Files of the formats ``"pt2"`` and ``"executorch"`` contain programs: open them only if you trust their source.

    Args:
        path: the file.
        threads: threads of a runtime that has its own (ONNX, OpenVINO); ``None``: the runtime's default.
        allow_changed: accept a file that was changed after it was written (by a tool that shrinks ONNX models, for example), and do not
            check its digest.

    Returns:
        A stream: ``forward_step``, ``forward_steps``, ``get_state``, ``set_state``, ``clean_state``.

    Raises:
        FileNotFoundError: there is no such file.
        ArtefactMismatch: the file is damaged, was changed, has another version of the format, or was not written by :func:`export`.
        ExportError: the runtime's package is missing.

    Warns:
        UserWarning: the file has version 1 of the format, which has no digest; not with ``allow_changed``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"co.load: there is no file {os.fspath(path)!r}")
    from .loading import read  # here: `import continual` loads no format

    return read(Path(path), threads, allow_changed)


def check_net(net: Any, who: str) -> None:
    """Refuse an object that is not a streaming network."""
    if not isinstance(net, CoModule):
        raise TypeError(
            f"{who} takes a streaming network, not {type(net).__name__}: convert it by co.continual(module, clip) before"
        )


def format_of(path: Path) -> Format | None:
    """The format of a path's suffix."""
    return next((name for name, ending in FORMATS.items() if ending == path.suffix.lower()), None)


def check_path(path: Path) -> None:
    """Refuse a path that can't be written before an export spends minutes.

    Raises:
        ExportError: it can't be written.
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
