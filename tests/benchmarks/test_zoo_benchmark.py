"""`python -m benchmarks.zoo`: the other library gets the same network, and tables hold what was measured. Nothing asserts a speed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import zoo, zoo_counts
from benchmarks.measure import Effort
from benchmarks.other_library import CantRun, OtherLibrary
from benchmarks.timing import conditions
from tests.contract import assert_equal
from tests.long import one_in
from tests.models.zoo import clip_for, thin

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def ourselves() -> Any:
    """Our own library in the place of the other one: the names that it is called by are the same."""
    with OtherLibrary(sys.executable, {"PYTHONPATH": str(SOURCE)}) as library:
        yield library


@pytest.mark.parametrize("name", ["x3d", "resnet", "skeleton st"])
@torch.no_grad()
def test_the_other_process_builds_the_same_network(name: str, ourselves: OtherLibrary):
    net = thin(name)
    clip = clip_for(net, net.delay + 5, batch=1)
    made = zoo.Described(net)
    found = ourselves.build(made, zoo.Weights(made.weights), clip)  # type: ignore[arg-type]
    assert found.shape[2] >= 2
    assert_equal(found, net(clip)[:, :, : found.shape[2]])


@pytest.mark.parametrize("name, message", [("deep", "has no causal encoder"), ("skeleton a", "has no AdaptiveGraphConv")])
def test_what_it_has_nothing_for(name: str, message: str):
    with pytest.raises(CantRun, match=message):
        zoo.Described(thin(name))


def test_weights_of_an_encoder_come_in_its_order():
    """Attention with its biases (zeros, where ours has none), norm, feed-forward, norm; then the last norm."""
    weights = list(zoo.Described(thin("single")).weights.values())
    shapes = [tuple(w.shape) for w in weights]
    assert shapes[3:15] == [(48, 16), (48,), (16, 16), (16,), (16,), (16,), (24, 16), (24,), (16, 24), (16,), (16,), (16,)]
    assert not weights[4].any()


def test_a_row_and_its_table():
    with conditions(1):
        row = zoo.measure("kws_ds_cnn", 1, Effort(2, 0.001), False, None)
    assert set(row.times) == {"clip", "step", zoo.OWN}
    assert min(row.times.values()) > 0
    assert row.operations == pytest.approx(15.5, rel=0.01)
    shown = zoo.table([row])
    assert "| kws_ds_cnn | 1 |" in shown
    assert "– |" in shown


@one_in(3)
def test_counts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert zoo_counts.row("kws_ds_cnn", 10) == [
        *("kws_ds_cnn", "10", "0.023", "48", "47", "2", "0.003", "0.058", "0.116", "0.107", "–", "1.797", "–"),
    ]
    monkeypatch.setattr(zoo_counts, "rows", lambda: [["a"] * len(zoo_counts.HEADER)])
    assert zoo_counts.main([]) == 0
    assert "receptive field" in capsys.readouterr().out
