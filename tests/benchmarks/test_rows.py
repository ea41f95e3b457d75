"""Rows of the suite that are built beside the layers and the zoo: each is checked against its module when it is built."""

from __future__ import annotations

import pytest
import torch

from benchmarks import strided, suite_rows, uses
from benchmarks.limits import PEAKS, Limit
from tests.long import by_turns

ROWS = strided.rows() | uses.rows()
HOPS = {
    "EEGNet, stride 32": 32, "Deep4Net, stride 81": 81, "ECG ResNet, stride 32": 32, "raw audio, stride 1024": 1024, "IMU, stride 8": 8,
    "strided TCN, stride 4": 4, "loop of a ConvLSTM 16, 32²": 1, "loop of a GRUCell 64": 1, "window of 100 × 40, taken over": 2,
    "window of 100 × 40, recomputed": 2, "log-mel, hop 160": 160, "log-mel and 3 × Conv1d, hop 160": 160,
    "TCN of 8 × Conv1d 64 k3, 1,000 streams": 1, "kws_ds_cnn, 1,000 streams": 2,
}  # fmt: skip


def test_all_rows_are_there():
    assert list(ROWS) == list(HOPS)
    assert set(ROWS) < set(suite_rows.subjects())


@pytest.mark.parametrize("name", by_turns(list(HOPS), 14))
def test_a_row(name: str, monkeypatch: pytest.MonkeyPatch):
    """A hop brings an output, for no more operations than the window has."""
    monkeypatch.setattr(uses, "ROWS", 7)
    subject = ROWS[name]()
    assert (subject.name, subject.period, subject.net.step_size) == (name, HOPS[name], HOPS[name])
    hop = torch.stack([subject.frame] * subject.period, 2)
    with torch.no_grad():
        subject.net.forward_steps(subject.clip)
        assert subject.net.forward_steps(hop).shape[2] == 1
    monkeypatch.setitem(PEAKS, 1, 1e11)
    limit = Limit.of(subject.net, subject.frame, 1, subject.period)
    assert limit.operations * subject.period <= subject.clip_operations or not subject.clip_operations
