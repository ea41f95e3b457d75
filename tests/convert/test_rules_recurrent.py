"""Recurrent layers in graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.convert.rows import No, Row, check_refused, check_row, in_turns, no, row


class Around(nn.Module):
    """A recurrent layer, and what is done with what it gives."""

    def __init__(self, layer: nn.Module, what: str):
        super().__init__()
        self.layer, self.what = layer, what

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0] if self.layer.batch_first else x.shape[1]
        zero = torch.zeros(self.layer.num_layers, batch, self.layer.hidden_size, dtype=x.dtype)
        if self.what == "zeros":
            return self.layer(x, (zero, zero) if isinstance(self.layer, nn.LSTM) else zero)[0]
        if self.what == "new zeros":
            zero = x.new_zeros(self.layer.num_layers, batch, self.layer.hidden_size)
            return self.layer(x, (zero, zero))[0]
        if self.what == "ones":
            return self.layer(x, zero + 1)[0]
        out, h = self.layer(x)
        if self.what == "h":
            return h[-1] if isinstance(h, Tensor) else h[0][-1]
        if self.what == "all h":
            h = h if isinstance(h, Tensor) else h[0]
            return h.transpose(0, 1).flatten(1)
        if self.what == "c":
            return h[1][-1]
        if self.what == "last":
            return out[:, -1]
        if self.what == "both":
            return out.sum(1) + h[-1]
        if self.what == "residual":
            return out + x
        return out


class Learned(nn.Module):
    """A recurrent layer that begins with parameters."""

    def __init__(self, layer: nn.LSTM):
        super().__init__()
        self.layer = layer
        self.h = nn.Parameter(torch.randn(self.layer.num_layers, 1, 4))
        self.c = nn.Parameter(torch.randn(self.layer.num_layers, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.h.expand(-1, x.shape[0], -1), self.c.repeat(1, x.shape[0], 1)
        return self.layer(x, (h.contiguous(), c))[0]


class Channels(nn.Module):
    """Convolution, recurrent layer, convolution: with transposes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.GRU(4, 5, batch_first=True), nn.Conv1d(5, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(self.conv(x).relu().transpose(1, 2))[0]
        return self.head(y.transpose(1, 2))


class Positioned(nn.Module):
    """Positions, a recurrent layer and a head, with the length in shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.register_buffer("table", torch.randn(1, 150, 3))

    def forward(self, x: Tensor) -> Tensor:
        b, _, t = x.shape
        y = x.transpose(1, 2) + self.table[:, :t] + torch.arange(t).view(1, t, 1) * 0.1
        y = self.lstm(y, (torch.zeros(1, b, 4, dtype=x.dtype), torch.zeros(1, b, 4, dtype=x.dtype)))[0]
        return self.head(y.reshape(b * t, -1)).view(b, t, 2).permute(0, 2, 1)


class PerJoint(nn.Module):
    """A recurrent layer for each place of space, which lies in the rows."""

    def __init__(self, learned: bool = False) -> None:
        super().__init__()
        self.lstm, self.learned = nn.LSTM(3, 4, batch_first=True), learned
        self.h = nn.Parameter(torch.randn(1, 1, 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, v = x.shape
        h = self.h.expand(1, b, v, 4).reshape(1, b * v, 4) if self.learned else x.new_zeros(1, b * v, 4)
        y = self.lstm(x.permute(0, 3, 2, 1).reshape(b * v, t, c), (h, x.new_zeros(1, b * v, 4)))[0]
        return y.reshape(b, v, t, -1).permute(0, 3, 2, 1)


def rnn(name: str, make: type, what: str = "", **known: object) -> object:
    options = {"batch_first": True} | dict(known.pop("options", {}))  # type: ignore[call-overload]
    first = options["batch_first"]
    known = {"shape": (2, 7, 3) if first else (7, 2, 3), "time": 1 if first else 0} | known
    return row(name, lambda: Around(make(3, 4, **options), what), **known)


HERE: dict = {"delay": 0, "field": 1}
WINDOW: dict = {"windows": True, "delay": 6, "other": 0}
ROWS = [
    rnn("lstm", nn.LSTM, **HERE),
    rnn("gru", nn.GRU, **HERE),
    rnn("rnn", nn.RNN, **HERE),
    rnn("rnn relu", nn.RNN, options={"nonlinearity": "relu"}, **HERE),
    rnn("lstm, time first", nn.LSTM, options={"batch_first": False}, **HERE),
    rnn("gru, time first, two layers", nn.GRU, options={"batch_first": False, "num_layers": 2}, **HERE),
    rnn("lstm, three layers, dropout", nn.LSTM, options={"num_layers": 3, "dropout": 0.5}, **HERE),
    rnn("lstm without bias", nn.LSTM, options={"bias": False, "num_layers": 2}, **HERE),
    rnn("gru without bias", nn.GRU, options={"bias": False}, **HERE),
    rnn("lstm, projected", nn.LSTM, options={"proj_size": 2}, **HERE),
    rnn("lstm, projected to one, two layers", nn.LSTM, options={"proj_size": 1, "num_layers": 2}, **HERE),
    rnn("lstm from zeros", nn.LSTM, "zeros", options={"num_layers": 2}, **HERE),
    rnn("lstm from new zeros", nn.LSTM, "new zeros", **HERE),
    rnn("gru from zeros", nn.GRU, "zeros", **HERE),
    row("lstm and a residual", lambda: Around(nn.LSTM(4, 4, batch_first=True), "residual"), shape=(2, 7, 4), time=1, **HERE),
    row("between convolutions", Channels, delay=3, field=5),
    row("for each joint", PerJoint, shape=(2, 3, 7, 5), **HERE),
    row("stacked layers", lambda: nn.Sequential(Around(nn.LSTM(3, 4, batch_first=True), ""), Around(nn.GRU(4, 2, batch_first=True), "")),
        shape=(2, 7, 3), time=1, **HERE),
    row("positions, a recurrent layer and a head", Positioned, delay=0),
    rnn("the last output", nn.LSTM, "last", **WINDOW),
    rnn("the hidden state", nn.GRU, "h", **WINDOW),
    rnn("the hidden state of an lstm", nn.LSTM, "h", **WINDOW),
    rnn("the hidden state of three layers", nn.GRU, "all h", options={"num_layers": 3}, **WINDOW),
    rnn("the hidden state of two layers, projected", nn.LSTM, "all h", options={"num_layers": 2, "proj_size": 2}, **WINDOW),
    rnn("the hidden state, time first", nn.RNN, "h", options={"batch_first": False}, **WINDOW),
    rnn("outputs and hidden state", nn.GRU, "both", **WINDOW),
    rnn("the cell state", nn.LSTM, "c", options={"num_layers": 2}, **WINDOW),
    rnn("gru from ones", nn.GRU, "ones", **HERE),
    rnn("rnn from ones, relu, time first", nn.RNN, "ones", options={"batch_first": False, "nonlinearity": "relu"}, **HERE),
    row("lstm from learned states", lambda: Learned(nn.LSTM(3, 4, 2, batch_first=True)), shape=(2, 7, 3), time=1, **HERE),
    row("lstm from learned states, no bias", lambda: Learned(nn.LSTM(3, 4, bias=False, batch_first=True)), shape=(2, 7, 3), time=1, **HERE),
    row("for each joint, from a learned state", lambda: PerJoint(learned=True), shape=(2, 3, 7, 5), **HERE),
]  # fmt: skip


TOKENS: dict = {"shape": (2, 7, 3), "time": 1}
REFUSED = [
    no("bidirectional", lambda: Around(nn.LSTM(3, 4, batch_first=True, bidirectional=True), ""), "reads the clip from its end",
        "bidirectional=False",
       op="lstm", **TOKENS),
    no("bidirectional gru", lambda: Around(nn.GRU(3, 4, batch_first=True, bidirectional=True), ""), "reads the clip from its end",
        "bidirectional=False",
       op="gru", **TOKENS),
    no("the cell state, projected", lambda: Around(nn.LSTM(3, 4, batch_first=True, proj_size=2), "c"), "with a projection", "no proj_size",
       **TOKENS),
    no("rows for time", lambda: Around(nn.GRU(3, 4), ""), "does not run over time here", r"\(B, T, C\) with batch_first=True", **TOKENS),
]  # fmt: skip


@pytest.mark.parametrize("case", in_turns(ROWS, 2))
def test_recurrent(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
