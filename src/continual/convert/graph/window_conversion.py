"""Whether a module becomes exact windows, and how it is converted then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from ...core.op_rows import Refusal, format_refusals
from ...errors import NotStreamable
from .capture import layout_of, steps_of
from .frame_loops import calls_of
from .graph_module import GraphModule
from .window_check import assembled, converted, one_frame, window_of
from .window_lengths import Lengths
from .windows.report import WindowPlan
from .windows.tasks import Task
from .windows.window import Windowed

MODES = ("exact", "stream")
MOST_CALLS = 2000  # calls of torch in a loop whose window is exported; the export takes some milliseconds for each
OF_A_WRITE = 10  # times longer for calls that write into tensors: torch.export traces them again


@dataclass(frozen=True)
class Options:
    """The options, as :func:`continual.continual` takes them."""

    time_dim: Any
    every: int | None
    output: int | None
    time_pooling: str | None
    plan: WindowPlan | None = None
    short: Sequence[Tensor] | None = None  # a shorter clip, of a module that loops over many frames
    exporting: Callable[[], AbstractContextManager[None]] = nullcontext  # under which the module is exported now
    exporting_anew: Callable[[nn.Module, Any], AbstractContextManager[None]] | None = None  # and later, on such a clip


def check_options(windows: str | WindowPlan, every: int | None, output: int | None) -> None:
    """Refuse options that have no meaning, alone or together."""
    if not isinstance(windows, WindowPlan) and windows not in MODES:
        raise ValueError(f"continual: windows is 'exact', 'stream' or a WindowPlan, not {windows!r}")
    if isinstance(windows, WindowPlan) and every is not None:
        raise ValueError(
            f"continual: {windows!r} says every: every={every} goes into the plan, dataclasses.replace(plan, every={every})"
        )
    if windows == "stream" and (every is not None or output is not None):
        name = "every" if every is not None else "output"
        raise ValueError(
            f"continual: {name}= is for exact windows; with windows='stream' the network gives what its strides give. Leave one of them out"
        )
    if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise ValueError(f"continual: every is a number of steps, 1 or more, not {every!r}")
    if output is not None and (not isinstance(output, int) or isinstance(output, bool)):
        raise ValueError(f"continual: output is the number of a frame of the window, such as -1 for the last, not {output!r}")


def window_for(module: nn.Module, clip: Any, options: Options, refusal: NotStreamable | None) -> Windowed:
    """The window of a module that becomes exact windows.

    Args:
        refusal: why it can't be a stream; ``None`` if it can.

    Raises:
        NotStreamable: it returns a sequence that can't be streamed, or its window can't be followed either.
        ValueError: `time_pooling`, which has no meaning for windows; or a plan for windows of another length.
    """
    if options.short is not None and refusal is not None:
        _check_loop(module, clip, options, refusal)
    try:
        with options.exporting():
            window = window_of(module, clip, options.time_dim, options.output, options.short is not None)
    except NotStreamable:
        if refusal is None or options.output is not None:
            raise
        raise refusal from refusal.__cause__  # it names what is in the way of windows too
    if options.output is None:
        refuse_sequence(module, window, refusal)
    if options.time_pooling is not None:
        raise ValueError(
            f"continual: time_pooling={options.time_pooling!r} changes what {type(module).__name__} computes, and its exact windows are "
            "the module itself. Leave it out; or windows='stream', with which it means what it says"
        )
    if options.plan is not None:
        window.check_length(options.plan)
    return window


def _check_loop(module: nn.Module, clip: Sequence[Tensor], options: Options, refusal: NotStreamable) -> None:
    """Refuse a loop over so many frames that exporting its window takes minutes. Refuse a sequence on a short clip, which is faster."""
    short = options.short or clip
    times, _ = layout_of(clip, options.time_dim)
    steps, few = steps_of(clip, times), steps_of(short, times)
    calls = calls_of(module, short, MOST_CALLS)
    enough = MOST_CALLS // (OF_A_WRITE if calls and calls.writes else 1)
    most = steps if calls is None else few * enough // max(1, calls.total())
    if options.output is None:
        with suppress(IndexError), options.exporting():
            window = window_of(module, short, options.time_dim, None)
            refuse_sequence(module, window, refusal, min(steps, most), steps > most)
    if steps > most:
        text = (
            f"{refusal}\nIts window is a loop over {steps} frames, and up to {enough:,} such calls to torch are exported. Remedy: for "
            f"exact windows an example of {most} frames at most"
        )
        raise NotStreamable(text, refusal.refusals, refusal.rows) from refusal.__cause__


def exact_windows(
    module: nn.Module, window: Windowed, options: Options, doing: Callable[[str], None]
) -> tuple[GraphModule, Callable[..., GraphModule]]:
    """The module on windows, and how it is converted again for other dtypes."""
    net, plan = converted(module, window, options.plan, options.every, doing)
    return net, partial(remade, time_dim=options.time_dim, output=options.output, plan=plan, exporting=options.exporting_anew)


def remade(
    module: nn.Module,
    clip: tuple[Tensor, ...],
    onto: GraphModule,
    *,
    time_dim: Any,
    output: int | None,
    plan: WindowPlan,
    exporting: Callable[[nn.Module, Any], AbstractContextManager[None]] | None = None,
) -> GraphModule:
    """The windows of a module in other dtypes, on the names and weights of the existing converted module."""
    with nullcontext() if exporting is None else exporting(module, clip):
        window = window_of(module, clip if len(clip) > 1 else clip[0], time_dim, output)
    return assembled(window, onto, window.complete(plan))


def refuse_sequence(
    module: nn.Module, window: Windowed, refusal: NotStreamable | None, length: int | None = None, shorter: bool = False
) -> None:
    """Refuse outputs for each frame: a window would return all of them at once.

    Args:
        refusal: why they are no stream; ``None``: the walk has taken them for values of the whole clip, as happens to frames that
            the code selects by number.
        length: of the windows that are recommended, if not of this one.
        shorter: whether the example is longer than that.
    """
    apart = window.apart if refusal is None else None
    if refusal is None and apart is None:
        return
    if (refusal is not None and window.sequence) or Lengths(window, module).sequence:
        found = refusal or _by_number(module, apart)  # type: ignore[arg-type]
        raise with_remedy(found, window, module, length, shorter) from found.__cause__


def _by_number(module: nn.Module, apart: Task) -> NotStreamable:
    reason = "selects frames by number, and the module gives an output for each of them: only as many as the example clip has"
    remedy = "slices of time for all of them at once, such as x[:, :, ::2]; or a loop over all frames"
    found = Refusal(apart.path, apart.label, apart.source, reason, remedy)
    return NotStreamable(format_refusals(type(module).__name__, [found]), (found,))


def with_remedy(
    refusal: NotStreamable, window: Windowed, module: nn.Module, length: int | None = None, shorter: bool = False
) -> NotStreamable:
    """The refusal of a sequence, which names what windows would return."""
    try:
        reuse = one_frame(window, module, -1).reuse(1)
    except (NotStreamable, IndexError):
        return refusal
    saved = f", of whose multiply-adds a step takes over {reuse:.0%} from the one before" if reuse else ""
    example = f" with an example of {length} steps at most" if shorter else ""
    text = (
        f"{refusal}\nIts outputs of a window are well defined all the same. Remedy: co.continual(module, clip, output=-1){example}, the "
        f"last frame of each window of {length or window.length} steps (output=k: frame k){saved}"
    )
    return NotStreamable(text, refusal.refusals, refusal.rows)
