"""What ``net(x)`` runs, and how torch's forward hooks run around other methods than ``forward``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

CALL_MODES = ("forward", "forward_steps", "forward_step")


class _ThreadLocal(threading.local):
    mode: str | None = None  # of the innermost call_mode context
    target: tuple[nn.Module, Callable[..., Any]] | None = None  # what the next forward of a module stands for


_local = _ThreadLocal()


def current_mode() -> str | None:
    """The mode of the innermost :func:`call_mode` block of this thread."""
    return _local.mode


@contextmanager
def call_mode(mode: str) -> Iterator[None]:
    """Choose what ``net(x)`` runs inside a ``with`` block, in this thread. Blocks nest, and take precedence over the property.

    Args:
        mode: ``"forward"``, ``"forward_steps"`` or ``"forward_step"``.

    Example:
        >>> net = co.Conv1d(1, 1, 3, padding=1)
        >>> with co.call_mode("forward_step"), torch.no_grad():
        ...     net(torch.zeros(2, 1)), net(torch.zeros(2, 1)).shape
        (None, torch.Size([2, 1]))
    """
    before, _local.mode = _local.mode, checked_mode(mode)
    try:
        yield
    finally:
        _local.mode = before


def checked_mode(mode: str) -> str:
    if mode not in CALL_MODES:
        raise ValueError(f"call_mode is one of {', '.join(map(repr, CALL_MODES))}, not {mode!r}")
    return str(mode)


def call_with_hooks(module: nn.Module, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a module as torch does, hooks included, with ``run`` in the place of its ``forward``."""
    before, _local.target = _local.target, (module, run)
    try:
        return nn.Module.__call__(module, *args, **kwargs)
    finally:
        _local.target = before


def has_hooks(module: nn.Module) -> bool:
    """Whether forward hooks are registered, on this module or on all."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or hooks_on_all()


def hooks_on_all() -> bool:
    """Whether forward hooks are registered for every module there is."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def routed_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``nn.Module.__call__`` run another function than ``forward`` between its hooks: see :func:`call_with_hooks`."""

    @functools.wraps(forward)
    def routed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        target = _local.target
        if target is not None and target[0] is self:
            _local.target = None
            return target[1](*args, **kwargs)
        return forward(self, *args, **kwargs)

    routed.is_routed = True  # type: ignore[attr-defined]
    return routed
