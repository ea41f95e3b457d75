"""Exact windows of random modules: the score of each is the module's own, whatever the module does."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._pytree import tree_leaves

import continual as co
from continual.convert.graph.window_check import assembled, window_of
from continual.convert.graph.windows.window import Windowed
from tests.convert.random_modules import RandomModule, random_modules
from tests.pasting import of_module

EXAMPLES = 25


def window_and_outputs(m: RandomModule) -> Windowed | None:
    """A random module's window; ``None`` if it is refused, as what mixes rows is."""
    try:
        return window_of(m.module, m.clip, m.options["time_dim"], None)
    except co.NotStreamable as error:
        note(str(error))
        return None


def noise(m: RandomModule, steps: int, rows: int = 2) -> tuple[Tensor, ...]:
    """Inputs of so many steps."""
    generator, found = torch.Generator().manual_seed(5), []
    for x, time in zip(m.inputs, m.time_dims, strict=True):
        shape = [steps if d == time else size for d, size in enumerate(x.shape)]
        found.append(x if time is None else torch.randn(shape, generator=generator, dtype=x.dtype))
    return tuple(found)


def of_window(m: RandomModule, clip: tuple[Tensor, ...], first: int) -> list[Tensor]:
    """The module on the window that begins at a frame."""
    own = tuple((x if t is None else x.narrow(t, first, m.frames)).clone() for x, t in zip(clip, m.time_dims, strict=True))
    return [y for y in tree_leaves(m.module(*own)) if isinstance(y, Tensor)]


def compare(got: list[Tensor], want: list[Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        if b.is_floating_point() and b.numel():
            scale = float(b.abs().nan_to_num(0.0).max())
            assert float((a - b).abs().nan_to_num(0.0).max()) <= 1e-9 * max(1.0, scale)
            assert torch.equal(a.isnan(), b.isnan())


@given(m=random_modules(faults=2), every=st.sampled_from((None, 1, 2, 3, 5)), frame=st.none() | st.integers(-20, 19))
@settings(max_examples=EXAMPLES)
def test_windows_of_random_modules(m: RandomModule, every: int | None, frame: int | None) -> None:
    note(of_module(m, f"every={every}, output={frame}"))
    window = window_and_outputs(m)
    assume(window is not None)
    assert window is not None
    assert not window.walk.unexpected, window.walk.unexpected
    frames = [t.wire.n for t in window.outputs if t.wire.timed]
    if frame is not None and frames and all(t.wire.alone for t in window.outputs if t.wire.timed):
        frame %= min(frames)
        dims = [t.wire.dim if t.wire.timed else None for t in window.outputs]
        window = window.at_frame(frame, dims)
    else:
        dims = [None] * len(window.outputs)
    chosen = every or window.every()
    try:
        net: Any = assembled(window, m.module, window.complete(co.WindowPlan(every=chosen)))
    except co.NotStreamable:  # rows are mixed
        return
    event("reused" if len(net._program.instructions[0].schedule.histories) > len(window.walk.entry_slots) else "frames alone")
    steps = m.frames + 3 * chosen + 1
    clip = noise(m, steps)
    with torch.no_grad():
        want = [of_window(m, clip, first) for first in range(0, 3 * chosen + 2, chosen) if first + m.frames <= steps]
        want = [[y if d is None else y.select(d, frame) for y, d in zip(w, dims, strict=True)] for w in want]
        found = net.steps(
            *clip, net.init_state(*(x if t is None else x.select(t, 0) for x, t in zip(clip, m.time_dims, strict=True)))
        )[0]
        chunked = [y for y in tree_leaves(found) if isinstance(y, Tensor)]
        for j, w in enumerate(want):
            compare([y.select(d, j) for y, d in zip(chunked, net.output_time_dims, strict=True)], w)
        stepped = []
        for t in range(steps):
            y = net.forward_step(*(x if d is None else x.select(d, t) for x, d in zip(clip, m.time_dims, strict=True)))
            stepped += [] if y is None else [tree_leaves(y)]
        for got, w in zip(stepped, want, strict=True):
            compare(got, w)
