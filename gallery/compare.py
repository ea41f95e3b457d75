"""A converted network beside its module: on a clip twice as long, in random chunks and steps."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from continual import ShapeMismatch

from .network import Network

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}  # a number of the module in float32 stays one in its float64 run
STEPS = 40  # of a clip are single ones at most
WINDOWS = (5, 60)  # compared with the module one by one, at least and at most
PATIENCE = 0.5  # seconds for the module's windows, as far as the least number of them allows
SEED = 7  # of the clip that is compared


class Wrong(Exception):
    """Outputs that are not the module's."""


def leaves(y: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    return [leaf for leaf in tree_leaves(y) if isinstance(leaf, Tensor)]


def cut(inputs: Sequence[Tensor], dims: Sequence[int | None], start: int, count: int) -> list[Tensor]:
    """Some steps of the streams, and whole what is not a stream. In a step, a stream of a higher rate has several frames."""
    steps = math.gcd(*(x.shape[d] for x, d in zip(inputs, dims, strict=True) if d is not None))
    rates = [1 if d is None else x.shape[d] // steps for x, d in zip(inputs, dims, strict=True)]
    return [
        x if d is None else x.narrow(d, start * rate, count * rate).contiguous()
        for x, d, rate in zip(inputs, dims, rates, strict=True)
    ]


def one(part: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
    """A step of the streams, as ``forward_step`` takes it: without time, where it is a frame."""
    return [x if d is None or x.shape[d] > 1 else x.squeeze(d) for x, d in zip(part, dims, strict=True)]


def chunks_of(frames: int, rng: random.Random) -> list[int]:
    """Random chunks that are the clip together: none, one, two, … frames."""
    sizes: list[int] = []
    steps = 0
    while (left := frames - sum(sizes)) > 0:
        sizes.append(min(left, rng.choice((0, 1, 1, 1, 2, 3, 5, max(1, frames // 9), max(1, frames // 4)))))
        steps += sizes[-1] < 6
        if steps >= STEPS:
            sizes.append(max(0, left - sizes[-1]))
            break
    return sizes


def streamed(net: Any, inputs: Sequence[Tensor], dims: Sequence[int | None], sizes: Sequence[int]) -> list[Tensor]:
    """The outputs of a clip in chunks; those of one frame go through ``forward_step``. Empty if there are none."""
    net.clean_state()
    found: list[list[Tensor]] = []
    at = 0
    for i, size in enumerate(sizes):
        part, last = cut(inputs, dims, at, size), i == len(sizes) - 1
        at += size
        if size == 1 and not last:
            y = net.forward_step(*one(part, dims))
            if y is not None and not net.timing.bursts:
                y = [t.unsqueeze(d) for t, d in zip(leaves(y), net.output_time_dims, strict=True)]
        else:
            y = net.forward_steps(*part, pad_end=last)
        if y is not None:
            found.append(leaves(y))
    return [torch.cat(parts, d) for parts, d in zip(zip(*found, strict=True), net.output_time_dims, strict=True)]


def after_clip(net: Any, found: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of a clip of which those of its last frame are as the module gives them."""
    return [y.select(d, -1) if i in net.running else y for i, (y, d) in enumerate(zip(found, net.output_time_dims, strict=True))]


def farthest(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest value of each output.

    Raises:
        Wrong: other numbers of outputs, shapes, or no numbers at all.
    """
    shapes = [tuple(y.shape) for y in got], [tuple(y.shape) for y in want]
    if shapes[0] != shapes[1]:
        raise Wrong(f"the stream gives {shapes[0]}, the module {shapes[1]}")
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        if not b.isfinite().all():
            raise Wrong("the module itself gives values that are not finite: the row needs another clip")
        off = (a.to(torch.complex128 if a.is_complex() else torch.float64) - b).abs().max() if b.numel() else torch.zeros(())
        worst = max(worst, float(off) / max(float(b.abs().max()) if b.numel() else 0.0, 1e-30))
        if worst != worst:
            raise Wrong("the stream gives values that are not numbers")
    return worst


def tells(module: nn.Module, network: Network, convert: Callable[[Tensor], Tensor]) -> None:
    """See that outputs depend on the clip.

    Raises:
        Wrong: they don't, so that a comparison would prove nothing.
    """
    first, second = ([convert(x) for x in network.inputs(seed=seed)] for seed in (SEED, SEED + 1))
    with torch.no_grad():
        pairs = list(zip(leaves(module(*first)), leaves(module(*second)), strict=True))
    if all(float((a - b).abs().max()) <= 1e-6 * float(b.abs().max()) for a, b in pairs):
        raise Wrong("the module gives the same for any clip: the row proves nothing")


def of_stream(net: Any, module: nn.Module, network: Network, convert: Callable[[Tensor], Tensor]) -> tuple[float, int]:
    """The largest difference of a stream, and the frames of the clip: two examples, if the network is for clips of any length.

    Raises:
        Wrong: the outputs are not as many, or of another shape.
    """
    own = network.frames
    for frames in [own] if net.lengths == "own" else [2 * own, 3 * own, own]:
        inputs = [convert(x) for x in network.inputs(frames, seed=SEED)]
        try:
            with torch.no_grad():
                want = leaves(module(*inputs))
                whole = leaves(net(*inputs))
        except (RuntimeError, ValueError, AssertionError, ShapeMismatch, IndexError):
            if frames == own:
                raise
            continue  # the module is for other lengths
        with torch.no_grad():
            worst = farthest(whole, want)
            for seed in (0, 1):
                sizes = chunks_of(frames, random.Random(seed))
                found = streamed(net, inputs, network.time_dims, sizes)
                worst = max(worst, farthest(after_clip(net, found), want))
        net.clean_state()
        return worst, frames
    raise AssertionError("the example's length is among the lengths")


def of_windows(
    net: Any, module: nn.Module, network: Network, convert: Callable[[Tensor], Tensor], output: int | None = None
) -> tuple[float, int]:
    """The largest difference of exact windows from the module on each of them, and the frames of the clip.

    Args:
        output: the frame of each window that the network gives; by default the row's, if it has one.

    Raises:
        Wrong: windows are not as many, or of another shape.
    """
    length, every = net.windows.length, net.windows.every
    own, output = [convert(x) for x in network.inputs(seed=SEED)], network.options.get("output") if output is None else output
    with torch.no_grad():
        start = time.perf_counter()
        module(*own)
        spent = time.perf_counter() - start
        least, most = WINDOWS
        count = max(least, min(most, length // every + 2, int(PATIENCE / max(spent, 1e-6))))
        frames = length + (count - 1) * every + min(every - 1, 3)
        clip = [convert(x) for x in network.inputs(frames, seed=SEED)]
        parts = [leaves(module(*cut(clip, network.time_dims, i * every, length))) for i in range(count)]
        if output is not None:
            dims = frame_dims(module, network, convert)
            parts = [[y if d is None else y.select(d, output) for y, d in zip(ys, dims, strict=True)] for ys in parts]
        want = [torch.stack(ys, min(2, ys[0].ndim)) for ys in zip(*parts, strict=True)]
        sizes = [length // 3, *chunks_of(frames - length // 3, random.Random(2))]
        worst = farthest(streamed(net, clip, network.time_dims, sizes), want)
    net.clean_state()
    return worst, frames


def frame_dims(module: nn.Module, network: Network, convert: Callable[[Tensor], Tensor]) -> list[int | None]:
    """The dimension of frames of each output: the one that grows with the clip; ``None`` for an output without frames.

    A module for one length alone has as many frames as the example, or its outputs are ``(B, frames, …)``.
    """
    own = leaves(module(*(convert(x) for x in network.inputs())))
    try:
        longer = leaves(module(*(convert(x) for x in network.inputs(2 * network.frames))))
        return [next((d for d in range(y.ndim) if y.shape[d] != z.shape[d]), None) for y, z in zip(own, longer, strict=True)]
    except Exception:  # whatever people's modules raise on a length that they are not for
        return [next((d for d in range(1, y.ndim) if y.shape[d] == network.frames), 1) for y in own]
