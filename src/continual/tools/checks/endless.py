"""Point 7: streams without an end."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.state import Wire, rewire
from .compare import flat, largest_error, mismatch, state_bytes
from .contract_run import Broken, ContractRun, Skipped, contract
from .wires import cut, frames_in, joined, repeated

STEPS = 16  # single steps between the tests for growth


@contract(7, "state does not grow")
def bounded(t: ContractRun) -> str:
    """The size of the state is constant, and other objects of the module do not grow with every step.

    Kernels may prepare something on their first steps after a chunk, and fill what they hold for as long as their windows are: growth is
    looked for after a receptive field, and must go on for another one.
    """
    r = min(t.receptive_field or 2 * t.length, 4 * t.length, 512)
    x, at = t.alone, 0
    first = 0

    def to(n: int, kind: str) -> None:
        nonlocal at, first
        while at < n:
            most = 1 if kind == "step" else min(n - at, t.length)
            t.feed_on([(kind, most)], repeated(x, at, at + most))
            at += most
        now = state_bytes(t.state())
        first = first or now
        if now != first:
            raise Broken(f"the state has {first} bytes after 1 step and {now} after {at}")

    t.clean()
    for n in (1, 2, 3):
        to(n, "step")
    to(r + 8, "chunk")
    to(r + 12, "step")
    last, size, now = at + (r // STEPS + 2) * STEPS, 0, STEPS
    since = at
    while now - size >= STEPS and at <= last:
        since, size = at, _footprint(t.net)
        to(at + STEPS, "step")
        now = _footprint(t.net)
    if now - size >= STEPS:
        raise Broken(
            f"the module holds {size} bytes and list items after {since} steps, and {now} after {at}: something besides its state grows"
        )
    to(at + t.length, "chunk")
    return f"{first} bytes after 1 and after {at} steps"


def _footprint(value: Any) -> int:
    """Bytes of all tensors, and items of all collections, that can be reached from an object."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    items, todo = 0, [value]
    while todo:
        v = todo.pop()
        if id(v) in seen or isinstance(v, (type, str, bytes, int, float, bool, complex)) or v is None:
            continue
        seen.add(id(v))
        if isinstance(v, Tensor):
            if v.layout is torch.strided:
                storages[v.untyped_storage().data_ptr()] = v.untyped_storage().nbytes()
            else:  # sparse, or in a layout of oneDNN: it has no storage
                items += v.numel() * v.element_size()
        elif isinstance(v, dict):
            items += len(v)
            todo.extend(v.values())
        elif isinstance(v, (list, tuple, set, frozenset)) or type(v).__name__ == "deque":
            items += len(v)
            todo.extend(v)
        elif not callable(v) or isinstance(v, nn.Module):
            todo.append(getattr(v, "__dict__", None))
            slots = [s for c in type(v).__mro__ for s in getattr(c, "__slots__", ()) if isinstance(s, str)]
            todo.extend(getattr(v, s, None) for s in slots)
    return items + sum(storages.values())


@contract(7, "what left the window is forgotten")
def forgotten(t: ContractRun) -> str:
    """Large values and NaN leave no trace after a receptive field: a running sum would keep their rounding error.

    A module with unbounded memory is exempt only if its ``forward`` remembers too.
    """
    if not t.floating or t.stated_field is None:
        raise Skipped("integer input" if not t.floating else "no finite receptive_field")
    shift = int(getattr(t.timing, "start", 0)) + 1  # padding and an equal crop: output j is input j - shift
    r = max(t.stated_field, shift) + int(getattr(t.net, "delay", 0))  # an output also comes this much later than its inputs
    if r > 2048 or not t.affords(r):
        raise Skipped(f"receptive_field is {t.stated_field}" + ("" if r > 2048 else ", more than memory holds"))
    past = cut(t.alone, 0, min(t.length, 16))
    tail = repeated(t.alone, 0, r + max(STEPS, 2 * t.period + 2))
    dtype = flat(t.clip)[0].dtype
    size = {torch.float64: 1e8, torch.float32: 1e4}.get(dtype, 1e2)
    nothing, lost = rewire(torch.zeros_like, past), rewire(lambda x: torch.full_like(x, torch.nan), past)
    want = _after(t, nothing, tail, r)
    if want is None:
        raise Skipped("too few outputs")
    if t.unbounded:
        remembers = _remembers(t, nothing, lost, tail, frames_in(want))
        if remembers:
            raise Skipped(remembers)
    worst = 0.0
    tried = {f"values of {size:.0e} times the size": rewire(lambda x: x * size, past)} | ({"NaN": lost} if t.takes_nan else {})
    for what, content in tried.items():
        got = _after(t, content, tail, r)
        if found := mismatch(got, want, t.tolerance):
            raise Broken(f"{what} more than {r} steps ago (receptive_field + delay) still show: {found}")
        worst = max(worst, largest_error(cast(Wire, got), want))
    return f"{size:.0e} times the size{' and NaN' if t.takes_nan else ''}, {r} steps ago, leave {worst:.0e}"


def _after(t: ContractRun, past: Wire, tail: Wire, r: int) -> Wire | None:
    """The outputs of single steps, a receptive field after the given past."""
    known = frames_in(past)
    t.play([("chunk", known - 1), ("step", 1)], past)
    for at in range(0, r, t.length):
        t.feed_on([("chunk", min(t.length, r - at))], cut(tail, at, min(r, at + t.length)))
    return t.feed_on([("step", 1)] * (frames_in(tail) - r), cut(tail, r, frames_in(tail))).outputs


def _remembers(t: ContractRun, nothing: Wire, lost: Wire, tail: Wire, count: int) -> str:
    """The reason for which an old NaN may show; empty if it must not."""
    spare = t.alike(frames_in(nothing) + frames_in(tail)) - frames_in(nothing) - frames_in(tail)
    ends = []
    for past in (nothing, lost):
        try:
            y = t.truth(cast(Wire, joined([repeated(past, 0, frames_in(past) + spare), tail])))
        except Exception as error:
            return f"unbounded memory, and forward refuses a longer clip ({type(error).__name__})"
        ends.append(cut(y, max(0, frames_in(y) - count), frames_in(y)))
    return "unbounded memory: in forward, too, a NaN of long ago shows" if mismatch(ends[1], ends[0], t.tolerance) else ""
