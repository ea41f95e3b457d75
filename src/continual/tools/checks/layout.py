"""The layout of a module's inputs and outputs, and the layout of the checks, with time in dim 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...core.state import Wire


class Layout:
    """The dimension of time in the inputs and outputs of a module.

    A module states it by ``time_dim``, or, where inputs and outputs differ, by ``time_dims`` (one per input, ``None`` for what is no
    stream), ``output_time_dims`` and ``output_batch_dims``. Inputs of which a step has several frames (``frames_per_step``) have these in a
    dimension of their own behind time here.

    Args:
        net: the module.
        clip: the example, in the module's layout.
    """

    def __init__(self, net: Any, clip: Any):
        self.time_dim = int(getattr(net, "time_dim", 2))
        own = getattr(net, "time_dims", None)
        self.inputs: tuple[int | None, ...] | None = None if own is None else tuple(own)
        outputs = getattr(net, "output_time_dims", None)
        self.outputs: tuple[int, ...] | None = None if outputs is None else tuple(outputs)
        batch = getattr(net, "output_batch_dims", None)
        self._rows = tuple(int(d == 0) for d in self.outputs or ()) if batch is None else tuple(batch)
        self._constants: dict[int, Tensor] = {}
        if self.inputs is None:
            self._ranks = [99]
            self.clip: Wire = _each(lambda t, _: t.detach().movedim(self.time_dim, 2), clip)
            return
        inputs = list(clip) if isinstance(clip, (list, tuple)) else [clip]
        streams = [(x, d) for x, d in zip(inputs, self.inputs, strict=True) if d is not None]
        self._constants = {i: x for i, (x, d) in enumerate(zip(inputs, self.inputs, strict=True)) if d is None}
        self._batched = {
            i for i, x in self._constants.items() if x.ndim and x.shape[0] == streams[0][0].shape[0 if streams[0][1] else 1] > 1
        }
        self._ranks = [x.ndim for x, _ in streams]
        rates = getattr(net, "frames_per_step", (1,) * len(inputs))
        self._rates = [r for r, d in zip(rates, self.inputs, strict=True) if d is not None]
        found: list[Wire] = [_apart(_second(x.detach(), d), r) for (x, d), r in zip(streams, self._rates, strict=True)]
        self.clip = found if len(inputs) > 1 else found[0]

    @property
    def bare(self) -> bool:
        """Whether clips have rows and frames and no channels."""
        return 2 in self._ranks

    # ---- what goes in -----------------------------------------------------------------------------------------------

    def chunk(self, x: Wire) -> Any:
        """A chunk in the module's layout."""
        if self.inputs is None:
            return x if self.time_dim == 2 else _each(lambda t, _: t.movedim(2, self.time_dim), x)
        dims = [d for d in self.inputs if d is not None]
        return self._with_constants(_each(lambda t, i: _back(_together(t, self._rates[i]), dims[i], self._ranks[i]), x))

    def step(self, x: Wire) -> Any:
        """A chunk of one as a step in the module's layout."""
        return self._with_constants(_each(self._one, x))

    def _one(self, t: Tensor, i: int) -> Tensor:
        """The only step of a chunk, of one input."""
        if self.inputs is not None and (rate := self._rates[i]) > 1:
            dims = [d for d in self.inputs if d is not None]
            return _back(_together(t, rate), dims[i], self._ranks[i])
        return t[:, 0, 0] if self._rank(i) == 2 else t[:, :, 0]

    def _rank(self, i: int) -> int:
        return self._ranks[i] if self.inputs is not None else 99

    def _with_constants(self, x: Any) -> Any:
        if not self._constants:
            return x
        streams, found = iter(x), []
        rows = x[0].shape[0 if next(d for d in self.inputs or () if d is not None) else 1] if x[0].ndim else 0
        for i, dim in enumerate(self.inputs or ()):
            if dim is not None:
                found.append(next(streams))
            elif i in self._batched:  # the same row for all, so that any selection of rows fits
                found.append(
                    self._constants[i][:1].expand(rows, *self._constants[i].shape[1:]).to(_like(found or x, self._constants[i]))
                )
            else:
                found.append(self._constants[i].to(_like(found or x, self._constants[i])))
        return found

    # ---- what comes out ---------------------------------------------------------------------------------------------

    def arrived(self, y: Wire) -> Wire:
        """A chunk of outputs, with time in dim 2."""
        if self.outputs is None:
            return _each(lambda t, _: t.movedim(self.time_dim, 2), y)
        dims, rows = self.outputs, self._rows
        return _each(
            lambda t, i: _second(t, dims[i]) if t.ndim == 2 else t.movedim((rows[i], dims[i]), (0, 2)), self._in_order(y)
        )

    def arrived_step(self, y: Wire) -> Wire:
        """A step's output as a chunk of one."""
        if self.outputs is None:
            return _each(_of_step, y)
        rows = [b - (d < b) for b, d in zip(self._rows, self.outputs, strict=True)]
        return _each(lambda t, i: _of_step(t.movedim(rows[i], 0), i), self._in_order(y))

    def _in_order(self, y: Any) -> Any:
        """The outputs of a converted module in their order, however it nests them."""
        return y if self.outputs is None or isinstance(y, Tensor) else [t for t in tree_leaves(y) if isinstance(t, Tensor)]


def _of_step(t: Tensor, _: int) -> Tensor:
    """A step as a chunk of one."""
    return t.view(-1, 1, 1) if t.ndim == 1 else t.unsqueeze(2)


def _like(x: Any, own: Tensor) -> torch.dtype:
    """The dtype of the streams, for the inputs beside them."""
    first: Tensor = x[0] if isinstance(x, Sequence) else x
    return first.dtype if own.is_floating_point() and first.is_floating_point() else own.dtype


def _each(fn: Any, wire: Wire) -> Wire:
    """Apply ``fn(tensor, number)`` to a tensor, or to those in a (nested) list."""
    if isinstance(wire, (list, tuple)):
        return [_each(lambda t, _, i=i: fn(t, i), w) for i, w in enumerate(wire)]
    return fn(wire, 0)


def _apart(t: Tensor, rate: int) -> Tensor:
    """A chunk with the frames of each step in a dimension of their own."""
    return t if rate == 1 else t.unflatten(2, (t.shape[2] // rate, rate))


def _together(t: Tensor, rate: int) -> Tensor:
    """The inverse of :func:`_apart`."""
    return t if rate == 1 else t.flatten(2, 3)


def _second(t: Tensor, dim: int) -> Tensor:
    """A tensor with its rows in dim 0 and its time in dim 2."""
    if t.ndim == 2:
        return (t if dim else t.t()).unsqueeze(1)
    return t.movedim(0, 1).movedim(1, 2) if dim == 0 else t.movedim(dim, 2)


def _back(t: Tensor, dim: int, rank: int) -> Tensor:
    """The inverse of :func:`_second`."""
    if rank == 2 and t.ndim == 3:
        return t.squeeze(1) if dim else t.squeeze(1).t()
    return t.movedim(2, 0) if dim == 0 else t.movedim(2, dim)
