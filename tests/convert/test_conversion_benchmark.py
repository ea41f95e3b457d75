"""`python -m benchmarks.conversion`: its checks, its rows and its table. Nothing here asserts how fast anything is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from benchmarks import conversion, report
from benchmarks.conversion import HEADER, SIZES, Converted, difference, main, markdown, measure, window_of
from benchmarks.measure import Effort
from benchmarks.timing import Stats, conditions
from tests.convert.networks import NETWORKS, Case, made
from tests.long import one_in

SHORT = Effort(rounds=2, min_block=1e-5)


@pytest.mark.parametrize("name, every, period", [("two_heads", 1, 1), ("conv_lstm", 2, 2), ("spectrogram_unet", 1, 4)])
def test_a_row(name: str, every: int, period: int) -> None:
    with conditions(1):
        row = measure(name, 1, SHORT, {})
    assert not row.error
    assert (row.every, row.period) == (every, period)
    assert row.difference < 1e-5
    assert row.conversion > 0
    assert row.step is not None
    assert row.whole is not None
    assert row.ratio is not None
    cells = row.cells
    assert len(cells) == len(HEADER)
    assert cells[-1].endswith("×")
    # The ratio of one call to one call, then that of windows to as many steps as lie between them.
    alone, rate = (float(cell.removesuffix("×")) for cell in cells[-2:])
    assert alone / rate == pytest.approx(period, rel=0.02)


@one_in(3)
def test_windows_are_what_an_output_depends_on() -> None:
    for name, frames in (
        ("wavenet", 31),
        ("r3d_18", 16),
        ("conv_lstm", 31),
        ("causal_transformer", 11),
        ("spectrogram_unet", 32),
    ):
        case = made(name)
        assert window_of(case, case.convert()) == frames


class Shifted:
    """A twin that gives other outputs than its module."""

    def __init__(self, net: Any, change: Any):
        self.net, self.change = net, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)

    def forward_step(self, *x: Tensor) -> Any:
        y = self.net.forward_step(*x)
        return None if y is None else self.change(y)


@one_in(3)
def test_wrong_outputs_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = made("wavenet")
    with torch.no_grad():
        assert difference(case, case.convert()) < 1e-5
        with pytest.raises(ArithmeticError, match="differs from the module by"):
            difference(case, Shifted(case.convert(), lambda y: y + 0.1))
        with pytest.raises(ArithmeticError, match="differs from the module by nan"):
            difference(case, Shifted(case.convert(), lambda y: y * torch.nan))
        with pytest.raises(ArithmeticError, match="not as the module's"):
            difference(case, Shifted(case.convert(), lambda y: y[:, :1]))
    monkeypatch.setattr(Case, "convert", lambda case: Shifted(co.continual(case.module, case.clip), lambda y: -y))
    with conditions(1):
        row = measure("wavenet", 1, SHORT, {})
    assert row.error.startswith("wrong result")
    assert row.cells[2] == row.error
    assert len(row.cells) == len(HEADER)


def test_a_refused_network_is_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(2)

    monkeypatch.setitem(NETWORKS, "flip", lambda batch: Case(Flip().eval(), torch.randn(batch, 2, 9)))
    with conditions(1):
        row = measure("flip", 1, SHORT, {})
    assert row.error.startswith("NotStreamable: Flip")


def test_the_table() -> None:
    good = Converted(
        "a", 1, "(1, 2, 9)", 1.25, 3e-7, 16, 8, 8, Stats(1e-3, 1e-3, 1e-3), Stats(0.04, 0.04, 0.04), Stats(40, 39, 41)
    )
    assert good.cells == ["a", "(1, 2, 9)", "1.2", "3e-07", "16", "8", "1000", "40000", "40.0×", "5.00×"]
    bad = Converted("b", 2, error="no")
    text = markdown(report.Machine("today", "cpu", "2", "3"), [good, bad])
    assert "Measured: today, cpu" in text
    tables = text.split("### ")[1:]
    assert [t.splitlines()[0] for t in tables] == ["1 thread", "2 threads"]
    assert "| a | (1, 2, 9) |" in tables[0]
    assert "| b |  | no |" in tables[1]


@one_in(4)
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setitem(SIZES, "two_heads", {})
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- conversion: begin -->\nold\n<!-- conversion: end -->\nafter\n", encoding="utf-8")
    assert main(["--quick", "--rounds", "1", "--only", "two_heads", "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^\| two_heads \| \(1, 3, 18\) \|", printed, re.MULTILINE)
    written = page.read_text(encoding="utf-8")
    assert "old" not in written
    assert "| two_heads |" in written
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    with pytest.raises(SystemExit):
        main(["--only", "no such network"])
    assert "r3d_18" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    monkeypatch.setattr(conversion, "difference", lambda case, net: torch.nan)
    assert main(["--quick", "--rounds", "1", "--only", "two_heads"]) == 1


def test_sizes_are_those_of_networks() -> None:
    assert set(SIZES) <= set(NETWORKS)
    named = {"r3d_18", "r2plus1d_18", "resnet18_per_frame", "shift_network", "tcn_causal", "tcn_centered", "letters", "conv_lstm",
             "wavenet", "spectrogram_unet", "skeleton_graph", "causal_transformer"}  # fmt: skip
    assert named <= set(SIZES)
