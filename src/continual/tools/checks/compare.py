"""Compares wires (within a tolerance) and states (bit for bit), and describes the first difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...core.state import State, Wire

TOLERANCES = {torch.float64: 1e-12, torch.complex128: 1e-12, torch.float32: 1e-5, torch.complex64: 1e-5}
PIECE = 1 << 21  # values per comparison


def tolerance_of(*dtypes: torch.dtype) -> float:
    """The tolerance of the least precise of the floating types."""
    inexact = [d for d in dtypes if d.is_floating_point or d.is_complex]
    return max((TOLERANCES.get(d, 1e-2) for d in inexact), default=1e-12)


def flat(wire: Wire) -> list[Tensor]:
    """All tensors of a wire; none for ``None``."""
    if wire is None:
        return []
    return [wire] if isinstance(wire, Tensor) else [t for w in wire for t in flat(w)]


def errors(got: Tensor, want: Tensor) -> Tensor:
    """For each step, the largest :func:`error`; in pieces, so that the comparison takes no more memory than the values."""
    at_once = max(1, PIECE * want.shape[2] // max(1, want.numel()))
    scale = max((_scale(w) for w in want.split(at_once, 2)), default=1.0)
    pairs = zip(got.split(at_once, 2), want.split(at_once, 2), strict=True)
    found = [error(a, b, scale) for a, b in pairs]
    return torch.cat([f.transpose(0, 2).flatten(1).amax(1) if f.numel() else f.new_zeros(f.shape[2]) for f in found])


def error(got: Tensor, want: Tensor, scale: float | None = None) -> Tensor:
    """Elementwise ``|got - want| / max(1, max|want|)``; 0 where both are the same infinity or both NaN."""
    got, want = got.detach(), want.detach()
    if not _inexact(want):
        return (got != want).double()
    wide = torch.complex128 if want.is_complex() else torch.float64
    a, b = got.to(wide), want.to(wide)
    off = ((a - b).abs() / (_scale(want) if scale is None else scale)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return off.masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)


def _scale(want: Tensor) -> float:
    """``max(1, max|want|)`` of finite values."""
    size = want.detach().abs() if _inexact(want) else want.new_zeros(0, dtype=torch.float64)
    finite = size[size.isfinite()]
    return max(1.0, float(finite.max())) if finite.numel() else 1.0


def _inexact(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def largest_error(got: Wire, want: Wire) -> float:
    """The largest error over a wire of equal shapes."""
    return max((float(errors(a, b).max()) for a, b in zip(flat(got), flat(want), strict=True) if a.numel()), default=0.0)


def mismatch(got: Wire | None, want: Wire | None, tolerance: float, first: int = 0) -> str:
    """The difference between outputs and expected outputs as text; empty if there is none.

    Args:
        got, want: chunks ``(B, C, n, *S)``; ``None`` stands for no outputs.
        tolerance: of :func:`errors`; 0 asks for equality.
        first: index of the first output, for the message.
    """
    if want is None or all(t.shape[2] == 0 for t in flat(want)):
        if got is None:
            return ""
        count = flat(got)[0].shape[2] if flat(got) and flat(got)[0].ndim > 2 else "some"
        return f"{count} outputs from output {first} on where none should come"
    if got is None:
        return f"no outputs where {flat(want)[0].shape[2]} should come, from output {first} on"
    a, b = flat(got), flat(want)
    if len(a) != len(b):
        return f"{len(a)} streams instead of {len(b)}"
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        stream = f" of stream {i}" if len(b) > 1 else ""
        if x.shape != y.shape:
            if x.shape[:2] + x.shape[3:] == y.shape[:2] + y.shape[3:]:
                return f"{x.shape[2]} outputs{stream} instead of {y.shape[2]}, from output {first} on"
            return f"shape {tuple(x.shape)}{stream} instead of {tuple(y.shape)}"
        if x.dtype != y.dtype:
            return f"dtype {x.dtype}{stream} instead of {y.dtype}"
        by_time = errors(x, y)
        if not bool((by_time <= tolerance).all()):
            at = int((by_time > tolerance).nonzero()[0])
            kind = "bitwise equality" if tolerance == 0 else f"{tolerance:.0e}"
            return (
                f"output {first + at}{stream} is off by {float(by_time[at]):.1e} of the largest output "
                f"(allowed: {kind}; "
                f"worst {float(by_time.max()):.1e} in {int((by_time > tolerance).sum())} of {y.shape[2]} outputs)"
            )
    return ""


def leading(got: Wire, want: Wire, tolerance: float) -> int:
    """The number of outputs at the start that are equal in all streams."""
    counts = []
    for x, y in zip(flat(got), flat(want), strict=True):
        n = min(x.shape[2], y.shape[2])
        bad = (errors(x[:, :, :n], y[:, :, :n]) > tolerance).nonzero()
        counts.append(int(bad[0]) if len(bad) else n)
    return min(counts, default=0)


# ---- states, as black boxes --------------------------------------------------------------------------------------------


def snapshot_of(state: Any) -> dict[str, Any]:
    """An independent description of a state: tensors (cloned) and numbers by name."""
    return {name: v.detach().clone() if isinstance(v, Tensor) else v for name, v in _items(state, "", set())}


def state_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state themselves, by name."""
    return {name: v for name, v in _items(state, "", set()) if isinstance(v, Tensor)}


def state_bytes(state: Any) -> int:
    """Bytes of all tensors of a state."""
    return sum(t.numel() * t.element_size() for t in state_tensors(state).values())


def _items(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if value is None or isinstance(value, (Tensor, bool, int, float, complex, str, bytes)):
        yield name or "state", value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, State):
        yield "clock", value.clock
        yield from value.tensors.items()
        for node in value.node.walk():
            yield f"counts of '{node.path}' {node.kind}", (node.n_in, node.n_out)
    elif isinstance(value, dict):
        yield f"{name}.size".lstrip("."), len(value)
        for key, v in value.items():
            yield from _items(v, f"{name}.{key}".lstrip("."), seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield f"{name}.size".lstrip("."), len(value)
        for i, v in enumerate(value):
            yield from _items(v, f"{name}[{i}]", seen)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for f in dataclasses.fields(value):
            yield from _items(getattr(value, f.name), f"{name}.{f.name}".lstrip("."), seen)
    elif isinstance(getattr(value, "tensors", None), dict):
        yield from _items(value.tensors, name, seen)
        yield f"{name}.clock".lstrip("."), getattr(value, "clock", None)
    else:
        yield name or "state", f"a {type(value).__name__}"  # opaque: only its behaviour can be compared


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The first difference of two :func:`snapshot_of` as text; empty if they are bit-identical."""
    for name in [*before, *(n for n in after if n not in before)]:
        if name not in before or name not in after:
            return f"{name!r} {'appeared' if name in after else 'vanished'}"
        a, b = before[name], after[name]
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                return f"tensor {name!r} {tuple(a.shape)} {a.dtype} became {tuple(b.shape)} {b.dtype}"
            differs = ~((a == b) | ((a != a) & (b != b)))
            if bool(differs.any()):
                return f"tensor {name!r} {tuple(a.shape)} changed in {int(differs.sum())} of {a.numel()} values"
        elif type(a) is not type(b) or (a != b and not (a != a and b != b)):
            return f"{name!r} went from {_shown(a)} to {_shown(b)}"
    return ""


def _shown(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
