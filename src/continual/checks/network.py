"""Points 8 and 9: gradients, and weights that live in one place and travel with the module."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import Tensor, nn

from ..state import Wire, rewire
from .compare import changed, flat, mismatch, snapshot_of, state_tensors, tolerance_of
from .trial import Broken, Skipped, Trial, contract
from .wires import Plan, cut, described, frames_in, joined

GRADIENT_STEPS = 256  # a longer clip is cut to this length, if it has outputs then
GRADIENT_BYTES = 4 << 30  # and to as many steps as autograd keeps no more of than this; in float64 twice


@contract(8, "gradients = those of forward")
def gradients(t: Trial) -> str:
    if not t.floating:
        raise Skipped("an integer input has no gradients")
    if getattr(t.net, "inference_only", False):
        raise Skipped("the object says that it is for inference alone")
    try:
        return _gradients_agree(t)
    except Broken as broken:
        if flat(t.clip)[0].dtype == torch.float64 or not isinstance(t.net, nn.Module):
            raise
        return _agree_in_double(t, broken)


def _agree_in_double(t: Trial, broken: Broken) -> str:
    """The same in float64: a weight's gradient sums over all steps and places, in another order, and may round away digits."""
    net, clip, tolerance, prefixes = t.net, t.clip, t.tolerance, t._prefixes
    try:
        t.net, t.clip, t.tolerance = t.moved_copy(torch.float64), rewire(lambda x: x.double(), clip), tolerance_of(torch.float64)
        t._prefixes = {}
        said = _gradients_agree(t)
    except Exception:
        raise broken from None
    finally:
        t.net, t.clip, t.tolerance, t._prefixes = net, clip, tolerance, prefixes
    return f"{said}, in float64"


def _gradients_agree(t: Trial) -> str:
    clip = cut(t.clip, 0, GRADIENT_STEPS) if t.length > GRADIENT_STEPS and t.prefix(GRADIENT_STEPS) is not None else t.clip
    length = _affordable(t, clip)
    if length < frames_in(clip):
        if t.prefix(length) is None:
            raise Skipped(
                f"autograd keeps more than {_allowed_bytes(clip) / 2**30:.3g} GiB of {length + 1} steps, and their clip has no output yet: "
                "take smaller frames, or fewer rows"
            )
        clip = cut(clip, 0, length)
    names, leaves = _leaves(t)
    with torch.enable_grad():
        leaf = rewire(lambda x: x.clone().requires_grad_(), clip)
        y = t.truth(leaf)
        if not any(o.requires_grad for o in flat(y)):
            raise Skipped("the outputs of forward need no gradients")
        weights = [torch.randn(o.shape, generator=t.generator, dtype=torch.float64).to(o) for o in flat(y)]
        want = _gradients(y, weights, [*flat(leaf), *leaves])
        plans: list[Plan] = [[*[("step", 1)] * flat(clip)[0].shape[2], ("end", 0)]]
        plans += [_fitting(t.random_plan(), flat(clip)[0].shape[2]) for _ in range(2)]
        for plan in plans:
            leaf = rewire(lambda x: x.clone().requires_grad_(), clip)
            got = t.play(plan, leaf).outputs
            with torch.no_grad():
                plain = t.play(plan, clip).outputs
            if differs := mismatch(got, plain, t.tolerance):
                raise Broken(f"with gradients enabled, split [{described(plan)}] gives other outputs: {differs}")
            if mismatch(got, y, float("inf")):
                raise Skipped("the outputs are not those of forward (see point 2)")
            found = _gradients(got, weights, [*flat(leaf), *leaves])
            scale = max(float(g.abs().max()) for g in want if g.numel())
            for name, a, b in zip([*("the clip" for _ in flat(leaf)), *names], found, want, strict=True):
                # sums over all steps in another order: ten times the tolerance, of the largest gradient here or of a tenth of all
                off = float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
                allowed = 10 * t.tolerance * max(float(b.abs().max()) if b.numel() else 0.0, 0.1 * scale)
                if not off <= allowed:
                    raise Broken(
                        f"gradient of {name} through split [{described(plan)}] is off by {off:.1e} (allowed {allowed:.1e}; "
                        f"largest in forward {float(b.abs().max()):.1e})"
                    )
        _no_graph_in_copies(t)
    t.clean()
    part = f"of {length} steps" if length < t.length else "of the clip"
    return f"{part} and {len(leaves)} parameters, {len(plans)} splits"


def _allowed_bytes(clip: Wire) -> int:
    """What autograd may keep, by the clip's dtype: in float64 it is as many numbers as in float32."""
    return GRADIENT_BYTES * max(1, flat(clip)[0].element_size() // 4)


def _affordable(t: Trial, clip: Wire) -> int:
    """How many steps of a clip may be streamed with gradients, by the memory that autograd keeps for the way back."""
    seen: set[int] = set()
    kept, outputs = 0, []  # outputs hold the graph

    def keep(x: Tensor) -> Tensor:
        nonlocal kept
        storage = x.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept += storage.nbytes()
        return x.detach()

    t.clean()
    length = frames_in(clip)
    allowed = _allowed_bytes(clip)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        leaf = rewire(lambda x: x.clone().requires_grad_(), clip)
        for n in range(length):
            outputs.append(t.step(cut(leaf, n, n + 1)))
            if kept > allowed:
                length = n
                break
    t.clean()
    return length


def _leaves(t: Trial) -> tuple[list[str], list[Tensor]]:
    if not isinstance(t.net, nn.Module):
        return [], []
    named = [(n, p) for n, p in t.net.named_parameters() if p.requires_grad]
    return [n for n, _ in named], [p for _, p in named]


def _gradients(y: Wire, weights: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    total = sum(((o * w).sum() for o, w in zip(flat(y), weights, strict=True)), start=torch.zeros(()).to(weights[0]))
    if not total.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _fitting(plan: Plan, length: int) -> Plan:
    """A plan cut to a shorter clip."""
    fitted: list[tuple[str, int]] = []
    for kind, n in plan:
        n = min(n, length - sum(m for _, m in fitted))
        fitted.append(("chunk" if kind == "step" and n == 0 else kind, n))
    return fitted


def _no_graph_in_copies(t: Trial) -> None:
    """In mid-stream under autograd: a copy carries no graph, and `detach_state` cuts it."""
    t.play([("chunk", min(3, t.length))], rewire(lambda x: x.clone().requires_grad_(), t.clip))
    try:
        twin: Any = copy.deepcopy(t.net)
    except Exception as error:
        if not isinstance(t.net, nn.Module):
            return
        raise Broken(f"deepcopy in mid-stream, with gradients enabled, raised {type(error).__name__}: {error}") from error
    for name, tensor in state_tensors(twin.get_state()).items():
        if tensor.requires_grad:
            raise Broken(f"a deepcopy in mid-stream carries the graph: its state tensor {name!r} requires gradients")
    if callable(getattr(t.net, "detach_state", None)):
        t.net.detach_state()
        for name, tensor in state_tensors(t.state()).items():
            if tensor.requires_grad:
                raise Broken(f"after detach_state() the state tensor {name!r} still requires gradients")


@contract(9, "state_dict has no stream state")
def state_dict_is_clean(t: Trial) -> str:
    if not callable(getattr(t.net, "state_dict", None)):
        raise Skipped("the object has no state_dict")
    t.clean()
    before = snapshot_of(dict(t.net.state_dict()))
    t.go_to(t.length)
    if found := changed(before, snapshot_of(dict(t.net.state_dict()))):
        raise Broken(f"streaming {t.length} steps changed the state_dict: {found}")
    return f"{len(t.net.state_dict())} entries, unchanged by streaming"


@contract(9, "state_dict as the reference's")
def state_dict_of_reference(t: Trial) -> str:
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
def deep_copies(t: Trial) -> str:
    return _twins(t, copy.deepcopy, "a deepcopy")


@contract(9, "pickle in mid-stream")
def pickles(t: Trial) -> str:
    t.go_to(min(2, t.length))
    try:
        pickle.dumps(t.net)
    except Exception as error:
        if isinstance(t.net, nn.Module) and not isinstance(error, (pickle.PicklingError, AttributeError)):
            raise Broken(f"pickling in mid-stream raised {type(error).__name__}: {error}") from error
        raise Skipped(f"it can't be pickled: {error}") from error
    return _twins(t, lambda net: pickle.loads(pickle.dumps(net)), "a pickled copy")


def _twins(t: Trial, make: Any, name: str) -> str:
    phases = t.phases(4)
    net = t.net
    for phase in phases:
        t.go_to(phase)
        before = t.look()
        try:
            twin = make(net)
        except Exception as error:
            if not isinstance(net, nn.Module):
                raise Skipped(f"the object can't be copied: {error}") from error
            raise Broken(f"making {name} after {phase} steps raised {type(error).__name__}: {error}") from error
        if found := changed(before, snapshot_of(twin.get_state())):
            raise Broken(f"{name} made after {phase} steps has another state: {found}")
        try:
            t.net = twin
            theirs = t.go_on(phase)
        finally:
            t.net = net
        if found := changed(before, t.look()):
            raise Broken(f"{name} made after {phase} steps is not independent: its steps changed the original's state, {found}")
        for a, b in zip(theirs, t.go_on(phase), strict=True):
            if found := mismatch(a, b, 0.0):
                raise Broken(f"{name} made after {phase} steps goes on differently: {found}")
    return f"at {len(phases)} phases, bit for bit"


@contract(9, "state follows a change of dtype")
def other_dtype(t: Trial) -> str:
    if not t.floating or not isinstance(t.net, nn.Module):
        raise Skipped("integer input" if not t.floating else "not an nn.Module")
    dtype = torch.float32 if flat(t.clip)[0].dtype == torch.float64 else torch.float64
    phase = t.length // 2
    run = t.go_to(phase)
    net = t.net
    try:
        t.net = t.moved_copy(dtype)
        rest = t.go_on(phase, rewire(lambda x: x.to(dtype), t.clip))
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"a copy moved to {dtype} after {phase} steps raised {type(error).__name__}: {error}") from error
    finally:
        t.net = net
    got = joined([rewire(lambda x: x.to(dtype), p) for p in (*run.parts, *(y for y in rest if y is not None))])
    want = t.undisturbed(phase)
    want = None if want is None else rewire(lambda x: x.to(dtype), want)
    if found := mismatch(got, want, max(t.tolerance, tolerance_of(dtype))):
        raise Broken(f"a copy moved to {dtype} after {phase} steps goes on differently: {found}")
    return f"to {dtype} after {phase} steps"
