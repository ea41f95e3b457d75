"""Sums over time stay in the widest type, wherever the module goes."""

import torch

import continual as co
from continual.core.precision import kept_wide, widest


def test_widest():
    assert widest(torch.device("cpu")) == widest(torch.device("cuda")) == torch.float64
    assert widest(torch.device("mps")) == torch.float32


def test_what_moves_and_what_does_not():
    wide, whole = torch.rand(3, dtype=torch.float64), torch.arange(3)
    for narrow in (torch.Tensor.half, torch.Tensor.float, lambda t: t.to(torch.bfloat16)):
        assert kept_wide(narrow, wide) is wide
    assert kept_wide(torch.clone, wide) is not wide
    assert torch.equal(kept_wide(torch.clone, wide), wide)
    moved = kept_wide(lambda t: t.to("meta", torch.half), wide)
    assert (moved.device.type, moved.dtype) == ("meta", torch.float64)
    assert kept_wide(torch.Tensor.clone, whole).dtype == torch.int64


def test_a_stream_moves_with_its_module():
    net = co.Sequential(co.Conv1d(2, 4, 3), co.CumulativeGroupNorm(2, 4), co.CumulativeSum())
    net.forward_steps(torch.randn(1, 2, 9))
    net.to("meta", torch.bfloat16)
    assert {name: (t.device.type, t.dtype) for name, t in net.get_state().tensors.items()} == {
        "0.window": ("meta", torch.bfloat16),
        "1.mean": ("meta", torch.float64),
        "1.variance": ("meta", torch.float64),
        "2.so_far": ("meta", torch.float64),
    }
