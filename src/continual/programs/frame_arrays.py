"""The frames that callers of a batch of streams pass and receive: tensors or numpy arrays, one frame or one chunk for each stream."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..core.step_spec import StepSpec
from ..errors import MissingFrames, ShapeMismatch
from .served import Served


def listed(frame: Any) -> list[Any]:
    """The inputs of a frame: one, or a list of them."""
    return list(frame) if isinstance(frame, (list, tuple)) else [frame]


def is_array(x: Any) -> bool:
    """Whether it is an array of numpy, which need not be installed."""
    return not isinstance(x, Tensor) and hasattr(x, "__array_interface__")


def tensor_of(x: Any) -> Tensor:
    """A tensor, or an array as one that shares its memory."""
    if isinstance(x, Tensor):
        return x.detach()
    if not is_array(x):
        raise ShapeMismatch(f"StreamBatch: takes tensors or numpy arrays, not {type(x).__name__}")
    return torch.from_numpy(x if x.flags.writeable else x.copy())


def array_of(t: Tensor) -> Any:
    """A tensor as an array of numpy."""
    return t.cpu().numpy()


def checked_frames(program: Served, frames: Any, rows: int) -> tuple[list[Tensor], int, bool]:
    """Check the frames of some rows, and bring them into the layout of a program.

    Args:
        program: takes them.
        frames: ``(n, C, *S)``, or chunks ``(n, C, T, *S)``; a list for several inputs.
        rows: how many.

    Returns:
        ``(n, T, …)`` of each input, ``T``, and whether they are chunks.

    Raises:
        ShapeMismatch: other frames.
    """
    parts, specs = [tensor_of(x) for x in listed(frames)], program.frames
    if len(parts) != len(specs):
        raise ShapeMismatch(f"StreamBatch: takes {len(specs)} tensors, got {len(parts)}")
    stream = next(i for i, lane in enumerate(program.lanes) if lane.stream) if len(specs) > 1 else 0
    chunk = parts[stream].ndim == len(specs[stream].shape) + 2
    for i, (x, spec) in enumerate(zip(parts, specs, strict=True)):
        ranks = len(spec.shape) + 1 + (chunk and (len(specs) == 1 or program.lanes[i].stream))
        fits = x.ndim == ranks and len(x) == rows and x.dtype == spec.dtype and (chunk or x.shape[1:] == spec.shape)
        if not fits:
            raise ShapeMismatch(_refused(i if len(specs) > 1 else None, spec, x, rows))
    if not chunk:
        return program.frames_in(_on(parts, program), False), 1, False
    found = program.frames_in(_on(parts, program), True)
    like = program.frames_in([spec.resized(1, *spec.shape).zeros() for spec in specs], False)
    for i, (x, own) in enumerate(zip(found, like, strict=True)):
        if x.shape[2:] != own.shape[2:] or x.shape[1] != found[0].shape[1]:
            raise ShapeMismatch(_refused(i if len(specs) > 1 else None, specs[i], parts[i], rows))
    return found, found[0].shape[1], True


def _on(parts: list[Tensor], program: Served) -> list[Tensor]:
    return [x.to(program.device) for x in parts] if program.device.type != "cpu" else parts


def _refused(index: int | None, spec: StepSpec, x: Tensor, rows: int) -> str:
    which = "" if index is None else f"input {index}: "
    return (
        f"StreamBatch: {which}takes frames {(rows, *spec.shape)} {_name(spec.dtype)}, or chunks of them, for {rows} rows; got "
        f"{tuple(x.shape)} {_name(x.dtype)}. No stream has moved"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- frames of streams by name ------------------------------------------------------------------------------------------------


def stacked(program: Served, frames: Sequence[Any]) -> list[Tensor] | None:
    """Frames of several streams as one tensor for each input; ``None`` if one of them is not as it should be."""
    specs = program.frames
    if not frames:
        return []
    rows = [[f] if isinstance(f, Tensor) else listed(f) for f in frames]
    if any(len(r) != len(specs) for r in rows):
        return None
    parts = []
    for own, spec in zip(zip(*rows, strict=True), specs, strict=True):
        if not all(isinstance(t, Tensor) for t in own) or {(t.shape, t.dtype, t.device) for t in own} != _as_set(spec):
            return None
        parts.append(torch.stack(own))
    return parts


def _as_set(spec: StepSpec) -> set[Any]:
    return {(torch.Size(spec.shape), spec.dtype, spec.device)}


def check_frame(program: Served, stream: Hashable, frame: Any) -> None:
    """Refuse a frame of one stream that is not as it should be.

    Raises:
        ShapeMismatch: another shape, dtype or device.
        MissingFrames: there is none.
    """
    if frame is None:
        raise MissingFrames(
            f"StreamBatch: stream {stream!r} has no frame (None). Leave it out of the call, and it pauses; or say what stands for "
            "missing frames: co.Streams(batch, gaps='hold').step({…}). No stream has moved"
        )
    parts, specs = listed(frame), program.frames
    if len(parts) != len(specs):
        said = f"{len(specs)} tensor{'' if len(specs) == 1 else 's'}"
        raise ShapeMismatch(f"StreamBatch: stream {stream!r}: takes {said} a step, got {len(parts)}")
    if other := next((type(p) for p in parts if not isinstance(p, Tensor)), None):
        hint = ": write torch.from_numpy(frame)" if other.__module__ == "numpy" else ""
        raise ShapeMismatch(
            f"StreamBatch: stream {stream!r}: a frame is a torch.Tensor, got {other.__module__}.{other.__name__}{hint}"
        )
    for got, spec in zip(parts, specs, strict=True):
        if tuple(got.shape) != spec.shape or got.dtype != spec.dtype or got.device != spec.device:
            raise ShapeMismatch(
                f"StreamBatch: stream {stream!r}: takes frames {spec}, got {tuple(got.shape)} {_name(got.dtype)} on {got.device}. "
                "No stream has moved"
            )


# ---- outputs ------------------------------------------------------------------------------------------------------------------


def each(y: Any, rows: int) -> list[Any]:
    """The outputs of each row, without rows. They are copies: no output keeps those of others alive."""
    if isinstance(y, Tensor):
        return [t.clone() for t in y.unbind(0)]
    return [tree_map(lambda t, i=i: t[i].clone(), y) for i in range(rows)]


def written(y: Any, out: Any) -> Any:
    """Copy outputs into tensors or arrays of the caller, and return these.

    Raises:
        ShapeMismatch: they have other shapes.
    """
    own, found = [tensor_of(t) for t in tree_leaves(out)], tree_leaves(y)
    if [t.shape for t in own] != [t.shape for t in found]:
        raise ShapeMismatch(
            f"StreamBatch: the outputs are {[tuple(t.shape) for t in found]}, out= has {[tuple(t.shape) for t in own]}"
        )
    for a, b in zip(own, found, strict=True):
        a.copy_(b)
    return out
