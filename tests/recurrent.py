"""Recurrent layers and cells with all their options, and what `torch.nn` makes of a clip. No tests are in this file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from tests.reference import Reference

CLASSES = {"RNN": (co.RNN, nn.RNN), "GRU": (co.GRU, nn.GRU), "LSTM": (co.LSTM, nn.LSTM)}
CELLS = {"RNNCell": (co.RNNCell, nn.RNNCell), "GRUCell": (co.GRUCell, nn.GRUCell), "LSTMCell": (co.LSTMCell, nn.LSTMCell)}


class ByClips(Reference):
    """A recurrent layer of `torch.nn` on clips (B, C, T), its output alone; or a cell, in a loop written by hand."""

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.inner[0]
        if not isinstance(inner, nn.RNNBase):
            return loop(inner, x)
        if inner.batch_first:
            return inner(x.transpose(1, 2))[0].transpose(1, 2)
        return inner(x.permute(2, 0, 1))[0].permute(1, 2, 0)


def loop(cell: Any, x: Tensor, hidden: Any = None) -> Tensor:
    """A cell on one frame after another."""
    outs = []
    for frame in x.unbind(2):
        hidden = cell(frame, hidden)
        outs.append(hidden[0] if isinstance(hidden, tuple) else hidden)
    return torch.stack(outs, 2)


def hidden_of(net: Any, batch: int, **options: Any) -> Any:
    """A random hidden state as the user has it."""
    cell = not isinstance(net, nn.RNNBase)
    sizes = [net.proj_size or net.hidden_size, net.hidden_size][: 2 if net.mode == "LSTM" else 1]
    made = [torch.randn(*(() if cell else (net.num_layers,)), batch, size, **options) for size in sizes]
    return made[0] if len(made) == 1 else tuple(made)


# (class, input and hidden size, options)
LAYERS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "RNN": ("RNN", 4, 5, {}),
    "RNN relu": ("RNN", 4, 5, {"nonlinearity": "relu"}),
    "RNN relu, 3 layers": ("RNN", 4, 5, {"nonlinearity": "relu", "num_layers": 3}),
    "RNN, 2 layers, no bias": ("RNN", 3, 4, {"num_layers": 2, "bias": False}),
    "RNN, 1 feature": ("RNN", 1, 1, {}),
    "GRU": ("GRU", 4, 5, {}),
    "GRU, no bias": ("GRU", 5, 3, {"bias": False}),
    "GRU, 2 layers, dropout": ("GRU", 4, 5, {"num_layers": 2, "dropout": 0.5}),
    "GRU, 3 layers": ("GRU", 3, 6, {"num_layers": 3}),
    "LSTM": ("LSTM", 4, 5, {}),
    "LSTM, no bias": ("LSTM", 5, 3, {"bias": False}),
    "LSTM, 2 layers, dropout": ("LSTM", 4, 5, {"num_layers": 2, "dropout": 0.5}),
    "LSTM, 3 layers": ("LSTM", 3, 6, {"num_layers": 3}),
    "LSTM, projected": ("LSTM", 4, 7, {"proj_size": 3}),
    "LSTM, projected, 2 layers, no bias": ("LSTM", 4, 7, {"proj_size": 2, "num_layers": 2, "bias": False}),
    "LSTM, projected, 3 layers": ("LSTM", 2, 4, {"proj_size": 3, "num_layers": 3}),
}
CELL_LAYERS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "RNNCell": ("RNNCell", 4, 5, {}),
    "RNNCell relu, no bias": ("RNNCell", 3, 6, {"nonlinearity": "relu", "bias": False}),
    "GRUCell": ("GRUCell", 4, 5, {}),
    "GRUCell, no bias": ("GRUCell", 5, 3, {"bias": False}),
    "LSTMCell": ("LSTMCell", 4, 5, {}),
    "LSTMCell, no bias": ("LSTMCell", 5, 3, {"bias": False}),
}
EVERY = {**LAYERS, **CELL_LAYERS}
EVERY_CLASS = {**CLASSES, **CELLS}
