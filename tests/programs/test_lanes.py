"""The frames of rows that wait for the rest of their chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from continual.programs.lanes import Lane, Lanes


def test_a_row_takes_its_own_frames():
    """The waiting frames of a row move to another row, and the other rows stay as they are."""
    lanes = Lanes([Lane()], [torch.zeros(2, 4, 3)])
    steps = torch.randn(2, 4)
    for t in range(2):
        lanes.put(torch.tensor([1]), t + 1, [steps[t : t + 1].unsqueeze(1)])
    assert lanes.waiting(1, 2)[0].tolist() == torch.stack([torch.zeros(4), steps[0]], 1).tolist()
    lanes.restore(0, 2, lanes.waiting(1, 2))
    assert lanes.buffers[0][0, :, 1].tolist() == steps[0].tolist()
    assert lanes.buffers[0][0, :, 2].tolist() == [0.0] * 4
    assert lanes.buffers[0][1, :, 2].tolist() == steps[1].tolist()


class Writes(TorchDispatchMode):
    """Counts the operations that write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.is_mutable
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [[4], [3, 0], [1, 4, 2, 0, 3]])
def test_frames_of_several_rows_are_written_together(rows: list[int]):
    """One write for each input, however many rows; the other rows and slots stay as they are. Rows and time are anywhere."""
    lanes = Lanes([Lane(), Lane(1, 0), Lane(stream=False)], [torch.full(s, 7.0) for s in ((5, 4, 3), (3, 5, 2), (5, 2, 3))])
    frames = [torch.randn(len(rows), 2, 4), torch.randn(len(rows), 2, 2), torch.randn(len(rows), 1, 2)]
    with Writes() as writes:
        lanes.put(torch.tensor(rows), 1, frames)
    assert writes.count == 3
    want = [torch.full(s, 7.0) for s in ((5, 4, 3), (3, 5, 2), (5, 2, 3))]
    for i, row in enumerate(rows):
        want[0][row, :, 1:] = frames[0][i].T
        want[1][1:, row] = frames[1][i]
        want[2][row] = frames[2][i].T
    assert all(torch.equal(a, b) for a, b in zip(lanes.buffers, want, strict=True))
    copies = lanes.copies(torch.tensor(rows))
    for t in lanes.buffers:
        t.fill_(1.0)
    lanes.write(torch.tensor(rows), copies)
    assert all(torch.equal(t[row], w[row]) for t, w in ((lanes.buffers[0], want[0]), (lanes.buffers[2], want[2])) for row in rows)
    assert all(torch.equal(lanes.buffers[1][:, row], want[1][:, row]) for row in rows)
