"""Which operation of which module a runtime's converter stumbled over."""

from __future__ import annotations

import warnings

import torch

from ..errors import ExportError
from ..program.tracing import causes


def culprit(error: BaseException, program: torch.export.ExportedProgram, network: str) -> str:
    """What an exporter has nothing for, in words; its own last words if no operation is named there."""
    text = "\n".join(str(e) for e in causes(error))
    found = _named_in(text, program.graph, network) or _named_in(text, _decomposed(program), network)
    if found:
        return f"it has nothing for {found}. Write that in other operations, or export to 'pt2'"
    return text.strip().splitlines()[-1] if text.strip() else repr(error)


MISREAD = {"onnx": ("divisor_override",), "openvino": ("divisor_override", "ceil_mode")}  # options of average pools, by format


def check_pools(program: torch.export.ExportedProgram, format: str, who: str, network: str) -> None:
    """Refuse average pools whose options a format's converter reads wrongly, without an error. Layers of this library have none.

    Raises:
        ExportError: there is one.
    """
    for node in program.graph.nodes:
        if node.op != "call_function" or "avg_pool" not in str(node.target) or "adaptive" in str(node.target):
            continue
        given = {a.name: v for a, v in zip(node.target._schema.arguments, node.args, strict=False)} | node.kwargs
        for option in MISREAD[format]:
            if given.get(option):
                module = (node.meta.get("custom") or {}).get("module", network)
                raise ExportError(
                    f"{who}: {format} reads {option}={given[option]} of `{node.target}`, which {module} computes, in another way than "
                    "torch. Pad and divide by operations of their own, or take 'pt2'"
                )


def _named_in(text: str, graph: torch.fx.Graph | None, network: str) -> str:
    for node in graph.nodes if graph is not None else ():
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        packet = node.target._schema.name.replace("::", ".")
        if any(name in text for name in (f"{packet}.", f"'{packet}'", f"{node.target._schema.name}.")):
            module = (node.meta.get("custom") or {}).get("module", network)
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
