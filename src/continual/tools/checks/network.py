"""Point 9: weights that live in one place and travel with the module."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from ...core.state import Wire, rewire
from .compare import changed, mismatch, snapshot_of, tolerance_of
from .contract_run import Broken, ContractRun, Skipped, contract, is_module
from .state import copies_fit, other_dtype_of, too_many_copies
from .streams import Run, pieces
from .wires import cut


@contract(9, "state_dict has no stream state")
def state_dict_is_clean(t: ContractRun) -> str:
    if not callable(getattr(t.net, "state_dict", None)):
        raise Skipped("the object has no state_dict")
    if not copies_fit(t, 2):
        raise too_many_copies(t, 2)
    t.clean()
    before = snapshot_of(dict(t.net.state_dict()))
    steps = t.middle + t.some(t.middle)
    t.play([("chunk", t.middle), ("step", 1), ("chunk", steps - t.middle - 1)])
    if found := changed(before, snapshot_of(dict(t.net.state_dict()))):
        raise Broken(f"streaming {steps} steps changed the state_dict: {found}")
    return f"{len(t.net.state_dict())} entries, unchanged by streaming"


@contract(9, "state_dict as the reference's")
def state_dict_of_reference(t: ContractRun) -> str:
    if not isinstance(t.reference, nn.Module):
        raise Skipped("no reference module was given")
    if not callable(getattr(t.net, "state_dict", None)):
        raise Skipped("the object has no state_dict")
    mine = {k: tuple(v.shape) for k, v in t.net.state_dict().items() if isinstance(v, Tensor)}
    want = {k: tuple(v.shape) for k, v in t.reference.state_dict().items() if isinstance(v, Tensor)}
    for key in [*want, *mine]:
        if mine.get(key) != want.get(key):
            raise Broken(f"state_dict entry {key!r}: {mine.get(key, 'none')} here, {want.get(key, 'none')} in the reference")
    return f"{len(want)} keys and shapes"


@contract(9, "deepcopy in mid-stream")
def deep_copies(t: ContractRun) -> str:
    return _twins(t, copy.deepcopy, "a deepcopy")


@contract(9, "pickle in mid-stream")
def pickles(t: ContractRun) -> str:
    if not copies_fit(t, 3):
        raise too_many_copies(t, 3)
    t.play([("chunk", min(2, t.length))])
    try:
        pickle.dumps(t.net)
    except Exception as error:
        if is_module(t) and not isinstance(error, (pickle.PicklingError, AttributeError)):
            raise Broken(f"pickling in mid-stream raised {type(error).__name__}: {error}") from error
        raise Skipped(f"it can't be pickled: {error}") from error
    return _twins(t, lambda net: pickle.loads(pickle.dumps(net)), "a pickled copy")


def _twins(t: ContractRun, make: Any, name: str) -> str:
    if not copies_fit(t, 1):
        raise too_many_copies(t, 1)
    net = t.net

    def act(phase: int, run: Run) -> int:
        few = min(t.room(phase), t.some(phase, 8))
        before = t.look()
        try:
            copied = make(net)
        except Exception as error:
            if not isinstance(net, nn.Module):
                raise Skipped(f"the object can't be copied: {error}") from error
            raise Broken(f"making {name} after {phase} steps raised {type(error).__name__}: {error}") from error
        if found := changed(before, snapshot_of(copied.get_state())):
            raise Broken(f"{name} made after {phase} steps has another state: {found}")
        theirs, ours = Run(), Run()
        try:
            t.net = copied
            t.feed(theirs, pieces(few), t.clip, phase)
        finally:
            t.net = net
        if found := changed(before, t.look()):
            raise Broken(f"{name} made after {phase} steps is not independent: its steps changed the original's state, {found}")
        t.feed(ours, pieces(few), t.clip, phase)
        if found := mismatch(theirs.outputs, ours.outputs, 0.0):
            raise Broken(f"{name} made after {phase} steps continues differently: {found}")
        run.take(ours.outputs, few)
        return few

    phases = sorted({t.phases[0], t.phases[min(1, len(t.phases) - 1)], t.middle})
    run = t.stand(phases, act)
    if found := mismatch(run.outputs, t.undisturbed(), t.tolerance):
        raise Broken(f"after {name} was made and streamed, the original continues differently: {found}")
    return f"at {len(phases)} phases, bit for bit"


@contract(9, "state follows a change of dtype")
def other_dtype(t: ContractRun) -> str:
    if not t.floating or not isinstance(t.net, nn.Module):
        raise Skipped("integer input" if not t.floating else "not an nn.Module")
    if not copies_fit(t, 2):
        raise too_many_copies(t, 2)
    dtype, net, phase = other_dtype_of(t), t.net, t.middle
    few = t.some(phase)
    x = rewire(lambda v: v.to(dtype), t.clip)
    run = t.play([("chunk", phase)])
    theirs, ours = Run(), Run()
    try:
        t.net = t.moved_copy(dtype)
        t.feed(theirs, pieces(few), x, phase)
    except Broken:
        raise
    except Exception as error:
        if why := _can_not_run(t, x, phase + few):
            raise Skipped(
                f"forward of a copy moved to {dtype} raises too ({why}): something in it has a dtype of its own"
            ) from error
        raise Broken(f"a copy moved to {dtype} after {phase} steps raised {type(error).__name__}: {error}") from error
    finally:
        t.net = net
    t.feed(ours, pieces(few), t.clip, phase)
    got, want = (_as(y.outputs, dtype) for y in (theirs, ours))
    if found := mismatch(got, want, max(t.tolerance, tolerance_of(dtype)), run.sent):
        raise Broken(f"a copy moved to {dtype} after {phase} steps continues differently: {found}")
    return f"to {dtype} after {phase} steps"


def _can_not_run(t: ContractRun, x: Wire, steps: int) -> str:
    """The reason for which forward of the copy refuses a clip of its dtype; empty if it accepts it."""
    steps = t.length - (t.length - steps) // t.period * t.period
    try:
        t.truth(cut(x, 0, steps))
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ""


def _as(y: Wire | None, dtype: torch.dtype) -> Wire | None:
    """Outputs in a dtype; complex ones in the complex type of its precision."""
    if y is None:
        return None
    return rewire(lambda v: v.to(dtype.to_complex() if v.is_complex() else dtype if v.is_floating_point() else v.dtype), y)
