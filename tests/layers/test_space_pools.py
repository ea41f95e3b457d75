"""Average pools over images without the options that runtimes disagree on."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

import continual as co
from continual.space_pools import averages
from tests.contract import assert_equal


@pytest.mark.parametrize("kernel, stride", list(product([(3, 3), (2, 4), (1, 3)], [(1, 1), (2, 2), (3, 2)])))
def test_averages_as_torch_computes_them(kernel: tuple[int, int], stride: tuple[int, int]):
    """Also where the last window reaches beyond the padding, and where torch leaves it out."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    for size, ceil, include_pad, divisor in product([(5, 4), (7, 9), (3, 6)], [False, True], [False, True], [None, 1]):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        want = F.avg_pool2d(x, kernel, stride, padding, ceil, include_pad, divisor)
        got = averages(x, kernel, stride, padding, ceil, include_pad, divisor is not None)
        assert got.shape == want.shape
        assert_equal(got, want)


@pytest.mark.parametrize("pool", [co.AvgPool2d((2, 3), (1, 2), (0, 1), True), co.AvgPool3d(3, 2, 1, True, divisor_override=5)])
def test_exported_pools_have_none_of_these_options(pool: co.CoModule):
    frame = torch.randn(2, 3, *(5, 4)[: pool.dims - 1])
    program = co.compile(pool.eval(), frame, backend="eager").export()
    found = [n.args for n in program.graph.nodes if "avg_pool" in str(n.target)]
    assert found
    assert all(True not in args[4:5] and not args[6:] for args in found)
