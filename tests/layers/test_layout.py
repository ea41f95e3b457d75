"""What is done to images without gradients: their layout, and maxima axis by axis."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from continual.layers.memory_format import MANY, channels_last, is_channels_last
from continual.layers.pooling.maxima import max_over_axes


class Watched(TorchDispatchMode):
    """What runs is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 7, 40, 31), (2, 9, 5, 21, 19), (2, 1, 90, 61), (3, 5, 700), (1, 4099, 1, 3), (2, 8, 3, 5)])
def test_channels_last(shape: tuple[int, ...], dtype: torch.dtype):
    x = torch.randn(shape).to(dtype)
    for given in (
        x,
        x.transpose(-1, -2),
        x[:, 1:] if shape[1] > 1 else x[1:],
        x.flip(1).movedim(1, -1).contiguous().movedim(-1, 1),
    ):
        with torch.no_grad():
            y = channels_last(given)
        assert torch.equal(y, given)
        assert y.movedim(1, -1).is_contiguous()
        assert torch.equal(channels_last(given), given)  # with gradients
    assert channels_last(y) is y or y.movedim(1, -1).data_ptr() == channels_last(y).data_ptr()


def test_channels_last_has_gradients_and_is_seen_as_a_copy():
    x = torch.randn(2, 3, MANY, 1, requires_grad=True)
    channels_last(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    with torch.no_grad(), Watched() as watched:
        assert is_channels_last(channels_last(x.detach()))
    assert not any("shuffle" in name for name in watched.seen)


@torch.no_grad()
def test_maxima_axis_by_axis_are_those_of_torch():
    """All geometries; NaN and -inf too. None is given where torch is needed, and where it would refuse."""
    taken = 0
    for k, s, p, d, size in itertools.product((1, 2, 3, 4, 5), (1, 2, 3, 4), (0, 1, 2), (1, 2, 3), (1, 2, 3, 5, 8)):
        if p > k // 2:
            continue
        x = torch.randn(2, 3, size, size + 2)
        x[0, 0, 0, 0], x[1, 1] = torch.nan, -torch.inf
        geometry = (k, k + 1), (s, 1), (p, p), (d, 1)
        found = max_over_axes(x, *geometry)
        try:
            want = F.max_pool2d(x, *geometry)
        except RuntimeError:
            assert found is None
            continue
        if found is not None:
            torch.testing.assert_close(found, want, rtol=0, atol=0, equal_nan=True)
            taken += 1
    assert taken > 250
