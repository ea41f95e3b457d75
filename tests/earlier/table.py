"""The table of docs/migrating.md, what holds its rows, and how they are run. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import continual as co
from tests.contract import assert_equal

HELD: dict[str, tuple[str, Callable[[], object]]] = {}
REFUSALS = (co.ContinualError, TypeError, ValueError, AttributeError, ImportError)


def row(call: str, verdict: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Register what holds a row of the table."""

    def register(fn: Callable[[], object]) -> Callable[[], object]:
        assert call not in HELD
        HELD[call] = verdict, fn
        return fn

    return register


def clip(*shape: int) -> Tensor:
    """A clip of negative and positive numbers, ``(2, 4, 23)`` unless said otherwise."""
    return torch.randn(*shape or (2, 4, 23))


def exact(net: Any, x: Tensor, reference: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """``forward`` is that of a reference, chunks and steps are as ``forward``."""
    net.eval()
    with torch.no_grad():
        y = net.forward(x)
        y = y[0] if isinstance(y, tuple) else y
        if reference is not None:
            assert_equal(y, reference(x))
        net.clean_state()
        assert_equal(net.forward_steps(x, pad_end=True, update_state=False), y)
        found = [net.forward_step(frame) for frame in x.unbind(2)]
        outs = [f if f.ndim == y.ndim else f.unsqueeze(2) for f in found if f is not None]
        found = torch.cat([*outs, *rest(net)], 2)
        assert_equal(found, y)
        net.clean_state()
    return y


def rest(net: Any) -> list[Tensor]:
    """What the end of the stream brings."""
    y = net.forward_steps(net.get_state().frame.zeros(0), pad_end=True)
    return [] if y is None else [y]


def twins(ours: type, theirs: type, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A layer and that of torch, with the same weights."""
    net, module = ours(*args, **kwargs), theirs(*args, **kwargs)
    net.load_state_dict(module.state_dict())
    return net, module.eval()


def raising(fn: Callable[[], object], *errors: type[Exception]) -> None:
    """It raises all of these at once."""
    for error in errors:
        with pytest.raises(error):
            fn()


def conv(kernel: int, padding: int | None = None, stride: int = 1) -> co.Conv1d:
    return co.Conv1d(4, 4, kernel, stride, kernel // 2 if padding is None else padding)
