"""Points 6 and 11: rows are independent, and a call that raises changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...convert.graph.submodule_tree import Part
from ...core.state import Wire, rewire
from ...errors import ContinualError
from .compare import flat, mismatch
from .contract_run import Broken, ContractRun, Skipped, contract, kept
from .streams import Run
from .wires import Plan, cut, described, two_rows


@contract(6, "rows do not see each other")
def independent_rows(t: ContractRun) -> str:
    if t.fixed_batch == 1:
        raise Skipped("the object takes a single row")
    clip, steps = t.clip, [("step", 1)] * t.length
    singles: tuple[Plan, Run] = ([*steps, ("end", 0)], t.single)
    mixed = t.mixed
    if t.batch == 1:  # to save memory; single steps of two rows need little
        clip = rewire(two_rows, clip)
        singles = mixed = steps, t.play(steps, clip)
    rows = flat(clip)[0].shape[0]
    noise = t.noise(clip)
    tried = [(singles, 0, "other values", noise), (mixed, rows - 1, "other values", noise)]
    if t.takes_nan:
        lost = rewire(lambda x: torch.full_like(x, torch.nan), clip)
        tried = [(singles, 0, "NaN", lost), (mixed, rows - 1, "NaN", lost), *((s, rows - 1 - r, n, x) for s, r, n, x in tried)]
    if singles[1].outputs is None:
        raise Skipped("no outputs")
    for (plan, plain), row, name, content in tried:
        others = [b for b in range(rows) if b != row]
        y = t.play(plan, rewire(lambda a, b, row=row: _with_row(a, b, row), clip, content)).outputs
        want = rewire(lambda v, others=others: v[others], plain.outputs)
        if y is None or flat(y)[0].shape[0] != rows:
            raise Broken(f"split [{described(plan)}] with {name} in row {row} has no output of {rows} rows")
        if found := mismatch(rewire(lambda v, others=others: v[others], y), want, t.tolerance):
            how = "single steps" if plan is singles[0] else f"split [{described(plan)}]"
            raise Broken(f"{name} in row {row} changed other rows ({how}): {found}")
    return f"{' and '.join(dict.fromkeys(n for _, _, n, _ in tried))} in the first and the last of {rows} rows"


def _with_row(x: Tensor, content: Tensor, row: int) -> Tensor:
    x = x.clone()
    x[row] = content[row]
    return x


@contract(11, "wrong inputs are refused")
def wrong_inputs(t: ContractRun) -> str:
    if t.length < 2:
        raise Skipped("a clip of a single step")
    cases = _wrong_inputs(t, t.middle)

    def act(phase: int) -> None:
        before = t.look()
        for name, method, x in cases:
            try:
                getattr(t.net, method)(x)
            except ContinualError:
                pass
            except Exception as error:
                raise Broken(
                    f"{method} on {name} raised {type(error).__name__} ({_short(error)}), not a co.ContinualError such as "
                    "co.ShapeMismatch"
                ) from error
            else:
                raise Broken(f"{method} on {name}, after {phase} steps, raised nothing")
            kept(t, before, f"{method} on {name}, which was refused,")

    t.unharmed(act, lambda phase: f"After wrong inputs were refused at step {phase}", [t.middle])
    return f"{len(cases)} inputs: " + ", ".join(dict.fromkeys(name for name, _, _ in cases))


def _wrong_inputs(t: ContractRun, phase: int) -> list[tuple[str, str, Wire]]:
    """Inputs that do not fit a running stream."""
    chunk = cut(t.clip, phase, phase + 1)
    changes: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("one channel more", lambda x: torch.cat((x, x[:, :1]), 1)),
        ("one row more", lambda x: torch.cat((x, x[:1]))),
        ("another dtype", _other_dtype),
    ]
    if t.layout.bare:
        del changes[0]
    if t.batch > 1:
        changes.insert(-1, ("a single row", lambda x: x[:1]))
    if flat(chunk)[0].ndim > 3:
        changes.append(("another size in space", lambda x: torch.cat((x, x[..., :1]), -1)))
    found: list[tuple[str, str, Wire]] = []
    for name, change in changes:
        wrong = rewire(change, chunk)
        found.append((name, "forward_step", t.stepped(wrong)))
        found.append((name, "forward_steps", t.moved(wrong)))
    found.append(("one dimension more", "forward_step", rewire(lambda x: x.unsqueeze(-1), t.stepped(chunk))))
    found.append(("one dimension more", "forward_steps", rewire(lambda x: x.unsqueeze(-1), t.moved(chunk))))
    found.append(("one dimension less", "forward_step", rewire(lambda x: x.select(-1, 0), t.stepped(chunk))))
    found.append(("one dimension less", "forward_steps", rewire(lambda x: x.select(-1, 0), t.moved(chunk))))
    return found


def _other_dtype(x: Tensor) -> Tensor:
    if x.is_complex():
        return x.to(torch.complex64 if x.dtype == torch.complex128 else torch.complex128)
    return x.to(torch.float32 if x.dtype == torch.float64 else torch.float64)


@contract(11, "wrong inputs leave a cold stream cold")
def wrong_from_cold(t: ContractRun) -> str:
    for name, method, x in _wrong_inputs(t, 0):
        t.clean()
        try:
            getattr(t.net, method)(x)
        except Exception:
            if t.state() is not None:
                raise Broken(f"{method} on {name} raised and opened the stream") from None
    t.clean()
    brief = min(t.length, t.first + 1)
    after = t.play([("chunk", brief)], clean=False).outputs
    if found := mismatch(after, t.play([("chunk", brief)]).outputs, t.tolerance):
        raise Broken(f"after refused inputs a stream from cold goes differently: {found}")
    return ""


class _Injected(Exception):
    """Raised inside the network, to check what it changes."""


@contract(11, "an exception inside changes nothing")
def exception_inside(t: ContractRun) -> str:
    """A hook on each of the last few leaves raises during a call, after the modules before it have run."""
    inside = (m for m in t.modules() if m is not t.net and not isinstance(m, Part))  # parts of converted networks do not run
    leaves = [m for m in inside if not any(True for _ in m.children())][-4:]
    if not leaves:
        raise Skipped("no modules inside")
    reached = 0

    def act(phase: int) -> None:
        nonlocal reached
        few, before = cut(t.clip, phase, phase + t.some(phase)), t.look()
        calls: list[tuple[str, Callable[..., Any], Wire, dict[str, Any]]] = [
            ("forward_step", t.step, cut(few, 0, 1), {}),
            ("forward_steps", t.steps, few, {}),
            ("forward_steps(pad_end=True)", t.steps, t.to_an_end(phase), {"pad_end": True}),
        ]
        for leaf in leaves:
            for name, call, x, options in calls:
                if not _raises(leaf, lambda: call(x, update_state=False, **options)):  # noqa: B023 (called here)
                    continue  # this call does not reach the module, or runs no hooks
                what = f"an exception inside {type(leaf).__name__}, in {name} after {phase} steps,"
                if not _raises(leaf, lambda: call(x, **options)):  # noqa: B023
                    raise Broken(f"{what} comes out with update_state=False alone")
                reached += 1
                kept(t, before, what)

    t.unharmed(act, lambda phase: f"After exceptions inside, at step {phase}", [t.middle])
    if not reached:
        raise Skipped("the modules inside run no forward hooks in a stream")
    return f"{reached} calls"


def _raises(module: nn.Module, call: Callable[[], Any]) -> bool:
    """Whether a call runs a hook on a module; the hook raises."""

    def fail(*_: Any) -> None:
        raise _Injected

    handle = module.register_forward_pre_hook(fail)
    try:
        call()
    except _Injected:
        return True
    finally:
        handle.remove()
    return False


@contract(11, "an empty chunk changes nothing")
def empty_chunk(t: ContractRun) -> str:
    def act(phase: int) -> None:
        before = t.look()
        y = t.steps(cut(t.clip, phase, phase))
        if y is not None:
            raise Broken(f"an empty chunk after {phase} steps returned {tuple(flat(y)[0].shape)}, not None")
        if phase:
            kept(t, before, f"an empty chunk after {phase} steps")

    t.unharmed(act, lambda phase: f"After an empty chunk at step {phase}")
    return f"at {len(t.phases)} phases"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 120 else text[:117] + "…"
