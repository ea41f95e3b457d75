"""Streams that share a network: `new_stream`, calls that meet on one stream, and snapshots that cost little."""

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import continual as co
from tests.contract import assert_equal


class Computed(nn.Module):
    """A weight that is computed of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv1d(2, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[:, :, 2:] + y[:, :, :-2]


def network() -> Any:
    return co.Sequential(
        co.Conv1d(2, 3, 3, padding=1),
        nn.BatchNorm1d(3),
        co.Residual(co.Conv1d(3, 3, 5, padding=2)),
        co.MaxPool1d(3),
        co.GRU(3, 2),
    ).eval()


def converted() -> Any:
    return co.continual(Computed().eval(), torch.randn(2, 2, 12))


NETWORKS: dict[str, Callable[[], Any]] = {
    "layers": network,
    "converted": converted,
    "converted, in a container": lambda: co.Sequential(co.Conv1d(2, 2, 3), converted()).eval(),
}


def streamed(net: Any, clip: Tensor) -> list[Tensor | None]:
    with torch.inference_mode():
        return [net.forward_step(step) for step in clip.unbind(2)]


def assert_same(got: list[Tensor | None], want: list[Tensor | None]) -> None:
    assert [y is None for y in got] == [y is None for y in want]
    for a, b in zip(got, want, strict=True):
        if a is not None and b is not None:
            assert_equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_stream_is_cold_and_independent(name: str) -> None:
    net, clip, other = NETWORKS[name](), torch.randn(2, 2, 15), torch.randn(3, 2, 15)
    want, want_other = streamed(copy.deepcopy(net), clip), streamed(copy.deepcopy(net), other)
    first = streamed(net, clip[:, :, :7])
    stream = net.new_stream()
    assert type(stream) is type(net)
    assert stream.get_state() is None
    assert_same(streamed(stream, other), want_other)
    assert_same(first + streamed(net, clip[:, :, 7:]), want)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_stream_has_the_very_same_weights(name: str) -> None:
    net, clip = NETWORKS[name](), torch.randn(2, 2, 15)
    stream = net.new_stream()
    before = streamed(stream, clip)
    mine, theirs = dict(net.named_parameters()), dict(stream.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(p is theirs[n] for n, p in mine.items())
    with torch.no_grad():
        next(net.parameters()).add_(1.0)
    for each in (net, stream):
        each.clean_state()
    after = streamed(stream, clip)
    assert_same(after, streamed(net, clip))
    assert not torch.allclose(after[-1], before[-1])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_snapshots_go_from_one_stream_of_a_network_to_another(name: str) -> None:
    net, clip = NETWORKS[name](), torch.randn(2, 2, 15)
    want = streamed(net, clip)
    net.clean_state()
    stream = net.new_stream()
    streamed(net, clip[:, :, :7])
    stream.set_state(net.get_state())
    assert_same(streamed(stream, clip[:, :, 7:]), want[7:])


@pytest.mark.parametrize("grad", [False, True], ids=["", "with gradients"])
@pytest.mark.parametrize("name", NETWORKS)
def test_threads_with_a_stream_each(name: str, grad: bool) -> None:
    net = NETWORKS[name]()
    clips = [torch.randn(1 + i % 3, 2, 40) for i in range(8)]
    want = [streamed(copy.deepcopy(net), clip) for clip in clips]

    def run(clip: Tensor) -> list[Tensor | None]:
        stream = net.new_stream()
        with torch.set_grad_enabled(grad):
            return [stream.forward_step(step) for step in clip.unbind(2)]

    with ThreadPoolExecutor(4) as pool:
        for got, right in zip(pool.map(run, clips), want, strict=True):
            assert_same(got, right)


class Waits(nn.Module):
    """A function of steps that lets another call come in between."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: Callable[[], Any] = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        self.inside()
        return x


CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "forward_step": lambda net, clip: net.forward_step(clip[:, :, 0]),
    "forward_steps": lambda net, clip: net.forward_steps(clip),
    "get_state": lambda net, clip: net.get_state(),
    "set_state": lambda net, clip: net.set_state(net.init_state(clip[:, :, 0])),
    "clean_state": lambda net, clip: net.clean_state(),
    "detach_state": lambda net, clip: net.detach_state(),
}


@pytest.mark.parametrize("outer", ["forward_step", "forward_steps"])
@pytest.mark.parametrize("name", CALLS)
def test_calls_that_meet_on_one_stream_raise(name: str, outer: str) -> None:
    wait = Waits()
    net, clip = co.Sequential(co.Conv1d(2, 2, 3), co.Lambda(wait)), torch.randn(2, 2, 9)
    want = streamed(net, clip)
    net.clean_state()
    got = streamed(net, clip[:, :, :4])
    errors: list[Exception] = []

    def meet() -> None:
        def other() -> None:
            try:
                CALLS[name](net, clip)
            except Exception as error:
                errors.append(error)

        wait.inside = lambda: None
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    wait.inside = meet
    with torch.inference_mode():
        got.append(net.forward_step(clip[:, :, 4]) if outer == "forward_step" else net.forward_steps(clip[:, :, 4:5]).squeeze(2))
    assert [type(e) for e in errors] == [co.StreamInUse]
    assert "new_stream()" in str(errors[0])
    assert_same(got + streamed(net, clip[:, :, 5:]), want)


def test_a_call_inside_of_a_call_raises() -> None:
    net = co.Sequential(co.Conv1d(2, 2, 1), nn.ReLU())
    net[1].register_forward_hook(lambda module, x, y: net.forward_step(torch.randn(1, 2)))
    with pytest.raises(co.StreamInUse, match="in a hook"):
        net.forward_step(torch.randn(1, 2))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_call_that_raises_gives_its_turn_back(error: type[BaseException]) -> None:
    wait = Waits()
    net = co.Sequential(co.Conv1d(2, 2, 1), co.Lambda(wait))
    net.forward_step(torch.randn(1, 2))

    def fail() -> None:
        raise error("here")

    wait.inside = fail
    for call in (CALLS["forward_step"], CALLS["forward_steps"]):
        with pytest.raises(error, match="here"):
            call(net, torch.randn(1, 2, 3))
    wait.inside = lambda: None
    assert net.forward_step(torch.randn(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("made", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_have_a_turn_of_their_own(made: Callable[[Any], Any]) -> None:
    net, clip = network(), torch.randn(2, 2, 9)
    want = streamed(net, clip)
    net.clean_state()
    streamed(net, clip[:, :, :5])
    turn = net._take_turn()
    other = made(net)
    turn.append(None)
    assert_same(streamed(other, clip[:, :, 5:]), want[5:])


def test_a_new_stream_has_a_turn_of_its_own() -> None:
    """Also where the network's own stream is in the middle of a call, and has been before."""
    wait = Waits()
    net, clip = co.Sequential(co.Conv1d(2, 2, 3), co.Lambda(wait)), torch.randn(2, 2, 9)
    want = streamed(net, clip)
    got: list[list[Any]] = []

    def meet() -> None:
        wait.inside = lambda: None
        got.append(streamed(net.new_stream(), clip))

    wait.inside = meet
    net.forward_step(clip[:, :, 0])
    assert_same(got[0], want)


class Interrupted(list[None]):
    """A turn, after taking which Ctrl-C arrives."""

    def pop(self, *at: Any) -> None:
        super().pop(*at)
        raise KeyboardInterrupt


def test_an_interrupt_behind_the_taking_of_a_turn_gives_it_back() -> None:
    net = co.Sequential(co.Conv1d(2, 2, 1), nn.ReLU())
    net.__dict__["_turn"] = turn = Interrupted([None])
    with pytest.raises(KeyboardInterrupt):
        net.forward_step(torch.randn(1, 2))
    assert turn == [None]


# ---- changes of a network, and what they cost others ---------------------------------------------------------------------


def opened(net: Any) -> list[int]:
    """A list that grows by one item whenever the network opens a stream."""
    seen: list[int] = []
    own = net.open

    def counted(*args: Any) -> Any:
        seen.append(1)
        return own(*args)

    net.open = counted
    return seen


def test_building_another_network_costs_a_running_stream_nothing() -> None:
    net, x = network(), torch.randn(2, 2)
    seen = opened(net)
    net.forward_step(x)
    network().append(nn.ReLU())
    net.forward_step(x)
    assert len(seen) == 1


def test_a_snapshot_that_is_known_opens_no_stream() -> None:
    net, x = network(), torch.randn(2, 2)
    net.forward_step(x)
    snapshot = net.get_state()
    seen = opened(net)
    net.set_state(snapshot)
    net.forward_step(x)
    net.set_state(None)
    net.set_state(snapshot)
    assert not seen


@pytest.mark.parametrize("change", [lambda net: net[2][1].append(nn.ReLU()), lambda net: net.append(nn.ReLU())])
def test_a_change_inside_is_noticed_by_every_stream(change: Callable[[Any], Any]) -> None:
    inner = co.Sequential(co.Conv1d(3, 3, 3, padding=1))
    net = co.Sequential(co.Conv1d(2, 3, 3), nn.ReLU(), co.Residual(inner)).eval()
    stream, x = net.new_stream(), torch.randn(2, 2)
    for each in (net, stream):
        each.forward_step(x)
    snapshot = net.get_state()
    change(net)
    with pytest.raises(co.StateMismatch, match="changed while a stream ran"):
        net.forward_step(x)
    with pytest.raises(co.StateMismatch, match="another network"):
        net.set_state(snapshot)
    if len(net) == 3:  # a change of what the two streams share
        with pytest.raises(co.StateMismatch, match="changed while a stream ran"):
            stream.forward_step(x)


def test_a_snapshot_of_before_a_move_is_refused() -> None:
    net, x = network(), torch.randn(2, 2)
    net.forward_step(x)
    snapshot = net.get_state()
    net.double()
    net.clean_state()
    with pytest.raises(co.StateMismatch, match="another network"):
        net.set_state(snapshot)
    net.forward_step(x.double())
    with pytest.raises(co.StateMismatch, match="stream is running|another network"):
        net.set_state(snapshot)


def test_snapshots_of_other_frames_are_refused_while_a_stream_runs() -> None:
    net = co.Sequential(co.Conv2d(2, 2, 3, padding=1), nn.ReLU())
    net.forward_step(torch.randn(2, 2, 5))
    snapshot = net.get_state()
    net.clean_state()
    net.forward_step(torch.randn(2, 2, 6))
    with pytest.raises(co.StateMismatch, match="stream is running"):
        net.set_state(snapshot)
    net.clean_state()
    net.set_state(snapshot)
    assert net.forward_step(torch.randn(2, 2, 5)).shape == (2, 2, 5)
