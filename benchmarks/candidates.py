"""What the suite times of a row: our steps, the window, and our export in runtimes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import continual as co

from . import runtimes
from .measure import Effort, WrongResult, require_equal
from .subjects import Subject, last
from .timing import Local, alternate

CHUNK, CHUNK_SECONDS = 64, 0.3  # frames of a chunk, fewer where it takes longer than this
RUNTIMES = {"onnxruntime": runtimes.in_onnxruntime, "openvino": runtimes.in_openvino}


@dataclass
class Timed:
    """A candidate, how many steps one call of it makes, and what has to stay in memory for it."""

    name: str
    call: Callable[[], Any]
    steps: int
    keeps: Any = None


def eager(net: Any, subject: Subject, name: str) -> Timed:
    """A period of steps, in the middle of a stream."""
    frame = subject.frame
    for f in subject.clip.unbind(2):
        net.forward_step(f)

    def steps() -> None:
        for _ in repeat(None, subject.period):
            net.forward_step(frame)

    return Timed(name, steps, subject.period)


def compiled(net: Any, subject: Subject, wanted: Tensor) -> Timed:
    """A call of a program, checked."""
    program = co.compile(net, subject.frame, backend="aot")
    given = [last(y) for f in subject.clip.unbind(2) if (y := program.step(f)) is not None]
    several = [y if y.ndim == wanted.ndim else y.unsqueeze(2) for y in given]
    require_start("compiled", torch.cat(several, 2), wanted)
    state = program.init_state()
    chunk = torch.stack([subject.frame] * program.chunk, 2)

    def run() -> None:
        nonlocal state
        _, _, state = program.run(chunk, state)

    return Timed("compiled", run, program.chunk)


def in_runtime(name: str, path: Path, subject: Subject, wanted: Tensor, threads: int, effort: Effort) -> Timed:
    """A call of our export, checked, by the fastest way to bind it.

    Raises:
        WrongResult: no way gives the network's outputs.
    """
    ways, wrong = {}, []
    for way, opened in RUNTIMES[name](path, threads).items():
        try:
            require_start(f"{name} {way}".strip(), opened.outputs(subject.clip), wanted)
            ways[way] = opened
        except WrongResult as error:
            wrong.append(error)
    if not ways:
        raise wrong[0]
    way = fastest_of({way: opened.call for way, opened in ways.items()}, effort)
    return Timed(name, ways[way].call, ways[way].file.chunk, ways[way])


def hops(net: Any, subject: Subject) -> Timed:
    """``forward_steps`` on as many steps as bring an output, in the middle of a stream."""
    size = int(net.step_size)
    hop = torch.stack([subject.frame] * size, 2)
    for _ in range(-(-subject.clip.shape[2] // size)):
        net.forward_steps(hop)
    return Timed("hop", lambda: net.forward_steps(hop), size)


def outputs_of(net: Any, clip: Tensor) -> Tensor:
    """The outputs that a clip brings from a cold start."""
    with torch.inference_mode(False), torch.no_grad():
        net.clean_state()
        found = last(net.forward_steps(clip, update_state=False))
    return found


def require_start(name: str, found: Tensor, wanted: Tensor) -> None:
    """Refuse to time what gives something else. Calls of several steps may be short of the last outputs.

    Raises:
        WrongResult: outputs differ, or there are none.
    """
    if not 0 < found.shape[2] <= wanted.shape[2]:
        raise WrongResult(f"{name}: {found.shape[2]} outputs where the network has {wanted.shape[2]}")
    require_equal(name, found, wanted[:, :, : found.shape[2]])


def chunked(net: Any, subject: Subject, step: float) -> Timed:
    """``forward_steps`` on a chunk of a running stream."""
    most = max(1, min(CHUNK, int(CHUNK_SECONDS / step)) // subject.period) * subject.period
    chunk = torch.stack([subject.frame] * most, 2)
    return Timed("chunk", lambda: net.forward_steps(chunk), most)


def window(subject: Subject, effort: Effort) -> Timed:
    """The fastest way to recompute the window."""
    return Timed("window", subject.windows[fastest_of(subject.windows, effort)], subject.period)


def fastest_of(ways: dict[str, Callable[[], Any]], effort: Effort) -> str:
    """The name of the fastest of some calls."""
    if len(ways) == 1:
        return next(iter(ways))
    return alternate([Local(n, c) for n, c in ways.items()], 3, effort.min_block).fastest(list(ways))


def copy_of(net: Any) -> Any:
    """A network with a stream of its own."""
    made = copy.deepcopy(net)
    made.clean_state()
    return made
