"""Finds a network by `package.module:factory` or `path/to/file.py:factory`."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


class BadInput(Exception):
    """Wrong input on the command line. The message is one line."""


def check_file(path: Path) -> None:
    """Refuse a path that is not a file.

    Raises:
        BadInput: there is nothing, or a folder.
    """
    if not path.is_file():
        raise BadInput(f"there is no file '{path}'" if not path.exists() else f"'{path}' is a folder; give a file")


def load(target: str, arguments: Sequence[str] = ()) -> nn.Module:
    """The network that a target names.

    Args:
        target: ``module:name`` or ``file.py:name``. It names an ``nn.Module``, or a callable that returns one.
        arguments: ``name=value`` for the callable.

    Raises:
        BadInput: there is no such module or name, the call fails, or it returns no ``nn.Module``.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise BadInput(f"'{target}' names no network: give package.module:factory or path/to/file.py:factory")
    found: Any = _imported(place)
    for part in name.split("."):
        found = _attribute(found, part, place)
    options = dict(_argument(a) for a in arguments)
    if isinstance(found, nn.Module):
        if options:
            raise BadInput(f"{target} is a module, no factory: it takes no --arg {', '.join(options)}")
        return found
    if not callable(found):
        raise BadInput(
            f"{target} is of type {type(found).__name__}; it must be an nn.Module, or a function or class that gives one"
        )
    try:
        made = found(**options)
    except Exception as error:
        hint = " (give arguments with --arg name=value)" if isinstance(error, TypeError) and "argument" in str(error) else ""
        raise BadInput(f"{target} can't be called: {_said(error)}{hint}") from error
    if not isinstance(made, nn.Module):
        raise BadInput(f"{target} gives {type(made).__name__}, not an nn.Module")
    return made


def _imported(place: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except BadInput:
        raise
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise BadInput(f"there is no module '{error.name}' (looked in the current folder and where Python looks)") from error
        raise BadInput(f"can't import '{place}': {_said(error)}") from error
    except Exception as error:
        raise BadInput(f"can't import '{place}': {_said(error)}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadInput(f"there is no file '{path}'")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # for imports of the file from its folder
    name = path.stem if path.stem not in sys.modules else f"_target_{path.stem}"  # never in place of another module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"'{path}' can't be imported as a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # pickles look for its classes there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(owner: Any, name: str, place: str) -> Any:
    if not hasattr(owner, name):
        near = difflib.get_close_matches(name, [n for n in dir(owner) if not n.startswith("_")], 1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise BadInput(f"'{place}' has no '{name}'{hint}")
    return getattr(owner, name)


def _argument(text: str) -> tuple[str, Any]:
    """``name=value``, with a Python literal as the value; other words are text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise BadInput(f"--arg {text}: give name=value")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        if re.fullmatch(r"\s*[A-Za-z][\w./-]*\s*", value):
            return name.strip(), value.strip()
        raise BadInput(f"--arg {text}: '{value}' is not a Python value (a number, True, None, (1, 2), 'text')") from None


def _said(error: BaseException) -> str:
    """An error in one line, with the line that raised it."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    place = f" ({Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else ""
    return f"{type(error).__name__}: {text}{place}"
