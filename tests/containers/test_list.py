"""Containers as lists of modules."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import check_contract


def layer(k: int = 3) -> nn.Conv1d:
    return nn.Conv1d(2, 2, k, padding=k // 2)


CONTAINERS = {
    "sequential": co.Sequential,
    "parallel": co.Parallel,
    "reduce": co.BroadcastReduce,
}


def options(net: Any) -> tuple[Any, ...]:
    return getattr(net, "reduce", None), getattr(net, "auto_delay", None)


@pytest.fixture(params=CONTAINERS)
def net(request: pytest.FixtureRequest) -> Any:
    more = {"reduce": "max"} if request.param == "reduce" else {}
    return CONTAINERS[request.param](layer(1), layer(3), nn.ReLU() if request.param == "sequential" else layer(5), **more)


def ks(net: Any) -> list[int]:
    """Kernel sizes tell the children apart (0: none)."""
    return [getattr(m, "kernel_size", (0,))[0] for m in net]


def check(net: Any, kind: Any) -> None:
    """The type and its options are kept, all children are streaming modules, and it still runs."""
    assert type(net) is type(kind)
    assert options(net) == options(kind)
    assert all(isinstance(m, co.CoModule) for m in net)
    clip: Any = torch.randn(2, 2, 13, dtype=torch.float64)
    check_contract(net.double(), [clip] * len(net) if type(net) is co.Parallel else clip)


def test_slice(net: Any):
    part = net[:2]
    assert ks(part) == [1, 3]
    assert part[0] is net[0]
    assert list(dict(part.named_children())) == ["0", "1"]
    check(part, net)


def test_slice_from_the_end(net: Any):
    assert ks(net[-2:]) == ks(net)[-2:]
    assert net[-1] is net[2]
    assert len(net[::2]) == 2


def test_append(net: Any):
    assert net.append(layer(7)) is net
    assert ks(net)[-1] == 7
    check(net, net)


def test_insert(net: Any):
    before = ks(net)
    assert net.insert(1, layer(7)) is net
    assert ks(net) == [before[0], 7, *before[1:]]
    assert list(dict(net.named_children())) == ["0", "1", "2", "3"]
    check(net, net)


def test_extend(net: Any):
    net.extend([layer(7), nn.Tanh()])
    assert ks(net)[-2:] == [7, 0]
    net += [layer(9)]
    assert ks(net)[-1] == 9
    check(net, net)


def test_extend_by_itself_ends(net: Any):
    assert len(net.extend(net)) == 6


def test_set(net: Any):
    net[1] = layer(7)
    net[-1] = layer(5)
    assert ks(net) == [1, 7, 5]
    check(net, net)


def test_delete(net: Any):
    del net[0]
    assert list(dict(net.named_children())) == ["0", "1"]
    assert ks(net)[0] == 3
    check(net, net)
    del net[1:]
    assert len(net) == 1


def test_pop(net: Any):
    child = net[1]
    assert net.pop(1) is child
    assert len(net) == 2
    check(net, net)


def test_add(net: Any):
    more = [layer(7)]
    both = net + more
    assert ks(both) == [*ks(net), 7]
    assert len(net) == 3
    check(both, net)
    assert len(net + net[:1]) == 4


def test_multiply(net: Any):
    """The same modules again: weights are shared, each use has a state of its own."""
    twice = net * 2
    assert len(twice) == len(2 * net) == 6
    assert twice[0] is twice[3]
    assert len(list(twice.parameters())) == len(list(net.parameters()))
    check(twice, net)


def test_names():
    net = co.Sequential(OrderedDict(first=layer(1), act=nn.ReLU(), last=layer(3)))
    assert list(dict(net.named_children())) == ["first", "act", "last"]
    assert net.last is net[2]
    assert sorted(net.state_dict()) == ["first.bias", "first.weight", "last.bias", "last.weight"]
    assert list(dict(net[1:].named_children())) == ["act", "last"]
    del net[0]
    assert list(dict(net.named_children())) == ["act", "last"]
    net[0] = nn.Tanh()
    assert isinstance(net.act, nn.Tanh)
    check(net, net)


def test_children_are_converted_before_anything_is_read():
    children = layer(), nn.Sequential(layer(5), nn.ReLU()), nn.AvgPool1d(2)
    net = co.Sequential(*children)
    assert (net.receptive_field, net.delay, net.stride) == (8, 4, (2,))
    assert not any(isinstance(m, co.CoModule) for m in children)


BAD = {
    "get": (lambda net: net[3], IndexError, "has 3 modules, there is none at 3"),
    "set": (lambda net: net.__setitem__(3, layer()), IndexError, "there is none at 3"),
    "insert": (lambda net: net.insert(5, layer()), IndexError, "nothing can be inserted at 5"),
    "add a number": (lambda net: net + 1, TypeError, "add another container or a list"),
    "times zero": (lambda net: net * 0, ValueError, "at least 1"),
    "group norm": (lambda net: net.append(nn.GroupNorm(1, 2)), co.NotStreamable, "GroupNorm"),
    "a function": (lambda net: net.append(torch.relu), co.NotStreamable, "takes an nn.Module"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_leaves_the_container_as_it_was(net: Any, name: str):
    change, error, message = BAD[name]
    before = list(net)
    with pytest.raises(error, match=message):
        change(net)
    assert list(net) == before


STRIDED = nn.Conv1d(2, 2, 3, 2)
UNFIT = {
    "append": lambda net: net.append(STRIDED),
    "insert": lambda net: net.insert(0, STRIDED),
    "extend": lambda net: net.extend([STRIDED]),
    "set": lambda net: net.__setitem__(0, STRIDED),
    "delete all": lambda net: net.__delitem__(slice(None)),
}


@pytest.mark.parametrize("change", UNFIT)
def test_a_change_that_does_not_fit_leaves_the_branches_as_they_were(change: str):
    """Another stride, or no branch at all, is refused at once; the container can still be used."""
    net = co.BroadcastReduce(layer(1), layer(3))
    before = dict(net.named_children())
    with pytest.raises((co.ShapeMismatch, ValueError)):
        UNFIT[change](net)
    assert dict(net.named_children()) == before
    check(net, net)
