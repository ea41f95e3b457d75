"""Compares a converted network with its module, so that a wrong rule, or a number of the example in the program, does not go unnoticed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...errors import NotStreamable, ShapeMismatch
from .capture import fresh
from .check_lengths import affordable, longest, other_lengths
from .kept_states import KeptStates
from .program_draft import ProgramDraft
from .segments import across_segments

TOLERANCES = {torch.float64: 1e-8, torch.complex128: 1e-8, torch.float32: 1e-3, torch.complex64: 1e-3}
SURE = 1e-5  # what rounding in single precision explains in most modules
ROUNDINGS = 100  # times the module's own rounding error, measured in double precision: a larger difference is refused


def check_clip(
    net: Callable[..., Any], period: int, module: nn.Module, draft: ProgramDraft, along: bool = False
) -> tuple[str, ...]:
    """Compare clip outputs on the example and on clips of other lengths.

    Lengths that the module refuses are skipped, and so are lengths that the network refuses by name.

    Args:
        net: the converted network.
        period: of its outputs.
        module: the module.
        draft: what the network was made of.
        along: whether frames may depend on neighbours in other segments, where the module computes each segment alone.

    Returns:
        Notes: on a state that the module keeps, and on such segments.

    Raises:
        NotStreamable: they differ.
    """
    if draft.middle:
        return ()
    captured, name, runs = draft.captured, type(module).__name__, KeptStates(module)
    with torch.no_grad():
        try:
            got = net(*fresh(captured.inputs))
        except ShapeMismatch as error:
            raise NotStreamable(f"{name}: the converted network can't take the example: {error}") from error
        _compare(module, captured.inputs, got, runs.run(captured.inputs), "the example", draft)
        try:
            refused = [] if draft.windowed else _check_lengths(net, period, runs, draft)
        except NotStreamable as differs:
            off = across_segments(net, runs.run, captured)
            if off is None:
                raise
            if not along:
                raise _in_segments(name, captured.steps, off) from differs
            said = f"frames see their neighbours across segments of {captured.steps}, which the module takes by themselves"
            return (f"{said}: it differs by {off:.0%} on two of them",)
    if refused:
        raise NotStreamable(
            f"{name}: the converted network takes clips of the example's {captured.steps} steps alone, the module others, such as "
            f"{refused[0]}. Remedies: pad or cut branches that meet by fixed numbers of frames, not by the difference of their lengths"
        )
    return () if runs.note is None else (runs.note,)


def _in_segments(name: str, steps: int, off: float) -> NotStreamable:
    """The refusal of a module that computes segments of the example's length, each alone."""
    return NotStreamable(
        f"{name}: takes a clip in segments of {steps} frames, each by itself, since a number such as n_segment={steps} is in its code: "
        "what a stream gives depends on where segments begin. Remedies: windows='stream', in which frames see their neighbours across "
        f"segments (on two segments it differs by {off:.0%} of the largest value); or an example of {2 * steps} frames: the stream goes "
        "segment by segment"
    )


def _check_lengths(net: Callable[..., Any], period: int, runs: KeptStates, draft: ProgramDraft) -> list[str]:
    """Compare on other lengths. Returns the lengths that the network refuses, if it refuses all of them."""
    captured, refused, agreed = draft.captured, list[str](), False
    left = affordable(captured)
    for steps in other_lengths(captured, period, draft.divided):
        clip = captured.of_length(steps)
        try:
            want = runs.run(clip)
        except Exception:  # not a length of this module
            continue
        try:
            what = f"a clip of {steps} steps (the example has {captured.steps})"
            _compare(draft.module, clip, net(*clip), want, what, draft)
            agreed = True
        except ShapeMismatch as error:
            refused.append(f"{steps} ({error})")
        left -= 1
        if not left:
            break
    draft.refused = bool(refused) or (draft.divided and _takes(runs, captured.of_length(captured.steps + 1)))
    return [] if agreed else refused


def _takes(runs: KeptStates, clip: Sequence[Tensor]) -> bool:
    """Whether the module takes a clip."""
    try:
        runs.run(clip)
    except Exception:  # of the module
        return False
    return True


def _compare(module: nn.Module, clip: Sequence[Tensor], got: Any, want: Any, what: str, draft: ProgramDraft) -> None:
    """Refuse a network that computes another function than its module."""
    name = type(module).__name__
    for i, (a, b) in enumerate(zip(tensors_in(got), tensors_in(want), strict=True)):
        if a.shape != b.shape:
            raise _differs(name, f"gives {tuple(a.shape)} for {what}, the module {tuple(b.shape)}", draft)
        if not a.numel() or not (a.is_floating_point() or a.is_complex()):
            continue
        off, limit = _difference(a, b), TOLERANCES.get(a.dtype, 5e-2)
        if off > limit or (
            limit > off > SURE and a.dtype in (torch.float32, torch.complex64) and off > _rounding(module, clip, b, i)
        ):
            raise _differs(name, f"differs from the module on {what} by {off:.1e}", draft)


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value or 1."""
    double = torch.complex128 if a.is_complex() else torch.float64
    largest = max(1.0, float(b.to(double).abs().nan_to_num(0.0).max()))
    return float((a.to(double) - b.to(double)).abs().nan_to_num(0.0).max()) / largest


def _rounding(module: nn.Module, clip: Sequence[Tensor], want: Tensor, index: int) -> float:
    """The difference that rounding explains in an output, by a module in double precision; infinite if that can't run."""
    try:
        exact = copy.deepcopy(module).double()(*(x.double() if x.is_floating_point() else x.clone() for x in clip))
        return ROUNDINGS * _difference(want, tensors_in(exact)[index])
    except Exception:  # a module of single precision alone
        return float("inf")


def _differs(name: str, how: str, draft: ProgramDraft) -> NotStreamable:
    """The refusal of a network that differs from its module, with the cause where it is known."""
    found = f"{name}: the converted network {how}. "
    if draft.baked:
        places = "; ".join(list(dict.fromkeys(draft.baked))[:3])
        return NotStreamable(
            f"{found}A size fits the length of the example alone: {places}. Remedies: a reshape that keeps time a dimension of its own, or "
            "merges it with the batch as a whole; tensor.unfold or a strided convolution for groups of frames"
        )
    if (limit := longest(draft.captured)) is not None:
        return NotStreamable(
            f"{found}torch.export found that it does other operations for clips of more than {limit} steps, such as more rounds of a loop "
            "whose number follows from the length. Remedies: co.scan for a recurrence; or exact windows of the example's length, output=-1"
        )
    return NotStreamable(
        f"{found}This is a bug of the conversion, or the module gives other results each time, or does something else for clips of other "
        "lengths"
    )


def tensors_in(y: Any) -> list[Tensor]:
    """The tensors of an output, however they are nested."""
    return [t for t in tree_leaves(y) if isinstance(t, Tensor)]
