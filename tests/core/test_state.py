"""The state of a stream: snapshots, gradients, pure steps."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import (
    assert_equal,
    assert_identical,
    assert_same_state,
    check_contract,
    cut,
    fingerprint,
    join,
)
from tests.stateful import NETS, network, steps

PHASES = [0, 1, 2, 5, 6, 13, 30]


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Any:
    return NETS[request.param]()


# ---- snapshots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_a_snapshot_at_any_phase(net: Any, phase: int, grad: bool):
    clip = torch.randn(2, 2, phase + 20)
    steps(net, cut(clip, 0, phase))
    snapshot = net.get_state()
    assert (snapshot is None) == (phase == 0)
    before, futures = fingerprint(snapshot), []
    for _ in range(3):
        futures.append(steps(net, cut(clip, phase, phase + 20)))
        assert_same_state(fingerprint(snapshot), before, "the snapshot")
        net.set_state(snapshot)
    assert_identical(futures[0], futures[1])
    assert_identical(futures[0], futures[2])


@pytest.mark.parametrize("phase", [1, 4, 13])
def test_a_snapshot_goes_to_a_twin(net: Any, phase: int, grad: bool):
    twin, clip = copy.deepcopy(net), torch.randn(2, 2, 40)
    steps(net, cut(clip, 0, phase))
    twin.set_state(net.get_state())
    assert_identical(steps(net, cut(clip, phase, 40)), steps(twin, cut(clip, phase, 40)))


def test_a_snapshot_from_before_gradients_were_switched_off(net: Any):
    """The first step without gradients is the same, bit for bit, whether the stream went on or was restored."""
    clip = torch.randn(2, 2, 40)
    steps(net, cut(clip, 0, 13))
    snapshot = net.get_state()
    with torch.no_grad():
        went_on = steps(net, cut(clip, 13, 40))
        net.set_state(snapshot)
        assert_identical(steps(net, cut(clip, 13, 40)), went_on)


def test_two_streams_take_turns(net: Any):
    clips = [torch.randn(2, 2, 25), torch.randn(3, 2, 25)]
    states: list[Any] = [None, None]
    outs: list[list[Any]] = [[], []]
    for t in range(25):
        for i, clip in enumerate(clips):
            net.set_state(states[i])
            outs[i].append(net.forward_steps(clip[:, :, t : t + 1], pad_end=t == 24))
            states[i] = net.get_state()
    for clip, out in zip(clips, outs):
        assert_equal(join(out), net(clip))


def test_none_is_cold(net: Any):
    clip = torch.randn(2, 2, 30)
    first = steps(net, clip)
    for reset in (lambda: net.set_state(None), net.clean_state):
        reset()
        assert net.get_state() is None
        assert_equal(join(steps(net, clip)), join(first))


def test_the_next_input_must_match_the_batch_of_a_snapshot():
    net = network()
    steps(net, torch.randn(2, 2, 5))
    two = net.get_state()
    net.clean_state()
    steps(net, torch.randn(3, 2, 7))
    net.set_state(two)
    with pytest.raises(co.ShapeMismatch, match=r"\(2, 2\).*\(3, 2\)"):
        net.forward_step(torch.randn(3, 2))
    net.forward_step(torch.randn(2, 2))
    assert net.get_state().clock == 6


OTHERS = {
    "another network": lambda: co.Sequential(co.Conv1d(2, 2, 5), nn.ReLU()),
    "another kernel": lambda: co.Conv1d(2, 2, 4),
    "another layer": lambda: co.AvgPool1d(3, 1),
    "other channels": lambda: co.Conv1d(3, 2, 3),
    "another dtype": lambda: co.Conv1d(2, 2, 3).double(),
    "more outputs": lambda: co.Conv1d(2, 4, 3),
    "another stride": lambda: co.Conv1d(2, 2, 3, 2),
    "another padding": lambda: co.Conv1d(2, 2, 3, padding=1),
    "another fill": lambda: co.Conv1d(2, 2, 3, padding=1, temporal_fill="replicate"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_snapshot_of_another_network_is_refused(name: str):
    net, other = co.Conv1d(2, 2, 3), OTHERS[name]()
    dtype = torch.float64 if name == "another dtype" else torch.float32
    steps(other, torch.randn(2, 3 if name == "other channels" else 2, 6, dtype=dtype))
    steps(net, torch.randn(2, 2, 3))
    before = fingerprint(net._stream)
    with pytest.raises(co.StateMismatch, match="belongs to another network"):
        net.set_state(other.get_state())
    assert_same_state(fingerprint(net._stream), before, "the state after a refusal")


@pytest.mark.parametrize("state", [torch.zeros(2, 2), {}, "state", 3], ids=lambda s: type(s).__name__)
def test_what_is_no_state_is_refused(state: Any):
    with pytest.raises(co.StateMismatch, match="takes a state from get_state or init_state"):
        co.Conv1d(2, 2, 3).set_state(state)


def test_a_child_is_its_own_root():
    net = network()
    steps(net, torch.randn(2, 2, 4))
    assert net[0].get_state() is None
    before = fingerprint(net._stream)
    net[0].forward_step(torch.randn(5, 2))
    assert net[0].get_state().clock == 1
    assert_same_state(fingerprint(net._stream), before, "the root's stream")
    net.clean_state()
    assert net[0].get_state().clock == 1


def test_a_long_stream_neither_grows_nor_drifts(net: Any):
    clip = torch.randn(2, 2, 2500, dtype=torch.float64)
    net, sizes = net.double(), set()
    with torch.no_grad():
        outs = []
        for t in range(2500):
            outs.append(
                net.forward_steps(clip[:, :, t : t + 1], pad_end=True) if t == 2499 else steps(net, cut(clip, t, t + 1))[0]
            )
            sizes.add(net._stream.nbytes)
        assert_equal(join(outs), net(clip))
    assert len(sizes) == 1


# ---- the structure changes ------------------------------------------------------------------------------------------


def test_a_network_that_is_changed_in_mid_stream_refuses_to_go_on():
    net = network()
    steps(net, torch.randn(2, 2, 4))
    net.append(nn.Conv1d(2, 2, 3))
    with pytest.raises(co.StateMismatch, match="changed while a stream ran"):
        net.forward_step(torch.randn(2, 2))
    net.clean_state()
    check_contract(net.double(), torch.randn(2, 2, 40, dtype=torch.float64))


def test_a_nested_change_is_noticed_and_one_elsewhere_is_not():
    net, other = network(), network()
    clip = torch.randn(2, 2, 60)
    outs = steps(net, cut(clip, 0, 30))
    other.append(nn.ReLU())
    outs += steps(net, cut(clip, 30, 60))
    assert_equal(join(outs), net(clip)[:, :, : len(join(outs)[0, 0])])
    net[0][1][0] = nn.Conv1d(2, 2, 5, padding=2)
    with pytest.raises(co.StateMismatch, match="changed while"):
        net.forward_step(clip[:, :, 0])


# ---- gradients ------------------------------------------------------------------------------------------------------


def graph(net: Any) -> bool:
    return any(t.requires_grad for t in net._stream.tensors.values())


def test_the_state_has_a_graph_only_while_gradients_are_enabled():
    net, clip = network(), torch.randn(2, 2, 40)
    with torch.no_grad():
        steps(net, cut(clip, 0, 5))
        assert not graph(net)
    steps(net, cut(clip, 5, 10))
    assert graph(net)
    with torch.no_grad():
        steps(net, cut(clip, 10, 15))
        assert not graph(net)
    steps(net, cut(clip, 15, 20))
    assert graph(net)
    before = fingerprint(net._stream)
    net.detach_state()
    assert not graph(net)
    assert_same_state(fingerprint(net._stream), before, "the detached state")


def test_detaching_truncates_the_gradient():
    net, clip = co.Conv1d(1, 1, 3), torch.randn(2, 1, 6, requires_grad=True)
    net.forward_steps(clip[:, :, :4])
    net.detach_state()
    net.forward_steps(clip[:, :, 4:]).sum().backward()
    assert clip.grad[:, :, :4].abs().max() == 0
    assert (clip.grad[:, :, 4:] != 0).all()


def test_detaching_a_cold_stream_is_nothing():
    net = network()
    net.detach_state()
    assert net.get_state() is None


MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("then", MODES)
@pytest.mark.parametrize("pure", [False, True], ids=["stateful", "pure"])
def test_modes_of_autograd_may_change_in_mid_stream(net: Any, first: str, then: str, pure: bool):
    clip, outs, at = torch.randn(2, 2, 36), [], 0
    expected = net(clip)
    state = net.init_state(clip[:, :, 0])
    for mode, size, step in (
        (first, 3, True),
        (then, 4, True),
        (first, 5, False),
        (then, 6, True),
        (first, 7, True),
        (then, 11, False),
    ):
        with MODES[mode]():
            part = cut(clip, at, at + size)
            for chunk in part.split(1 if step else 5, 2):
                if pure:
                    y, state = net.steps(chunk, state)
                else:
                    y = steps(net, chunk)[0] if step else net.forward_steps(chunk)
                outs.append(y)
            at += size
    assert_equal(join(outs).detach().clone(), expected[:, :, : join(outs).shape[2]])
    with torch.enable_grad():
        x = torch.randn(2, 2, 30, requires_grad=True)
        y = net.steps(x, state)[0] if pure else net.forward_steps(x)
        y.sum().backward()
    assert x.grad.abs().sum() > 0


# ---- pure steps -----------------------------------------------------------------------------------------------------


def test_pure_steps_equal_stateful_ones_and_old_states_can_be_used_again(net: Any, grad: bool):
    clip = torch.randn(2, 2, 24)
    states, outs = [net.init_state(clip[:, :, 0])], []
    for t in range(24):
        y, state = net.step(clip[:, :, t], states[-1])
        states.append(state)
        outs.append(y)
    assert [s.clock for s in states] == list(range(25))
    for t in reversed(range(24)):
        again, _ = net.step(clip[:, :, t], states[t])
        assert_identical(again, outs[t], f"step {t} from its old state")
    assert net.get_state() is None
    for t in range(24):
        y = net.forward_step(clip[:, :, t])
        assert (y is None) == (outs[t] is None)
        if y is not None:
            assert_equal(y, outs[t])


def test_a_pure_state_and_a_snapshot_are_the_same_thing(net: Any):
    clip = torch.randn(2, 2, 30)
    state = net.steps(cut(clip, 0, 9), net.init_state(clip[:, :, 0]))[1]
    net.set_state(state)
    outs = steps(net, cut(clip, 9, 30))
    net.clean_state()
    steps(net, cut(clip, 0, 9))
    y, _ = net.steps(cut(clip, 9, 30), net.get_state())
    assert_equal(y, join(outs))


# ---- warm_up --------------------------------------------------------------------------------------------------------


def test_warm_up_leaves_one_step_to_the_first_output(net: Any):
    """Dummy steps have the dtype of the parameters; float32 where there are none."""
    net = net.double()
    dtype = torch.float64 if list(net.parameters()) else torch.float32
    net.warm_up((3, 2))
    assert (0 if net.get_state() is None else net.get_state().clock) == net.delay
    assert net.forward_step(torch.randn(3, 2, dtype=dtype)).dtype == dtype


def test_warm_up_feeds_what_the_module_pads_with():
    net = co.MaxPool1d(3, 1)
    net.warm_up((1, 1))
    assert net.forward_step(torch.full((1, 1), -5.0)).item() == -5


def test_the_functional_step_under_its_earlier_name():
    net, clip = co.Sequential(co.Conv1d(2, 2, 3), co.GRU(2, 3)).double(), torch.randn(2, 2, 7, dtype=torch.float64)
    state, ys = None, []
    for x in clip.unbind(2):
        with pytest.warns(DeprecationWarning, match=r"Sequential\._forward_step is net\.step under an earlier name"):
            y, state = net._forward_step(x, state)
        ys.append(y)
    assert ys[:2] == [None, None]
    assert net.get_state() is None
    assert_equal(torch.stack(ys[2:], 2), net(clip))


def test_a_pure_step_refuses_the_state_of_another_network():
    net, x = co.Sequential(co.Conv1d(2, 2, 3), nn.ReLU()), torch.randn(3, 2)
    for other in (co.Conv1d(2, 2, 3), co.Sequential(co.Conv1d(2, 2, 5), nn.ReLU()), co.Sequential(co.Conv1d(2, 4, 3), nn.ReLU())):
        with pytest.raises(co.StateMismatch, match="belongs to another network"):
            net.step(x, other.init_state(x))
    twin = co.Sequential(co.Conv1d(2, 2, 3), nn.ReLU())
    assert net.step(x, twin.init_state(x))[1].clock == 1
