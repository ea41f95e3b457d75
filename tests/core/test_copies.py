"""A stream that is moved to another dtype, copied, pickled or saved."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import continual as co
from tests.contract import assert_identical, assert_same_state, cut, fingerprint, join
from tests.stateful import NETS, network, steps


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Any:
    return NETS[request.param]()


# ---- moves and copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [1, 5, 14])
def test_the_stream_follows_a_change_of_dtype(net: Any, phase: int):
    clip = torch.randn(2, 2, 36, dtype=torch.float64)
    expected = net.double()(clip)
    outs = []
    for part, dtype in ((cut(clip, 0, phase), torch.float64), (cut(clip, phase, 30), torch.float32)):
        net.to(dtype)
        outs.append(join(steps(net, part.to(dtype))))
    net.double()
    outs.append(net.forward_steps(cut(clip, 30, 36), pad_end=True))
    found = join([None if y is None else y.double() for y in outs])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("move", ["half", "bfloat16"])
def test_the_stream_follows_half_types(net: Any, move: str):
    clip = torch.randn(2, 2, 20)
    expected = net(clip)
    first = steps(net, cut(clip, 0, 7))
    getattr(net, move)()
    dtype = getattr(torch, move)
    last = net.forward_steps(cut(clip, 7, 20).to(dtype), pad_end=True)
    assert {t.dtype for t in net.get_state().tensors.values()} <= {dtype}
    torch.testing.assert_close(join([join(first), last.float()]), expected, atol=5e-2, rtol=5e-2)


def test_a_step_of_the_old_dtype_is_refused_after_a_move():
    net = network()
    steps(net, torch.randn(2, 2, 4))
    net.double()
    with pytest.raises(co.ShapeMismatch, match="float64.*float32"):
        net.forward_step(torch.randn(2, 2))


def test_the_stream_is_not_in_the_state_dict(net: Any):
    before = list(net.state_dict())
    steps(net, torch.randn(2, 2, 5))
    assert list(net.state_dict()) == before
    assert not any("window" in name or "queue" in name or "_stream" in name for name in before)
    assert not list(dict(net.named_buffers()).keys() - set(before))


def saved(net: Any) -> Any:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda net: pickle.loads(pickle.dumps(net)), "torch.save": saved}


@pytest.mark.parametrize("phase", [0, 1, 5, 14])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_from_the_same_point_and_on_its_own(net: Any, how: str, phase: int, grad: bool):
    clip = torch.randn(2, 2, 40, requires_grad=grad)
    steps(net, cut(clip, 0, phase))
    before = fingerprint(net._stream)
    twin = COPIES[how](net)
    assert type(twin) is type(net)
    theirs = steps(twin, cut(clip, phase, 40))
    assert_same_state(fingerprint(net._stream), before, "the original while its copy runs")
    assert_identical(steps(net, cut(clip, phase, 40)), theirs)
    if phase:
        carried = COPIES[how](net)._stream
        assert not any(t.requires_grad for t in carried.tensors.values())


def test_a_snapshot_can_be_pickled(net: Any, grad: bool):
    clip = torch.randn(2, 2, 40)
    steps(net, cut(clip, 0, 7))
    snapshots = [net.get_state(), pickle.loads(pickle.dumps(net.get_state())), copy.deepcopy(net.get_state())]
    futures = []
    for snapshot in snapshots:
        net.set_state(snapshot)
        futures.append(steps(net, cut(clip, 7, 40)))
    assert_identical(futures[0], futures[1])
    assert_identical(futures[0], futures[2])
