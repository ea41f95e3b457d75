"""Points 6 and 11: rows do not see each other, and a call that raises changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ContinualError
from ..graph.parts import Part
from ..state import Wire, rewire
from .compare import flat, mismatch
from .trial import Broken, Skipped, Trial, contract, kept
from .wires import Plan, cut, described


@contract(6, "rows do not see each other")
def rows(t: Trial) -> str:
    if t.batch < 2:
        raise Skipped("a single row")
    contents: list[tuple[str, Wire]] = [("other values", t.noise(t.clip))]
    if t.floating:
        contents.append(("NaN", rewire(lambda x: torch.full_like(x, torch.nan), t.clip)))
    plans: list[Plan] = [[*[("step", 1)] * t.length, ("end", 0)], t.random_plan()]
    alone = [t.play(plan).outputs for plan in plans]
    for row in {0, t.batch - 1}:
        others = [b for b in range(t.batch) if b != row]
        for name, content in contents:
            x = rewire(lambda a, b, row=row: _with_row(a, b, row), t.clip, content)
            for plan, plain in zip(plans, alone, strict=True):
                y = t.play(plan, x).outputs
                if plain is None:
                    continue
                want = rewire(lambda v, others=others: v[others], plain)
                if y is None or flat(y)[0].shape[0] != t.batch:
                    raise Broken(f"split [{described(plan)}] with {name} in row {row} has no output of {t.batch} rows")
                if found := mismatch(rewire(lambda v, others=others: v[others], y), want, t.tolerance):
                    how = "single steps" if plan[0] == ("step", 1) and len(plan) > t.length else f"split [{described(plan)}]"
                    raise Broken(f"{name} in row {row} changed other rows ({how}): {found}")
    return f"{' and '.join(n for n, _ in contents)} in the first and the last of {t.batch} rows"


def _with_row(x: Tensor, content: Tensor, row: int) -> Tensor:
    x = x.clone()
    x[row] = content[row]
    return x


@contract(11, "wrong inputs are refused")
def wrong_inputs(t: Trial) -> str:
    phase = min(t.length - 1, max(1, t.length // 2))
    if phase < 1:
        raise Skipped("a clip of a single step")
    cases = _wrong_inputs(t, phase)
    for name, method, x in cases:
        run = t.go_to(phase)
        before = t.look()
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
        t.right_to_the_end(run, phase, f"After {method} on {name} was refused")
    return f"{len(cases)} inputs: " + ", ".join(dict.fromkeys(name for name, _, _ in cases))


def _wrong_inputs(t: Trial, phase: int) -> list[tuple[str, str, Wire]]:
    """Inputs that don't fit a running stream."""
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
        found.append((name, "forward_steps", t._moved(wrong)))
    found.append(("one dimension more", "forward_step", rewire(lambda x: x.unsqueeze(-1), t.stepped(chunk))))
    found.append(("one dimension more", "forward_steps", rewire(lambda x: x.unsqueeze(-1), t._moved(chunk))))
    found.append(("one dimension less", "forward_step", rewire(lambda x: x.select(-1, 0), t.stepped(chunk))))
    found.append(("one dimension less", "forward_steps", rewire(lambda x: x.select(-1, 0), t._moved(chunk))))
    return found


def _other_dtype(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.dtype == torch.float64 else torch.float64)


@contract(11, "wrong inputs leave a cold stream cold")
def wrong_from_cold(t: Trial) -> str:
    for name, method, x in _wrong_inputs(t, 0):
        t.clean()
        try:
            getattr(t.net, method)(x)
        except Exception:
            if t.state() is not None:
                raise Broken(f"{method} on {name} raised, and opened the stream") from None
    t.clean()
    after = t.play([("end", t.length)], clean=False).outputs
    if found := mismatch(after, t.play([("end", t.length)]).outputs, t.tolerance):
        raise Broken(f"after refused inputs a stream from cold goes differently: {found}")
    return ""


class _Injected(Exception):
    """Raised inside the network, to see what it leaves behind."""


@contract(11, "an exception inside changes nothing")
def exception_inside(t: Trial) -> str:
    """A hook on each of the last few leaves raises in mid-call; the modules before it have run by then."""
    inside = (m for m in t.modules() if m is not t.net and not isinstance(m, Part))  # parts of converted networks do not run
    leaves = [m for m in inside if not any(True for _ in m.children())][-4:]
    if not leaves:
        raise Skipped("no modules inside")
    phase, reached = t.length // 2, 0
    piece = cut(t.clip, phase, t.length)
    calls: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("forward_step", t.step, {}),
        ("forward_steps", t.steps, {}),
        ("forward_steps(pad_end=True)", t.steps, {"pad_end": True}),
    ]
    for leaf in leaves:
        for name, call, options in calls:
            run = t.go_to(phase)
            before = t.look()
            try:
                with _raising(leaf):
                    call(cut(piece, 0, 1) if name == "forward_step" else piece, **options)
            except _Injected:
                reached += 1
            else:
                continue  # this call does not reach it, or runs no hooks
            kept(t, before, f"an exception inside {type(leaf).__name__}, in {name} after {phase} steps,")
            t.right_to_the_end(run, phase, f"After an exception inside {type(leaf).__name__}, in {name}")
    if not reached:
        raise Skipped("the modules inside run no forward hooks in a stream")
    return f"{reached} calls"


class _raising:
    """A hook on a module that raises, for the length of a block."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self) -> None:
        def fail(*_: Any) -> None:
            raise _Injected

        self.handle = self.module.register_forward_pre_hook(fail)

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()


@contract(11, "an empty chunk changes nothing")
def empty_chunk(t: Trial) -> str:
    for phase in t.phases():
        run = t.go_to(phase)
        before = t.look()
        y = t.steps(cut(t.clip, phase, phase))
        if y is not None:
            raise Broken(f"an empty chunk after {phase} steps returned {tuple(flat(y)[0].shape)}, not None")
        if phase:
            kept(t, before, f"an empty chunk after {phase} steps")
        t.right_to_the_end(run, phase, f"After an empty chunk at step {phase}")
    return f"at {len(t.phases())} phases"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 120 else text[:117] + "…"
