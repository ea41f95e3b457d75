"""Point 3: every output comes with the last input that it needs, neither later nor earlier.

What an output needs is found on the clip computation. Let everything from input ``n`` on be NaN: outputs that stay as they were
are known after ``n`` inputs. NaN can also reach what it should not (a masked position, times zero), and be swallowed where it
should not (a comparison), so the same is done with noise: an output *must* have come if neither changes it, and *may* have come
if the noise does not. It must also exist and have its value if nothing follows: ``forward`` on the first ``n`` steps alone has it
too.

Modules that wait without need (a `Delay`) can't be seen in this way; with such a module inside, the module's own `timing` says
when outputs are due. The clip is lengthened, so that its end padding is not taken for knowledge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..closure import Constant
from ..conditional import Conditional
from ..delay import Delay
from ..state import Wire, rewire
from ..streams import ParallelDispatch
from .compare import leading
from .trial import Broken, Skipped, Trial, contract
from .wires import cut, described, frames_in, joined

_UNSEEN = (Delay, Conditional, Constant, ParallelDispatch)


def _single_steps(t: Trial) -> list[int]:
    """Outputs delivered after 0, 1, … inputs."""
    return [sent for _, sent in t.play([("step", 1)] * t.length).counts]


@contract(3, "delay")
def delay(t: Trial) -> str:
    says = getattr(t.net, "delay", None)
    if says is None:
        raise Skipped("the object has no `delay`")
    counts = _single_steps(t)
    first = next((n for n, sent in enumerate(counts) if sent), None)
    if first is None:
        if says < t.length:
            raise Broken(f"delay says {says}, but no output came within {t.length} inputs")
        raise Skipped(f"delay says {says}, the clip has only {t.length} steps")
    if not says < first <= says + t.chunk:
        raise Broken(f"delay says {says}, so the first output should come with input {says + 1}; it came with input {first}")
    return f"{says}" if first == says + 1 else f"{says}, and {first - says - 1} in a chunk of {t.chunk}"


@contract(3, "counts as timing says")
def counts(t: Trial) -> str:
    if t.timing is None:
        raise Skipped("the object has no `timing`")
    for n, sent in enumerate(_single_steps(t)):
        if sent != t.timing.delivered(n):
            raise Broken(f"after {n} inputs timing says {t.timing.delivered(n)} outputs, {sent} have come")
    for n in t.positions():
        length, says = frames_in(t.prefix(n)), t.timing.ended(n)
        if length and length != says:
            raise Broken(f"timing says that a clip of {n} steps has {says} outputs, forward gives {length}")
    return f"after 0 … {t.length} inputs"


@contract(3, "chunks deliver as soon as steps")
def chunks_in_time(t: Trial) -> str:
    sent = _single_steps(t)
    plans = [[(kind, n) for kind, n in t.random_plan() if kind != "end"] for _ in range(max(2, t.splits // 2))]
    for plan in [[("chunk", t.length)], *plans]:
        for n, came in t.play(plan).counts:
            if came != sent[n]:
                raise Broken(f"split [{described(plan)}]: after {n} inputs {came} outputs have come, by single steps {sent[n]}")
    return f"{len(plans) + 1} splits"


@contract(3, "no output late, none early")
def needed_inputs(t: Trial) -> str:
    sent = _single_steps(t)
    long = _lengthened(t)
    try:
        want = t.truth(long)
    except Exception as error:
        raise Skipped(
            f"forward refuses a longer clip ({type(error).__name__}), so needs can't be told from end padding"
        ) from error
    other = t.noise(long)
    # no loud noise here: a float32 softmax of products is itself off by 2e-4 at fifteen times the usual values (CoAGCN)
    contents = [(x, t.truth(x)) for x in (long, t.noise(long, 0.5), _rising(long))]
    nothing = rewire(lambda x: torch.full_like(x, torch.nan), long) if t.floating else None
    unseen = next((type(m).__name__ for m in t.modules() if isinstance(m, _UNSEEN)), "")
    if nothing is None:
        unseen = "an integer input, which can't be NaN,"
    elif not unseen and (known := _known(t, nothing, want)):
        unseen = f"padding alone in the first {known} outputs"
    positions = t.positions()
    due: list[tuple[int, int]] = []
    exist = 0
    for n in positions:
        exist = max(exist, min(_settled(t, x, n, y) for x, y in contents))
        may = min(exist, _known(t, joined([cut(long, 0, n), cut(other, n, frames_in(long))]), want))
        if sent[n] > may:
            raise Broken(
                f"output {may} came early: delivered after {_first_with(sent, may)} inputs, but with {n} inputs "
                + ("it is not settled if the clip ends there" if exist <= may else "what follows still changes it")
            )
        must = 0 if nothing is None else min(may, _known(t, joined([cut(long, 0, n), cut(nothing, n, frames_in(long))]), want))
        due.append((n, must))
    if unseen and t.timing is not None:
        return f"none early; what is due is left to timing, because of {unseen}"
    if unseen:
        raise Skipped(f"none early; whether any is late can't be told because of {unseen}")
    for n, must in due:
        if n + t.chunk - 1 <= t.length and sent[n + t.chunk - 1] < must:
            when = _first_with(sent, sent[n])
            raise Broken(
                f"output {sent[n]} was held back: known after {n} inputs, "
                + (f"delivered after {when}" if when is not None else f"not delivered within {t.length}")
            )
    if all(must < sent[n] for n, must in due if sent[n]):
        raise Skipped("none early; whether any is late can't be told, since NaN reaches every output of forward")
    waits = f", within chunks of {t.chunk} steps" if t.chunk > 1 else ""
    return f"traced with NaN and noise at {len(positions)} positions{waits}"


def _lengthened(t: Trial) -> Wire:
    """The clip and as much again, or a receptive field if that is more."""
    more = max(t.length, min(t.receptive_field or 0, 4096))
    return joined([t.clip] * (1 + -(-more // t.length)))


def _known(t: Trial, x: Wire, want: Wire) -> int:
    """How many outputs at the start are the same on another clip."""
    return leading(t.truth(x), want, t.tolerance)


def _rising(x: Wire) -> Wire:
    """Every frame larger than the ones before, so that the last one always shows in a maximum.

    Values stay within the clip's largest: with larger ones a softmax of products in the network is a matter of rounding.
    """

    def raised(v: Tensor) -> Tensor:
        if not v.is_floating_point():
            return v
        steps = torch.arange(v.shape[2], dtype=torch.float64, device=v.device).view(-1, *[1] * (v.ndim - 3))
        return ((v + 4 * v.abs().max() * steps) / (5 * v.shape[2])).to(v.dtype)

    return rewire(raised, x)


def _settled(t: Trial, x: Wire, n: int, want: Wire) -> int:
    """How many outputs at the start are there, and as they stay, if the clip ends after ``n`` steps."""
    if n == 0:
        return 0
    try:
        return leading(t.truth(cut(x, 0, n)), want, t.tolerance)
    except Exception:  # too short; or, where the timing knows better, a clip whose branches have different lengths
        return 0 if t.timing is None else int(t.timing.ended(n))


def _first_with(sent: list[int], output: int) -> int | None:
    return next((n for n, count in enumerate(sent) if count > output), None)
