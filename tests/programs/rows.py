"""Streams that share a step program and are out of step with each other, against each of them alone. No tests are in this file."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import continual as co
from continual.convert.graph.graph_module import GraphModule
from continual.programs.backends import TARGETS
from continual.programs.planning import Planned, planned
from continual.programs.step_program import StepProgram
from tests.contract import TOO_SHORT, assert_equal
from tests.convert.streaming import Dims, cut, listed

ROWS = 4


class Fused(StepProgram):
    """The kernels that compilers get, run by torch's operations one by one."""

    def __init__(self, net: Any, step: Any, chunk: int | None):
        super().__init__(net, step, chunk, "eager")

    def _plan(self, chunk: int | None, flush: bool) -> Planned:
        with torch.no_grad():
            return planned(self.net, self.frame, chunk, flush=flush, target=TARGETS["aot"])


@dataclass
class Layout:
    """Where time and rows are in a network's inputs and outputs.

    Attributes:
        inputs: where time is; ``None`` for an input that is not a stream.
        outputs: of chunks; windows of clip-level outputs are stacked on dim 2.
        rows, out_rows: where the batch is.
        listed: whether several inputs are given as one list.
    """

    inputs: Dims = (2,)
    outputs: Sequence[int] = (2,)
    rows: Sequence[int] = (0,)
    out_rows: Sequence[int] = (0,)
    listed: bool = True

    @staticmethod
    def of(net: Any, inputs: Sequence[Tensor]) -> Layout:
        """Of a network, a converted one or one of streaming layers."""
        n = len(inputs)
        if not isinstance(net, GraphModule):
            return Layout((2,) * n, (2,) * n, (0,) * n, (0,) * n)
        outs = list(net.output_batch_dims)
        rows = [i.batch or 0 for i in net.io_layout.inputs]
        return Layout(net.time_dims, net.output_time_dims, rows, [o or 0 for o in outs], listed=False)

    def given(self, inputs: Sequence[Tensor]) -> tuple[Any, ...]:
        """Inputs as the network is called with them."""
        return (list(inputs),) if self.listed and len(inputs) > 1 else tuple(inputs)


@dataclass
class Life:
    """A stream in a row of a program.

    Attributes:
        inputs: its clip, of batch 1.
        frames: its length.
        calls: how many calls it has had.
        stop: calls after which its row is reset in mid-stream; ``None``: it comes to its end.
        known: whether its end is said at its beginning, not when the last frames have come.
        outs: what it was given.
    """

    inputs: Sequence[Tensor]
    frames: int
    stop: int | None
    known: bool
    calls: int = 0
    count: int = 0
    ended: bool = False
    outs: list[list[Tensor]] = field(default_factory=list)


# ---- many at once -------------------------------------------------------------------------------------------------------


def desynchronised(program: StepProgram, rows: Sequence[Sequence[Life]], rng: random.Random, layout: Layout) -> None:
    """Run streams that begin, pause, end and are cut off at different calls. All that is not theirs is NaN.

    Args:
        program: as many rows as ``rows``.
        rows: the streams that each row serves, one after another.
        rng: says who begins and pauses when.
        layout: of the network.
    """
    state = program.init_state()
    waiting = [list(lives) for lives in rows]
    now: list[Life | None] = [None] * len(rows)
    extra = [0] * len(rows)
    first = True
    while any(waiting) or any(now):
        for row, life in enumerate(now):
            if life is None and waiting[row] and rng.random() < 0.5:
                now[row], extra[row] = waiting[row].pop(0), rng.randint(0, 2)
                if not first:  # the first state is that of rows that begin
                    program.reset(state, [row])
        paused = [rng.random() < 0.25 for _ in rows]
        for row, life in enumerate(now):
            if life is not None and life.stop is None and not life.ended:
                brought = program.start + program.chunk * (life.calls + 1)
                if life.known or (brought > life.frames and not paused[row]):
                    state, life.ended = program.finish(state, row, life.frames), True
        active = torch.tensor([not p for p in paused])
        x = _chunks(program, [None if p else life for p, life in zip(paused, now)], rows, layout)
        y, valid, state = program(x, state, None if active.all() and rng.random() < 0.5 else active)
        first = False
        for row, life in enumerate(now):
            if paused[row]:
                assert not valid[row].any(), "a row that pauses has outputs"
            elif life is not None:
                _take(program, life, row, listed(y), valid[row], layout)
                if _done(program, life, extra[row]):
                    now[row] = None


def _chunks(program: StepProgram, lives: Sequence[Life | None], rows: Sequence[Sequence[Life]], layout: Layout) -> list[Tensor]:
    """What a call is given."""
    found = []
    for i, (like, time) in enumerate(zip(rows[0][0].inputs, layout.inputs)):
        if time is None:
            found.append(like)
            continue
        shape = list(like.shape)
        shape[layout.rows[i]], shape[time] = len(rows), program.chunk
        x = torch.full(shape, float("nan") if like.is_floating_point() else int(like.max()), dtype=like.dtype)
        for row, life in enumerate(lives):
            if life is None:
                continue
            begin = program.start + program.chunk * life.calls
            low, high = max(0, begin), min(life.frames, begin + program.chunk)
            if low < high:
                own = life.inputs[i].narrow(time, low, high - low)
                x.narrow(layout.rows[i], row, 1).narrow(time, low - begin, high - low).copy_(own)
        found.append(x)
    return found


def _take(program: StepProgram, life: Life, row: int, y: list[Tensor], valid: Tensor, layout: Layout) -> None:
    """Keep what a stream was given, if it is as many outputs as are due."""
    which = valid.nonzero().flatten()
    end = (life.frames,) if life.ended else ()
    assert which.tolist() == list(program.valid_in(life.calls, *end)), "valid differs from what is computed on the host"
    if len(which):
        dims = zip(y, layout.out_rows, layout.outputs)
        life.outs.append([t.narrow(b, row, 1).index_select(d, which) for t, b, d in dims])
    life.calls += 1
    life.count += len(which)
    brought = max(0, program.start + program.chunk * life.calls)
    due = program.net.timing.delivered(min(brought, life.frames))
    if brought <= life.frames:
        assert life.count == due, f"{life.count} outputs after {brought} frames, {due} are due"
    else:
        assert life.count >= due, f"{life.count} outputs at the end, {due} were due before"


def _done(program: StepProgram, life: Life, extra: int) -> bool:
    """Whether a row is free. An ended stream is asked a few times too often: :func:`_take` sees that nothing comes."""
    if life.stop is not None:
        return life.calls >= life.stop
    calls = max(-(-(life.frames - program.start) // program.chunk), program.calls_to_end(0, life.frames))
    assert program.calls_to_end(life.calls, life.frames) == max(0, program.calls_to_end(0, life.frames) - life.calls)
    return life.calls >= calls + extra


# ---- each alone ---------------------------------------------------------------------------------------------------------


def compare(program: StepProgram, life: Life, layout: Layout, forward: bool = True) -> None:
    """A stream's outputs are those of the host clock, and of the clip network."""
    net: Any = program.net
    found = [torch.cat(parts, d) for parts, d in zip(zip(*life.outs), layout.outputs)] if life.outs else None
    seen = life.frames if life.ended else min(life.frames, max(0, program.start + program.chunk * life.calls))
    clip = cut(life.inputs, layout.inputs, 0, seen)
    net.clean_state()
    with torch.no_grad():
        wanted = net.forward_steps(*layout.given(clip), pad_end=life.ended)
    net.clean_state()
    assert (found is None) == (wanted is None), (
        f"{'some' if wanted is None else 'no'} outputs of {seen} frames, unlike the host clock"
    )
    if wanted is not None:
        assert_equal(found, listed(wanted), f"{seen} frames by the row clock and the host clock")
    if life.ended and forward:
        try:
            with torch.no_grad():
                run = getattr(net, "_sequences", net.forward)  # with what forward gives after the clip as it is in each step
                y = run(*layout.given(clip))
            clip_net = listed(y[0] if getattr(net, "_gives_more", False) else y)
        except TOO_SHORT:
            assert found is None, "outputs of a clip that forward refuses"
        else:
            assert_equal(found, clip_net, f"{seen} frames by the row clock and the clip network")


# ---- both ---------------------------------------------------------------------------------------------------------------


def lives(program: StepProgram, inputs: Sequence[Tensor], rng: random.Random, layout: Layout, least: int = 1) -> list[list[Life]]:
    """Streams of parts of clips: for each row one or two, of which the first may be cut off."""
    i, time = next((i, d) for i, d in enumerate(layout.inputs) if d is not None)
    total, batch = inputs[i].shape[time], inputs[i].shape[layout.rows[i]]
    found = []
    for row in range(program.batch):
        queue = []
        for _ in range(rng.randint(1, 2)):
            source, shift = rng.randrange(batch), rng.randint(0, total)
            dims = zip(inputs, layout.rows, layout.inputs)
            clip = [x if d is None else x.narrow(b, source, 1).roll(shift, d) for x, b, d in dims]
            frames = total if row == 0 else rng.randint(min(least, total), total)
            lengths = (*range(frames, 0, -1), *range(frames + 1, total + 1))
            frames = next(n for n in lengths if not _refused(program.net, cut(clip, layout.inputs, 0, n), layout))
            whole = (frames - program.start) // program.chunk  # calls that frames of its own fill
            stop = rng.randint(1, whole) if row and whole and rng.random() < 0.4 else None
            queue.append(Life(clip, frames, stop, rng.random() < 0.5))
        if queue[-1].stop is not None and rng.random() < 0.7:
            queue[-1].stop = None
        found.append(queue)
    return found


def _refused(net: Any, clip: list[Tensor], layout: Layout) -> bool:
    """Whether a stream can't end here, since branches have different lengths: then no outputs of its end are right or wrong."""
    net.clean_state()
    try:
        with torch.no_grad():
            net.forward_steps(*layout.given(clip), pad_end=True)
    except co.ShapeMismatch:
        return True
    finally:
        net.clean_state()
    return False


def check_rows(
    net: Any,
    inputs: Tensor | Sequence[Tensor],
    chunk: int | None = None,
    *,
    fused: bool = False,
    seed: int = 0,
    forward: bool = True,
    least: int = 1,
) -> StepProgram:
    """Compile a network, and see that rows out of step are as if each ran alone.

    Args:
        net: in eval mode.
        inputs: a clip of any batch, or several that are fed together.
        chunk: as of ``co.compile``.
        fused: the kernels that compilers get.
        seed: of what happens when.
        forward: whether the clip network is compared, too.
        least: frames that a stream has.

    Raises:
        NotStreamable: it can't be compiled.
    """
    inputs = listed(inputs)
    layout, rng = Layout.of(net, inputs), random.Random(seed)
    dims = zip(inputs, layout.rows, layout.inputs)
    step = [x if d is None else x.narrow(b, 0, 1).repeat_interleave(ROWS, b).select(d, 0) for x, b, d in dims]
    program = Fused(net, step, chunk) if fused else co.compile(net, step, chunk=chunk, backend="eager")
    rows = lives(program, inputs, rng, layout, least)
    desynchronised(program, rows, rng, layout)
    for life in (life for queue in rows for life in queue):
        compare(program, life, layout, forward)
    return program
