"""Running sum, mean and maximum against `torch.cumsum` and `torch.cummax`, and over very many steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal, assert_identical, check_contract, check_gradients


class Function(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Tensor]):
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


def means(x: Tensor) -> Tensor:
    return torch.stack([x[:, :, : t + 1].mean(2) for t in range(x.shape[2])], 2)


REDUCTIONS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "sum": (co.CumulativeSum, lambda x: x.cumsum(2)),
    "mean": (co.CumulativeMean, means),
    "max": (co.CumulativeMax, lambda x: x.cummax(2).values),
}
SHAPES = {"1d": (3, 4, 23), "2d": (2, 3, 17, 5), "3d": (2, 4, 11, 3, 5)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_contract(name: str, shape: tuple[int, ...]):
    make, reference = REDUCTIONS[name]
    for dtype in (torch.float64, torch.float32):
        clip = torch.randn(shape, dtype=dtype) - 0.5
        net = make()
        check_contract(net, clip, Function(reference))
        assert (net.receptive_field, net.delay, net.stride, net.unbounded_memory) == (1, 0, (1,), True)
        if dtype == torch.float64:
            check_gradients(net, clip)
            assert co.verify(net, clip, Function(reference)).passed


@pytest.mark.parametrize("name", REDUCTIONS)
def test_between_other_layers(name: str):
    net = co.Sequential(co.Conv1d(3, 4, 3, stride=2), REDUCTIONS[name][0](), co.Delay(2), co.Conv1d(4, 2, 2)).double()
    clip = torch.randn(2, 3, 31, dtype=torch.float64)
    assert net.unbounded_memory
    check_contract(net, clip)
    check_gradients(net, clip)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("name", ["sum", "max"])
def test_whole_numbers(name: str, dtype: torch.dtype):
    make, reference = REDUCTIONS[name]
    clip = torch.randint(0 if dtype in (torch.uint8, torch.bool) else -9, 9, (2, 3, 12)).to(dtype)
    net = make()
    assert torch.equal(net(clip), reference(clip))
    for sizes in ([1] * 12, [5, 0, 7], [12]):
        net.clean_state()
        with torch.no_grad():
            found = [
                net.forward_step(c[:, :, 0]).unsqueeze(2) if c.shape[2] == 1 else net.forward_steps(c)
                for c in clip.split(sizes, 2)
            ]
        found = torch.cat([f for f in found if f is not None], 2)
        assert found.dtype == reference(clip).dtype
        assert torch.equal(found, reference(clip))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_half_types_are_summed_in_full(name: str, dtype: torch.dtype):
    make, reference = REDUCTIONS[name]
    clip = torch.rand(2, 3, 600).to(dtype)
    check_contract(make(), clip)
    assert_equal(make()(clip), reference(clip.double()).to(dtype))


def test_what_can_not_be_reduced():
    with pytest.raises(co.ShapeMismatch, match=r"0.1 \(CumulativeMean\): takes floating point numbers, got steps \(2, 3\) int64"):
        co.Sequential(co.Sequential(co.Identity(), co.CumulativeMean())).forward_step(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(co.ShapeMismatch, match="CumulativeMean: takes floating point numbers"):
        co.CumulativeMean()(torch.ones(2, 3, 4, dtype=torch.int64))
    for make in (co.CumulativeSum, co.CumulativeMax):
        with pytest.raises(co.ShapeMismatch, match="takes real numbers"):
            make().forward_step(torch.ones(2, 3, dtype=torch.complex64))


def test_of_equal_values_the_newest_has_the_gradient():
    """As torch.cummax, across chunks too."""
    clip = torch.tensor([[[2.0, 1.0, 2.0, 2.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    wanted = torch.autograd.grad(clip.cummax(2).values.sum(), clip)[0]
    for sizes in ([1, 1, 1, 1, 1], [2, 3], [3, 2]):
        net = co.CumulativeMax()
        found = torch.cat([net.forward_steps(c) for c in clip.split(sizes, 2)], 2)
        assert torch.equal(torch.autograd.grad(found.sum(), clip)[0], wanted)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_output_is_no_view_of_the_state(name: str, grad: bool):
    net, x = REDUCTIONS[name][0](), torch.rand(2, 3, dtype=torch.float64)
    for call in (net.forward_step, lambda x: net.forward_steps(x.unsqueeze(2))):
        call(x)
        y = call(x)
        before = net.get_state().tensors["so_far"]
        y.detach().fill_(7)
        assert torch.equal(net.get_state().tensors["so_far"], before)


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_ten_million_steps(name: str):
    """In float32, of which 2^24 is the last whole number: float64 inside."""
    clip = torch.rand(1, 1, 1_000_000) + 0.1
    net = REDUCTIONS[name][0]()
    with torch.no_grad():
        for _ in range(10):
            last = net.forward_steps(clip)[0, 0, -1]
        total = 10 * clip.double().sum()
        assert abs(float(last / (total if name == "sum" else total / 10_000_000)) - 1) < 1e-7
        exact = float(total)
        for i in range(200):
            y = float(net.forward_step(torch.full((1, 1), 0.1)))
            exact += float(torch.tensor(0.1))
            assert abs(y / (exact if name == "sum" else exact / (10_000_001 + i)) - 1) < 1e-7


def test_the_state_stays_wide_when_the_module_is_moved():
    net = co.CumulativeSum()
    net.forward_steps(torch.full((1, 1, 3000), 1.001))
    wide = net.get_state().tensors["so_far"].clone()
    net.half()
    assert_identical(net.get_state().tensors["so_far"], wide)
    assert wide.dtype == torch.float64
    y = net.forward_step(torch.ones(1, 1, dtype=torch.half))
    assert y.dtype == torch.half
    assert_identical(net.get_state().tensors["so_far"], wide + 1)


def test_a_mean_does_not_overflow():
    clip = torch.full((1, 1, 50), 3e38)
    net = co.CumulativeMean()
    assert_equal(net(clip), clip)
    assert_equal(torch.stack([net.forward_step(s) for s in clip.unbind(2)], 2), clip)
    assert co.CumulativeMean()(torch.full((1, 1, 9), 1e308, dtype=torch.float64)).isfinite().all()


def test_an_empty_clip():
    for make, _ in REDUCTIONS.values():
        assert make()(torch.zeros(2, 3, 0)).shape == (2, 3, 0)
        assert make().forward_steps(torch.zeros(2, 3, 0)) is None
