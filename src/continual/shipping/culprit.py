"""Which operation of which module `torch.export`, or a runtime's converter, stumbled over."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path

import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ..program.rows import Untraced
from .metadata import Metadata

LIBRARIES = tuple(str(Path(str(sys.modules[name].__file__)).parent) for name in ("torch", __name__.partition(".")[0]))


def untraced(error: BaseException, network: str, any_rows: bool) -> str:
    """Which module can't be followed and why, in words, with the line of the user's code."""
    causes = _causes(error)
    module = next((e.module for e in causes if isinstance(e, Untraced)), network)
    cause = next((e for e in causes if not isinstance(e, Untraced)), error)
    lines = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith((*LIBRARIES, "<"))]
    where = f" ({Path(lines[-1].filename).name}:{lines[-1].lineno}: `{lines[-1].line}`)" if lines else ""
    if any(isinstance(e, GuardOnDataDependentSymNode) for e in causes):
        return (
            f"{module}: what it does depends on the values of a tensor{where}, and a file holds one way for all values. Say it by "
            "torch.where or by masks"
        )
    reason = (str(cause).strip() or repr(cause)).splitlines()[0]
    return f"{module}: {reason}{where}" + (". A fixed number of rows may do: batch=1" if any_rows else "")


def culprit(error: BaseException, program: torch.export.ExportedProgram, metadata: Metadata) -> str:
    """What an exporter has nothing for, in words; its own last words if no operation is named there."""
    text = "\n".join(str(e) for e in _causes(error))
    found = _named_in(text, program.graph, metadata) or _named_in(text, _decomposed(program), metadata)
    if found:
        return f"it has nothing for {found}. Write that in other operations, or export to 'pt2'"
    return text.strip().splitlines()[-1] if text.strip() else repr(error)


def _named_in(text: str, graph: torch.fx.Graph | None, metadata: Metadata) -> str:
    for node in graph.nodes if graph is not None else ():
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        packet = node.target._schema.name.replace("::", ".")
        if any(name in text for name in (f"{packet}.", f"'{packet}'", f"{node.target._schema.name}.")):
            module = (node.meta.get("custom") or {}).get("module", metadata.network)
            return f"`{node.target}`, which {module} computes"
    return ""


def _decomposed(program: torch.export.ExportedProgram) -> torch.fx.Graph | None:
    """The program in the few operations that exporters see."""
    try:
        with warnings.catch_warnings(), torch.fx.traceback.preserve_node_meta():
            warnings.simplefilter("ignore")
            return program.run_decompositions(dict(torch._decomp.decomposition_table)).graph
    except Exception:  # it is for an error message alone
        return None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
