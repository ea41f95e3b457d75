"""`verify`: the contract of streaming, executed on any module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .checks import CHECKS, Broken, Skipped, Trial
from .checks.compare import flat, state_tensors
from .checks.trial import shapes
from .errors import StreamMismatch
from .module import call_mode
from .report import Check, Report
from .state import Wire

__all__ = ["Check", "Report", "verify"]


def verify(
    net: Any,
    clip: Wire,
    reference: nn.Module | Callable[[Any], Any] | None = None,
    *,
    splits: int = 8,
    tolerance: float | None = None,
    raise_on_fail: bool = True,
    seed: int = 0,
) -> Report:
    """Check that a module streams exactly: the whole contract of this library, as a black box, through public methods.

    What is checked: the clip computation; equal outputs for every chunking, for single steps and for a flush at any moment; no
    output late or early; ``update_state=False`` and ``pad_end=True`` without side effects; snapshots; rows that do not see each
    other; memory that does not grow; gradients; weights, copies and pickles; and calls that raise.

    The module is run in eval mode, and is left as it was: stream, training flags, parameters, gradients and random numbers.
    Cost: some dozens of streams of the clip and some hundreds of short ones. A long clip is looked at in about 32 places.

    Args:
        net: a :class:`~continual.CoModule`, or any object with ``forward_step``, ``forward_steps``, ``get_state``, ``set_state``
            and ``clean_state``, and with ``forward`` if no reference is given.
        clip: ``(B, C, T, *S)``, or a list of such for a module that takes several streams. A few receptive fields long, with
            values that tell right from wrong. A batch of 1 is tiled to 3 rows: as given, reversed in time, turned by ``T // 2``.
        reference: the trained module, or a function of the clip, that ``net.forward`` has to equal.
        splits: how many random splits into chunks.
        tolerance: largest ``|a - b| / max(1, max|b|)``; ``None`` for 1e-12 in float64, 1e-5 in float32 and 1e-2 in half types.
        raise_on_fail: raise if a check fails.
        seed: of everything that is drawn.

    Returns:
        All checks with what they measured; ``print`` shows a table.

    Raises:
        StreamMismatch: a check failed. The message names the first broken point with numbers, ``.report`` holds the rest.
        ShapeMismatch: ``forward`` refuses the clip.

    Example:
        >>> model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 2, 3, stride=2))
        >>> net = co.continual(model)
        >>> co.verify(net, torch.randn(2, 2, 20), reference=model).passed
        True

        A module that is said to be local in time, and is not:

        >>> report = co.verify(co.forward_stepping(nn.Conv1d(2, 2, 3, padding=1)), torch.randn(2, 2, 20), raise_on_fail=False)
        >>> print(report.failures[0])
        contract point 2 (any chunking), chunks and steps = forward: split [20 steps, 0 with pad_end] differs from forward: ...
    """
    devices = {t.device.index or 0 for t in flat(clip) if t.device.type == "cuda"}
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(sorted(devices)),
        call_mode("forward"),
        _left_as_it_was(net, reference),
        torch.no_grad(),
    ):
        trial = Trial(net, clip, reference, splits, tolerance, seed)
        report = Report(f"{type(net).__name__} on a clip {shapes(trial.clip)}, tolerance {trial.tolerance:.0e}")
        for point, name, check in sorted(CHECKS, key=lambda c: c[0]):
            report.checks.append(_outcome(trial, point, name, check))
    if raise_on_fail and not report.passed:
        subject = report.subject.split(", tolerance")[0]
        more = f"\n\n{report}" if len(report.failures) > 1 else ""
        raise StreamMismatch(f"{subject} breaks {report.failures[0]}{more}", report)
    return report


def _outcome(trial: Trial, point: int, name: str, check: Callable[[Trial], str]) -> Check:
    trial.renew()
    try:
        return Check(point, name, "passed", check(trial))
    except Skipped as reason:
        return Check(point, name, "skipped", str(reason))
    except Broken as broken:
        return Check(point, name, "failed", str(broken))
    except Exception as error:  # the module under test may raise anything
        return Check(point, name, "failed", f"raised {type(error).__name__}: {error}")


@contextmanager
def _left_as_it_was(net: Any, reference: Any) -> Iterator[None]:
    """Eval mode for the length of a block; then training flags, buffers and the stream are as before."""
    modules = [m for top in (net, reference) if isinstance(top, nn.Module) for m in top.modules()]
    training = [(m, m.training) for m in modules]
    tensors = [(m, name, b, b.detach().clone()) for m in modules for name, b in m._buffers.items() if b is not None]
    state = net.get_state()
    if not any(t.requires_grad for t in state_tensors(state).values()):
        state = _independent(state)
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for module, name, buffer, content in tensors:
            _restore(module, name, buffer, content)
        net.clean_state() if state is None else net.set_state(state)


def _independent(state: Any) -> Any:
    """A copy, in case that the module's own snapshots are not."""
    try:
        return copy.deepcopy(state)
    except Exception:
        return state


def _restore(module: nn.Module, name: str, buffer: Tensor, content: Tensor) -> None:
    module._buffers[name] = buffer
    if buffer.shape == content.shape and not torch.equal(buffer, content):
        with torch.no_grad():
            buffer.copy_(content)
