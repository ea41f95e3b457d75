"""`Unfold` over time, against `nn.Unfold` on kernels of one column."""

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

CASES = {
    "pairs": ((2,), (3, 2, 13)),
    "single": ((1,), (3, 2, 13)),
    "dilation": ((3, 2), (3, 2, 13)),
    "padding": ((3, 1, 2), (3, 2, 13)),
    "padding beyond the kernel": ((2, 1, 4), (3, 2, 13)),
    "stride": ((3, 1, 0, 2), (3, 2, 13)),
    "stride > kernel": ((2, 1, 1, 3), (3, 2, 13)),
    "all": ((3, 2, 3, 2), (3, 2, 14)),
    "with a line": ((3, 2, 1, 2), (2, 3, 13, 5)),
    "with planes": ((4, 1, 1, 1), (2, 3, 13, 3, 4)),
}


def by_torch(clip: Tensor, kernel: int, dilation: int = 1, padding: int = 0, stride: int = 1) -> Tensor:
    unfold = nn.Unfold((kernel, 1), (dilation, 1), (padding, 0), (stride, 1))
    space = clip.shape[3:]
    return unfold(clip.reshape(*clip.shape[:3], -1)).unflatten(2, (-1, *space))


@pytest.mark.parametrize("name", CASES)
def test_unfold(name: str):
    options, shape = CASES[name]
    net = co.Unfold(*options)
    for dtype in (torch.float32, torch.float64):
        clip = torch.randn(shape).to(dtype)
        assert_equal(net(clip), by_torch(clip, *options))
        check_contract(net, clip)
        assert co.verify(net, clip, lambda x: by_torch(x, *options)).passed
    check_gradients(net, clip)


def test_a_linear_layer_behind_it_is_a_convolution():
    conv = nn.Conv1d(3, 4, 5, padding=2, dilation=2)
    head = co.Linear(15, 4, channel_dim=1)
    head.load_state_dict({"weight": conv.weight.flatten(1), "bias": conv.bias})
    net, clip = co.Sequential(co.Unfold(5, 2, 2), head).double(), torch.randn(2, 3, 17, dtype=torch.float64)
    check_contract(net, clip, conv.double())


def test_integers():
    net, clip = co.Unfold(3, padding=1), torch.randint(0, 50, (2, 2, 9))
    assert net.forward_step(clip[:, :, 0]) is None
    assert net.forward_step(clip[:, :, 1])[0, :3].tolist() == [0, *clip[0, 0, :2].tolist()]
    assert co.verify(net, clip).passed


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"slides over time alone: kernel_size is one number, got \(3, 1\)"):
        co.Unfold((3, 1))
    with pytest.raises(ValueError, match="at least 1"):
        co.Unfold(0)
    with pytest.raises(co.ShapeMismatch, match="a clip of 2 steps is too short for a window of 5"):
        co.Unfold(5)(torch.zeros(1, 1, 2))


@pytest.mark.parametrize("module", [nn.Unfold(3), nn.Fold((4, 4), 2)], ids=lambda m: type(m).__name__)
def test_that_of_torch_is_refused(module: nn.Module):
    with pytest.raises(co.NotStreamable, match=rf"0.1 \({type(module).__name__}\): .*time.*co.Unfold"):
        co.continual(nn.Sequential(nn.Sequential(nn.ReLU(), module)))
