"""The network of an engine as arrays: formats of frames and outputs, and steps with rows first and moments second."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..programs.frame_arrays import array_of
from ..programs.stream_batch import StreamBatch
from .protocol import Array, Format, Spec

PROBE = (2, 3)  # moments: the dimension in which two results differ is that of time


class Served:
    """The streams of a network, in the form that an engine needs.

    Args:
        streams: of the network.
        rate: steps per second, if known.

    Attributes:
        inputs, outputs: formats of a frame and of the outputs of one moment.
        digest: of the network and its weights: streams go on only where it is the same.
        nothing: frames of no stream.
    """

    def __init__(self, streams: StreamBatch, rate: float | None):
        self._streams = streams
        program = self._program = streams.served
        self.inputs = Format(tuple(Spec.of(f.shape, _numpy(f.dtype)) for f in program.frames))
        shapes = [[t.shape for t in tree_leaves(program.rows_out(program.no_outputs(1, n), True))] for n in PROBE]
        self._times = [
            next(i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b) for pair in zip(*shapes, strict=True)
        ]
        one = tree_leaves(program.rows_out(program.no_outputs(1, 1), False))
        self._single = program.schedule.per_call == 1
        chunked = tree_leaves(program.rows_out(program.no_outputs(1, 1), True))
        moments = [self._moments(t, dim) for t, dim in zip(chunked, self._times, strict=True)]
        leaves = [t[0] for t in one] if self._single else [t[0, 0] for t in moments]
        self.outputs = Format(tuple(Spec.of(t.shape, _numpy(t.dtype)) for t in leaves))
        self.digest = hashlib.sha256(f"{streams.signature} {streams.weights}".encode()).hexdigest()[:32]
        self.nothing = [np.zeros((0, *s.shape), s.dtype) for s in self.inputs.specs]
        net: Any = streams.net
        self.facts: dict[str, Any] = {
            "network": program.name,
            "delay": int(net.delay),
            "receptive_field": int(net.receptive_field),
            "stride": str(net.stride[0]),
            "chunk": program.schedule.chunk,
            "rate": rate if rate is not None else getattr(net, "rate", None),
            "model": self.digest,
        }

    @staticmethod
    def _moments(t: Any, dim: int) -> Any:
        """Outputs with the moments second."""
        return t.movedim(dim, 1) if isinstance(t, Tensor) else np.moveaxis(t, dim, 1)

    def step(self, rows: Array, parts: list[Array]) -> tuple[list[Array], Array]:
        """One step of some rows, which are open: the outputs ``(n, m, C', *S')`` of each, and which exist ``(n, m)``."""
        y, valid = self._streams.step_known(rows, parts)
        leaves = [array_of(t) for t in y]
        if self._single:
            return [t[:, None] for t in leaves], array_of(valid)[:, None]
        return [self._moments(t, dim) for t, dim in zip(leaves, self._times, strict=True)], array_of(valid)

    def try_out(self) -> None:
        """A step of a temporary stream."""
        self._streams.open("")
        self.step(self._streams.rows([""]).numpy(), [np.zeros((1, *s.shape), s.dtype) for s in self.inputs.specs])
        self._streams.close("")

    def end(self, y: Any) -> list[Array]:
        """What the end of a stream has brought, ``(m, C', *S')``; an empty list for nothing."""
        if y is None:
            return []
        leaves = tree_leaves(y)
        return [array_of(t.movedim(dim - 1, 0)) for t, dim in zip(leaves, self._times, strict=True)]


def _numpy(dtype: torch.dtype) -> Any:
    return array_of(torch.zeros(0, dtype=dtype)).dtype
