"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
import warnings
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
