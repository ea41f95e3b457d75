"""A cache of compiled AOTInductor packages on disk. Its key is a digest of all that the code depends on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ...core.weights_digest import tensor_digest

FOLDER = "continual"  # beside what torch keeps there


def folder() -> Path:
    """Where packages are: in the cache of torch's compiler, ``TORCHINDUCTOR_CACHE_DIR``."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # here: it loads the compiler

    return Path(cache_dir(), FOLDER)


def loaded(program: ExportedProgram, options: dict[str, Any], compile: Callable[[str], str]) -> Any:
    """The package of a program: from the disk, or compiled now and kept.

    Args:
        program: to be compiled. Its weights are constants of the code.
        options: of the compiler.
        compile: compiles it to a path, and returns the path.
    """
    kept = folder() / f"{key_of(program, options)}.pt2"
    if kept.is_file():
        with contextlib.suppress(Exception):  # damaged: compile it again
            return torch._inductor.aoti_load_package(str(kept))
    made = tempfile.mkdtemp(prefix="continual-")
    try:
        path = compile(os.path.join(made, "program.pt2"))
        found = torch._inductor.aoti_load_package(path)
        with contextlib.suppress(OSError):  # a full or read-only disk: the next start compiles again
            _keep(Path(path), kept)
        return found
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _keep(path: Path, kept: Path) -> None:
    """Put a package into the cache. Other processes see all of it, or nothing."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        shutil.copyfile(path, partial)
        partial.replace(kept)
    finally:
        partial.unlink(missing_ok=True)


def key_of(program: ExportedProgram, options: dict[str, Any]) -> str:
    """A digest of all that the code depends on: operations, shapes, weights, options, torch, the compiler and the processor."""
    from torch._inductor import cpu_vec_isa
    from torch._inductor.cpp_builder import get_cpp_compiler

    total = hashlib.sha256()
    lines = [torch.__version__, get_cpp_compiler(), str(cpu_vec_isa.pick_vec_isa()), str(sorted(options.items()))]
    lines += [str(torch.get_num_threads()), str(program.graph_signature)]
    for node in program.graph.nodes:
        lines.append(f"{node.name} {node.op} {node.target} {node.args} {node.kwargs} {_described(node.meta.get('val'))}")
    total.update("\n".join(lines).encode())
    for name, t in sorted((program.state_dict | program.constants).items()):
        total.update(f"\n{name} {_described(t)} ".encode())
        total.update(tensor_digest(t) if isinstance(t, Tensor) else b"")
    return total.hexdigest()[:40]


def _described(value: Any) -> str:
    """The shapes, dtypes and devices of what a node gives."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_described, value))}]"
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.stride()} {value.dtype} {value.device}"
    return str(value)
