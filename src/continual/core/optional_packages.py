"""Optional packages, imported where they are used."""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import ExportError


def package(name: str, extra: str, who: str) -> Any:
    """Import a package that an extra of this library installs.

    Raises:
        ExportError: it is not installed; the message says how to get it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"{who} needs the package {name}: pip install 'continual[{extra}]' ({error})") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what the runtime's native code writes to the standard error of the process."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
