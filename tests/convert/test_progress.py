"""What a conversion says while it runs, and what is left when it is broken off."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core import progress


class Slow(nn.Module):
    """Takes its time wherever it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.02)
        return self.conv(x)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("shown", "lines"), [(True, True), (False, False), (None, False)])
def test_a_long_conversion_says_what_it_does(shown: bool | None, lines: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Only where it is wanted, or on a terminal."""
    co.continual(Slow().eval(), torch.randn(2, 2, 9), progress=shown)
    out, err = capsys.readouterr()
    assert not out
    assert (" s, exporting it\n" in err) is lines
    assert bool(err) is lines


def test_a_short_one_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    co.continual(nn.Conv1d(2, 2, 3).eval(), torch.randn(2, 2, 9), progress=True)
    assert capsys.readouterr().err == ""


class Broken(nn.Module):
    """Is broken off by the user at the n-th time that its forward runs."""

    def __init__(self, at: int):
        super().__init__()
        self.conv, self.norm, self.rnn = nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2), nn.LSTM(2, 2, batch_first=True)
        self.left = [at]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        self.seen = y
        self.left[0] -= 1
        if not self.left[0]:
            raise KeyboardInterrupt
        return self.rnn(y.transpose(1, 2))[0]


def contents(module: nn.Module) -> dict[str, Any]:
    """All that a module holds, by identity."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            found[f"{path}.{name}"] = {k: id(v) for k, v in value.items()} if isinstance(value, dict) else id(value)
    return found


def test_broken_off_anywhere_a_conversion_leaves_the_module_as_it_was() -> None:
    places = 0
    for at in range(1, 9):
        module = Broken(at).eval()
        module.seen = None
        before, values = contents(module), {k: v.clone() for k, v in module.state_dict().items()}
        try:
            co.continual(module, torch.randn(2, 2, 9))
        except KeyboardInterrupt:
            places += 1
            after = contents(module)
            module.seen = None
            assert {k: v for k, v in after.items() if k != ".seen"} == {k: v for k, v in before.items() if k != ".seen"}
            assert all(torch.equal(values[k], v) for k, v in module.state_dict().items())
            assert module(torch.randn(2, 2, 5)).shape == (2, 3, 2)
    assert places >= 4


def test_progress_goes_with_a_clip() -> None:
    with pytest.raises(TypeError, match="progress go with an example clip"):
        co.continual(nn.Conv1d(2, 2, 3), progress=True)
