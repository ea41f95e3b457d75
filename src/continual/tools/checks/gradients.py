"""Point 8: gradients through steps are those of the clip computation."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...core.state import Wire, rewire
from .compare import flat, mismatch, state_tensors, tolerance_of
from .contract_run import Broken, ContractRun, Skipped, contract, is_module
from .memory import Meter, gib
from .state import copies_fit
from .wires import Plan, cut, described, frames_in


@contract(8, "gradients = those of forward")
def gradients(t: ContractRun) -> str:
    if not t.floating:
        raise Skipped("an integer input has no gradients")
    if getattr(t.net, "inference_only", False):
        raise Skipped("the object is for inference alone")
    if is_module(t) and any(p.is_inference() for p in t.net.parameters()):
        raise Skipped("the module was made under torch.inference_mode(), and its parameters have none")
    try:
        return _gradients_agree(t, t.alone)
    except Broken as broken:
        if flat(t.clip)[0].dtype == torch.float64 or not is_module(t) or not copies_fit(t, 2):
            raise
        return _agree_in_double(t, broken)


def _agree_in_double(t: ContractRun, broken: Broken) -> str:
    """The same in float64: the gradient of a weight sums over all steps and places in another order, which rounds differently."""
    net, tolerance = t.net, t.tolerance
    try:
        t.net, t.tolerance = t.moved_copy(torch.float64), tolerance_of(torch.float64)
        said = _gradients_agree(t, rewire(lambda x: x.double(), t.alone))
    except Skipped as limit:
        raise Skipped(f"in float32: {broken}. That may be rounding, which float64 would tell: {limit}") from None
    except Exception:
        raise broken from None
    finally:
        t.net, t.tolerance = net, tolerance
    return f"{said}, in float64"


def _gradients_agree(t: ContractRun, x: Wire) -> str:
    length, why = _length(t, x)
    clip = cut(x, 0, length)
    names, leaves = _leaves(t)
    with torch.enable_grad():
        leaf = rewire(lambda v: v.clone().requires_grad_(), clip)
        y = t.truth(leaf)
        if not any(o.requires_grad for o in flat(y)):
            raise Skipped("the outputs of forward need no gradients")
        weights = [torch.randn(o.shape, generator=t.generator, dtype=torch.float64).to(o) for o in flat(y)]
        want = _gradients(y, weights, [*flat(leaf), *leaves])
        y = rewire(torch.Tensor.detach, y)
        plans = _plans(t, length)
        for plan in plans:
            leaf = rewire(lambda v: v.clone().requires_grad_(), clip)
            got = t.play(plan, leaf).outputs
            if differs := mismatch(got, y, t.tolerance):
                with torch.no_grad():
                    plain = t.play(plan, clip).outputs
                if differs := mismatch(got, plain, t.tolerance):
                    raise Broken(f"with gradients enabled, split [{described(plan)}] gives other outputs: {differs}")
                raise Skipped(f"the outputs are not those of forward (see point 2): {differs}")
            found = _gradients(cast(Wire, got), weights, [*flat(leaf), *leaves])
            got = None
            _compare(t, plan, found, want, [*("the clip" for _ in flat(leaf)), *names])
    if copies_fit(t, 1):
        with torch.enable_grad():
            _no_graph_in_copies(t)
    t.clean()
    part = "of the clip" if length == t.length else f"of {length} steps{why}"
    return f"{part} and {len(leaves)} parameters, {len(plans)} splits"


def _length(t: ContractRun, x: Wire) -> tuple[int, str]:
    """The number of steps for gradients: some past the first outputs, as memory allows; and the reason for the limit."""
    length = min(t.length, t.length - max(0, t.length - t.first - t.effort.after) // t.period * t.period)
    if t.prefix(length) is None:
        length = t.length
    room = t.allowed // 2  # the backward pass takes as much again
    affordable = _affordable(t, cut(x, 0, length), room)
    if affordable == length:
        return length, ""
    shorter = [n for n in range(affordable, 0, -1) if (t.length - n) % t.period == 0]
    for n in shorter[:1]:
        if t.prefix(n) is not None:
            return n, f", of which autograd keeps {gib(room)}"
    raise Skipped(
        f"autograd keeps more than {gib(room)} of {affordable + 1} steps of a row, and their clip has no output yet: take smaller frames"
    )


def _affordable(t: ContractRun, clip: Wire, room: int) -> int:
    """The number of steps that can be streamed with gradients, by the memory kept for the backward pass."""
    t.clean()
    length, outputs = frames_in(clip), []  # outputs hold the graph
    with torch.enable_grad(), Meter() as meter:
        leaf = rewire(lambda v: v.clone().requires_grad_(), clip)
        for n in range(length):
            outputs.append(t.step(cut(leaf, n, n + 1)))
            if meter.live > room:
                length = n
                break
    t.clean()
    return length


def _plans(t: ContractRun, length: int) -> list[Plan]:
    """Single steps, a random split, and a split whose first chunk gives no output."""
    quiet = min(max(1, t.first - 1), length)
    plans: list[Plan] = [
        [*[("step", 1)] * length, ("end", 0)],
        t.random_plan(length),
        [("chunk", quiet), ("end", length - quiet)],
    ]
    return plans[: t.effort.gradients]


def _compare(t: ContractRun, plan: Plan, found: list[Tensor], want: list[Tensor], names: list[str]) -> None:
    scale = max(float(g.abs().max()) for g in want if g.numel())
    for name, a, b in zip(names, found, want, strict=True):
        # sums over all steps in another order: ten times the tolerance, of the largest gradient here or of a tenth of all
        off = float((a - b).abs().max()) if a.numel() else 0.0
        allowed = 10 * t.tolerance * max(float(b.abs().max()) if b.numel() else 0.0, 0.1 * scale)
        if not off <= allowed:
            raise Broken(
                f"gradient of {name} through split [{described(plan)}] is off by {off:.1e} (allowed {allowed:.1e}; "
                f"largest in forward {float(b.abs().max()):.1e})"
            )


def _leaves(t: ContractRun) -> tuple[list[str], list[Tensor]]:
    if not isinstance(t.net, nn.Module):
        return [], []
    named = [(n, p) for n, p in t.net.named_parameters() if p.requires_grad]
    return [n for n, _ in named], [p for _, p in named]


def _gradients(y: Wire, weights: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    total = sum((_weighed(o, w) for o, w in zip(flat(y), weights, strict=True)), start=torch.zeros((), device=weights[0].device))
    if not total.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def _weighed(y: Tensor, weights: Tensor) -> Tensor:
    """A real number that depends on all values of an output, on both parts of complex ones."""
    if y.is_complex():
        return (torch.view_as_real(y) * torch.view_as_real(weights * (1 - 0.5j))).sum()
    return (y * weights).sum()


def _no_graph_in_copies(t: ContractRun) -> None:
    """During a stream under autograd, a copy carries no graph, and `detach_state` cuts it."""
    t.play([("chunk", min(3, t.length))], rewire(lambda x: x.clone().requires_grad_(), t.alone))
    try:
        copied: Any = copy.deepcopy(t.net)
    except Exception as error:
        if not isinstance(t.net, nn.Module):
            return
        raise Broken(f"deepcopy in mid-stream, with gradients enabled, raised {type(error).__name__}: {error}") from error
    for name, tensor in state_tensors(copied.get_state()).items():
        if tensor.requires_grad:
            raise Broken(f"a deepcopy in mid-stream carries the graph: its state tensor {name!r} requires gradients")
    if callable(getattr(t.net, "detach_state", None)):
        t.net.detach_state()
        for name, tensor in state_tensors(t.state()).items():
            if tensor.requires_grad:
                raise Broken(f"after detach_state() the state tensor {name!r} still requires gradients")
