"""Which operation of which module a runtime's converter stumbled over."""

from __future__ import annotations

import warnings

import torch

from .metadata import Metadata


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
