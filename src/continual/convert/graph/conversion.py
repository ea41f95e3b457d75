"""Conversion of a module by its exported graph: capture, walk, assembly, check."""

from __future__ import annotations

import contextlib
import copy as copying
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn

from ...core.module import CoModule
from ...core.naming import named
from ...core.op_rows import Refusal, format_refusals
from ...core.opaque_modules import meta_input, of_inference_mode, opaque, valueless
from ...core.progress import Progress
from ...core.registry import is_chosen
from ...core.step_spec import Inputs
from ...errors import NotStreamable, ShapeMismatch
from ..fuse import Uses, fold
from . import rules  # noqa: F401 (they register themselves)
from .assembly import assemble
from .capture import Captured, TimeDims, capture, module_path, source_line
from .cost_table import rows_of
from .dtypes import DtypePrograms, Origin
from .export_errors import raised
from .fold_norms import NormFolding
from .frame_loops import calls_of, shortened
from .graph_module import GraphModule
from .instructions import Layer, Op
from .library_errors import is_mistake
from .loops.matching import NotALoop
from .loops.rolled import Loops, loops_of
from .queues import AlignDelays, Positions
from .registered_calls import registered_calls
from .self_check import check_clip
from .switches import Switches
from .walker import GraphWalker, Walked
from .weight_writes import weights_kept
from .window_conversion import Options, check_options, exact_windows, window_for
from .window_stream import of_stream
from .windows.report import WindowPlan

POOLINGS = (None, "window", "frame")


def convert_graph(
    module: nn.Module, clip: Inputs, *, time_dim: TimeDims = 2, time_pooling: str | None = None, copy: bool = False, check: bool = True,
    progress: bool | None = None, windows: str | WindowPlan = "exact", every: int | None = None, output: int | None = None,
) -> CoModule:  # fmt: skip
    """The streaming version of any module; see :func:`continual.continual`."""
    if time_pooling not in POOLINGS:
        raise ValueError(f"continual: time_pooling is None, 'window' or 'frame', not {time_pooling!r}")
    check_options(windows, every, output)
    if isinstance(module, CoModule):
        return module
    if not isinstance(module, nn.Module):
        raise NotStreamable(f"continual: takes an nn.Module, not {type(module).__name__}")
    inputs = as_inputs(clip)
    _refuse_opaque(module, inputs)
    _refuse_training(module)
    if copy:
        module = copying.deepcopy(module)
    switches = Switches(module)
    with contextlib.ExitStack() as stack, Progress(f"converting {type(module).__name__}", progress) as doing:
        stack.enter_context(weights_kept(module))
        doing("looking for loops over its frames")
        loops = _loops(module, inputs, time_dim)
        stack.callback(loops.close)
        short = shortened(module, inputs, time_dim) if loops.rolled is None else None
        walked, refusal = _followed(module, inputs, short, time_dim, time_pooling, doing, loops)
        if walked is None and windows == "stream":
            raise refusal  # type: ignore[misc]
        if walked is not None and (windows == "stream" or (output is None and not all(o.windows for o in walked.outputs))):
            if every is not None or isinstance(windows, WindowPlan):
                raise _no_windows(module, f"every={every}" if every is not None else repr(windows))
            own = walked
            net, walked = _of_every_length(module, own, (time_dim, time_pooling, loops), check, doing, windows == "stream")
            inputs = inputs if walked is own else walked.draft.captured.inputs
            again: Callable[..., GraphModule] = partial(reconvert, time_dim=time_dim, time_pooling=time_pooling)
            captured = walked.draft.captured
        else:
            doing("exporting its window")
            plan = windows if isinstance(windows, WindowPlan) else None
            anew = partial(_exporting_loops, time_dim=time_dim)
            options = Options(time_dim, every, output, time_pooling, plan, short, loops.exporting, anew)
            window = window_for(module, inputs, options, refusal)
            with _as_refusals(module, inputs, "put together"), _naming_lines(module, refusal):
                net, again = exact_windows(module, window, options, doing)
            captured = window.walk.captured
    origin = Origin(module, inputs, captured.time_dims, again, net._program.has_dtypes)
    net.__dict__["_dtypes"] = DtypePrograms(net, origin)
    net.__dict__["_switches"] = switches.settle().watch(captured.numbers)
    return net


def _followed(
    module: nn.Module,
    inputs: Sequence[Tensor],
    short: Sequence[Tensor] | None,
    time_dim: TimeDims,
    time_pooling: str | None,
    doing: Callable[[str], None],
    loops: Loops,
) -> tuple[Walked | None, NotStreamable | None]:
    """The module's graph as the graph of a stream, or the reason why it can't be one."""
    try:
        if short is not None:  # a short clip gives the refusals of a long one, in less time
            doing("exporting it on a short clip, since it loops over frames")
            walk(module, short, time_dim, time_pooling, loops)
        doing("exporting it")
        return walk(module, inputs, time_dim, time_pooling, loops), None
    except NotStreamable as error:
        return None, error if loops.refusal is None else _no_loop(module, loops.refusal, error)


def _loops(module: nn.Module, inputs: Sequence[Tensor], time_dim: TimeDims) -> Loops:
    """The loops of a module over its frames; registered and streaming modules inside have their own streams."""
    if any(isinstance(part, CoModule) or is_chosen(part) for part in module.modules()):
        with registered_calls(module, inputs) as notes:
            if notes:
                return Loops(module)
    return loops_of(module, inputs, time_dim, calls_of)


@contextlib.contextmanager
def _exporting_loops(module: nn.Module, clip: Sequence[Tensor], time_dim: TimeDims) -> Iterator[None]:
    """A context in which exports of the module have its loops over frames as single operations. The loops are found again."""
    loops = _loops(module, clip, time_dim)
    try:
        with loops.exporting():
            yield
    finally:
        loops.close()


def _no_loop(module: nn.Module, why: NotALoop, error: NotStreamable) -> NotStreamable:
    """The refusal of a loop over frames replaces those of its operations. Other refusals stay."""
    path, source = ("", "") if why.node is None else (module_path(why.node), source_line(why.node))
    remedy = f"{why.remedy}; co.scan(cell, x, state) is a loop that always streams"
    others = [r for r in getattr(error, "refusals", ()) if not r.in_loop]
    found = [Refusal(path, "loop over frames", source, why.reason, remedy), *others]
    return NotStreamable(format_refusals(type(module).__name__, found), tuple(found), error.rows)


def _of_every_length(
    module: nn.Module,
    walked: Walked,
    options: tuple[TimeDims, str | None, Loops],
    check: bool,
    doing: Callable[[str], None],
    along: bool,
) -> tuple[GraphModule, Walked]:
    """The streaming network, converted again from an example one frame longer if it refuses lengths that the module takes.

    A module may do something for all clips but those which a stride divides: ``if T % 4: x = F.pad(…)``. One example shows only one
    of the two cases.
    """
    net, differs = None, None
    try:
        net = _streamed(module, walked, check, doing, along)
        if not walked.draft.refused:
            return net, walked
    except NotStreamable as error:
        differs = error
    captured = walked.draft.captured
    longer = captured.of_length(captured.steps + 1, captured.batch)
    try:
        doing("exporting it on a longer clip")
        again = walk(module, longer, *options)
        other = _streamed(module, again, True, doing)
        if net is None or not again.draft.refused:
            return other, again
    except NotStreamable:
        if differs is not None:
            raise differs from differs.__cause__
    return cast(GraphModule, net), walked


def _streamed(module: nn.Module, walked: Walked, check: bool, doing: Callable[[str], None], along: bool = False) -> GraphModule:
    """The network of a stream.

    Args:
        along: whether frames may depend on neighbours in other segments, where the module computes each segment alone.
    """
    inputs = walked.draft.captured.inputs
    with _as_refusals(module, inputs, "put together"):
        net = assemble(walked, module)
    if check:
        doing("comparing the result with it, on clips of several lengths")
        with _as_refusals(module, inputs, "checked"):
            notes = check_clip(net, net.timing.period, module, walked.draft, along)
        net._program.notes += notes
    if all(o.windows for o in walked.outputs):
        report, note = of_stream(net, module, walked.draft.captured)
        net.__dict__.update(windows=report, _window_notes=(note,))
    return net


@contextlib.contextmanager
def _naming_lines(module: nn.Module, refusal: NotStreamable | None) -> Iterator[None]:
    """Refuse what mixes rows, with the lines of code if the walk of the stream has found them."""
    try:
        yield
    except NotStreamable as error:
        lines = [r for r in getattr(refusal, "refusals", ()) if r.mixes_rows]
        if not lines:
            raise
        raise NotStreamable(format_refusals(type(module).__name__, lines), tuple(lines), refusal.rows) from error  # type: ignore[union-attr]


def _no_windows(module: nn.Module, option: str) -> ValueError:
    return ValueError(
        f"continual: {option} is for scores of whole windows, and {type(module).__name__} gives an output for each frame, which "
        "streams. Leave it out; or take windows all the same: output=-1 for the last frame of each"
    )


def as_inputs(clip: Inputs) -> tuple[Tensor, ...]:
    """The inputs of a module."""
    return cast(tuple[Tensor, ...], tuple(clip) if isinstance(clip, (tuple, list)) else (clip,))  # capture checks their types


def walk(
    module: nn.Module, inputs: Sequence[Tensor], time_dim: TimeDims, time_pooling: str | None, loops: Loops | None = None
) -> Walked:
    """Export a module and walk its graph.

    Args:
        loops: what is known of its loops over frames; ``None``: they are looked for.

    Raises:
        NotStreamable: what can't be streamed.
    """
    if loops is None:
        with _exporting_loops(module, inputs, time_dim):
            return walk(module, inputs, time_dim, time_pooling, Loops(module))
    with loops.exporting(), registered_calls(module, inputs) as notes:
        walked = _walked(capture(module, inputs, time_dim), module, time_pooling)
        walked.draft.notes += notes
        if walked.refusals:
            raise _refused(module, walked) from walked.unforeseen
    return walked


def _walked(captured: Captured, module: nn.Module, time_pooling: str | None) -> Walked:
    """Walk a graph, again where reductions in the middle of the network are to be pooled as `time_pooling` says.

    It also walks again where the module returns values of the whole clip beside frames, such as a final state. A stream has such a
    value after each step.
    """
    middle: frozenset[str] = frozenset()
    while True:
        walked = GraphWalker(captured, module, time_pooling, middle).run()
        if time_pooling is None or walked.draft.middle_found <= middle:
            break
        middle = middle | walked.draft.middle_found
    if walked.draft.mixed:
        so_far = GraphWalker(captured, module, time_pooling, middle, so_far=True).run()
        return walked if so_far.refusals else so_far
    return walked


def reconvert(
    module: nn.Module, clip: tuple[Tensor, ...], onto: nn.Module, *, time_dim: TimeDims, time_pooling: str | None
) -> GraphModule:
    """The converted network in other dtypes, on the names and weights of the present one."""
    return assemble(walk(module, clip, time_dim, time_pooling), onto)


# ---- refusals -----------------------------------------------------------------------------------------------------------


def _refuse_opaque(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Refuse modules whose operations or values are hidden, before torch.export fails on them with its own message."""
    for path, part in module.named_modules():
        if reason := opaque(part) or valueless(part) or of_inference_mode(part):
            raise NotStreamable(f"{named(path, part)}: {reason}")
    if reason := meta_input(tuple(inputs)):
        raise NotStreamable(f"{type(module).__name__}: {reason}")


def _refuse_training(module: nn.Module) -> None:
    training = sorted({type(m).__name__ for m in module.modules() if m.training})
    if module.training:
        raise NotStreamable(
            f"{type(module).__name__} is in training mode ({', '.join(training[:4])}): a stream runs what clips give in eval mode. Call "
            "module.eval() before"
        )


@contextlib.contextmanager
def _as_refusals(module: nn.Module, inputs: Sequence[Tensor], done: str) -> Iterator[None]:
    """Unexpected errors become refusals, except mistakes in the library."""
    name = type(module).__name__
    try:
        yield
    except NotStreamable:
        raise
    except ShapeMismatch as error:  # of the converted network, on a clip that the module takes
        raise NotStreamable(
            f"{name}: the streaming version refuses a clip that the module takes: {error}. Remedies: an example whose length the network's "
            "strides divide; or branches that are as long as each other for every clip (the module crops or pads one to the other's length)"
        ) from error
    except Exception as error:
        own = raised(module, inputs)
        if own:  # exports run on shapes, and some take what the module does not, such as a product of two dtypes
            raise NotStreamable(own) from error
        if is_mistake(error):
            raise
        raise NotStreamable(
            f"{name}: its streaming version can't be {done}, although every operation of it is known. Report it with this message: it is "
            "a gap of the library"
        ) from error


def _refused(module: nn.Module, walked: Walked) -> NotStreamable:
    """All refusals of a module as one error."""
    draft = walked.draft
    entries = {s.slot: int(s.name) for s in draft.sources if s.kind == "input"}
    known = [i for i in draft.instructions if isinstance(i, (Op, Layer, AlignDelays, Positions))]
    rows, _ = rows_of(known, entries, draft.wires.timing)
    return NotStreamable(format_refusals(type(module).__name__, walked.refusals), tuple(walked.refusals), rows)


@fold.register
def _of_graph(net: GraphModule, uses: Uses) -> None:
    NormFolding(net).run()
    net._forget_other_dtypes()
