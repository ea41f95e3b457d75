"""States of streams in files: safetensors with a versioned header, never pickle."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core.file_digest import BLANK, seal, seal_of
from ..core.state import InitContext, State, StateNode, StepSpec, rewire
from ..core.stored_state import STORED
from ..core.weights_digest import Weights
from ..errors import StateMismatch
from ..export.runner_state import RunnerState
from ..layers.recurrent.base import ITEM_LAYOUTS
from ..programs.snapshot import Snapshot, StreamSnapshot
from ..streams.state import StreamState

FORMAT = "continual.state"
STREAM = "continual.stream"  # of a snapshot of a StreamBatch
RUNNER = "continual.runner"  # of the stream of an exported file
PENDING = "pending "  # prefix of steps that wait for the rest of their chunk
CLOCK, FRAME = "stream", "held "  # of a co.Stream: the key of its clock, and the prefix of its frames
VERSION = "2"
FIRST = "1"  # without digests
UNSEALED = ", and has no digest of its content, so that damage can't be detected: it is of version 1 of the format"
FIRST_KEYS = {FORMAT: {"clock", "frame"}, STREAM: {"steps"}}  # besides the common keys


def save_state(state: State | StreamSnapshot | RunnerState | StreamState, path: str | os.PathLike[str]) -> None:
    """Write a state to a file. Needs safetensors (``pip install safetensors``).

    The file has two digests: of its own content, which detects damage, and of the weights with which the state was made. Save the state
    before the weights change: it holds no copy of them.

    Args:
        state: from ``get_state``, ``init_state`` or a pure step; or the snapshot of a stream of a :class:`~continual.StreamBatch`;
            or the state of a :class:`~continual.Stream`.
        path: the file; it is replaced in one operation after everything is written.

    Raises:
        StateMismatch: ``state`` is not a state (a cold stream has none), or the weights of the network have changed since ``get_state``.

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
    clock: dict[str, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    if isinstance(state, StreamState):
        clock, tensors = {CLOCK: json.dumps(state.facts)}, {f"{FRAME}{i}": t for i, t in enumerate(state.frames)}
        state = state.network
    own, of_network, weights = _parts(state)
    header = own | clock | {"version": VERSION, "weights": weights, "digest": BLANK}
    _write(path, of_network | tensors, header)


def _parts(state: Any) -> tuple[dict[str, str], dict[str, torch.Tensor], str]:
    """The own part of a header, the tensors, and the digest of the weights, of the state of a network.

    Raises:
        StateMismatch: as :func:`save_state`.
    """
    if isinstance(state, State):
        own = {"format": FORMAT, "clock": str(state.clock), "frame": json.dumps(_frame_out(state.frame))}
        own |= {"items": json.dumps(_items(state)), "parts": json.dumps(state.parts)} | (
            {"plan": state.plan} if state.plan else {}
        )
        if not state.fingerprint and isinstance(state.weights, Weights):
            raise StateMismatch(
                "save_state: the weights of the network have changed since get_state, so the digest of the weights of this state is lost. "
                "Save states before the weights change; or, to continue with the new weights, call set_state(state) and save get_state()"
            )
        return own | {"signature": state.signature}, state.tensors, state.fingerprint
    if isinstance(state, Snapshot):
        format = STREAM if isinstance(state, StreamSnapshot) else RUNNER
        own = {"format": format, "steps": str(state.steps), "signature": state.signature}
        return own, state.tensors | {f"{PENDING}{i}": t for i, t in enumerate(state.pending)}, state.weights
    raise StateMismatch(f"save_state takes a state, not {type(state).__name__}; get_state() of a cold stream is None")


def _write(path: str | os.PathLike[str], tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    save_file = _safetensors("save_file")
    tensors = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        save_file(tensors, partial, metadata=header)
        seal(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_state(
    path: str | os.PathLike[str], device: str | torch.device | None = None, *, allow_other_weights: bool = False
) -> State | StreamSnapshot | RunnerState | StreamState:
    """Read a state from a file.

    Args:
        path: the file.
        device: the device of its tensors; by default their device when the state was saved.
        allow_other_weights: whether a network with other weights may continue from the state.

    Returns:
        The state, for ``set_state`` or as the state of pure steps; or the snapshot, for :meth:`~continual.StreamBatch.restore`; or the
        state of a runner, or of a :class:`~continual.Stream`. These methods check whether it fits the network and its weights.

    Raises:
        StateMismatch: the file is damaged, is not a state file, or has a later version of the format; or its tensors were on a device that
            is missing here.
        FileNotFoundError: there is no such file.
        TypeError: ``device`` is something else, such as the network.

    Warns:
        UserWarning: the file does not name the weights with which it was made; not with ``allow_other_weights``. Such are files of
            version 1 of the format, which have no digest of their content either.
    """
    if not isinstance(device, (str, torch.device, int, type(None))):
        raise TypeError(
            f"load_state: device is a torch.device or its name, got {type(device).__name__}. A network takes a state by "
            "net.set_state(co.load_state(path))"
        )
    safe_open = _safetensors("safe_open")
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_state: there is no file {os.fspath(path)!r}")
    name = f"load_state: {os.fspath(path)!r}"
    own = seal_of(Path(path))
    if own is not None and not own.intact:
        raise StateMismatch(f"{name} is damaged: its content does not match its digest")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own error, and others for some kinds of damage
        raise StateMismatch(f"{name} is damaged or no state file ({error})") from error
    _check_header(name, header, own is not None)
    weights = "" if allow_other_weights else header.get("weights", "")
    if not weights and not allow_other_weights:
        warnings.warn(
            f"{name} does not name the weights with which it was made{UNSEALED if own is None else ''}. Save the state again, or accept "
            "any weights: load_state(path, allow_other_weights=True)",
            stacklevel=2,
        )
    try:
        moved, frames = _mover(name, device), {key: tensors.pop(key) for key in list(tensors) if key.startswith(FRAME)}
        network = (_state if header["format"] == FORMAT else _snapshot)(header, tensors, moved, weights)
        if CLOCK not in header:
            return network
        return StreamState(
            network, dict(json.loads(header[CLOCK])), tuple(moved(frames[f"{FRAME}{i}"], None) for i in range(len(frames)))
        )
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, StateMismatch):
            raise
        raise StateMismatch(f"{name} is damaged: its header can't be read ({error!r})") from error


def _check_header(name: str, header: dict[str, str], sealed: bool) -> None:
    """Refuse files of other programs, of later versions, and files without the digest of their version.

    Raises:
        StateMismatch: it is such a file.
    """
    format, version = header.get("format", ""), header.get("version", "")
    if format not in (FORMAT, STREAM, RUNNER):
        raise StateMismatch(f"{name} is a safetensors file, but not one that save_state wrote, or it is damaged")
    if version not in (FIRST, VERSION):
        raise StateMismatch(
            f"{name} has format version {version!r}, this library reads {FIRST} and {VERSION}. Update the library, or save the state again"
        )
    as_first = {"format", "version", "signature"} | FIRST_KEYS.get(format, set())
    if sealed == (version == FIRST) or (version == FIRST and set(header) != as_first):
        raise StateMismatch(f"{name} is damaged: its header is not that of version {version} of the format")


def _mover(name: str, device: str | torch.device | None) -> Callable[[torch.Tensor, Any], torch.Tensor]:
    """A function that moves a tensor to the requested device, or else to its own."""

    def moved(t: torch.Tensor, own: Any) -> torch.Tensor:
        place = own if device is None else device
        try:
            return t if place is None else t.to(place)
        except (RuntimeError, AssertionError) as error:
            raise StateMismatch(
                f"{name} can't be moved to {str(place)!r} ({str(error).splitlines()[0]}). Name another device: "
                "load_state(path, device='cpu')"
            ) from error

    return moved


def _state(header: dict[str, str], tensors: dict[str, torch.Tensor], moved: Any, weights: str) -> State:
    """The state of a network."""
    frame, clock = _frame_in(json.loads(header["frame"])), _count(header["clock"])
    first = frame
    while isinstance(first, list):
        first = first[0]
    loaded = {name: moved(t, first.device) for name, t in tensors.items()}
    place = next((t.device for t in loaded.values()), first.device)
    frame = rewire(lambda f: replace(f, device=place), frame)
    node = StateNode(InitContext(), STORED, None, children=_nodes(json.loads(header.get("items", "[]")), loaded))
    node.plan = header.get("plan", "")
    parts = tuple(str(p) for p in json.loads(header.get("parts", "[]")))
    return State(clock, frame, node, stored_signature=header["signature"], stored_parts=parts, weights=weights)


def _items(state: State) -> list[tuple[str, str]]:
    """The names of a state's tensors in the order of its items, each with the layout of its item. Files have no order."""
    layouts = {fn: layout for layout, fn in ITEM_LAYOUTS.items()}
    return [
        (f"{node.path}.{name}".lstrip("."), "" if node.item is None else layouts[node.item])
        for node in state.node.walk()
        for name in node.names
    ]


def _nodes(items: list[tuple[str, str]], tensors: dict[str, torch.Tensor]) -> list[StateNode]:
    """A node for each tensor, in the order of the items; those of which a file says nothing come last, as they are."""
    layouts = {name: layout for name, layout in items if name in tensors}
    nodes = []
    for name in [*layouts, *sorted(tensors.keys() - layouts)]:
        nodes.append(StateNode(InitContext(), STORED, None, {name: tensors[name]}))
        layout = layouts.get(name)
        nodes[-1].item = ITEM_LAYOUTS[layout] if layout else None
    return nodes


def _snapshot(header: dict[str, str], tensors: dict[str, torch.Tensor], moved: Any, weights: str) -> StreamSnapshot | RunnerState:
    """The snapshot of a stream of a batch, or the state of a runner."""
    loaded = {name: moved(t, None) for name, t in tensors.items()}
    waiting = sum(name.startswith(PENDING) for name in loaded)
    pending = tuple(loaded.pop(f"{PENDING}{i}") for i in range(waiting))
    made = StreamSnapshot if header["format"] == STREAM else RunnerState
    return made(_count(header["steps"]), loaded, pending, header["signature"], weights)


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(f"{count} steps")
    return count


def _frame_out(frame: Any) -> Any:
    if isinstance(frame, list):
        return [_frame_out(f) for f in frame]
    return {"shape": list(frame.shape), "dtype": str(frame.dtype).removeprefix("torch."), "device": str(frame.device)}


def _frame_in(data: Any) -> Any:
    if isinstance(data, list):
        return [_frame_in(d) for d in data]
    dtype = getattr(torch, data["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {data['dtype']!r}")
    return StepSpec(tuple(int(n) for n in data["shape"]), dtype, torch.device(data["device"]))


def _safetensors(name: str) -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise ImportError("saving and loading states needs safetensors: pip install safetensors") from error
    return getattr(safetensors.torch, name) if name == "save_file" else getattr(safetensors, name)
