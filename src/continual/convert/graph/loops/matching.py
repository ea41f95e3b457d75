"""Finds the common form of all iterations of a loop: the same operations on frames, on constants, and on results of earlier
iterations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch.fx import Node as Fx

from ..capture import source_line
from ..op_evaluator import RANDOM
from .clock import clock_of, takes_tensor
from .simplify import WIDE, elements_of, flat, name_of, short, sizes
from .times import LEAST, Tap, Times

Key = tuple[int, int]  # of an operation within an iteration


class NotALoop(Exception):
    """Frames are taken one by one, but their processing is not a recurrence. Holds the reason and what to write instead."""

    def __init__(self, reason: str, remedy: str, node: Fx | None = None):
        super().__init__(reason)
        self.reason, self.remedy, self.node = reason, remedy, node


class NumberDiffers(NotALoop):
    """Iterations compute with different numbers."""


class NothingDone(NotALoop):
    """Frames are taken one by one and put together again, for clips of any length."""

    def __init__(self) -> None:
        super().__init__(
            "frames are taken one by one and put together again, and nothing is done with each",
            "operations on the clip: x.repeat_interleave(2, dim) for frames twice, x[:, ::2] for every second one",
        )


class Irregular(NotALoop):
    """Iterations do different things: perhaps the first ones alone, which a longer clip shows."""


class Differs(Irregular):
    """Iterations are wired differently."""

    def __init__(self, node: Fx | None, reason: str = "iterations of a loop differ"):
        super().__init__(f"{reason}{line(node)}", "the same operations for each frame", node)


class Growing(Irregular):
    """Iterations use more and more frames."""


class Fixed(NamedTuple):
    """An argument that is the same number or tensor in all iterations."""

    value: Any


class Frame(NamedTuple):
    """The frame of an iteration, or one before it: of a :class:`Tap`, or of what was computed of all frames."""

    tap: Any
    lag: int


class Result(NamedTuple):
    """A result of the same iteration, or of one before it."""

    key: Key
    lag: int


@dataclass
class Body:
    """A loop.

    Attributes:
        keys: the operations of an iteration, in order.
        args: the arguments of each, one after another.
        node: one of the iterations, as an example.
        where: all operations of iterations: the number of the iteration, and which operation it is.
        first: the first iteration of this form; earlier ones are a prologue.
        count: iterations.
        seeds: results of iterations before the first, by their numbers.
        slices: all operations of each iteration.
    """

    keys: list[Key]
    args: dict[Key, list[Any]]
    node: dict[Key, Fx]
    where: dict[Fx, tuple[int, Key]]
    first: int
    count: int
    slices: list[list[Fx]]
    seeds: dict[tuple[Key, int], Any] = field(default_factory=dict)

    @property
    def lags(self) -> dict[Key, int]:
        """How many earlier results of an operation are used."""
        return self._most(Result, lambda a: a.key)

    @property
    def frame_lags(self) -> dict[Tap, int]:
        """How many earlier frames of a source are used."""
        return self._most(Frame, lambda a: a.tap)

    def _most(self, kind: type, of: Any) -> dict[Any, int]:
        found: dict[Any, int] = {}
        for key in self.keys:
            for a in self.args[key]:
                if isinstance(a, kind) and a.lag:  # type: ignore[attr-defined]
                    found[of(a)] = max(found.get(of(a), 0), a.lag)  # type: ignore[attr-defined]
        return found


def line(node: Fx | None) -> str:
    """The line of code behind an operation."""
    found = "" if node is None else source_line(node)
    return f" ({found})" if found else ""


def matched(nodes: Sequence[Fx], times: Times) -> Body:
    """The loop that some operations are.

    Raises:
        NotALoop: they are no loop.
    """
    count = max(times.of[n] for n in nodes) + 1
    slices = [[n for n in nodes if times.of[n] == t] for t in range(count)]
    for node in nodes:
        if short(node) in RANDOM:
            reason = f"`{short(node)}` draws random numbers in a loop over frames"
            raise NotALoop(reason, "leave it out in eval mode; what is drawn once belongs in a buffer", node)
    if count < LEAST:
        raise NotALoop(f"a loop has {count} iterations for {times.frames} frames", "a loop over all frames", nodes[0])
    _refuse_other_orders(nodes, slices, times)
    try:
        return _found(slices, times, True)
    except NotALoop as error:
        try:  # numbers alone may differ
            return _found(slices, times, False)
        except NumberDiffers as number:
            raise number from error
        except NotALoop:
            raise error from None


def _found(slices: list[list[Fx]], times: Times, strict: bool) -> Body:
    """The loop. ``strict``: operations with different numbers are different operations."""
    byk = [_keyed(own, times, strict) for own in slices]
    middle = len(slices) - (4 if len(slices) >= 6 else 3)
    common = [k for k in byk[middle] if k in byk[middle + 1]]
    if not common:
        raise _irregular(slices, times)
    found: NotALoop | None = None
    for first in range(middle + 1):
        if all(k in byk[t] for t in range(first, middle + 2) for k in common):
            try:
                return _verified(slices, byk, common, first, middle, times)
            except NotALoop as error:
                found = error if found is None or isinstance(found, Irregular) else found
    raise found or _irregular(slices, times)


def _keyed(own: Sequence[Fx], times: Times, strict: bool) -> dict[Key, Fx]:
    """The operations of an iteration, under names that are shared by all iterations."""
    hashes: dict[Fx, int] = {}
    seen: Counter[int] = Counter()
    found: dict[Key, Fx] = {}
    t = times.of[own[0]] if own else 0

    def known(value: Any) -> Any:
        if isinstance(value, Fx):
            if value in times.taps:
                tap, index = times.taps[value]
                return "frame", tap.source.name, tap.dim, index + tap.late - t
            return ("here", hashes[value]) if value in hashes else "other"
        if isinstance(value, (list, tuple)):
            return tuple(known(v) for v in value)
        return type(value).__name__, str(value) if strict or not isinstance(value, (int, float)) else ""

    for node in own:
        arguments = known(node.args), tuple((k, known(v)) for k, v in sorted(node.kwargs.items()))
        shape = tuple(str(s) for s in sizes(node))
        hashes[node] = own_hash = hash((node.meta.get("stack_trace"), name_of(node), shape, arguments))
        found[own_hash, seen[own_hash]] = node
        seen[own_hash] += 1
    return found


def _verified(slices: list[list[Fx]], byk: list[dict[Key, Fx]], common: list[Key], first: int, middle: int, times: Times) -> Body:
    """The loop, if all iterations from one on are wired alike."""
    count = len(slices)
    where = {byk[t][k]: (t, k) for t in range(first, count) for k in common if k in byk[t]}
    for t in range(first, count - 1):
        odd = next((n for n in slices[t] if n not in where), None)
        if odd is not None:
            raise Differs(odd)
    body = Body(common, {}, {k: byk[middle][k] for k in common}, where, first, count, slices)
    for key in common:
        column = [(t, byk[t][key]) for t in range(first, count) if key in byk[t]]
        leaves = [flat([n.args, list(n.kwargs.values())]) for _, n in column]
        if len({len(own) for own in leaves}) > 1:
            raise Differs(column[-1][1], "an operation has more arguments in some iterations of a loop")
        columns = [[(t, n, a) for (t, n), a in zip(column, own, strict=True)] for own in zip(*leaves, strict=True)]
        body.args[key] = [_argument(body, byk, own, times, place) for place, own in enumerate(columns)]
    return body


def _argument(body: Body, byk: list[dict[Key, Fx]], column: list[tuple[int, Fx, Any]], times: Times, place: int) -> Any:
    """The common form of the argument in this place, over all iterations."""
    last_t, node, last = column[-1]
    values = [a for _, _, a in column]
    if not isinstance(last, Fx):
        if any(isinstance(a, Fx) for a in values):
            raise Differs(node, "an argument is a tensor in some iterations of a loop alone")
        if any(a != last or type(a) is not type(last) for a in values):
            clock = clock_of([(t, a) for t, _, a in column]) if takes_tensor(node, place) else None
            if clock is not None:
                return clock
            raise NumberDiffers(
                f"a number in the loop depends on the iteration: {', '.join(str(a) for a in values[:4])}, …{line(node)}",
                "a number that is the same for all frames, or one that is carried as a tensor: (h * n + x) / (n + 1) with a state n",
                node,
            )
        return Fixed(last)
    if all(a in times.taps for a in values):
        lags = {(times.taps[a][0], t - times.of[a]) for t, _, a in column}
        if len(lags) == 1:
            return Frame(*lags.pop())
    if all(a is last for a in values):
        if times.of.get(last, -1) >= body.first:
            raise NotALoop(
                f"every iteration uses frame {times.of[last]} of the clip, which is not there yet before it{line(node)}",
                "the frame of the iteration, or those before it",
                node,
            )
        return Fixed(last)
    if last not in body.where:
        if last not in times.of and all(a not in times.of for a in values[1:]):
            raise NotALoop(
                f"a tensor in the loop depends on the number of the iteration{line(node)}: a table of positions ends with the clip",
                "a tensor that is the same for all frames, or one that is carried as a state",
                node,
            )
        raise Differs(node)
    before, key = body.where[last]
    lag = last_t - before
    for t, own, a in column:
        if t - lag >= body.first:
            if byk[t - lag].get(key) is not a:
                raise NotALoop(
                    f"iterations of a loop are wired differently{line(own)}", "the same operations for each frame", own
                )
        elif body.seeds.setdefault((key, t - lag), a) is not a:
            raise NotALoop("a state begins with two values", "one initial value for each state", own)
    return Result(key, lag)


# ---- why not ------------------------------------------------------------------------------------------------------------


def _refuse_other_orders(nodes: Sequence[Fx], slices: list[list[Fx]], times: Times) -> None:
    """Refuse a loop in another order than from the first frame to the last."""
    counts = [len(own) for own in slices]
    if counts[-1] > 3 * max(1, *counts[:-1]):
        raise runs_backward(slices[-1][0])
    for node, (_, index) in times.taps.items():
        others = [len(n.users) for n, (tap, i) in times.taps.items() if tap == times.taps[node][0] and i != index]
        if index and len(node.users) >= max(3, len(slices) - 2, 2 * max(others, default=0)):
            raise NotALoop(
                f"every iteration uses frame {index} of the clip, which has not come when the first ones run{line(node)}",
                "the frame of the iteration, or those before it",
                node,
            )
    grown = [max([len(elements_of(n)) for n in own if short(n) in ("cat", "stack")] or [0]) for own in slices]
    inner = range(1, len(slices) - 3)
    if all(grown[t + 1] > grown[t] for t in inner) or all(counts[t + 1] > counts[t] > 0 for t in inner):
        node = next((n for n in slices[-2] if short(n) in ("cat", "stack")), slices[-2][-1])
        raise (Growing if len(slices) <= WIDE + 2 else NotALoop)(
            f"the body of a loop grows with every iteration, since it uses all frames so far{line(node)}",
            "attention to the last n frames, or a state of a fixed size",
            node,
        )


def runs_backward(node: Fx) -> NotALoop:
    """The refusal of a loop whose first iteration sees the last frame."""
    return NotALoop(
        f"a loop runs backward over the clip, or needs its last frame first{line(node)}: a stream has not seen the end",
        "the forward direction alone; or the exact windows of the module",
        node,
    )


def _irregular(slices: list[list[Fx]], times: Times) -> NotALoop:
    node = slices[-2][-1] if slices[-2] else slices[-1][-1]
    return Differs(node)
