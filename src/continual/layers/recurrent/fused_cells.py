"""Recurrent cells in plain operations, which compilers fuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _gru(x: Tensor, hidden: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
    """A gated recurrent unit in plain operations, which compilers fuse. Source: Cho et al. (2014), in torch's form."""
    a, b = F.linear(x, w_ih, *biases[:1]).chunk(3, 1), F.linear(hidden[0], w_hh, *biases[1:]).chunk(3, 1)
    reset, update = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
    new = (a[2] + reset * b[2]).tanh()
    return (new + update * (hidden[0] - new),)


def _lstm(x: Tensor, hidden: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
    """Long short-term memory in plain operations. Source: Hochreiter and Schmidhuber (1997), in torch's form."""
    take, forget, new, give = (F.linear(x, w_ih, *biases[:1]) + F.linear(hidden[0], w_hh, *biases[1:])).chunk(4, 1)
    memory = forget.sigmoid() * hidden[1] + take.sigmoid() * new.tanh()
    return give.sigmoid() * memory.tanh(), memory


def _elman(activation: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def cell(x: Tensor, hidden: Any, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Any:
        return (activation(F.linear(x, w_ih, *biases[:1]) + F.linear(hidden[0], w_hh, *biases[1:])),)

    return cell


FUSED_CELLS: dict[str, Callable[..., Any]] = {
    "GRU": _gru,
    "LSTM": _lstm,
    "RNN_TANH": _elman(torch.tanh),
    "RNN_RELU": _elman(torch.relu),
}
