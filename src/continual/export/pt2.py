"""AOTInductor packages: compiled for the processor of this machine, with states that calls update in place."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.file_digest import BLANK
from ..core.progress import Progress
from ..errors import ArtefactMismatch, ExportError
from ..programs.backends.torch import compiler_options, needs_compiler, use_kernels
from .flat_call import FlatCall
from .metadata import Metadata
from .runtime_streams import OpenStreams, TensorStreams

ENTRY = "continual.json"


class InPlace(nn.Module):
    """A call that writes the new states over the old ones: ``(x …, [end], calls, state …) → (y …, valid)``."""

    def __init__(self, call: FlatCall, outputs: int):
        super().__init__()
        self.call, self.outputs = call, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.call(*tensors)
        old_state, new_state = tensors[-(len(found) - self.outputs) :], found[self.outputs :]
        for old, new in zip(old_state, new_state, strict=True):
            old.copy_(new)
        return found[: self.outputs]


def write(call: FlatCall, path: Path, metadata: Metadata) -> None:
    """Compile a call and write the package."""
    needs_compiler(call.example()[0].device, "co.export")
    program = call.exported(InPlace(call, len(metadata.outputs) + 1))
    use_kernels(program)
    with warnings.catch_warnings(), torch.no_grad(), Progress(f"compiling {metadata.network} for {path.name}"):
        warnings.simplefilter("ignore")
        try:
            package = path.with_suffix(".pt2")  # torch requires this suffix
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(package), inductor_configs=compiler_options(program)
            )
        except Exception as error:
            raise ExportError(f"co.export: torch can't compile {metadata.network}: {error}") from error
    if package != path:
        package.rename(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{_root(archive)}/extra/{ENTRY}", metadata.to_json())
        archive.comment = BLANK.encode()  # no checksum of the archive covers the comment


def _root(archive: zipfile.ZipFile) -> str:
    return archive.namelist()[0].split("/")[0]


def read(path: Path, threads: int | None) -> tuple[Metadata, OpenStreams]:
    """The metadata of a package, and a function that opens streams of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            if found := archive.testzip():
                raise zipfile.BadZipFile(f"{found} in it is not what was written")
            name = next((n for n in archive.namelist() if n.endswith(f"/extra/{ENTRY}")), None)
            text = None if name is None else archive.read(name).decode()
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, EOFError) as error:
        raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged: {error}") from error
    if text is None:
        raise ArtefactMismatch(f"co.load: {str(path)!r} is an archive, but not one that co.export wrote: it has no {ENTRY}")
    metadata = Metadata.from_json(text, path)
    try:
        loaded = torch._inductor.aoti_load_package(str(path))
    except Exception as error:
        raise ArtefactMismatch(f"co.load: {str(path)!r} is not for this machine or this torch: {error}") from error
    return metadata, lambda batch: Pt2Streams(loaded.loader.run, metadata, batch)


class Pt2Streams(TensorStreams):
    """Streams in a compiled package, which changes the states in place."""

    def __init__(self, run: Any, metadata: Metadata, batch: int):
        super().__init__(metadata, batch)
        self._run = run

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        with torch.no_grad():
            found: list[Tensor] = self._run(self._arguments(inputs, end))
        return found[: len(self._metadata.outputs)]

    def call_rows(self, inputs: list[Tensor], ends: Tensor, states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """As :class:`~continual.export.runtime_streams.RowStreams`."""
        with torch.no_grad():
            args = [*(x.contiguous() for x in inputs), *([ends] if self._metadata.flush else []), *states]
            found: list[Tensor] = self._run(args)
        return found[: len(self._metadata.outputs)], states
