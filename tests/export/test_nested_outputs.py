"""Files of modules that give dictionaries, tuples and nothing in some places, or outputs whose batch is not their first dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import continual as co
from tests.convert.cases import noise, seeded
from tests.export.artefacts import needs, unwritten


class Pair(NamedTuple):
    frames: Tensor
    other: Tensor


class Gives(nn.Module):
    """Nested outputs of one linear layer."""

    def __init__(self, kind: str):
        super().__init__()
        self.linear, self.kind = nn.Linear(4, 3), kind

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        return {
            "dictionary": {"b": y, "a": (y.tanh(), [2 * y])},
            "named": Pair(y, y - 1),
            "none": (y, None, y.tanh()),
        }[self.kind]


@pytest.mark.parametrize(
    ("kind", "structure"), [("dictionary", {"b": 0, "a": [1, [2]]}), ("named", [0, 1]), ("none", [0, None, 1])]
)
def test_a_file_nests_outputs_as_the_module(kind: str, structure: Any) -> None:
    """By lists and dictionaries: a dictionary ended in a RecursionError, nothing among tensors in a ValueError."""
    clip = noise(2, 9, 4)
    net = co.continual(seeded(lambda: Gives(kind)), clip, time_dim=1)
    runner = unwritten(net, clip[:, 0])
    assert runner.metadata.structure == structure
    got, want = runner.forward_steps(clip), net.forward_steps(clip)
    assert isinstance(got, dict) == (kind == "dictionary")
    assert [y is None for y in tree_leaves(got)] == [y is None for y in tree_leaves(want)]
    for a, b in zip(tree_leaves(got), tree_leaves(want), strict=True):
        if b is not None:
            torch.testing.assert_close(a, b)


def test_a_file_whose_state_output_has_layers_first(tmp_path: Path) -> None:
    """The batch of an output is where the module has it: a file said that it is the number of layers."""
    needs("onnx")
    clip = noise(3, 9, 4)
    net = co.continual(seeded(lambda: nn.LSTM(4, 5, batch_first=True)), clip, time_dim=1)
    runner = co.load(co.export(net, clip[:1, 0], tmp_path / "lstm.onnx"))
    for a, b in zip(tree_leaves(runner.forward_steps(clip)), tree_leaves(net.forward_steps(clip)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
