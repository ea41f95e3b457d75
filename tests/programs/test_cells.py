"""Cells of recurrent networks, written out for compilers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from continual.programs.backends.cells import write_out_cells

CELLS = {
    "gru": lambda bias: nn.GRUCell(5, 7, bias),
    "lstm": lambda bias: nn.LSTMCell(5, 7, bias),
    "tanh": lambda bias: nn.RNNCell(5, 7, bias),
    "relu": lambda bias: nn.RNNCell(5, 7, bias, nonlinearity="relu"),
}


class Loop(nn.Module):
    """Two steps, and all results."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.cell(x + 1, self.cell(x, state)), self.cell(x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_cells_are_written_out(name: str, bias: bool) -> None:
    h, c = torch.randn(2, 3, 7)
    args = torch.randn(3, 5), (h, c) if name == "lstm" else h
    program = torch.export.export(Loop(CELLS[name](bias)), args)
    with torch.no_grad():
        expected = program.module()(*args)
        assert any("_cell" in str(n.target) for n in program.graph.nodes)
        write_out_cells(program)
        program.graph_module.recompile()
        program.graph.lint()
        assert not any("_cell" in str(n.target) for n in program.graph.nodes if n.op == "call_function")
        torch.testing.assert_close(program.module()(*args), expected)
