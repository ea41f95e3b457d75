"""Points 1 and 2: the clip computation, and the same outputs for every chunking."""

from __future__ import annotations

from ..errors import ContinualError
from .compare import flat, largest_error, mismatch
from .trial import Broken, Run, Skipped, Trial, contract, kept
from .wires import Plan, cut, described, frames_in, joined


@contract(1, "forward = reference")
def reference(t: Trial) -> str:
    if t.reference is None:
        raise Skipped("no reference was given")
    if not callable(getattr(t.net, "forward", None)):
        return "the reference is the clip computation"
    want = t.canonical(t.computed(t.reference, t.clip))
    if found := mismatch(t.expected, want, t.tolerance):
        raise Broken(f"forward differs from the reference: {found}")
    return f"{frames_in(want)} outputs, off by {largest_error(t.expected, want):.0e}"


@contract(1, "forward leaves the stream alone")
def forward_is_stateless(t: Trial) -> str:
    if not callable(getattr(t.net, "forward", None)):
        raise Skipped("the object has no forward")
    for phase in t.phases():
        run = t.go_to(phase)
        before = t.look()
        y = t.forward(t.clip)
        kept(t, before, f"forward in mid-stream (after {phase} steps)" if phase else "forward, on a cold stream,")
        if found := mismatch(y, t.expected, t.tolerance):
            raise Broken(f"forward depends on the stream: called after {phase} steps, {found}")
        t.right_to_the_end(run, phase, f"After a forward at step {phase}")
    return f"at {len(t.phases())} phases"


@contract(2, "chunks and steps = forward")
def chunking(t: Trial) -> str:
    n = t.length
    plans: list[Plan] = [
        [*[("step", 1)] * n, ("end", 0)],
        [("end", n)],
        [("chunk", n), ("end", 0)],
        [*[("chunk", 1)] * (n - 1), ("end", 1)],
        *(t.random_plan() for _ in range(t.splits)),
    ]
    worst = 0.0
    for plan in plans:
        run = t.play(plan)
        if found := mismatch(run.outputs, t.expected, t.tolerance):
            raise Broken(f"split [{described(plan)}] differs from forward: {found}")
        worst = max(worst, largest_error(run.outputs, t.expected))
    return f"{len(plans)} splits, off by {worst:.0e}"


@contract(2, "steps are singles or stacked, always")
def step_layout(t: Trial) -> str:
    t.clean()
    ndims: dict[int, int] = {}
    for i in range(t.length):
        y = t.net.forward_step(t.stepped(cut(t.clip, i, i + 1)))
        if y is not None:
            ndims.setdefault(flat(y)[0].ndim, i)
    if not ndims:
        raise Skipped(f"no output within {t.length} steps")
    if len(ndims) > 1:
        (a, i), (b, j) = sorted(ndims.items())
        raise Broken(f"forward_step returned {a} dimensions at step {i} and {b} at step {j}")
    stacked, bursts = t.own_ndim in ndims, getattr(t.timing, "bursts", None)
    if bursts is not None and stacked != bursts:
        raise Broken(
            f"forward_step returned {next(iter(ndims))} dimensions, forward_steps {t.own_ndim}, and timing.bursts is "
            f"{bursts}: outputs of a step are stacked on dim 2 where bursts is True, and nowhere else"
        )
    return "stacked on dim 2" if stacked else "singles"


@contract(2, "flush at any moment")
def flush(t: Trial) -> str:
    """One stream, flushed now and then: it must bring what ``forward`` of the frames so far has, or ``None`` for too few."""
    positions = t.positions()
    lengths = {n: frames_in(t.prefix(n)) for n in positions}
    least = next((n for n in positions if lengths[n]), t.length)
    uneven = any(n > least and not lengths[n] for n in positions)
    t.clean()
    run, at = Run(), 0
    for n in positions:
        if n > at:
            run.take(t.steps(cut(t.clip, at, n)) if n > at + 1 else t.step(cut(t.clip, at, n)), n - at)
            at = n
        want = t.prefix(n)
        before = t.look()
        try:
            y = t.steps(cut(t.clip, n, n), pad_end=True)
        except ContinualError as error:
            if want is None and (uneven or (t.timing is not None and t.timing.ended(n))):
                kept(t, before, f"the flush that was refused after {n} steps") if n else None
                continue  # lengths of branches that disagree: forward refuses the clip too
            raise Broken(f"a flush after {n} steps raised {type(error).__name__}: {error}") from error
        if want is None and y is not None:
            few = f"forward refuses a clip of {n} steps as too short" if n else "no frame has come"
            raise Broken(f"{few}, but the flush returned {frames_in(y)} outputs, not None")
        if want is not None and (found := mismatch(joined([*run.parts, *([] if y is None else [y])]), want, t.tolerance)):
            raise Broken(f"a flush (empty chunk with pad_end=True) after {n} steps differs from forward on {n} steps: {found}")
        if n:
            kept(t, before, f"a flush after {n} steps")
    run.take(t.steps(cut(t.clip, at, t.length), pad_end=True), t.length - at)
    if found := mismatch(run.outputs, t.expected, t.tolerance):
        raise Broken(f"a stream that was flushed in between goes on wrong: {found}")
    return f"after {len(positions)} lengths" + (f", {least - 1} of them too short for forward" if least > 1 else "")
