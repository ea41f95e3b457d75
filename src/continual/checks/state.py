"""Points 4, 5 and 7: purity, snapshots, and a state that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..conv import Conv1d
from ..delay import Delay
from ..errors import ContinualError
from ..sequential import Sequential
from ..state import Wire, rewire
from .compare import changed, flat, largest_error, mismatch, snapshot_of, state_bytes
from .trial import Broken, Skipped, Trial, contract, kept
from .wires import cut, frames_in, joined


@contract(4, "update_state=False")
def purity(t: Trial) -> str:
    for phase in t.phases():
        piece = cut(t.clip, phase, min(phase + 3, t.length))
        asked: list[tuple[str, Callable[..., Wire | None], Wire, dict[str, Any]]] = [
            ("forward_steps", t.steps, piece, {}),
            ("forward_steps", t.steps, _to_an_end(t, phase), {"pad_end": True}),
            ("forward_step", t.step, cut(piece, 0, 1), {}),
        ]
        for name, call, x, options in asked:
            what = f"{name}({', '.join(f'{k}={v}' for k, v in (*options.items(), ('update_state', False)))}) after {phase} steps"
            t.go_to(phase)
            before = t.look()
            first = _own(call(x, update_state=False, **options))
            kept(t, before, what)
            second = call(x, **options)
            if found := _differs(first, second):
                raise Broken(f"{what} does not return what the updating call returns: {found}")
            run = t.go_to(phase)
            call(x, update_state=False, **options)
            t.right_to_the_end(run, phase, f"After {what}")
    return f"at {len(t.phases())} phases"


@contract(4, "pad_end=True")
def flush_is_pure(t: Trial) -> str:
    for phase in t.phases():
        piece = _to_an_end(t, phase)
        t.go_to(phase)
        plain = _own(t.steps(piece))
        before = t.look()
        t.go_to(phase)
        ended = t.steps(piece, pad_end=True)
        kept(t, before, f"pad_end=True on a chunk of {frames_in(piece)} after {phase} steps, unlike the same call without it,")
        head = None if ended is None or plain is None else cut(ended, 0, frames_in(plain))
        if plain is not None and (found := mismatch(head, plain, t.tolerance)):
            raise Broken(f"with pad_end=True the outputs before the end differ, after {phase} steps: {found}")
    return f"at {len(t.phases())} phases"


def _to_an_end(t: Trial, phase: int) -> Wire:
    """A few steps after which the stream may end. Branches of unequal lengths refuse that, as ``forward`` refuses such a clip."""
    stop = min(phase + 3, t.length)
    while stop < t.length and t.prefix(stop) is None and t.timing is not None and t.timing.ended(stop):
        stop += 1
    return cut(t.clip, phase, stop)


@contract(5, "snapshot and restore")
def snapshots(t: Trial) -> str:
    t.clean()
    if t.state() is not None:
        raise Broken(f"get_state() on a cold stream is a {type(t.state()).__name__}, not None")
    for phase in t.phases():
        t.go_to(phase)
        state = t.state()
        before = snapshot_of(state)
        if phase and state is None:
            raise Broken(f"get_state() is None after {phase} steps: the stream can't be restored")
        first = [_own(y) for y in t.go_on(phase)]
        if found := changed(before, snapshot_of(state)):
            raise Broken(f"the snapshot taken after {phase} steps is live: later steps changed {found}")
        for again in ("first", "second"):
            t.net.set_state(state)
            if found := changed(before, t.look()):
                raise Broken(f"get_state() after set_state(snapshot of step {phase}) differs from the snapshot: {found}")
            for a, b in zip(first, t.go_on(phase), strict=True):
                if found := _differs(b, a):
                    raise Broken(f"restored to step {phase} for the {again} time, the stream goes on differently: {found}")
            if found := changed(before, snapshot_of(state)):
                raise Broken(f"the snapshot of step {phase} was changed by steps after set_state: {found}")
    t.go_to(min(3, t.length))
    t.net.set_state(None)
    if t.state() is not None:
        raise Broken("after set_state(None) get_state() is not None")
    after = t.play([("end", t.length)], clean=False).outputs
    if found := mismatch(after, t.play([("end", t.length)]).outputs, t.tolerance):
        raise Broken(f"after set_state(None) the stream is not cold: {found}")
    return f"at {len(t.phases())} phases, bit for bit"


@contract(5, "another batch size")
def batch_sizes(t: Trial) -> str:
    if t.fixed_batch is not None:
        raise Skipped(f"the object says that it takes {t.fixed_batch} rows")
    phase = t.length // 2
    for rows in ([0], [*range(t.batch), 0]):
        x = _rows(t.clip, rows)
        run = t.go_to(phase, x)
        state = t.state()
        t.go_to(max(1, phase - 1))
        t.net.set_state(state)
        got = joined([*run.parts, *(y for y in t.go_on(phase, x) if y is not None)])
        if found := mismatch(got, t.undisturbed(phase, x), t.tolerance):
            raise Broken(f"a state of batch size {len(rows)}, set on a stream of {t.batch} rows, goes on differently: {found}")
    return f"1 and {t.batch + 1} instead of {t.batch}"


@contract(5, "foreign states are refused")
def foreign_states(t: Trial) -> str:
    phase = min(3, t.length - 1)
    foreign = list(_foreign(t))
    for name, state in foreign:
        run = t.go_to(phase)
        before = t.look()
        try:
            t.net.set_state(state)
        except ContinualError:
            pass
        except Exception as error:
            raise Broken(f"set_state({name}) raised {type(error).__name__} ({error}), not a co.StateMismatch") from error
        else:
            raise Broken(f"set_state({name}) was accepted")
        kept(t, before, f"set_state({name}), which was refused,")
        t.right_to_the_end(run, phase, f"After set_state({name}) was refused")
    return ", ".join(name for name, _ in foreign)


def _foreign(t: Trial) -> list[tuple[str, Any]]:
    """States of something else: no state at all, of another network, of another dtype.

    A state of another size in space is none of these: most networks run on any size, as on any batch size.
    """
    found: list[tuple[str, Any]] = [("a string", "state")]
    other = Sequential(Conv1d(7, 5, 6, dilation=3), Delay(11))
    found.append(("the state of another network", other.init_state(torch.zeros(t.batch, 7))))
    x = cut(t.clip, 0, 1)
    if any(p.is_floating_point() for p in t.parameters()):  # without weights a network runs on any dtype
        dtype = torch.float32 if flat(x)[0].dtype == torch.float64 else torch.float64
        try:
            twin = t.moved_copy(dtype)
            twin.clean_state()
            twin.forward_steps(t._moved(rewire(lambda v: v.to(dtype), x)))
            if _refuses(t, rewire(lambda v: v.to(dtype), t.clip)):
                found.append((f"a state of {dtype}", twin.get_state()))
        except Exception:  # no such twin
            pass
    return [(name, state) for name, state in found if state is not None]


@contract(7, "state does not grow")
def bounded(t: Trial) -> str:
    """The state has the same bytes at all times, and what the module holds besides does not grow with every step.

    Kernels may prepare something on their first steps, so growth is looked for after a receptive field.
    """
    r = t.receptive_field or 2 * t.length
    warm, more = min(r, 512) + 8, max(16, min(t.length, 64))
    x = joined([t.clip] * -(-(warm + more) // t.length))
    first, held, at = 0, 0, 0
    t.clean()
    for n in (1, 2, 3, warm, warm + more):
        t.play([("step", 1)] * (n - at), cut(x, at, n), clean=False)
        at, now = n, state_bytes(t.state())
        first = now if n == 1 else first
        if now != first:
            raise Broken(f"the state has {first} bytes after 1 step and {now} after {n}")
        if n == warm:
            held = _held(t.net)
    if (now := _held(t.net)) - held >= more and r <= 512:
        raise Broken(
            f"the module holds {held} bytes and list items after {warm} steps, and {now} after {warm + more}: "
            "something besides its state grows"
        )
    t.play([("chunk", t.length)] * 3, joined([t.clip] * 3), clean=False)
    if (now := state_bytes(t.state())) != first:
        raise Broken(f"the state has {first} bytes after 1 step and {now} after {warm + more + 3 * t.length}, in chunks")
    return f"{first} bytes after 1 and after {warm + more + 3 * t.length} steps"


def _refuses(t: Trial, x: Wire) -> bool:
    try:
        t.truth(x)
    except Exception:
        return True
    return False


def _held(value: Any) -> int:
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
            else:  # sparse, or laid out by oneDNN: it has no storage that could be asked
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
def forgotten(t: Trial) -> str:
    """Large values and NaN, a receptive field ago, leave no trace: a running sum would keep their rounding error for ever.

    A module with unbounded memory is excused only if its ``forward`` remembers, too.
    """
    if not t.floating or t.stated_field is None:
        raise Skipped("integer input" if not t.floating else "no finite receptive_field")
    shift = int(getattr(t.timing, "start", 0)) + 1  # padding and an equal cut: output j is input j - shift
    r = max(t.stated_field, shift) + int(getattr(t.net, "delay", 0))  # an output also comes so much later than what it sees
    if r > 2048:
        raise Skipped(f"receptive_field is {t.stated_field}")
    after = max(8, min(t.length, 64))
    tail = joined([t.clip] * -(-(r + after) // t.length))
    dtype = flat(t.clip)[0].dtype
    size = {torch.float64: 1e8, torch.float32: 1e4}.get(dtype, 1e2)
    nothing, lost = rewire(torch.zeros_like, t.clip), rewire(lambda x: torch.full_like(x, torch.nan), t.clip)
    want = _after(t, nothing, tail, r)
    if want is None:
        raise Skipped("too few outputs")
    count = frames_in(want)
    if t.unbounded and mismatch(_at_the_end(t, lost, tail, count), _at_the_end(t, nothing, tail, count), t.tolerance):
        raise Skipped("unbounded memory: in forward, too, a NaN of long ago shows")
    worst = 0.0
    for what, past in ((f"values of {size:.0e} times the size", rewire(lambda x: x * size, t.clip)), ("NaN", lost)):
        got = _after(t, past, tail, r)
        if found := mismatch(got, want, t.tolerance):
            raise Broken(f"{what} more than {r} steps ago (receptive_field + delay) still show: {found}")
        worst = max(worst, largest_error(got, want))
    return f"{size:.0e} times the size and NaN, {r} steps ago, leave {worst:.0e}"


def _after(t: Trial, past: Wire, tail: Wire, r: int) -> Wire | None:
    """The outputs of single steps, a receptive field after the past."""
    t.play([("chunk", t.length - 1), ("step", 1), ("chunk", r)], joined([past, tail]))
    return t.play([("step", 1)] * (frames_in(tail) - r), cut(tail, r, frames_in(tail)), clean=False).outputs


def _at_the_end(t: Trial, past: Wire, tail: Wire, count: int) -> Wire:
    """The last outputs of ``forward``."""
    y = t.truth(joined([past, tail]))
    return cut(y, max(0, frames_in(y) - count), frames_in(y))


def _own(y: Wire | None) -> Wire | None:
    """A copy, so that later steps can't change it."""
    return None if y is None else rewire(torch.clone, y)


def _differs(a: Wire | None, b: Wire | None) -> str:
    """Not bit for bit the same."""
    return mismatch(a, b, 0.0)


def _rows(x: Wire, rows: list[int]) -> Wire:
    return rewire(lambda v: v[rows], x)
