"""One row: check that every candidate computes the same, then time them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

import continual as co

from . import bursts
from .bursts import Burst
from .other_library import CantRun, OtherLibrary
from .timing import MIN_BLOCK, Candidate, Local, Stats, Timings, alternate
from .workloads import Workload

CHUNK = 64  # steps of a chunk
BEYOND = 5  # steps that are checked after the first output
TOLERANCE = 1e-5

# The targets: our step over the window's, our chunk over the plain clip's, the other library's step over ours.
RECURRENT_TARGET = 1.1
CHUNK_TARGET = 1.2
NETWORKS = ("network", "encoder", "attention")
OTHER_TARGET = {"dense": 5.0, "depthwise": 2.0, "pool": 2.0, "encoder": 20.0, "network": 2.0}


class WrongResult(ArithmeticError):
    """A candidate does not compute what the plain module computes: it is not timed."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and seconds of a block at least."""

    rounds: int = 15
    min_block: float = MIN_BLOCK


@dataclass
class Row:
    """What was measured of one workload; times in seconds per call.

    Attributes:
        step: our ``forward_step``.
        window: the plain module on a clip buffer, by the fastest of the ways to shift it; ``shift`` is which. A recurrent
            layer needs no buffer: the plain module is called with one step and the carried state.
        windows: all ways.
        chunk: our ``forward_steps`` on :data:`CHUNK` steps.
        forward: the plain module on a clip that gives as many outputs.
        other: the other library's step, or ``None`` with the reason in ``cant_run``.
        to_window, to_forward: our time over theirs.
        to_other: their time over ours.
        error: why there are no numbers.
    """

    name: str
    kind: str
    threads: int
    receptive_field: int = 0
    step: Stats | None = None
    window: Stats | None = None
    shift: str = ""
    windows: dict[str, Stats] | None = None
    chunk: Stats | None = None
    forward: Stats | None = None
    other: Stats | None = None
    to_window: Stats | None = None
    to_forward: Stats | None = None
    to_other: Stats | None = None
    cant_run: str = ""
    error: str = ""

    @property
    def verdicts(self) -> dict[str, bool | None]:
        """Whether the targets (a), (b) and (c) are met; ``None`` where nothing was compared."""
        if self.to_window is None or self.to_forward is None:
            return {"a": None, "b": None, "c": None}
        against = self.to_window.median
        other, limit = OTHER_TARGET.get(self.kind), RECURRENT_TARGET if self.kind == "recurrent" else 1
        return {
            "a": against < 1 if self.kind in NETWORKS else against <= limit,
            "b": self.to_forward.median <= CHUNK_TARGET,
            "c": None if self.to_other is None or other is None else self.to_other.median >= other,
        }


def require_equal(what: str, got: Tensor, expected: Tensor) -> None:
    """Refuse outputs that differ from the plain module's.

    Raises:
        WrongResult: with the two shapes, or the difference and what is allowed.
    """
    if got.shape != expected.shape:
        raise WrongResult(f"{what}: outputs {tuple(got.shape)}, the plain module's are {tuple(expected.shape)}")
    got, expected = got.detach(), expected.detach()
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    apart = float((got - expected).abs().max())
    if not apart <= allowed:  # NaN is not equal
        raise WrongResult(f"{what}: differs from the plain module by {apart:.2e}, allowed are {allowed:.2e}")


# ---- what a user does without us: three ways to shift a clip buffer, or a carried state --------------------------------
# Each takes the plain module and the first frames, and returns the step. The time dimension of 1 is left in the output.

Step = Callable[[Tensor], Tensor]


def shift_by_cat(plain: nn.Module, first: Tensor) -> Step:
    """A new buffer of the old one without its first frame, and the frame."""
    buffer = first.clone()

    def step(frame: Tensor) -> Tensor:
        nonlocal buffer
        buffer = torch.cat((buffer[:, :, 1:], frame.unsqueeze(2)), 2)
        return plain(buffer)

    return step


def shift_by_roll(plain: nn.Module, first: Tensor) -> Step:
    """``torch.roll``, and the frame over the last place."""
    buffer = first.clone()

    def step(frame: Tensor) -> Tensor:
        nonlocal buffer
        buffer = buffer.roll(-1, 2)
        buffer[:, :, -1] = frame
        return plain(buffer)

    return step


def shift_by_copy(plain: nn.Module, first: Tensor) -> Step:
    """Two buffers allocated once, views of them made once; every step copies from one into the other."""

    def parts(buffer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return buffer, buffer[:, :, 1:], buffer[:, :, :-1], buffer[:, :, -1]

    old, new = parts(first.clone()), parts(torch.empty_like(first))

    def step(frame: Tensor) -> Tensor:
        nonlocal old, new
        new[2].copy_(old[1])
        new[3].copy_(frame)
        old, new = new, old
        return plain(old[0])

    return step


def carry(plain: nn.Module, first: Tensor) -> Step:
    """A recurrent module on one step and the state that it returned before."""
    _, hidden = plain(first.permute(2, 0, 1))

    def step(frame: Tensor) -> Tensor:
        nonlocal hidden
        y, hidden = plain(frame.unsqueeze(0), hidden)
        return cast(Tensor, y)

    return step


def recurrent_clip(plain: nn.Module, clip: Tensor) -> Tensor:
    """A recurrent module's output on a clip ``(B, C, T)``; its own layout is ``(T, B, C)``."""
    y: Tensor = plain(clip.permute(2, 0, 1))[0]
    return y.permute(1, 2, 0)


@dataclass(frozen=True)
class Rival:
    """What a user does without us.

    Attributes:
        ways: to step.
        time_dim: of what such a step returns.
        clip: the plain module on a clip ``(B, C, T, *S)``.
    """

    ways: dict[str, Callable[[nn.Module, Tensor], Step]]
    time_dim: int = 2
    clip: Callable[[nn.Module, Tensor], Tensor] = lambda plain, clip: plain(clip)

    @staticmethod
    def of(workload: Workload, field: int) -> Rival:
        """The rival of a workload whose receptive field is so long."""
        if workload.kind in ("encoder", "attention"):
            return tokens(field, workload.options["sequence_len"] if workload.options.get("causal") else None)
        return CARRIED if workload.kind == "recurrent" else SHIFTED


def tokens(field: int, band: int | None) -> Rival:
    """What a user of an encoder on ``(B, T, E)`` does: recompute the window for the newest token.

    Args:
        field: tokens in the window.
        band: how many of them a token sees in each layer; ``None`` for all.
    """
    mask = None if band is None else _band(field, band)

    def shift(plain: nn.Module, first: Tensor) -> Step:
        buffer = first.transpose(1, 2).clone()

        def step(frame: Tensor) -> Tensor:
            nonlocal buffer
            buffer = torch.cat((buffer[:, 1:], frame.unsqueeze(1)), 1)
            y: Tensor = plain(buffer, mask=mask)
            return y[:, -1].unsqueeze(2)

        return step

    def clip(plain: nn.Module, x: Tensor) -> Tensor:
        """A token of each window; windows of a band are computed as one clip."""
        if band is None:
            windows = x.unfold(2, field, 1).permute(0, 2, 3, 1).flatten(0, 1)
            y: Tensor = plain(windows)[:, -1]
            return y.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        y = plain(x.transpose(1, 2), mask=_band(x.shape[2], band))
        return y[:, field - 1 :].transpose(1, 2)

    return Rival({"cat": shift}, clip=clip)


def _band(size: int, band: int) -> Tensor:
    """A mask that hides all but ``band`` tokens up to one's own."""
    ages = torch.arange(size).unsqueeze(1) - torch.arange(size)
    return (ages < 0) | (ages >= band)


SHIFTED = Rival({"cat": shift_by_cat, "roll": shift_by_roll, "copy": shift_by_copy})
CARRIED = Rival({"carried": carry}, time_dim=0, clip=recurrent_clip)


# ---- equality ----------------------------------------------------------------------------------------------------------


def steps_of(step: Callable[[Tensor], Any], clip: Tensor) -> Tensor:
    """The outputs of stepping through a clip, stacked on dim 2."""
    outputs = [y for t in range(clip.shape[2]) if (y := step(clip[:, :, t])) is not None]
    if not outputs:
        raise WrongResult(f"no output in {clip.shape[2]} steps")
    return torch.stack(outputs, 2)


def check(net: Any, plain: nn.Module, clip: Tensor, rival: Rival = SHIFTED) -> Tensor:
    """Check steps, chunks and windows against the plain module, on a clip of ``CHUNK + R - 1`` steps or any longer than R.

    Returns:
        The plain module's outputs on the clip.

    Raises:
        WrongResult: naming what differs.
    """
    expected = rival.clip(plain, clip)
    field = net.receptive_field
    some = min(field + BEYOND, clip.shape[2])
    few, first = clip[:, :, :some], clip[:, :, :field]

    net.clean_state()
    whole = steps_of(net.forward_step, few)[:, :, field - some - 1 :]  # those that see a whole window
    require_equal("forward_step", whole, expected[:, :, : some - field + 1])
    net.clean_state()
    net.forward_steps(clip[:, :, : field - 1])
    require_equal("forward_steps", net.forward_steps(clip[:, :, field - 1 :]), expected)
    net.clean_state()
    for name, way in rival.ways.items():
        step = way(plain, first)
        shifted = [step(frame).squeeze(rival.time_dim) for frame in few[:, :, field:].unbind(2)]
        require_equal(f"window ({name})", torch.stack(shifted, 2), expected[:, :, 1 : some - field + 1])
    return expected


# ---- a row -------------------------------------------------------------------------------------------------------------


def measure(workload: Workload, threads: int, effort: Effort, other: OtherLibrary | None = None, cant_run: str = "") -> Row:
    """Check and time one workload, under :func:`benchmarks.timing.conditions`.

    Args:
        workload: what to measure.
        threads: how many are set; for the record.
        effort: how long.
        other: the other library's process.
        cant_run: why there is none.
    """
    row = Row(workload.name, workload.kind, threads, cant_run=cant_run)
    with torch.inference_mode(False):  # ordinary parameters, as in a network that was loaded before
        plain = workload.constant_rate()
        net = co.continual(plain, **workload.options)
    field = row.receptive_field = net.receptive_field
    if workload.period > 1:
        return measure_bursts(workload, net, plain, row, effort)
    clip, rival = workload.clip(CHUNK + field - 1), Rival.of(workload, field)
    try:
        expected = check(net, plain, clip, rival)
    except WrongResult as wrong:
        row.error = f"wrong result: {wrong}"
        return row
    # One frame over and over: nobody reads it from cold memory, and the values stay what they are.
    frame, first, chunk = clip[:, :, 0].clone(), clip[:, :, :field].clone(), clip[:, :, :CHUNK].clone()

    net.forward_steps(first)
    candidates: list[Candidate] = [Local("step", partial(net.forward_step, frame))]
    candidates += [Local(name, partial(way(plain, first), frame)) for name, way in rival.ways.items()]
    if other is not None:
        try:
            few = clip[:, :, : field + BEYOND]
            require_equal("its forward_step", other.build(workload, plain, few), expected[:, :, : BEYOND + 1])
            candidates.append(other.candidate("other"))
        except (CantRun, WrongResult) as error:
            row.cant_run = str(error)
    steps = alternate(candidates, effort.rounds, effort.min_block)
    row.windows = {name: steps.stats(name) for name in rival.ways}
    row.shift = steps.fastest(list(rival.ways))
    row.step, row.window, row.to_window = steps.stats("step"), row.windows[row.shift], steps.ratio("step", row.shift)
    if "other" in steps.rounds:
        row.other, row.to_other = steps.stats("other"), steps.ratio("other", "step")

    chunks = alternate(
        [Local("chunk", partial(net.forward_steps, chunk)), Local("forward", partial(rival.clip, plain, clip))],
        effort.rounds,
        effort.min_block,
    )
    row.chunk, row.forward = chunks.stats("chunk"), chunks.stats("forward")
    row.to_forward = chunks.ratio("chunk", "forward")
    return row


def measure_bursts(workload: Workload, net: Any, plain: nn.Module, row: Row, effort: Effort) -> Row:
    """Fill the row of a network whose outputs come in bursts. Times are per step of the input."""
    period = workload.period
    row.cant_run = row.cant_run or "it has no transposed convolution"
    clip = workload.clip(Burst.of(net, period).stop + CHUNK)
    try:
        bursts.check(net, plain, clip, period, require_equal)
    except WrongResult as wrong:
        row.error = f"wrong result: {wrong}"
        return row
    ours, theirs = bursts.calls(net, plain, clip, period)
    steps = alternate([Local("step", ours), Local("cat", theirs)], effort.rounds, effort.min_block)
    row.to_window, row.shift = steps.ratio("step", "cat"), "cat"
    per_step = Timings({name: [t / period for t in rounds] for name, rounds in steps.rounds.items()})
    row.step, row.window = per_step.stats("step"), per_step.stats("cat")
    row.windows = {"cat": row.window}
    chunk = clip[:, :, :CHUNK].clone()
    chunks = alternate([Local("chunk", partial(net.forward_steps, chunk)), Local("forward", partial(plain, chunk))], effort.rounds,
                       effort.min_block)  # fmt: skip
    row.chunk, row.forward, row.to_forward = chunks.stats("chunk"), chunks.stats("forward"), chunks.ratio("chunk", "forward")
    return row
