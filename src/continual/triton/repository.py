"""`co.triton.write_repository`: a network as a model of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..core.module import CoModule
from ..core.step_spec import Inputs
from ..errors import ExportError
from ..export.api import check_net
from ..export.api import export as export_file
from ..export.onnx import read
from .columns import as_columns
from .config import config
from .notes import REQUIREMENTS
from .settings import Settings

SERVER = Path(__file__).with_name("server")
COPIED = ("model.py", "slot_table.py")


def write_repository(
    net: CoModule,
    step: Inputs,
    directory: str | os.PathLike[str],
    *,
    name: str = "model",
    backend: Literal["onnxruntime", "python"] = "onnxruntime",
    batcher: Literal["oldest", "direct"] = "oldest",
    max_streams: int = 64,
    max_batch: int | None = None,
    preferred_batches: Sequence[int] = (),
    queue_delay: float = 0.0,
    idle: float = 60.0,
    threads: int | None = None,
    chunk: int | None = None,
    rate: float | None = None,
) -> Path:
    """Write a network into a model repository of NVIDIA's Triton Inference Server. Each sequence of requests is a stream.

    ``<directory>/<name>`` gets ``config.pbtxt``, whose comments tell a client what to send, and the network as an ONNX file in ``1``.
    Needs onnx, onnxruntime and onnxscript; the server does not need this library.

    Args:
        net: a streaming network, in eval mode.
        step: an example step ``(B, C, *S)``; several inputs as a list. Its values do not matter.
        directory: the model repository; it is created if it does not exist. Files of a model of the same name are replaced.
        name: of the model.
        backend: ``"onnxruntime"``: the server keeps the states of each sequence (implicit state), and the end of a stream brings no
            outputs. ``"python"``: a ``model.py`` keeps the states in a table; the end of a stream brings its remaining outputs.
        batcher: ``"oldest"``: batches of the requests that wait longest; ``"direct"``: each sequence has its own row in every batch.
        max_streams: concurrent sequences. Further ones wait; with ``"python"`` and ``"oldest"`` they get an error at once.
        max_batch: the largest number of rows in a batch; ``None``: ``max_streams``.
        preferred_batches: numbers of rows at which a batch of ``"oldest"`` stops waiting.
        queue_delay: seconds that a request may wait for others to join its batch.
        idle: seconds without a request after which the server forgets a sequence.
        threads: threads of onnxruntime for one call; ``None``: its default.
        chunk: steps per request, a multiple of what the strides need; ``None``: the fewest.
        rate: steps per second, for the comments and the file's metadata.

    Returns:
        ``<directory>/<name>``.

    Raises:
        ValueError: an invalid name, an unknown backend or batcher, or inconsistent numbers.
        ExportError: the directory can't be written, the network can't be exported to ONNX, or its inputs do not have rows first.
        NotStreamable: as :func:`continual.compile`.

    Example:
        >>> import tempfile
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU()).eval()
        >>> folder = co.triton.write_repository(net, torch.zeros(1, 2), tempfile.mkdtemp(), name="net", backend="python")
        >>> sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        ['1/model.onnx', '1/model.py', '1/slot_table.py', 'config.pbtxt', 'requirements.txt']
    """
    check_net(net, "co.triton.write_repository")
    settings = Settings(
        name, backend, batcher, max_streams, max_batch, tuple(preferred_batches), queue_delay, idle, threads
    )  # checked before anything is written
    root = Path(directory)
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".continual-", dir=root))
    except OSError as error:
        raise ExportError(f"co.triton.write_repository: can't write to the directory {str(root)!r}: {error}") from error
    try:
        _write(net, step, made, settings, chunk, rate)
        _move(made, root / settings.name)
    except OSError as error:
        raise ExportError(f"co.triton.write_repository: can't write {str(root / settings.name)!r}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return root / settings.name


def _write(net: CoModule, step: Any, folder: Path, settings: Settings, chunk: int | None, rate: float | None) -> None:
    """Write all files of a model."""
    version = folder / "1"
    version.mkdir()
    python = settings.backend == "python"
    path = export_file(net, step, version / "model.onnx", format="onnx", chunk=chunk, flush=python, rate=rate)
    metadata, _ = read(path, threads=1)
    if python:
        for file in COPIED:
            shutil.copyfile(SERVER / file, version / file)
        (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    else:
        metadata = as_columns(path, metadata)
    (folder / "config.pbtxt").write_text(config(metadata, settings), encoding="utf-8")


def _move(folder: Path, target: Path) -> None:
    """Move each file to its place; the configuration last, since it refers to the others."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.name == "config.pbtxt", p))
    for path in files:
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
