"""Finding the operation, and its module, that a runtime's converter refused."""

from __future__ import annotations

import warnings

import torch

from ..core.program.tracing import causes


def diagnose(
    error: BaseException, program: torch.export.ExportedProgram, network: str, lowered: torch.fx.Graph | None = None
) -> str:
    """The operation that an exporter lacks, in words; the last line of its own error if that names no operation.

    Args:
        error: the exporter's error.
        program: its input.
        network: the name of the network.
        lowered: the exporter's own graph, if it got so far.
    """
    text = "\n".join(str(e) for e in causes(error))
    graphs = (lambda: program.graph, lambda: _decomposed(program), lambda: lowered)
    found = next(filter(None, (_named_in(text, graph(), network) for graph in graphs)), "")
    if found:
        return f"it has nothing for {found}. Write that in other operations, or export to 'pt2'"
    return text.strip().splitlines()[-1] if text.strip() else repr(error)


def _named_in(text: str, graph: torch.fx.Graph | None, network: str) -> str:
    for node in graph.nodes if graph is not None else ():
        op = node.target
        if not isinstance(op, torch._ops.OpOverload):
            op = getattr(op, "_op", None)  # ExecuTorch wraps torch's operations
        if not isinstance(op, torch._ops.OpOverload):
            continue
        packet = op._schema.name.replace("::", ".")
        if any(name in text for name in (f"{packet}.", f"'{packet}'", f"{op._schema.name}.")):
            module = (node.meta.get("custom") or {}).get("module", network)
            return f"`{op}`, which {module} computes"
    return ""


def _decomposed(program: torch.export.ExportedProgram) -> torch.fx.Graph | None:
    """The program in the core operations that exporters see; ``None`` if torch can't decompose it."""
    try:
        with warnings.catch_warnings(), torch.fx.traceback.preserve_node_meta():
            warnings.simplefilter("ignore")
            return program.run_decompositions(dict(torch._decomp.decomposition_table)).graph
    except Exception:  # only an error message depends on it
        return None
