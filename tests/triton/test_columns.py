"""The ONNX files of onnxruntime repositories: every state has a dimension beside the batch, and the network is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from tests.long import by_turns
from tests.triton.conftest import Written
from tests.triton.networks import NETWORKS, about, made

pytest.importorskip("onnxruntime", reason="runs ONNX files")
onnx = pytest.importorskip("onnx")

from continual.core.file_digest import BLANK  # noqa: E402
from continual.export.metadata import DIGEST  # noqa: E402
from continual.triton.columns import as_columns  # noqa: E402


def session_of(folder: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("network", by_turns(NETWORKS, 2))
def test_it_streams_as_before(written: Written, network: str):
    folder, (net, step) = written(network, "onnxruntime"), made(network)
    assert [p.shape for p in about(folder).states if p.name == "state.calls"] == [(None, 1)]
    onnx.checker.check_model(str(folder / "1" / "model.onnx"), full_check=True)
    runner = co.load(folder / "1" / "model.onnx", threads=1)
    parts = step if isinstance(step, list) else [step]
    clip = [torch.randn(3, *p.shape[1:2], 30, *p.shape[2:]) for p in parts]
    with torch.no_grad():
        found, wanted = runner.forward_steps(*clip), net.forward_steps(*clip)
    for f, w in zip(*(y if isinstance(y, (list, tuple)) else [y] for y in (found, wanted)), strict=True):
        torch.testing.assert_close(f, w, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", by_turns(NETWORKS, 2))
def test_rows_of_any_state_leave_the_others_alone(written: Written, network: str):
    """With "direct", Triton fills batches up with requests of nobody, whose states are memory that nobody has written to."""
    folder = written(network, "onnxruntime")
    session, metadata = session_of(folder), about(folder)
    rng = np.random.default_rng(0)
    x = {p.name: rng.standard_normal(p.sized(3)).astype(p.dtype) for p in metadata.inputs}
    states = {p.name: np.zeros(p.sized(3), p.dtype) for p in metadata.states}
    alone = session.run(None, x | states)
    smallest, largest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for calls in (-1, -12345, 1 << 40, 1 << 62, smallest, largest):
        for number in (np.nan, np.inf, -1e38):
            for name, state in states.items():
                state[1] = calls if name == "state.calls" else number
            for found, wanted in zip(session.run(None, x | states), alone, strict=True):
                np.testing.assert_allclose(found[[0, 2]], wanted[[0, 2]], atol=1e-6)


def test_names_sort_alike_coming_in_and_going_out(written: Written):
    """Triton pairs the states that come out with those that go in by their places in the two alphabetical lists."""
    for network in NETWORKS:
        states = [p.name for p in about(written(network, "onnxruntime")).states]
        assert [f"new_{name}" for name in sorted(states)] == sorted(f"new_{name}" for name in states)


def test_values_inside_branches_are_renamed_too(tmp_path: Path):
    """A state that only the branches of a condition use, by its name from outside."""
    helper, floats, ints = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    (metadata, path) = (_metadata(), tmp_path / "branches.onnx")

    def branch(name: str, op: str) -> Any:
        node = helper.make_node(op, ["state.calls", "state.calls"], [f"{name} result"])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name} result", ints, ["batch"])])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["positive"], to=onnx.TensorProto.BOOL),
        helper.make_node(
            "If", ["positive"], ["new_state.calls"], then_branch=branch("then", "Add"), else_branch=branch("else", "Sub")
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [
            helper.make_tensor_value_info("x", floats, ["batch", 1, 1]),
            helper.make_tensor_value_info("state.calls", ints, ["batch"]),
        ],
        [helper.make_tensor_value_info("new_state.calls", ints, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {DIGEST: BLANK})
    onnx.save(model, str(path))
    as_columns(path, metadata)
    onnx.checker.check_model(str(path), full_check=True)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    calls = np.array([[3], [4]])
    (found,) = session.run(None, {"x": np.ones((2, 1, 1), np.float32), "state.calls": calls})
    assert found.tolist() == [[6], [8]]


def _metadata() -> Any:
    from tests.triton.configurations import metadata_of

    return metadata_of(states=[("state.calls", (None,), "int64")])
