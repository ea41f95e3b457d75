"""State dicts with flat names, and small helpers: the import path of continual-inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from .core.state_dicts import flat_state_dict, load_state_dict, state_dict

__all__ = ["flat_state_dict", "flatten", "load_state_dict", "state_dict", "temporary_parameter"]

Thing = TypeVar("Thing")
_ABSENT = object()


@contextmanager
def temporary_parameter(obj: Thing, attr: str, val: Any) -> Iterator[Thing]:
    """Give an attribute a value inside a ``with`` block. Afterwards it is as it was, also after an error.

    Args:
        obj: its owner.
        attr: the attribute's name, ``"conv.stride"`` for one of an attribute.
        val: its value in the block.

    Example:
        >>> pool = nn.AvgPool1d(3)
        >>> with temporary_parameter(pool, "ceil_mode", True):
        ...     pool(torch.zeros(1, 1, 10)).shape
        torch.Size([1, 1, 4])
        >>> pool.ceil_mode
        False
    """
    *path, name = attr.split(".")
    owner: Any = obj
    for part in path:
        owner = getattr(owner, part)
    before = getattr(owner, name, _ABSENT)
    setattr(owner, name, val)
    try:
        yield obj
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def flatten(lst: Any, remove_none: bool = True) -> list[Any]:
    """What nested sequences hold, in one list.

    Args:
        lst: a sequence of sequences at any depth (a :class:`~continual.State` is one, of tensors), or one thing.
        remove_none: leave out what is ``None``.

    Example:
        >>> flatten([1, (2, [None, 3])])
        [1, 2, 3]
    """
    if isinstance(lst, Sequence) and not isinstance(lst, (str, bytes)):
        return [thing for part in lst for thing in flatten(part, remove_none)]
    return [] if lst is None and remove_none else [lst]
