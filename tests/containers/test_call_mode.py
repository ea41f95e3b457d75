"""`call_mode`: what `net(x)` runs."""

import threading
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal

STEP, CHUNK = (2, 2), (2, 2, 8)


@pytest.fixture
def net() -> Any:
    return co.Sequential(co.Residual(nn.Conv1d(2, 2, 3, padding=1)), nn.ReLU())


def test_the_default_is_forward(net: Any):
    assert net.call_mode == "forward"
    assert net(torch.zeros(CHUNK)).shape[2] == 8
    assert net.get_state() is None


def test_blocks_nest(net: Any):
    with co.call_mode("forward_step"):
        assert net(torch.zeros(STEP)) is None
        with co.call_mode("forward_steps"):
            assert net(torch.zeros(CHUNK)).shape[2] == 8
            with co.call_mode("forward"):
                assert net(torch.zeros(CHUNK)).shape[2] == 8
            assert net.get_state().clock == 9
        assert net(torch.zeros(STEP)).shape == STEP
    assert net(torch.zeros(CHUNK)).shape[2] == 8
    assert net.get_state().clock == 10


def test_a_block_that_raises_is_left(net: Any):
    with pytest.raises(KeyError), co.call_mode("forward_step"):
        raise KeyError
    assert net(torch.zeros(CHUNK)).shape[2] == 8


def test_the_property_sets_the_children(net: Any):
    net.call_mode = "forward_step"
    assert {m.call_mode for m in net.modules()} == {"forward_step"}
    assert net(torch.zeros(STEP)) is None
    assert net[0](torch.zeros(STEP)) is None
    net.call_mode = "forward"
    assert {m.call_mode for m in net.modules()} == {"forward"}


def test_the_block_beats_the_property(net: Any):
    net.call_mode = "forward_step"
    with co.call_mode("forward"):
        assert net(torch.zeros(CHUNK)).shape[2] == 8


@pytest.mark.parametrize("mode", ["forward_step", "forward_steps"])
def test_forward_is_the_clip_in_every_mode(net: Any, mode: str):
    """Children run their clip computation whatever the mode says, and the stream is left alone."""
    clip = torch.randn(CHUNK)
    expected = net(clip)
    net.call_mode = mode
    assert_equal(net.forward(clip), expected)
    with co.call_mode(mode):
        assert_equal(net.forward(clip), expected)
    assert net.get_state() is None
    assert_equal(net.forward_steps(clip, pad_end=True), expected)


def test_a_mode_is_that_of_its_thread(net: Any):
    inside, outside = threading.Event(), threading.Event()
    found: list[Any] = []

    def other() -> None:
        inside.wait(10)
        found.append(net(torch.zeros(CHUNK)))
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    with co.call_mode("forward_step"):
        inside.set()
        assert outside.wait(10)
        assert net(torch.zeros(STEP)) is None
    thread.join()
    assert found[0].shape[2] == 8


def test_arguments_go_to_what_is_run(net: Any):
    with co.call_mode("forward_steps"):
        assert net(torch.zeros(CHUNK), pad_end=True, update_state=False).shape[2] == 8
    assert net.get_state() is None


@pytest.mark.parametrize("mode", ["step", "", None, "__call__"])
def test_unknown_modes(net: Any, mode: Any):
    with pytest.raises(ValueError, match="call_mode is one of 'forward', 'forward_steps', 'forward_step'"), co.call_mode(mode):
        pass
    with pytest.raises(ValueError, match="call_mode is one of"):
        net.call_mode = mode
    assert net.call_mode == "forward"
