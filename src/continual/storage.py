"""Saving the state of a stream in a file: safetensors with a versioned header, never pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from .errors import StateMismatch
from .program.snapshot import StreamSnapshot
from .state import Frame, Node, Opening, State, rewire
from .stream import STORED

FORMAT = "continual.state"
STREAM = "continual.stream"  # of a snapshot of a StreamBatch
PENDING = "pending "  # before the numbers of steps that wait
VERSION = 1


def save_state(state: State | StreamSnapshot, path: str | os.PathLike[str]) -> None:
    """Write a state to a file. Needs ``pip install 'continual[io]'``.

    Args:
        state: from ``get_state``, ``init_state`` or a pure step; or the snapshot of a stream of a :class:`~continual.StreamBatch`.
        path: the file; it is replaced at once, when all is written.

    Raises:
        StateMismatch: ``state`` is no state (a cold stream has none).

    Example:
        >>> import tempfile, os
        >>> net = co.Conv1d(2, 3, 3)
        >>> _ = net.forward_steps(torch.randn(1, 2, 5))
        >>> path = os.path.join(tempfile.mkdtemp(), "stream.safetensors")
        >>> co.save_state(net.get_state(), path)
        >>> net.set_state(co.load_state(path))
        >>> net.get_state().clock
        5
    """
    if isinstance(state, StreamSnapshot):
        pending = {f"{PENDING}{i}": t for i, t in enumerate(state.pending)}
        header = {"format": STREAM, "version": str(VERSION), "steps": str(state.steps), "signature": state.signature}
        return _write(path, state.tensors | pending, header)
    if not isinstance(state, State):
        raise StateMismatch(f"save_state takes a state, not {type(state).__name__}; get_state() of a cold stream is None")
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "clock": str(state.clock),
        "frame": json.dumps(_frame_out(state.frame)),
        "signature": state.signature,
    }
    _write(path, state.tensors, header)


def _write(path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    save_file = _safetensors("save_file")
    tensors = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        save_file(tensors, partial, metadata=header)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: str | os.PathLike[str], device: str | torch.device | None = None) -> Any:
    """Read a state from a file.

    Args:
        path: the file.
        device: where its tensors go; by default where they were when the state was saved.

    Returns:
        The state, for ``set_state`` or as the state of pure steps; or the snapshot, for :meth:`~continual.StreamBatch.restore`. Whether it
        fits a network is checked there.

    Raises:
        StateMismatch: the file is truncated, is not one of ours, or of a later version of the format.
        FileNotFoundError: there is no such file.
    """
    safe_open = _safetensors("safe_open")
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_state: there is no file {os.fspath(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own error, and others for some damages
        raise StateMismatch(f"load_state: {os.fspath(path)!r} is damaged or no state file ({error})") from error
    if header.get("format") not in (FORMAT, STREAM):
        raise StateMismatch(f"load_state: {os.fspath(path)!r} is a safetensors file, but not one that save_state wrote")
    version = header.get("version", "")
    if version != str(VERSION):
        raise StateMismatch(
            f"load_state: {os.fspath(path)!r} has format version {version!r}, this library reads {VERSION}. Update the library, or save "
            "the state again"
        )
    if header["format"] == STREAM:
        return _snapshot(path, tensors, header, device)
    try:
        frame = rewire(lambda f: f, _frame_in(json.loads(header["frame"]), device))
        clock = int(header["clock"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise StateMismatch(f"load_state: the header of {os.fspath(path)!r} is damaged ({error!r})") from error
    first = frame
    while isinstance(first, list):
        first = first[0]
    moved = {name: t.to(first.device) for name, t in tensors.items()}
    return State(clock, frame, Node(Opening(), STORED, None, moved), stored_signature=header.get("signature", "?"))


def _snapshot(
    path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], header: dict[str, str], device: Any
) -> StreamSnapshot:
    """The snapshot of a stream."""
    moved = tensors if device is None else {name: t.to(device) for name, t in tensors.items()}
    try:
        waiting = sum(name.startswith(PENDING) for name in moved)
        pending = tuple(moved.pop(f"{PENDING}{i}") for i in range(waiting))
        return StreamSnapshot(int(header["steps"]), moved, pending, header["signature"])
    except (KeyError, ValueError) as error:
        raise StateMismatch(f"load_state: the header of {os.fspath(path)!r} is damaged ({error!r})") from error


def _frame_out(frame: Any) -> Any:
    if isinstance(frame, list):
        return [_frame_out(f) for f in frame]
    return {"shape": list(frame.shape), "dtype": str(frame.dtype).removeprefix("torch."), "device": str(frame.device)}


def _frame_in(data: Any, device: str | torch.device | None) -> Any:
    if isinstance(data, list):
        return [_frame_in(d, device) for d in data]
    dtype = getattr(torch, data["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {data['dtype']!r}")
    return Frame(tuple(int(n) for n in data["shape"]), dtype, torch.device(device or data["device"]))


def _safetensors(name: str) -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError("saving and loading states needs safetensors: pip install 'continual[io]'") from error
    return getattr(safetensors.torch, name) if name == "save_file" else getattr(safetensors, name)
