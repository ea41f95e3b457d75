"""Classes made by `torch.nn.utils.parametrize`, for streaming modules."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize


def with_parametrisations(cls: type[nn.Module], co_class: type[Any]) -> type[Any] | None:
    """``co_class`` with the properties of a class made by :mod:`torch.nn.utils.parametrize`; ``None`` for other classes.

    As there it is made for one module, since ``remove_parametrizations`` takes the properties off the class again.
    """
    if not (cls.__name__.startswith("Parametrized") and cls.__module__ == parametrize.__name__):
        return None
    body = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__", "__getstate__")}
    return type(cls.__name__, (co_class,), {**body, "__reduce_ex__": object.__reduce_ex__})
