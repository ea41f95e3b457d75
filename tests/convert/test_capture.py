"""Exports: what stays one operation, what stays a symbol, and where a symbol is given up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

import continual as co
from continual.convert.graph import symbolic_sizes as symbols
from continual.convert.graph.capture import capture, capture_window
from tests.convert.vision import ShiftNet

RECURRENT: dict[str, tuple[type, dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm, time first": (nn.LSTM, {"batch_first": False}),
    "lstm, both ways, two layers, projected": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    "gru": (nn.GRU, {"bias": False}),
    "gru, both ways": (nn.GRU, {"bidirectional": True, "num_layers": 2}),
    "rnn": (nn.RNN, {"num_layers": 2}),
    "rnn, relu": (nn.RNN, {"nonlinearity": "relu", "batch_first": False}),
}
OPERATION = {nn.LSTM: "aten.lstm.input", nn.GRU: "aten.gru.input", nn.RNN: "aten.rnn_{}.input"}


class Recurrent(nn.Module):
    """A recurrent layer from zeros, or from a state that is learned."""

    def __init__(self, kind: type, learned: bool, **options: Any):
        super().__init__()
        self.layer = kind(3, 5, **{"batch_first": True} | options)
        wide = 5 if not options.get("proj_size") else options["proj_size"]
        count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
        self.h = nn.Parameter(torch.randn(count, 1, wide)) if learned else None
        self.c = nn.Parameter(torch.randn(count, 1, 5)) if learned and kind is nn.LSTM else None

    def forward(self, x: Tensor) -> Any:
        if self.h is None:
            return self.layer(x)[0]
        rows = x.shape[0 if self.layer.batch_first else 1]
        h = self.h.expand(-1, rows, -1).contiguous()
        return self.layer(x, h if self.c is None else (h, self.c.expand(-1, rows, -1).contiguous()))


@pytest.mark.parametrize("learned", [False, True], ids=["zeros", "learned"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_are_one_operation_of_any_length(name: str, learned: bool) -> None:
    """They were run frame by frame in the export, and fixed its length."""
    kind, options = RECURRENT[name]
    module = Recurrent(kind, learned, **options).eval()
    time = 1 if module.layer.batch_first else 0
    captured = capture(module, torch.randn(2, 7, 3) if time else torch.randn(7, 2, 3), time)
    assert captured.symbolic
    ops = [n for n in captured.program.graph.nodes if any(k in str(n.target) for k in ("lstm", "gru", "rnn"))]
    assert [str(n.target) for n in ops if n.op == "call_function"] == [
        OPERATION[kind].format(options.get("nonlinearity", "tanh"))
    ]
    clip = torch.randn(4, 9, 3) if time else torch.randn(9, 4, 3)
    made, given = captured.program.module()(clip), module(clip)
    for got, want in zip(nn_leaves(made), nn_leaves(given), strict=True):
        torch.testing.assert_close(got, want)


def nn_leaves(y: Any) -> list[Tensor]:
    return [t for v in y for t in nn_leaves(v)] if isinstance(y, (list, tuple)) else [y]


def test_long_formulas_of_sizes_end_the_search_for_a_symbolic_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of ``view(b * t // n, n, …)`` nest floor divisions; every block made the export three times as long."""
    module, clip = ShiftNet(8, frames=6, depth=3, classes=3).eval(), torch.randn(2, 6, 3, 8, 8)
    monkeypatch.setattr(symbols, "LARGEST", 4)
    assert not capture(module, clip, 1).symbolic
    net = co.continual(module, clip, time_dim=1, windows="stream")
    want = module(clip)
    assert torch.allclose(net(clip), want, atol=1e-5)


def test_formulas_of_networks_of_practice_are_short_enough() -> None:
    module = nn.Sequential(*(nn.Conv1d(2, 2, 3, stride=2, padding=1) for _ in range(5))).eval()
    assert capture(module, torch.randn(2, 2, 70), 2).symbolic


class Padded(nn.Module):
    """Pads a clip so that three strided layers have no frame left over, at twice the rate, as Demucs does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1] * 2
        for _ in range(3):
            length = max(math.ceil((length - 8) / 4) + 1, 1)
        for _ in range(3):
            length = (length - 1) * 4 + 8
        y = nn.functional.pad(x, (0, math.ceil(length / 2) - x.shape[-1]))
        even = y[..., : y.shape[-1] // 8 * 8].reshape(len(y), 2, -1, 2)
        even = even.flatten(2)[..., : even.shape[2] // 2 * 4]
        return self.conv(even)[..., : x.shape[-1]]


def test_no_simpler_form_of_floored_sizes_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sympy's search takes time that is exponential in the depth of the floored divisions."""
    import sympy

    found = sympy.simplify.__globals__
    calls, real = [0], found["signsimp"]  # once for each formula, and each one inside of it

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return real(*args, **kwargs)

    monkeypatch.setitem(found, "signsimp", counted)
    capture(Padded().eval(), torch.randn(2, 2, 400), 2)
    assert calls[0] < 5_000  # 36,294 without


class Scaled(nn.Module):
    """A mean over time, scaled by new values or in place."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.conv, self.in_place = nn.Conv1d(3, 4, 3), in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y.mul_(0.5) if self.in_place else y * 0.5
        return y.mean(2)


@pytest.mark.parametrize("in_place", [False, True], ids=["values", "writes"])
def test_windows_are_traced_again_only_where_something_is_written(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took 70 % of a conversion to exact windows."""
    traced = []
    original = ExportedProgram.run_decompositions
    monkeypatch.setattr(ExportedProgram, "run_decompositions", lambda *args: traced.append(1) or original(*args))
    captured = capture_window(Scaled(in_place).eval(), torch.randn(2, 3, 9), 2)
    assert len(traced) == in_place
    assert not [n for n in captured.program.graph.nodes if "mul_." in str(n.target)]


class Packed(nn.Module):
    """A recurrent layer on rows of given lengths, which are those of the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        lengths = torch.full((x.shape[0],), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


def test_packed_rows_are_the_reason() -> None:
    """torch.export fails inside of the layer, by an error that says nothing of them."""
    module = Packed().eval()
    with pytest.raises(co.NotStreamable, match=r"pack_padded_sequence.*self\.rnn\(x\)"):
        co.continual(module, torch.randn(2, 9, 3), time_dim=1)
