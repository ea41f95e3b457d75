"""Changes that a run or an export makes to a module, and how they are undone."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import transformer


@contextlib.contextmanager
def restored(module: nn.Module) -> Iterator[None]:
    """Undo what a run or an export sets on the modules, and the `.data` of their tensors, also after an error."""
    tables = ("_parameters", "_buffers", "_modules")
    kept = [(m, dict(m.__dict__), {name: dict(m.__dict__[name]) for name in tables}) for m in module.modules()]
    weights = [(t, t.data) for t in (*module.parameters(), *module.buffers()) if type(t) in (Tensor, nn.Parameter)]
    try:
        yield
    finally:
        for t, data in weights:
            if (t.device, t.shape) != (data.device, data.shape) or t.data_ptr() != data.data_ptr():
                t.data = data
        for m, before, entries in kept:
            for name in [n for n in m.__dict__ if n not in before]:
                del m.__dict__[name]
            m.__dict__.update(before)
            for name, own in entries.items():
                now = m.__dict__[name]
                if [(k, id(v)) for k, v in now.items()] != [(k, id(v)) for k, v in own.items()]:
                    now.clear()
                    now.update(own)


@contextlib.contextmanager
def replaced_forward(part: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another ``forward``."""
    before = part.__dict__.get("forward")
    part.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del part.__dict__["forward"]
        else:
            part.__dict__["forward"] = before


@contextlib.contextmanager
def masks_not_inspected() -> Iterator[None]:
    """Keep torch's encoders from inspecting mask values. They ask whether a mask is causal, only to choose a kernel."""
    before = transformer._detect_is_causal_mask
    transformer._detect_is_causal_mask = lambda mask, is_causal=None, size=None: bool(is_causal)
    try:
        yield
    finally:
        transformer._detect_is_causal_mask = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence messages of torch.export: about references to weights, which recurrent layers keep, and about code that it can't follow."""
    loud = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("torch")]
    loud = [log for log in loud if not log.disabled]
    for log in loud:
        log.disabled = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in loud:
            log.disabled = False
