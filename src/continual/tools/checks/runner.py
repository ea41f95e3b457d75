"""Runs all checks on a module and restores it."""

from __future__ import annotations

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.module import call_mode
from ...core.state import Wire
from ..report import Check, Report
from . import endless, gradients, network, outputs, safety, timeliness  # noqa: F401 (their checks are registered)
from . import state as _state  # noqa: F401
from .compare import flat, state_tensors
from .contract_run import CHECKS, Broken, ContractRun, Skipped
from .effort import Effort
from .wires import shapes


def run_checks(
    net: Any,
    clip: Wire,
    reference: Any,
    effort: Effort,
    splits: int | None,
    tolerance: float | None,
    seed: int,
    progress: Callable[[int, int, str], None],
) -> Report:
    """Make all checks, in the order of the contract. See :func:`continual.verify`."""
    devices = {t.device.index or 0 for t in flat(clip) if t.device.type == "cuda"}
    checks = sorted(CHECKS, key=lambda c: c[0])
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(sorted(devices)),
        call_mode("forward"),
        _left_as_it_was(net, reference),
        torch.no_grad(),
    ):
        progress(0, len(checks), "the clip")
        run = ContractRun(net, clip, reference, effort, splits, tolerance, seed)
        report = Report(f"{type(net).__name__} on a clip {shapes(run.clip)}, tolerance {run.tolerance:.0e}", notes=run.notes)
        for done, (point, name, check) in enumerate(checks):
            progress(done, len(checks), name)
            report.checks.append(_outcome(run, point, name, check))
        progress(len(checks), len(checks), "done")
    return report


def _outcome(run: ContractRun, point: int, name: str, check: Callable[[ContractRun], str]) -> Check:
    run.renew()
    try:
        return Check(point, name, "passed", check(run))
    except Skipped as reason:
        return Check(point, name, "skipped", str(reason))
    except Broken as broken:
        return Check(point, name, "failed", str(broken))
    except Exception as error:  # the module under test may raise anything
        return Check(point, name, "failed", f"raised {type(error).__name__}: {error}")


@contextmanager
def _left_as_it_was(net: Any, reference: Any) -> Iterator[None]:
    """Eval mode within a block; afterwards training flags, buffers and the stream are as before."""
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
        with _uninterrupted():
            for module, flag in training:
                module.training = flag
            for module, name, buffer, content in tensors:
                _restore(module, name, buffer, content)
            net.clean_state()  # a stream of another dtype or size would refuse the state
            if state is not None:
                net.set_state(state)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delays Ctrl-C to the end of the block. (Only the main thread gets signals.)"""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    pressed: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(*pressed[0])


def _independent(state: Any) -> Any:
    """A copy, because snapshots of a wrong module may not be copies."""
    try:
        return copy.deepcopy(state)
    except Exception:
        return state


def _restore(module: nn.Module, name: str, buffer: Tensor, content: Tensor) -> None:
    module._buffers[name] = buffer
    if buffer.shape == content.shape and not torch.equal(buffer, content):
        with torch.no_grad():
            buffer.copy_(content)
