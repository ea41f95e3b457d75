"""States with one number per row as columns: Triton can't zero a state whose only dimension is the batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..core.optional_packages import package
from ..export.artefact_digest import seal_file
from ..export.metadata import KEY, NEW, Metadata, Port

INSIDE = ".row"


def as_columns(path: Path, metadata: Metadata) -> Metadata:
    """Change an ONNX file: states of shape ``(B,)`` become ``(B, 1)``, as inputs and as outputs.

    Triton computes the bytes of a state's initial value from its dimensions without the batch. Without dimensions it computes 0 bytes.

    Returns:
        The new metadata of the file.
    """
    narrow = [p for p in metadata.states if len(p.shape) == 1]
    if not narrow:
        return metadata
    onnx = package("onnx", "onnx", "co.triton.write_repository")
    model = onnx.load(str(path), load_external_data=False)
    found = dataclasses.replace(metadata, states=tuple(map(_column, metadata.states)))
    graph = model.graph
    _rename(graph, {name: name + INSIDE for p in narrow for name in (p.name, NEW + p.name)})
    axis = onnx.helper.make_tensor("axis of columns", onnx.TensorProto.INT64, [1], [1])
    graph.initializer.append(axis)
    for port in narrow:
        new = NEW + port.name
        graph.node.insert(
            0, onnx.helper.make_node("Squeeze", [port.name, axis.name], [port.name + INSIDE], name=f"row of {port.name}")
        )
        graph.node.append(onnx.helper.make_node("Unsqueeze", [new + INSIDE, axis.name], [new], name=f"column of {new}"))
    names = {name for p in narrow for name in (p.name, NEW + p.name)}
    for value in (*graph.input, *graph.output):
        if value.name in names:
            value.type.tensor_type.shape.dim.add().dim_value = 1
    for entry in model.metadata_props:
        if entry.key == KEY:
            entry.value = found.to_json()
    onnx.save(model, str(path))
    seal_file(path, "onnx")
    return found


def _column(port: Port) -> Port:
    return dataclasses.replace(port, shape=(None, 1)) if len(port.shape) == 1 else port


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values in the inputs and outputs of nodes, and in the subgraphs of conditions and loops."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
