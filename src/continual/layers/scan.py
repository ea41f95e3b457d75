"""`scan`: a loop over frames that carries a state, in modules that are written for clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan as exported_scan
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ..errors import ShapeMismatch, StateMismatch

S = TypeVar("S")
Cell = Callable[[Any, S], tuple[Any, S]]


def scan(cell: Cell[S], x: Any, state: S, dim: int = 2) -> tuple[Any, S]:
    """A recurrence over the frames of a clip: ``y_t, state = cell(x_t, state)`` for each of them.

    In a module that :func:`continual.continual` converts it becomes one recurrent layer, on the module's own parameters; in
    ``torch.export`` it is one operation, for clips of any length. Called by itself it is a loop.

    Args:
        cell: one step: of a frame ``(B, C, *S)`` and the state, the output ``(B, C', *S')`` and the new state. Any function of torch's
            operations: it may use parameters, and writes into nothing.
        x: the clip ``(B, C, T, *S)``, or a tuple, list or dict of clips of one length: the cell then gets such a one of frames.
        state: what the first step begins with: a tensor ``(B, …)``, or tuples, lists and dicts of them. Steps keep its shapes and types.
        dim: where time is in the clips, and in what is returned.

    Returns:
        The outputs with time in ``dim``, ``(B, C', T, *S')``, and the state after the last frame.

    Raises:
        ShapeMismatch: there is no such dimension, no frame, or clips have different lengths.
        StateMismatch: a step gives a state of other shapes or types.

    Example:
        >>> gru = nn.GRUCell(3, 4)
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.cell = nn.GRUCell(3, 4)
        ...
        ...     def forward(self, x):  # (B, 3, T)
        ...         def step(frame, h):
        ...             h = self.cell(frame, h)
        ...             return h, h
        ...
        ...         return co.scan(step, x, x.new_zeros(x.shape[0], 4))[0]
        >>> clip = torch.randn(2, 3, 9)
        >>> net = co.continual(Net().eval(), clip)
        >>> net.forward_step(clip[:, :, 0]).shape
        torch.Size([2, 4])
    """
    clips, form = tree_flatten(x)
    dims = _places(clips, dim)
    if torch.compiler.is_exporting():
        return _exported(cell, clips, form, state, dims, dim)
    before = _kinds(state)
    outs: list[Any] = []
    for frames in zip(*(clip.unbind(d) for clip, d in zip(clips, dims, strict=True)), strict=True):
        y, state = cell(tree_unflatten(list(frames), form), state)
        if _kinds(state) != before:
            raise StateMismatch(
                f"co.scan: the state begins as {before[0]}, and a step gives {_kinds(state)[0]}. Begin with such a one: state.expand(…) "
                "to the rows of the clip, or in another type"
            )
        outs.append(y)
    parts = zip(*map(tree_leaves, outs), strict=True)
    return tree_unflatten([torch.stack(list(p), _place(p[0].shape, dim)) for p in parts], tree_flatten(outs[0])[1]), state


def _places(clips: Sequence[Any], dim: int) -> list[int]:
    """Where time is in each clip."""
    if not clips or not all(isinstance(c, Tensor) for c in clips):
        raise ShapeMismatch("co.scan: x is a tensor, or a tuple, list or dict of tensors")
    if any(not -c.ndim <= dim < c.ndim for c in clips):
        raise ShapeMismatch(f"co.scan: there is no dim={dim} in clips of the shapes {[tuple(c.shape) for c in clips]}")
    lengths = [c.shape[dim] for c in clips]
    if any(n != lengths[0] for n in lengths[1:]) or not clips[0].shape[dim]:
        raise ShapeMismatch(f"co.scan: clips have one length, of one frame at least, got {lengths}")
    return [dim % c.ndim for c in clips]


def _place(frame: Sequence[int], dim: int) -> int:
    """Where time comes in what is made of frames of such a shape."""
    if not -len(frame) - 1 <= dim <= len(frame):
        raise ShapeMismatch(f"co.scan: an output of the shape {tuple(frame)} has no place for time in dim={dim}")
    return dim % (len(frame) + 1)


def _kinds(state: Any) -> tuple[list[Any], Any]:
    """The shapes and types of a state."""
    leaves, form = tree_flatten(state)
    return [(tuple(t.shape), t.dtype) if isinstance(t, Tensor) else type(t) for t in leaves], form


def _exported(cell: Cell[S], clips: Sequence[Tensor], form: Any, state: S, dims: Sequence[int], dim: int) -> tuple[Any, S]:
    """As one operation. It takes no outputs that share memory with states, and states that lie in memory as their new values do."""

    def step(state: Any, frames: Any) -> tuple[Any, Any]:
        y, new = cell(tree_unflatten(list(frames), form), state)
        return tree_map(_own, new), tree_map(torch.clone, y)

    last, y = exported_scan(step, tree_map(_own, state), [c.movedim(d, 0) for c, d in zip(clips, dims, strict=True)])
    return tree_map(lambda t: t.movedim(0, _place(t.shape[1:], dim)), y), last


def _own(t: Tensor) -> Tensor:
    return t.clone(memory_format=torch.contiguous_format)
