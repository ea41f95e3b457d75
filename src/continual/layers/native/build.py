"""Builds C++ sources of this package, once for each machine, into the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FLAGS = (
    "-O2",
    "-std=c++17",
    "-march=native",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
)  # sums keep their order, NaN and infinity
PATIENCE = 120  # seconds for a compiler
POINTER, LONG, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float

log = logging.getLogger("continual.layers.native")


def built(source: Path) -> Path | None:
    """The shared library of a source file, built now where there is none in the cache; ``None`` where it can't be built.

    A name in the cache stands for the source, the flags, the compiler and the processor. Processes that build the same at once each
    write a file of their own, and the last to finish gives it the name.
    """
    compiler = found_compiler()
    if compiler is None:
        log.info("no C++ compiler was found ($CXX, c++, g++, clang++): %s is computed by torch's own operations", source.stem)
        return None
    library = cache_folder() / f"{source.stem}-{_key(source, compiler)}.so"
    try:
        if not library.exists():
            _build(source, compiler, library)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(
            "%s: could not be built, torch's own operations are used (CONTINUAL_NATIVE=0 says so from the start): %s",
            source.name,
            _reason(error),
        )
        return None
    return library


def library(source: Path) -> ctypes.CDLL | None:
    """The library of a source file, loaded: built at the first use on a machine (2 to 3 s); ``None`` where that can't be.

    ``CONTINUAL_NATIVE=0`` in the environment turns all libraries off.
    """
    if os.environ.get("CONTINUAL_NATIVE") == "0":
        return None
    path = built(source)
    if path is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        log.warning("%s can't be loaded, torch's own operations are used: %s. Delete the file to build it again", path, error)
        return None


class Kernel(NamedTuple):
    """A function of a library, and what its caller has to know.

    Attributes:
        run: the function.
        lanes: numbers of a vector.
        parallel: see :func:`openmp`.
    """

    run: Any
    lanes: int
    parallel: int | None


def kernel(source: Path, arguments: Sequence[Any], result: Any = None, avx: bool = True) -> Kernel | None:
    """The function ``continual_NAME_run`` of the source ``NAME.cpp``; ``None`` where there is no library.

    Args:
        source: the source file.
        arguments, result: their types in C.
        avx: whether torch knows more of x86 processors without AVX, so that there is no kernel on these.
    """
    loaded = library(source)
    if loaded is None:
        return None
    loaded.continual_lanes.restype = LONG
    lanes: int = loaded.continual_lanes()
    if avx and lanes < 8 and platform.machine().lower() in ("x86_64", "amd64"):
        return None
    run = getattr(loaded, f"continual_{source.stem}_run")
    run.argtypes, run.restype = list(arguments), result
    return Kernel(run, lanes, openmp())


@functools.cache
def openmp() -> int | None:
    """The address of ``GOMP_parallel`` of the OpenMP runtime that torch uses, so that both share their threads; or ``None``."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # not on this system, or not of this runtime
        return None


def found_compiler() -> list[str] | None:
    """The command of the C++ compiler: ``$CXX`` if it is set, or the first that is there."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return command
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return None if found is None else [found]


def cache_folder() -> Path:
    """Where libraries are kept: ``$XDG_CACHE_HOME/continual``, or ``~/.cache/continual``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "continual"


def _key(source: Path, compiler: list[str]) -> str:
    """A digest of all that the library depends on. To ask the compiler for its version would take longer than all the rest."""
    digest = hashlib.sha256(source.read_bytes())
    path = shutil.which(compiler[0])
    about = os.stat(path) if path else None  # of another version, another file
    parts = (*FLAGS, *compiler, os.path.realpath(path or ""), about and (about.st_size, about.st_mtime_ns), _processor())
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """The processor and what it can do: ``-march=native`` makes a library of this machine alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.release()}"
    told = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
    return platform.machine() + "".join(sorted({line for line in lines if line.startswith(told)}))


def _build(source: Path, compiler: list[str], library: Path) -> None:
    started = time.monotonic()
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [*compiler, *FLAGS, str(source), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        os.replace(made, library)
    log.info(
        "%s: built by %s in %.1f s, once for this machine (%s)", source.name, compiler[0], time.monotonic() - started, library
    )


def _reason(error: Exception) -> str:
    """The first line that a compiler wrote, or the error."""
    written = str(getattr(error, "stderr", None) or "").strip()
    return f"{error}" + (f": {written.splitlines()[0]}" if written else "")
