"""Exact windows of complex numbers, whose parts lie in memory as the module's `contiguous` has put them, and not as windows hold them."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.convert.windows import check, way  # noqa: F401


class Masked(nn.Module):
    """A mask of complex numbers, whose parts are channels, on a spectrum: after the masks of Demucs."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.conv, self.whole = nn.Conv1d(3, 8, 5, padding=2), whole

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.whole:
            y = y / y.std(2, keepdim=True)
        parts = y.view(x.shape[0], 2, 4, -1).permute(0, 2, 3, 1).contiguous()
        return (torch.view_as_complex(parts) * torch.polar(torch.ones_like(x[:, :1]), x[:, :1])).real.mean(2)


@pytest.mark.parametrize("whole", [False, True], ids=["position by position", "on the whole window"])
def test_parts_in_the_last_dimension_become_complex_numbers(whole: bool, way: str):
    check(Masked(whole), (3, 23))
