"""Modules whose tensors are made for a batch of one, and modules that keep a state from call to call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import F64


class Token(nn.Module):
    """A learned frame before the first one, made for one row."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.conv = nn.Parameter(torch.randn(1, 1, 4)), nn.Conv1d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:  # (1, T, 4)
        return self.conv(torch.cat((self.token, x), 1).transpose(1, 2))


class Kept(nn.Module):
    """A GRU whose state goes on from call to call, as somebody streams it by hand."""

    def __init__(self, rows: int | None = 1):
        super().__init__()
        self.gru, self.h = nn.GRU(4, 5, batch_first=True), None if rows is None else torch.zeros(1, rows, 5, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        y, self.h = self.gru(x, self.h)
        return y


def test_a_frame_made_for_one_row() -> None:
    module = Token().to(F64).eval()
    net: Any = co.continual(module, torch.randn(1, 9, 4, dtype=F64), time_dim=1)
    clip = torch.randn(1, 14, 4, dtype=F64)
    with torch.no_grad():
        assert_equal(net(clip), module(clip))
        steps = [y for t in range(14) if (y := net.forward_step(clip[:, t])) is not None]
    assert_equal(torch.stack(steps, 2), module(clip))
    assert net.delay == 1


def test_a_module_that_takes_one_row_alone_says_so() -> None:
    """The message was that module(clip) raises an error, which it does not."""

    class Never(Token):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.sum())

    with pytest.raises(
        co.NotStreamable, match=r"takes clips of one row alone, such as \(1, 9, 4\).*made for a batch of 1\. Remedies"
    ):
        co.continual(Never().eval(), torch.randn(1, 9, 4), time_dim=1, windows="stream")


@pytest.mark.parametrize("rows", [1, None])
def test_a_state_that_the_module_keeps(rows: int | None) -> None:
    """Chunks of the stream are what calls of the module give, one after another."""
    torch.manual_seed(0)
    module = Kept(rows).to(F64).eval()
    net: Any = co.continual(module, torch.randn(1, 9, 4, dtype=F64), time_dim=1)
    assert any("keeps 'h' from call to call" in note for note in net.notes), net.notes
    assert module.h is None if rows is None else not module.h.any(), "the conversion has changed the module's state"
    clip = torch.randn(1, 12, 4, dtype=F64)
    with torch.no_grad():
        for chunk in clip.split((5, 1, 6), 1):
            assert_equal(net.forward_steps(chunk), module(chunk))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_computes_is_no_state() -> None:
    module = nn.Sequential(nn.utils.weight_norm(nn.Conv1d(3, 4, 3)), nn.ReLU()).eval()
    assert co.continual(module, torch.randn(2, 3, 9)).notes == ()


def test_a_counter_is_no_state() -> None:
    class Counting(nn.Module):
        calls = 1

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    with pytest.raises(co.NotStreamable, match="differs from the module on a clip"):
        co.continual(Counting().eval(), torch.randn(2, 3, 9))
