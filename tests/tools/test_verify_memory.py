"""`co.verify` stays within memory: by measure, and it says what it cut short."""

import re
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.tools.checks.contract_run import ContractRun
from continual.tools.checks.memory import Meter
from tests.long import LONG

WIDE = """
import resource
import torch
from torch import nn
import continual as co

def held():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.manual_seed(0)
torch.set_num_threads(1)
WIDTH, LENGTH = {width}, {length}
net = co.continual(nn.Sequential(nn.Conv3d(1, WIDTH, 1), nn.ReLU(), nn.Conv3d(WIDTH, {outputs}, (3, 1, 1), padding=(1, 0, 0)))).eval()
clip = torch.randn(1, 1, LENGTH, 64, 64)
before = held()
"""
FORWARD = """
with torch.no_grad():
    net(clip)
leaf = clip[:, :, :8].clone().requires_grad_()
net(leaf).square().sum().backward()
print(held() - before)
"""
VERIFY = """
report = co.verify(net, clip, effort="quick", raise_on_fail=False)
print(held() - before)
print(report)
"""


def run(code: str) -> str:
    """What a program prints, in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@LONG
@pytest.mark.parametrize(("width", "length", "outputs"), [(512, 16, 1), (16, 16, 256)], ids=["wide inside", "wide outputs"])
def test_a_process_takes_no_more_than_twice_a_forward_and_a_gib(width: int, length: int, outputs: int) -> None:
    """Activations, or outputs, of 100 MB: three rows, some copies of outputs and a graph of all steps would take gigabytes."""
    made = WIDE.format(width=width, length=length, outputs=outputs)
    forward = float(run(made + FORWARD).split()[0])
    taken, report = run(made + VERIFY).split("\n", 1)
    assert forward > 50
    assert float(taken) <= 2 * forward + 1024
    assert "passed" in report.splitlines()[0], report


@pytest.mark.parametrize(("inside", "outputs"), [(64, 2), (8, 64)], ids=["wide inside", "wide outputs"])
def test_tensors_take_no_more_than_a_forward_and_what_is_allowed(
    inside: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocator keeps as much again, so that a process stays within twice of that."""
    net = co.continual(
        nn.Sequential(nn.Conv2d(2, inside, 1), nn.ReLU(), nn.Conv2d(inside, outputs, (3, 1), padding=(1, 0)))
    ).eval()
    clip = torch.randn(1, 2, 120, 4)
    with torch.no_grad(), Meter() as forward:
        net(clip)
    monkeypatch.setattr("continual.tools.checks.contract_run.MORE", forward.peak)
    monkeypatch.setattr("continual.tools.checks.compare.PIECE", 1000)
    with Meter() as meter:
        report = co.verify(net, clip, raise_on_fail=False)
    assert report.passed, report
    assert meter.peak <= 1.25 * (2 * forward.peak), report


class Wide(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv1d(2, 64, 1), nn.Tanh(), nn.Conv1d(64, 2, 5, padding=2))


def verified(monkeypatch: pytest.MonkeyPatch, more: int, clip: Tensor, net: nn.Module | None = None) -> co.Report:
    """A report with so many bytes beyond forward's."""
    monkeypatch.setattr("continual.tools.checks.contract_run.MORE", more)
    return co.verify(co.continual(Wide()).eval() if net is None else net, clip)


def test_a_meter_counts_what_is_made_and_given_back() -> None:
    x = torch.zeros(10)
    with Meter() as meter:
        y = torch.zeros(1000) + 1
        x.view(2, 5).add_(1)  # of what was there before
        z = y.view(10, 100)[2:]
    assert (meter.peak, meter.live) == (8000, 4000)
    del y, z
    assert meter.live == 0


def test_says_what_it_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    report = verified(monkeypatch, 40_000, torch.randn(1, 2, 60))
    assert any(re.match(r"chunks have \d+ steps at most: more take more than \d\S* GiB", n) for n in report.notes), report
    assert "note: chunks have" in str(report)
    report = verified(monkeypatch, 0, torch.randn(3, 2, 60))
    assert any(n.startswith("2 of 3 rows: more take more than") for n in report.notes), report
    report = verified(monkeypatch, 0, torch.randn(1, 2, 14))
    assert any(n.startswith("a single row: two take more than") for n in report.notes), report
    assert {c.name: c.detail for c in report.checks}["rows do not see each other"].endswith("the last of 2 rows")
    report = verified(monkeypatch, -20_000, torch.randn(2, 2, 60))
    assert any(re.match(r"of 60 steps the first \d\d are used: all take more than", n) for n in report.notes), report


def test_gradients_of_as_many_steps_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    for more in (0, 20_000, 1 << 30):
        torch.manual_seed(0)
        report = verified(monkeypatch, more, torch.randn(2, 2, 30))
        detail = next(c for c in report.checks if c.name.startswith("gradients")).detail
        found = re.match(r"of (?:(\d+) steps, of which autograd keeps|the clip and 4 parameters)", detail)
        assert found, report
        lengths.append(int(found[1] or 30))
    assert 3 <= lengths[0] < lengths[1] < lengths[2] == 30


def test_gradients_that_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    net = co.continual(nn.Sequential(nn.Conv1d(2, 64, 1), *[nn.Tanh()] * 12, nn.Conv1d(64, 2, 17)))
    report = verified(monkeypatch, 0, torch.randn(2, 2, 40), net)
    check = next(c for c in report.checks if c.name.startswith("gradients"))
    assert check.outcome == "skipped"
    assert re.match(
        r"autograd keeps more than \S+ GiB of \d+ steps of a row, and their clip has no output yet: take smaller", check.detail
    )


def test_copies_of_large_weights_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net = co.continual(nn.Sequential(nn.Conv1d(64, 512, 3), nn.ReLU(), nn.Conv1d(512, 4, 1)))
    report = verified(monkeypatch, 50_000, torch.randn(2, 64, 12), net)
    details = {c.name: c.detail for c in report.skipped}
    assert details["deepcopy in mid-stream"].startswith("copies of the weights take ")


def test_clips_in_memory_are_as_they_were_given() -> None:
    run = ContractRun(co.continual(Wide()), torch.randn(2, 2, 40))
    assert run.notes == []
    assert (run.batch, run.length, run.chunk_rows) == (2, 40, None)
