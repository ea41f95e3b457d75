"""Detects errors that can only be mistakes in this library's code, so that no refusal hides them."""

from __future__ import annotations

from types import ModuleType

from . import values

_LIBRARY = __name__.partition(".")[0]


def _of_library(name: str | None) -> bool:
    return (name or "").partition(".")[0] == _LIBRARY


def is_mistake(error: BaseException) -> bool:
    """Whether an error is a mistake in this library's code, whatever module is converted.

    An unknown name in a line of the library is one, and so is an unknown attribute of the library's objects. Values of the graph are left
    out: a rule that meets a value it does not expect is a gap, which a refusal names. All other errors can also come from torch or from
    the user's code.

    Args:
        error: as it was caught, with its traceback.

    Example:
        >>> is_mistake(ValueError("of anybody"))
        False
    """
    if isinstance(error, AttributeError):
        found = error.obj.__name__ if isinstance(error.obj, ModuleType) else type(error.obj).__module__
        return _of_library(found) and found != values.__name__
    return isinstance(error, NameError) and _of_library(_raised_in(error))


def _raised_in(error: BaseException) -> str | None:
    """The module whose code raised an error."""
    trace, name = error.__traceback__, None
    while trace is not None:
        name, trace = trace.tb_frame.f_globals.get("__name__"), trace.tb_next
    return name
