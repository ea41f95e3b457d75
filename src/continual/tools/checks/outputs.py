"""Points 1 and 2: the clip computation, and the same outputs for every chunking."""

from __future__ import annotations

from typing import Any, cast

import torch

from ...core.state import Wire, rewire
from ...errors import ContinualError
from .compare import flat, largest_error, mismatch
from .contract_run import Broken, ContractRun, Skipped, contract, kept
from .streams import Run
from .wires import cut, described, frames_in, joined, lengthened, two_rows


@contract(1, "forward = reference")
def reference(t: ContractRun) -> str:
    if t.reference is None:
        raise Skipped("no reference was given")
    if not t.has_forward:
        return "the reference is the clip computation"
    x = t.user_clip if t.fixed_batch is not None or flat(t.user_clip)[0].shape[0] > 1 else rewire(two_rows, t.user_clip)
    if (report := getattr(t.net, "windows", None)) is not None and report.mode == "exact":
        x = cut(x, 0, report.length)  # whose score is one; those of longer clips are compared window by window
    got, want = _forward(t, x), _reference(t, x)
    if found := mismatch(got, want, t.tolerance):
        raise Broken(f"forward differs from the reference: {found}")
    return f"{frames_in(want)} outputs, off by {largest_error(got, want):.0e}"


@contract(1, "forward = reference, other lengths")
def other_lengths(t: ContractRun) -> str:
    """Lengths of all residues: numbers that fit only the length of the clip show at another length."""
    if t.reference is None or not t.has_forward:
        raise Skipped("no reference was given" if t.reference is None else "the reference is the clip computation")
    lengths = getattr(t.net, "lengths", "any")
    if lengths == "own":
        raise Skipped("its notes say that it uses windows with the length of the example, so that longer clips do not compare")
    own = frames_in(t.user_clip)
    longest = own + max(8, t.period)
    if not t.affords(longest * flat(t.user_clip)[0].shape[0]):
        raise Skipped(f"{longest} steps take too much memory")
    x = lengthened(t.user_clip, longest, t.generator)
    count = min(max(8, t.period), t.effort.lengths)
    tried = [n for d in range(1, count // 2 + 1) for n in (own - d, own + d) if n > 0]
    if mismatch(_forward(t, cut(x, 0, own)), want := _reference(t, cut(x, 0, own)), t.tolerance):
        raise Skipped(f"forward differs from the reference on {own} steps")
    tried += [own - t.period] if own > t.period else []
    whole = [w.shape for w in flat(want)]
    compared, refused = [], []
    if lengths == "same rest":  # of the division by its strides, as a note says
        tried, longest = [n for n in tried if (n - own) % t.period == 0], own + t.period
    for n in sorted({*tried, longest}):
        piece = cut(x, 0, n)
        try:
            want = _reference(t, piece)
        except Exception:  # a length that the reference does not take
            continue
        if [w.shape for w in flat(want)] == whole:
            continue  # the same size at another length: one output for a whole clip, and windows in a stream
        try:
            got = _forward(t, piece)
        except ContinualError:
            refused.append(n)
            continue
        except Exception as error:
            raise Broken(f"the reference takes a clip of {n} steps; forward raised {type(error).__name__}: {error}") from error
        if found := mismatch(got, want, t.tolerance):
            raise Broken(f"forward equals the reference on {own} steps, and differs on {n}: {found}")
        compared.append(n)
    but = f"; forward refuses {', '.join(map(str, refused))}, which the reference takes" if refused else ""
    if not compared:
        raise Skipped(f"no length near {own} for which the reference's output has another size{but}")
    return f"{len(compared)} lengths from {compared[0]} to {compared[-1]}{but}"


def _forward(t: ContractRun, x: Wire) -> Wire:
    """``forward`` of a clip on a cold stream, as the reference gives it."""
    t.cold()
    return t.canonical(_with_time(t, t.computed(t.net.forward, rewire(torch.clone, x))))


def _reference(t: ContractRun, x: Wire) -> Wire:
    """The output of the reference on a clip."""
    return t.canonical(_with_time(t, t.computed(t.reference, rewire(torch.clone, x))))


def _with_time(t: ContractRun, y: Any) -> Any:
    """Outputs of which those that are values after the clip are of one frame."""
    running = getattr(t.net, "running", ())
    return [v.unsqueeze(t.net.output_time_dims[i]) if i in running else v for i, v in enumerate(flat(y))] if running else y


@contract(1, "forward leaves the stream alone")
def forward_is_stateless(t: ContractRun) -> str:
    if not t.has_forward:
        raise Skipped("the object has no forward")
    brief = next((n for n in t.places if t.count(n)), t.length)
    of_brief = t.prefix(brief)
    whole = t.phases[1] if len(t.phases) > 1 else 0

    def act(phase: int) -> None:
        x, want = (t.clip, t.expected) if phase == whole else (cut(t.alone, 0, brief), of_brief)
        before = t.look()
        y = t.forward(x)
        kept(t, before, f"forward in mid-stream (after {phase} steps)" if phase else "forward, on a cold stream,")
        if found := mismatch(y, want, t.tolerance):
            raise Broken(f"forward depends on the stream: called after {phase} steps, {found}")

    t.unharmed(act, lambda phase: f"After a forward at step {phase}")
    return f"at {len(t.phases)} phases"


@contract(2, "chunks and steps = forward")
def chunking(t: ContractRun) -> str:
    for split in t.played:
        if split.found:
            raise Broken(f"split [{described(split.plan)}] differs from forward: {split.found}")
    return f"{len(t.played)} splits, off by {max(split.worst for split in t.played):.0e}"


@contract(2, "steps are singles or stacked, always")
def step_layout(t: ContractRun) -> str:
    ndims = t.single.ndims
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
def flush(t: ContractRun) -> str:
    """One stream with flushes: each must give the rest of ``forward`` of the frames so far, or ``None`` if they are too few."""
    x, at, run = t.alone, 0, Run()
    flushed: dict[int, tuple[int, Wire | ContinualError | None]] = {}
    t.clean()
    for n in t.places:
        if n > at:
            at = t.feed(run, [("step" if n == at + 1 else "chunk", n - at)], x, at)
        before = t.look()
        try:
            flushed[n] = run.sent, t.steps(cut(x, n, n), pad_end=True)
        except ContinualError as error:
            flushed[n] = run.sent, error
        if n:
            kept(t, before, f"a flush after {n} steps")
    t.feed(run, [("end", t.length - at)], x, at)
    if found := mismatch(run.outputs, rewire(lambda v: v[: flat(x)[0].shape[0]], t.expected), t.tolerance):
        raise Broken(f"a stream that was flushed in between continues wrong: {found}")

    # forward computes again here, which needs a cold stream
    least = next((n for n in t.places if t.count(n)), t.length)
    refused = {n for n in t.places if not t.count(n) and (t.length - n) % t.period}
    uneven = any(n > least and not t.count(n) for n in t.places)
    for n, (sent, y) in flushed.items():
        want = t.prefix(n)
        if isinstance(y, ContinualError):
            if want is None and (uneven or n in refused or (t.timing is not None and t.timing.ended(n))):
                continue  # branches of different lengths: forward refuses the clip too
            raise Broken(f"a flush after {n} steps raised {type(y).__name__}: {y}") from y
        if want is None and y is not None:
            few = f"forward refuses a clip of {n} steps as too short" if n else "no frame has come"
            raise Broken(f"{few}, but the flush returned {frames_in(y)} outputs, not None")
        if want is not None:
            parts = [*([cut(cast(Wire, run.outputs), 0, sent)] if sent else []), *([] if y is None else [y])]
            if found := mismatch(joined(parts), want, t.tolerance):
                raise Broken(
                    f"a flush (empty chunk with pad_end=True) after {n} steps differs from forward on {n} steps: {found}"
                )
    return f"after {len(t.places)} lengths" + (f", those below {least} too short for forward" if least > 1 else "")
