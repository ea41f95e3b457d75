"""Example clips: shapes, types and values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from continual.cli.clips import clips_of
from continual.cli.target import BadInput


def test_shapes_seeds_and_types():
    net = nn.Conv1d(2, 2, 3).double()
    a, b = clips_of(net, ["2,2,30", "(1, 4)"], [], None, 7)
    assert (a.shape, b.shape) == ((2, 2, 30), (1, 4))
    assert a.dtype == b.dtype == torch.float64
    assert a.std() > 0.5
    assert torch.equal(a, clips_of(net, ["2x2x30"], [], None, 7)[0])
    assert not torch.equal(a, clips_of(net, ["2,2,30"], [], None, 8)[0])


def test_a_floating_point_type_is_the_networks_too():
    net = nn.Conv1d(2, 2, 3)
    (clip,) = clips_of(net, ["1,2,9"], ["float64"], None, 0)
    assert clip.dtype == net.weight.dtype == torch.float64
    (clip,) = clips_of(net, ["1,2,9"], ["torch.bfloat16"], None, 0)
    assert clip.dtype == net.weight.dtype == torch.bfloat16


def test_integers_leave_the_network_as_it_is():
    net = nn.Sequential(nn.Embedding(11, 3), nn.Embedding(5, 3))
    (clip,) = clips_of(net, ["4,200"], ["int64"], None, 0)
    assert clip.dtype == torch.int64
    assert net[0].weight.dtype == torch.float32
    assert set(clip.unique().tolist()) == set(range(5))  # the smallest embedding's
    (clip,) = clips_of(net, ["4,200"], ["int64"], 9, 0)
    assert set(clip.unique().tolist()) == set(range(9))
    (clip,) = clips_of(nn.ReLU(), ["4,200"], ["bool"], 9, 0)
    assert clip.dtype == torch.bool


def test_a_type_for_each_clip():
    found = clips_of(nn.Linear(2, 2), ["2,9", "2,2,9"], ["int32", "float64"], 3, 0)
    assert [c.dtype for c in found] == [torch.int32, torch.float64]


@pytest.mark.parametrize(
    "shapes, dtypes, high, message",
    [
        (["2,a"], [], None, "--clip 2,a: give the sizes of an example, such as 1,3,16,112,112"),
        (["2,0,3"], [], None, "--clip 2,0,3: give the sizes"),
        ([""], [], None, "--clip : give the sizes"),
        (["9999999,9999"], [], None, "are too many for an example"),
        (["2,3"], ["flaot32"], None, "--dtype flaot32: give float32"),
        (["2,3"], ["nn"], None, "--dtype nn: give float32"),
        (["2,3"], ["complex64"], None, "--dtype complex64: give float32"),
        (["2,3"], ["int64", "int64"], None, "--dtype is given once for all clips, or for each of the 1, not 2 times"),
        (["2,3"], ["int64"], 0, "--high 0: integers are drawn from 0 to below it"),
    ],
)
def test_what_is_no_example(shapes: list[str], dtypes: list[str], high: int | None, message: str):
    with pytest.raises(BadInput) as raised:
        clips_of(nn.ReLU(), shapes, dtypes, high, 0)
    assert message in str(raised.value)
