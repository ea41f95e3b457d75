"""ExecuTorch programs, for phones and small devices: with XNNPACK where it has the operation, otherwise with portable kernels."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.file_digest import BLANK
from ..core.optional_packages import package, quiet
from ..errors import ArtefactMismatch, ExportError
from ..programs.diagnose import diagnose
from ..programs.rewrites.passes import rewritten
from .flat_call import FlatCall
from .folding import folded
from .int8 import Calibration, quantised_program
from .metadata import DIGEST, KEY, Metadata
from .runtime_streams import OpenStreams, TensorStreams

METHOD = "forward"


def write(call: FlatCall, path: Path, metadata: Metadata, int8: tuple[str, Calibration] | None = None) -> None:
    """Lower a call and write the program."""
    with quiet():
        exir = package("executorch.exir", "executorch", "co.export")
        partitioner = package("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch", "co.export")
    if int8 is None:
        program = call.exported()
    else:
        program, cost = quantised_program(call, int8[0], metadata, int8[1])
        metadata = dataclasses.replace(metadata, quantised=cost)
    with warnings.catch_warnings(), quiet(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = None
        try:
            program = rewritten(program, "executorch")
            if int8 is None:
                program = folded(program)
            lowered = exir.to_edge_transform_and_lower(
                program,
                partitioner=[partitioner.XnnpackPartitioner()],
                compile_config=exir.EdgeCompileConfig(
                    _check_ir_validity=False
                ),  # `_check` looks at the runtime's kernels instead
                constant_methods={KEY: metadata.to_json(), DIGEST: BLANK},
            )
            graph = lowered.exported_program().graph
            made = lowered.to_executorch()
            _check(made)
        except Exception as error:
            reason = diagnose(error, program, metadata.network, graph)
            raise ExportError(f"co.export: ExecuTorch can't take {metadata.network}: {reason}") from error
    path.write_bytes(made.buffer)
    _try_out(path, metadata)


def _check(made: Any) -> None:
    """Refuse operations without kernels in the runtime, whose own error only says that it can't load the file."""
    has = package("executorch.runtime", "executorch", "co.export").Runtime.get().operator_registry.operator_names
    needed = [f"{o.name}.{o.overload}".rstrip(".") for plan in made.executorch_program.execution_plan for o in plan.operators]
    if missing := sorted(set(needed) - has):
        raise ExportError(f"its runtime has no kernels for {', '.join(missing)}")


def _try_out(path: Path, metadata: Metadata) -> None:
    """Run one call on zeros: some kernels refuse arguments only when they run."""
    batch = metadata.batch or 1
    try:
        read(path, None)[1](batch).call([p.zeros(batch) for p in metadata.inputs], 0)
    except Exception as error:
        raise ExportError(
            f"co.export: ExecuTorch's runtime can't run {metadata.network}: {error}. Find the layer by exporting parts of the network, or "
            "export to 'pt2'"
        ) from error


def read(path: Path, threads: int | None) -> tuple[Metadata, OpenStreams]:
    """The metadata of a program, and a function that opens streams of it."""
    with quiet():
        runtime = package("executorch.runtime", "executorch", "co.load")
        try:
            program = runtime.Runtime.get().load_program(path.read_bytes())
            names = program.method_names
            text = program.load_method(KEY).execute([])[0] if KEY in names else None
        except Exception as error:
            raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged, or no ExecuTorch program: {error}") from error
        if text is None:
            raise ArtefactMismatch(
                f"co.load: {str(path)!r} is an ExecuTorch program, but not one that co.export wrote: it has no {KEY!r}"
            )
        metadata = Metadata.from_json(text, path)
        try:
            method = program.load_method(METHOD)
        except Exception as error:
            raise ArtefactMismatch(f"co.load: {str(path)!r} is damaged: {error}") from error
    return metadata, lambda batch: ExecutorchStreams(program, method, metadata, batch)


class ExecutorchStreams(TensorStreams):
    """Streams in an ExecuTorch program."""

    def __init__(self, program: Any, method: Any, metadata: Metadata, batch: int):
        super().__init__(metadata, batch)
        self._program, self._method = program, method  # the method needs its program

    def call(self, inputs: list[Tensor], end: int) -> list[Tensor]:
        found = [t.clone() for t in self._method.execute(self._arguments(inputs, end))]
        outputs = len(self._metadata.outputs)
        self._states = found[outputs + 1 :]
        return found[:outputs]
