"""Points 4 and 5: purity, and snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...containers.sequential import Sequential
from ...core.state import Wire, rewire
from ...errors import ContinualError
from ...layers.conv import Conv1d
from ...layers.delay import Delay
from .compare import changed, flat, mismatch, snapshot_of
from .contract_run import Broken, ContractRun, Skipped, contract, kept
from .memory import gib, weight_bytes
from .streams import Run, pieces
from .wires import cut, frames_in


@contract(4, "update_state=False")
def purity(t: ContractRun) -> str:
    """At each phase all three calls run with ``update_state=False``, and then one of them updates."""
    stood: list[int] = []

    def act(phase: int, run: Run) -> int:
        piece = cut(t.clip, phase, phase + min(3, t.room(phase)))
        ending = t.to_an_end(phase)
        asked: list[tuple[str, Callable[..., Wire | None], Wire, dict[str, Any]]] = [
            ("forward_step", t.step, cut(piece, 0, 1), {}),
            ("forward_steps", t.steps, piece, {}),
            ("forward_steps", t.steps, ending, {"pad_end": True}),
        ]
        before, count = t.look(), frames_in(t.steps(ending, update_state=False))
        answers, whats = [], []
        for name, call, x, options in asked:
            what = f"{name}({', '.join(f'{k}={v}' for k, v in (*options.items(), ('update_state', False)))}) after {phase} steps"
            answers.append(_own(call(x, update_state=False, **options)))
            whats.append(what)
            kept(t, before, what)
        turn = len(stood) % len(asked)
        stood.append(phase)
        _, call, x, options = asked[turn]
        second = call(x, **options)
        if found := mismatch(answers[turn], second, 0.0):
            raise Broken(f"{whats[turn]} does not return what the updating call returns: {found}")
        if options:  # without the outputs of the flush
            second = None if second is None or not count else cut(second, 0, count)
        run.take(second, frames_in(x))
        return frames_in(x)

    run = t.stand(t.phases, act)
    if found := mismatch(run.outputs, t.undisturbed(), t.tolerance):
        raise Broken(f"After calls with update_state=False at steps {stood}, the stream continues differently: {found}")
    return f"at {len(stood)} phases"


@contract(4, "pad_end=True")
def flush_is_pure(t: ContractRun) -> str:
    """Two streams, with and without ``pad_end``, have the same states at the same steps."""
    states: dict[int, dict[str, Any]] = {}
    outputs: dict[int, Wire | None] = {}

    def plainly(phase: int, run: Run) -> int:
        piece = t.to_an_end(phase)
        outputs[phase] = _own(t.steps(piece))
        run.take(outputs[phase], frames_in(piece))
        states[phase] = t.look()
        return frames_in(piece)

    def ended(phase: int, run: Run) -> int:
        piece, plain = t.to_an_end(phase), outputs[phase]
        y = t.steps(piece, pad_end=True)
        kept(
            t,
            states[phase],
            f"pad_end=True on a chunk of {frames_in(piece)} after {phase} steps, unlike the same call without it,",
        )
        head = None if y is None or plain is None else cut(y, 0, frames_in(plain))
        if plain is not None and (found := mismatch(head, plain, t.tolerance)):
            raise Broken(f"with pad_end=True the outputs before the end differ, after {phase} steps: {found}")
        run.take(head, frames_in(piece))
        return frames_in(piece)

    want = t.stand(t.phases, plainly).outputs
    if found := mismatch(t.stand(t.phases, ended).outputs, want, t.tolerance):
        raise Broken(f"After pad_end=True at steps {list(states)}, the stream continues differently: {found}")
    return f"at {len(states)} phases"


@contract(5, "snapshot and restore")
def snapshots(t: ContractRun) -> str:
    t.clean()
    if t.state() is not None:
        raise Broken(f"get_state() on a cold stream is a {type(t.state()).__name__}, not None")

    def act(phase: int, run: Run) -> int:
        few = min(t.room(phase), t.some(phase, 8))

        def go_on() -> Run:
            return _own_run(t, phase, few)

        state = t.state()
        before = snapshot_of(state)
        if phase and state is None:
            raise Broken(f"get_state() is None after {phase} steps: the stream can't be restored")
        first = go_on()
        if found := changed(before, snapshot_of(state)):
            raise Broken(f"the snapshot taken after {phase} steps is live: later steps changed {found}")
        for again in ("first", "second"):
            t.net.set_state(state)
            if found := changed(before, t.look()):
                raise Broken(f"get_state() after set_state(snapshot of step {phase}) differs from the snapshot: {found}")
            if found := mismatch(go_on().outputs, first.outputs, 0.0):
                raise Broken(f"restored to step {phase} for the {again} time, the stream continues differently: {found}")
            if found := changed(before, snapshot_of(state)):
                raise Broken(f"the snapshot of step {phase} was changed by steps after set_state: {found}")
        run.take(first.outputs, few)
        return few

    run = t.stand(t.phases, act)
    if found := mismatch(run.outputs, t.undisturbed(), t.tolerance):
        raise Broken(f"After it was restored, the stream continues differently: {found}")
    brief = min(t.length, t.first + 1)
    t.play([("chunk", min(3, t.length))])
    t.net.set_state(None)
    if t.state() is not None:
        raise Broken("after set_state(None) get_state() is not None")
    after = t.play([("chunk", brief)], clean=False).outputs
    if found := mismatch(after, t.play([("chunk", brief)]).outputs, t.tolerance):
        raise Broken(f"after set_state(None) the stream is not cold: {found}")
    return f"at {len(t.phases)} phases, bit for bit"


@contract(5, "another batch size")
def batch_sizes(t: ContractRun) -> str:
    if t.fixed_batch is not None:
        raise Skipped(f"the object takes {t.fixed_batch} rows")
    phase, plain = t.middle, t.undisturbed()
    for rows in ([0], [*range(t.batch), 0]):

        def choose(v: Any, rows: list[int] = rows) -> Any:
            return v[rows]

        x = rewire(choose, t.clip)
        run = t.play(pieces(phase), x)
        state = t.state()
        t.clean()
        t.steps(cut(t.clip, 0, 2))
        t.net.set_state(state)
        t.feed(run, pieces(t.some(phase)), x, phase)
        want = None if plain is None or not run.sent else cut(rewire(choose, plain), 0, run.sent)
        if found := mismatch(run.outputs, want, t.tolerance):
            raise Broken(f"a state of batch size {len(rows)}, set on a stream of {t.batch} rows, continues differently: {found}")
    return f"1 and {t.batch + 1} instead of {t.batch}"


@contract(5, "foreign states are refused")
def foreign_states(t: ContractRun) -> str:
    foreign = list(_foreign(t))

    def act(phase: int) -> None:
        before = t.look()
        for name, state in foreign:
            try:
                t.net.set_state(state)
            except ContinualError:
                pass
            except Exception as error:
                raise Broken(f"set_state({name}) raised {type(error).__name__} ({error}), not a co.StateMismatch") from error
            else:
                raise Broken(f"set_state({name}) was accepted")
            kept(t, before, f"set_state({name}), which was refused,")

    t.unharmed(act, lambda _: "After foreign states were refused", [min(3, t.length - 1)])
    return ", ".join(name for name, _ in foreign)


def _foreign(t: ContractRun) -> list[tuple[str, Any]]:
    """States that do not fit: no state, a state of another network, of another dtype.

    A state of another size in space fits: most networks run on any size, as on any batch size.
    """
    found: list[tuple[str, Any]] = [("a string", "state")]
    other = Sequential(Conv1d(7, 5, 6, dilation=3), Delay(11))
    found.append(("the state of another network", other.init_state(torch.zeros(t.batch, 7))))
    x = cut(t.clip, 0, 1)
    if any(p.is_floating_point() for p in t.parameters()) and copies_fit(t, 2):  # without weights a network runs on any dtype
        dtype = other_dtype_of(t)
        try:
            copied = t.moved_copy(dtype)
            copied.clean_state()
            copied.forward_steps(t.moved(rewire(lambda v: v.to(dtype), x)))
            if _refuses(t, rewire(lambda v: v.to(dtype), cut(t.alone, 0, min(t.length, t.first + 1)))):
                found.append((f"a state of {dtype}", copied.get_state()))
        except Exception:  # there is no such copy
            pass
    return [(name, state) for name, state in found if state is not None]


def other_dtype_of(t: ContractRun) -> torch.dtype:
    """float32 for a clip in float64, and vice versa."""
    return torch.float32 if flat(t.clip)[0].dtype == torch.float64 else torch.float64


def copies_fit(t: ContractRun, count: int) -> bool:
    """Whether ``count`` copies of the weights fit into memory."""
    return count * weight_bytes(t.net) <= t.allowed


def too_many_copies(t: ContractRun, count: int) -> Skipped:
    """The reason for which copies are omitted."""
    return Skipped(f"copies of the weights take {gib(count * weight_bytes(t.net))}, of {gib(t.allowed)}")


def _refuses(t: ContractRun, x: Wire) -> bool:
    try:
        t.truth(x)
    except Exception:
        return True
    return False


def _own_run(t: ContractRun, phase: int, steps: int) -> Run:
    """Some steps from a phase on; the outputs are copies, so that later steps can't change them."""
    run = Run()
    t.feed(run, pieces(steps), t.clip, phase)
    run.parts = [rewire(torch.clone, y) for y in run.parts]
    return run


def _own(y: Wire | None) -> Wire | None:
    """A copy, so that later steps can't change it."""
    return None if y is None else rewire(torch.clone, y)
