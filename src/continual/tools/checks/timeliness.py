"""Point 3: every output comes with the last input that it needs, not later and not earlier.

What an output needs is found on the clip computation. Let everything from input ``n`` on be NaN: outputs that stay as they were
are known after ``n`` inputs. NaN can also reach what it should not (a masked position, times zero), and be swallowed where it
should not, so the same is done with noise: an output *must* have come if neither changes it, and *may* have come
if the noise does not. It must also exist and have its value if nothing follows: ``forward`` on the first ``n`` steps alone has it
too.

Modules that wait without need (a `Delay`) can't be seen in this way. Nor can what is compared: NaN is neither above nor below, and
noise may miss the values that count (`0 < x < 1` in front of a ReLU that is at zero). Nor can waiting for a frame that repeats one
that is there: behind replicate padding whose end is cut it may never exist, and what stands in its place then has the same values.
With such a module inside, the module's own `timing` says when outputs are due. The clip is lengthened by some outputs, so that its end
padding is not taken for knowledge: outputs are counted from the first on, and some that see the lengthened clip's last steps stand
before those that see its end. A single row is traced.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...containers.conditional import Conditional
from ...containers.streams import ParallelDispatch
from ...core.resampling import Interpolation
from ...core.state import Wire, rewire
from ...layers.closure import Constant
from ...layers.delay import Delay, Trim
from ...layers.upsample import Upsample
from ...layers.window import SlidingWindow
from .compare import leading
from .contract_run import Broken, ContractRun, Skipped, contract
from .wires import cut, described, joined, lengthened

_UNSEEN = (Delay, Conditional, Constant, ParallelDispatch)


@contract(3, "delay")
def delay(t: ContractRun) -> str:
    says = getattr(t.net, "delay", None)
    if says is None:
        raise Skipped("the object has no `delay`")
    first = next((n for n, sent in enumerate(t.sent) if sent), None)
    if first is None:
        if says < t.length:
            raise Broken(f"delay says {says}, but no output came within {t.length} inputs")
        raise Skipped(f"delay says {says}, the clip has only {t.length} steps")
    if not says < first <= says + t.chunk:
        raise Broken(f"delay says {says}, so the first output should come with input {says + 1}; it came with input {first}")
    return f"{says}" if first == says + 1 else f"{says}, and {first - says - 1} in a chunk of {t.chunk}"


@contract(3, "counts as timing says")
def counts(t: ContractRun) -> str:
    if t.timing is None:
        raise Skipped("the object has no `timing`")
    for n, sent in enumerate(t.sent):
        if sent != t.timing.delivered(n):
            raise Broken(f"after {n} inputs timing says {t.timing.delivered(n)} outputs, {sent} have come")
    for n in t.places:
        length, says = t.count(n), t.timing.ended(n)
        if length and length != says:
            raise Broken(f"timing says that a clip of {n} steps has {says} outputs, forward gives {length}")
    return f"after 0 … {t.length} inputs"


@contract(3, "chunks deliver as soon as steps")
def chunks_in_time(t: ContractRun) -> str:
    for split in t.played:
        ended = split.plan[-1][0] == "end"
        for n, came in split.counts[: -1 if ended else None]:
            if came != t.sent[n]:
                raise Broken(
                    f"split [{described(split.plan)}]: after {n} inputs {came} outputs have come, by single steps {t.sent[n]}"
                )
    return f"{len(t.played)} splits"


@contract(3, "no output late, none early")
def needed_inputs(t: ContractRun) -> str:
    x = t.alone
    length = t.alike(t.length + 2 * t.period + 8)
    if not t.affords(length):
        raise Skipped(f"{length} steps take too much memory")
    long = lengthened(x, length, t.generator)
    try:
        want = t.truth(long)
    except Exception as error:
        raise Skipped(
            f"forward refuses a longer clip ({type(error).__name__}), so needs can't be told from end padding"
        ) from error
    other = t.noise(long)
    # small noise: at fifteen times the usual values a float32 softmax of products has an error of 2e-4 itself (CoAGCN)
    others = (_rising(long), t.noise(long, 0.5))[: t.effort.contents]
    contents = [(c, t.truth(c)) for c in others]
    nothing = rewire(lambda v: torch.full_like(v, torch.nan), long) if t.takes_nan else None
    unseen = next((type(m).__name__ for m in t.modules() if isinstance(m, _UNSEEN)), "")
    if not unseen and any(map(_repeats, t.modules())) and any(map(_cuts_the_end, t.modules())):
        unseen = "frames that repeat others, where the end is cut"
    if nothing is None:
        unseen = "NaN, which the network refuses" if t.floating else "an integer input, which can't be NaN"
    elif not unseen:
        with _Comparisons() as comparisons:
            from_nothing = t.truth(nothing)
        if comparisons.found:
            unseen = "a comparison, which NaN does not pass"
        elif known := leading(from_nothing, want, t.tolerance):
            unseen = f"padding alone in the first {known} outputs"
    due: list[tuple[int, int]] = []
    exist, told = 0, False
    for n in t.places:
        exist = max(exist, min(_settled(t, n, t.prefix(n), want), *(_settled(t, n, _ended(t, c, n), y) for c, y in contents)))
        may = min(exist, _known(t, joined([cut(long, 0, n), cut(other, n, length)]), want))
        if t.sent[n] > may:
            raise Broken(
                f"output {may} came early: delivered after {_first_with(t.sent, may)} inputs, but with {n} inputs "
                + ("it is not settled if the clip ends there" if exist <= may else "what follows still changes it")
            )
        must = may
        if may > t.sent[n] and not unseen:  # what can't be known is not traced
            must = min(may, _known(t, joined([cut(long, 0, n), cut(cast(Wire, nothing), n, length)]), want))
        due.append((n, must))
        told = told or 0 < t.sent[n] <= must
    if unseen and t.timing is not None:
        return f"none early; what is due is left to timing, because of {unseen}"
    if unseen:
        raise Skipped(f"none early; whether any is late can't be told because of {unseen}")
    for n, must in due:
        if n + t.chunk - 1 <= t.length and t.sent[n + t.chunk - 1] < must:
            when = _first_with(t.sent, t.sent[n])
            raise Broken(
                f"output {t.sent[n]} was held back: known after {n} inputs, "
                + (f"delivered after {when}" if when is not None else f"not delivered within {t.length}")
            )
    if not told and any(t.sent[n] for n in t.places):
        raise Skipped("none early; whether any is late can't be told, since NaN reaches every output of forward")
    waits = f", within chunks of {t.chunk} steps" if t.chunk > 1 else ""
    return f"traced with NaN and noise at {len(t.places)} positions{waits}"


class _Comparisons(TorchDispatchMode):
    """Notes whether a comparison, or another operation without floating point results, reads NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [v for v in tree_leaves(result) if isinstance(v, Tensor)]
        if made and not self.found and not any(v.is_floating_point() or v.is_complex() for v in made):
            self.found = any(isinstance(v, Tensor) and v.is_floating_point() and bool(v.isnan().any()) for v in tree_leaves(args))
        return result


def _repeats(module: nn.Module) -> bool:
    """Whether a layer pads the start with copies of the first frame, or the end where a later frame has weight 0 (cubic, on an input)."""
    if isinstance(module, Upsample):
        return isinstance(module.timing, Interpolation) and module.timing.kind == "cubic" and module.timing.factor > 1
    return isinstance(module, SlidingWindow) and module.fill == "replicate" and module.timing.start > 0


def _cuts_the_end(module: nn.Module) -> bool:
    return isinstance(module, SlidingWindow | Trim) and module.timing.end < 0


def _known(t: ContractRun, x: Wire | None, want: Wire) -> int:
    """The number of outputs at the start that are equal on another clip."""
    return leading(t.truth(cast(Wire, x)), want, t.tolerance)


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


def _ended(t: ContractRun, x: Wire, n: int) -> Wire | None:
    """``forward`` of the first steps of a clip; ``None`` where it refuses so few."""
    try:
        return t.truth(cut(x, 0, n)) if n else None
    except Exception:
        return None


def _settled(t: ContractRun, n: int, y: Wire | None, want: Wire) -> int:
    """How many outputs at the start are there, and as they stay, if the clip ends after ``n`` steps.

    A clip that is refused is too short; or, where the timing knows better, one whose branches have different lengths.
    """
    if n == 0:
        return 0
    if y is None:
        return 0 if t.timing is None else int(t.timing.ended(n))
    return leading(y, want, t.tolerance)


def _first_with(sent: list[int], output: int) -> int | None:
    return next((n for n, count in enumerate(sent) if count > output), None)
