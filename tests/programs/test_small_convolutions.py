"""Small convolutions over space, which compiled programs write as products and sums, against streams alone."""

from __future__ import annotations

import pytest
import torch

import continual as co
from tests.programs.rows import check_rows

CONVS = {
    "plain": (lambda: co.Conv2d(3, 4, 3, padding=1), (5,)),
    "dilated": (lambda: co.Conv2d(3, 4, 3, dilation=(1, 2), padding=(1, 2)), (6,)),
    "dilated over time and space": (lambda: co.Conv2d(3, 4, (3, 2), dilation=(2, 3), padding=(2, 0)), (7,)),
    "strided": (lambda: co.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(0, 1)), (6,)),
    "a stride over time": (lambda: co.Conv2d(3, 4, 3, stride=(2, 1), padding=1), (5,)),
    "depthwise": (lambda: co.Conv2d(4, 4, 3, groups=4, padding=1), (5,)),
    "circular over space": (lambda: co.Conv2d(3, 4, (1, 3), padding=(0, 1), padding_mode="circular"), (5,)),
    "images": (lambda: co.Conv3d(2, 3, (2, 3, 2), dilation=(1, 1, 2), padding=(0, 1, 2)), (4, 5)),
    "images, depthwise and strided": (lambda: co.Conv3d(3, 3, 3, stride=(1, 2, 1), groups=3, padding=1, bias=False), (5, 4)),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("chunk", [None, 4])
def test_as_streams_alone(name: str, chunk: int | None):
    make, space = CONVS[name]
    net = co.Sequential(make().double(), co.Identity()).eval()
    check_rows(net, torch.randn(3, net[0].in_channels, 17, *space, dtype=torch.float64), chunk, fused=True)
