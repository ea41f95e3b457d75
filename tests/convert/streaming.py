"""Streams of modules in their own layouts: any time dimensions, several inputs and outputs. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Dims = Sequence[int | None]


def cut(inputs: Sequence[Tensor], time_dims: Dims, start: int, stop: int) -> list[Tensor]:
    """Some frames of each stream, and whole what is none."""
    return [x if d is None else x.narrow(d, start, stop - start) for x, d in zip(inputs, time_dims)]


def listed(y: Any) -> list[Tensor]:
    """The outputs of a call: one tensor, or several."""
    return list(y) if isinstance(y, (tuple, list)) else [y]


def as_windows(y: Any, out_times: Dims) -> list[Tensor]:
    """What a clip gives as a stream gives it: outputs without time are one window, on dim 2."""
    return [t.unsqueeze(2) if d is None else t for t, d in zip(listed(y), out_times)]


def stream(
    net: Any,
    inputs: Sequence[Tensor],
    time_dims: Dims,
    out_times: Dims,
    sizes: Sequence[int],
    step: Callable[[], bool] = bool,
    end: bool = True,
) -> tuple[list[Tensor] | None, list[int]]:
    """Run a clip in chunks, from a clean state.

    Args:
        net: the streaming module.
        inputs: as the module is called with them.
        time_dims: where time is in them; ``None`` for what is not a stream.
        out_times: where time is in the outputs; ``None`` for outputs of a clip, whose windows come stacked on dim 2.
        sizes: the chunks.
        step: asked for each chunk of one frame whether ``forward_step`` shall take it (not for one that ends the stream).
        end: flush with the last chunk.

    Returns:
        All outputs, ``None`` if there were none, and how many there were after each chunk.
    """
    dims = [2 if d is None else d for d in out_times]
    net.clean_state()
    found: list[list[Tensor]] = []
    counts, at = [0], 0
    for i, size in enumerate(sizes):
        chunk, last = cut(inputs, time_dims, at, at + size), end and i == len(sizes) - 1
        at += size
        if size == 1 and not last and step():
            y = net.forward_step(*(x if d is None else x.squeeze(d) for x, d in zip(chunk, time_dims)))
            if y is not None and not net.timing.bursts:
                y = [t.unsqueeze(d) for t, d in zip(listed(y), dims)]
        else:
            y = net.forward_steps(*chunk, pad_end=last)
        if y is not None:
            found.append(listed(y))
        counts.append(counts[-1] + (0 if y is None else listed(y)[0].shape[dims[0]]))
    if not found:
        return None, counts[1:]
    return [torch.cat(parts, d) for parts, d in zip(zip(*found), dims)], counts[1:]
