"""Exact windows of a module: the window as tasks, the check against the module, and the notes for users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from ...core.registry import is_chosen
from ...errors import NotStreamable
from .assembly import assemble
from .capture import capture_window, fresh
from .exec_context import ExecContext
from .graph_module import GraphModule
from .registered_calls import registered_calls
from .window_choice import Choice, context_of, fastest
from .window_lengths import Lengths
from .windows.kept import History
from .windows.plan import Schedule
from .windows.report import WindowPlan, WindowReport
from .windows.rolling import Carry
from .windows.table import sharing_notes, state_bytes
from .windows.window import Windowed, windowed

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6}  # relative, of a row that is computed a second time
LIMITS, ROUGH = (
    {torch.float64: 1e-10, torch.float32: 1e-4},
    5e-2,
)  # relative, of a difference that another order of summation explains
MUCH = 2  # a note names another number of steps if that needs so many times less state
ANEW_IS_FASTER = "that is faster here in eager steps (co.fastest_windows measures compiled programs)"
SLOWER = 0.9  # a note says so if windows have less than this share of the module's speed
WINDOWS = 3  # windows that are compared with the module's output at the conversion


def window_of(module: nn.Module, clip: Any, time_dim: Any, output: int | None, called: bool = False) -> Windowed:
    """The module's window as tasks.

    Args:
        output: the frame of each output that is wanted.
        called: whether modules of registered classes stay one call, since their code loops over many frames. Those that
            torch.export can't follow always stay one call. Windows may share values inside the others.

    Raises:
        NotStreamable: the module can't be exported, draws random numbers, or mixes rows.
        IndexError: there is no such frame.
    """
    window = None
    if not called:
        try:
            window = windowed(capture_window(module, clip, time_dim), module)
        except NotStreamable:
            if not any(is_chosen(part) for part in module.modules()):
                raise
    if window is None:
        with registered_calls(module, (clip,) if isinstance(clip, Tensor) else clip) as notes:
            window = windowed(capture_window(module, clip, time_dim), module)
            window.walk.draft.notes += [note.replace("streams", "is computed") for note in notes]
    return window if output is None else one_frame(window, module, output)


def one_frame(window: Windowed, module: nn.Module, output: int) -> Windowed:
    """The window with one frame of each output.

    Raises:
        NotStreamable: the outputs have no frames.
        IndexError: there is no such frame.
    """
    timed = [t.wire.timed for t in window.outputs]
    dims = [None] * len(timed) if all(timed) else Lengths(window, module).frame_dims
    if not any(timed) and not any(d is not None for d in dims):
        raise NotStreamable(
            f"{type(module).__name__}: output={output} asks for one frame of its output, which has none: it is for modules with an output "
            "for each frame. Leave it out"
        )
    return window.at_frame(output, dims)


def assembled(window: Windowed, onto: nn.Module, plan: WindowPlan) -> GraphModule:
    """The converted module, on the names and weights of a module; of a complete plan."""
    net = assemble(window.program(plan), onto)
    if window.walk.draft.nested:
        spec = window.walk.captured.program.call_spec.out_spec
        net.io_layout.nesting = tree_unflatten(list(range(len(window.outputs))), spec)
    return net


def converted(
    module: nn.Module, window: Windowed, wanted: WindowPlan | None, every: int | None, said: Callable[[str], None]
) -> tuple[GraphModule, WindowPlan]:
    """The converted module that scores windows, and its plan.

    Args:
        wanted: the user's plan; ``None``: the plan that is measured to be the fastest.
        every: frames from one window to the next, if the user has set it.
    """
    anew = window.complete(WindowPlan(0, every) if wanted is None else replace(wanted, stride=0))
    ways = tuple(window.ways(anew.every or 1)) if window.walk.rows is None else (anew,)
    net = assembled(window, module, anew)
    check_anew(module, net, window)
    choice = _chosen(window, net, ways, wanted, module, said)
    if choice.plan.stride:
        net = assembled(window, module, choice.plan)
        said("comparing its scores with the module's")
        if (off := difference(net, window, window.schedule(choice.plan), module)) is not None:
            window.walk.draft.notes.append(
                f"its windows take nothing over from each other, since the scores then differ from the module's by {off:.1e}: report it, "
                "it is a gap of the library"
            )
            choice = Choice(anew, 1.0)
            net = assembled(window, module, anew)
    made, reuse = choice.plan, window.reuse(anew.every or 1)
    report = WindowReport(window.length, made.every or 1, "exact", reuse, not made.stride, choice.ratio, made, ways)
    notes = notes_of(window, report, default=every is None and (wanted is None or wanted.every is None), measured=wanted is None)
    net.__dict__.update(windows=report, _window_notes=tuple(notes))
    return net, made


def _chosen(
    window: Windowed,
    net: GraphModule,
    ways: Sequence[WindowPlan],
    wanted: WindowPlan | None,
    module: nn.Module,
    said: Callable[[str], None],
) -> Choice:
    """The user's plan, or the fastest one here."""
    if window.walk.rows is not None:  # the graph has a fixed number of rows
        return Choice(ways[0], 1.0)
    if wanted is not None:
        plan = window.complete(wanted)
        return Choice(plan, None if plan.stride else 1.0)
    said("measuring how its windows are computed the fastest")
    return fastest(window, net, ways, module, window.walk.captured)


def notes_of(window: Windowed, report: WindowReport, *, default: bool, measured: bool) -> list[str]:
    """The notes on windows for users.

    Args:
        default: whether the number of steps between windows is the default.
        measured: whether the plan was chosen by measurement.
    """
    length, every = report.length, report.every
    rate = (
        "each step"
        if every == 1
        else f"every {every} steps"
        + (", the stride of what windows have in common (every=1 gives one each step)" if default else "")
    )
    found = [f"scores are the module's own of the last {length} frames: the first comes with step {length}, then one {rate}"]
    if report.recomputed or report.plan is None:
        why = "they have nothing in common" if not report.reuse else ANEW_IS_FASTER if measured else "the plan says so"
        own = report.ratio or 1.0
        cost = f", operation by operation, in {1 / own:.1f} times the module's time" if own < SLOWER else ""
        return [*found, f"each window is computed again, since {why}{cost}"]
    pace = "" if report.ratio is None else f", and is {report.ratio:.1f} times as fast as the module on its frames"
    found.append(f"a window takes over {report.reuse:.0%} of its multiply-adds from the one before{pace}")
    return [*found, *sharing_notes(window.schedule(report.plan)), *_advice(window, report.plan)]


def _advice(window: Windowed, plan: WindowPlan) -> list[str]:
    """Another number of steps that keeps much less state."""
    better = window.complete(replace(plan, every=window.every()))
    kept, less = (state_bytes(window.schedule(p)) for p in (plan, better))
    if better.every == plan.every or kept < MUCH * less:
        return []
    return [f"every={better.every} keeps {kept / less:.0f} times less state"]


def check_anew(module: nn.Module, net: Any, window: Windowed) -> None:
    """Check that the score of a row does not depend on other rows, and that windows computed alone have the module's scores.

    Raises:
        NotStreamable: one of the checks fails.
    """
    captured, name = window.walk.captured, type(module).__name__
    clip = captured.of_length(captured.steps)
    with torch.no_grad():
        other = tuple(_spoiled(x, b) for x, b in zip(clip, captured.batch_dims, strict=True))
        own = tree_leaves(net(*fresh(clip)))
        for a, b, out in zip(own, tree_leaves(net(*fresh(other))), net.io_layout.outputs, strict=True):
            if _off(out.first_row(a), out.first_row(b)) > ROUNDING.get(a.dtype, 1e-3):
                raise NotStreamable(
                    f"{name}: the score of a row depends on the other rows of the batch, and every row is a stream of its own. Remedy: "
                    "keep the batch as a dimension of its own"
                )
        rows = next(x.shape[b] for x, b in zip(clip, captured.batch_dims, strict=True) if b is not None)
        for a, y, frame in zip(own, tree_leaves(module(*fresh(clip))), window.frames, strict=True):
            if (off := _off(a, y if frame is None else frame.of(y, rows))) > LIMITS.get(a.dtype, ROUGH):
                raise NotStreamable(
                    f"{name}: its window differs from the module by {off:.1e} of the largest score: a module of a registered class "
                    "computes something else than its streaming version; or report it, it is a gap of the library"
                )


def _spoiled(x: Tensor, batch: int | None) -> Tensor:
    """The inputs with other values in all rows but the first."""
    if batch is None:
        return x
    x = x.clone()
    rest = x.narrow(batch, 1, x.shape[batch] - 1)
    rest.copy_(rest.flip(-1) if not x.is_floating_point() else rest * -2 - 1)
    return x


def difference(net: Any, window: Windowed, schedule: Schedule, module: nn.Module) -> float | None:
    """How much scores differ from the module's own, relative to the largest, where that is more than rounding.

    The first window needs the histories of earlier ones. These are read from earlier windows that are computed as a whole, since
    shared values are the same in all windows that have them.
    """
    captured, length, every = window.walk.captured, window.length, schedule.every
    before = max((h.rate for h in schedule.histories), default=1)
    lead = max((h.hops for h in schedule.histories if isinstance(h, Carry)), default=0)
    clip = captured.of_length(length + (before + lead + WINDOWS) * every, 1)
    m = context_of(net, 1, [x for x, t in zip(clip, captured.time_dims, strict=True) if t is None])
    of = [(x, t, r) for x, t, r in zip(clip, captured.time_dims, captured.rates, strict=True) if t is not None]
    streams = [(x if r == 1 else x.unflatten(t, (-1, r)), t) for x, t, r in of]

    def frames(first: int, count: int) -> list[Tensor]:
        return [x.narrow(t, first, count) for x, t in streams]

    worst, limit, new = 0.0, ROUGH, min(every, length)
    with torch.no_grad():
        kept = _first_kept(window, schedule, m, lambda back: frames((before - back) * every, length), before)
        for i in range(before, before + lead + WINDOWS):
            scores, added = schedule.run(m, frames(i * every + length - new, new), kept)
            kept = [h.pushed(k, x, h.layout.at if isinstance(h, Carry) else h.wire.axis.apart)
                    for h, k, x in zip(schedule.histories, kept, added, strict=True)]  # fmt: skip
            if i < before + lead:
                continue
            own = captured.cut(clip, i * every, length)
            for a, y, frame in zip(scores, tree_leaves(module(*own)), window.frames, strict=True):
                b = y if frame is None else frame.of(y, 1)
                worst, limit = max(worst, _off(a, b)), LIMITS.get(a.dtype, ROUGH)
    return worst if worst > limit else None


def _first_kept(
    window: Windowed, schedule: Schedule, m: ExecContext, frames: Callable[[int], list[Tensor]], before: int
) -> list[Tensor]:
    """The histories for a window, from earlier windows that are computed as a whole. States of recurrent layers are zeros."""
    whole = window.of(schedule)
    past = [whole.run(m, frames(back), [])[0] for back in range(1, before + 1)]
    numbers, found = iter(range(len(schedule.histories))), []
    for h in schedule.histories:
        if isinstance(h, Carry):
            found.append(torch.zeros(h.layout.shape(m.batch, 1), dtype=h.dtype, device=m.device))
        else:
            i = next(numbers)
            found.append(_taken_over(h, [p[i] for p in past], m.batch))
    return found


def _taken_over(h: History, past: list[Tensor], rows: int) -> Tensor:
    """A history, made of the same values in earlier windows: the window ``j`` hops back is ``past[j - 1]``."""
    axis = h.wire.axis
    if h.rate == 1:
        return axis.split(past[0], rows).narrow(axis.apart, h.first + h.new, h.size)
    entries = []
    for e in range(h.size):
        back, place = h.rate - e % h.rate, h.first + e // h.rate + 1
        entries.append(axis.split(past[back - 1], rows).narrow(axis.apart, place, 1))
    return torch.cat(entries, axis.apart)


def _off(a: Tensor, b: Tensor) -> float:
    if not b.numel():
        return 0.0
    a, b = a.to(torch.float64).nan_to_num(0.0), b.to(torch.float64).nan_to_num(0.0)
    return float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
