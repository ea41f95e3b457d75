"""States in files: written, read in another process's place, and refused where they can't be used."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import continual as co
from continual.core.file_digest import BLANK, seal
from continual.tools import storage


def network(channels: int = 4) -> co.Sequential:
    return co.Sequential(
        nn.Conv1d(2, channels, 3, stride=2, padding=1),
        co.Residual(co.Conv1d(channels, channels, 3, padding=1)),
        co.MaxPool1d(11, 1, 5),
        co.Delay(2),
    )


@pytest.fixture
def saved(tmp_path: Path) -> tuple[co.Sequential, torch.Tensor, Path]:
    net, clip, path = network(), torch.randn(3, 2, 60), tmp_path / "stream.safetensors"
    with torch.no_grad():
        net.forward_steps(clip[:, :, :31])
    co.save_state(net.get_state(), path)
    return net, clip, path


def test_a_stream_goes_on_bit_for_bit(saved):
    net, clip, path = saved
    state = co.load_state(path)
    assert state.clock == 31
    with torch.no_grad():
        went_on = net.forward_steps(clip[:, :, 31:], pad_end=True)
        net.set_state(state)
        assert torch.equal(net.forward_steps(clip[:, :, 31:], pad_end=True), went_on)
        y, _ = net.steps(clip[:, :, 31:], state, pad_end=True)
        assert torch.equal(y, went_on)


def test_the_name_of_the_format_never_changes(saved):
    """Files that older releases wrote hold it."""
    with safe_open(saved[2], framework="pt") as file:
        assert (file.metadata()["format"], file.metadata()["version"]) == ("continual.state", "2")
    assert (storage.STREAM, storage.RUNNER) == ("continual.stream", "continual.runner")


def test_several_streams_at_once(tmp_path: Path):
    net = co.Parallel(co.Conv1d(2, 2, 3, padding=1), co.Delay(2))
    clips = [torch.randn(2, 2, 20), torch.randn(2, 3, 20)]
    net.forward_steps([c[:, :, :7] for c in clips])
    co.save_state(net.get_state(), tmp_path / "s")
    went_on = net.forward_steps([c[:, :, 7:] for c in clips])
    net.set_state(co.load_state(tmp_path / "s"))
    for a, b in zip(went_on, net.forward_steps([c[:, :, 7:] for c in clips])):
        assert torch.equal(a, b)


def test_items_of_a_state_are_those_that_were_saved(tmp_path: Path):
    """In their order, and hidden states with the layers first; also where a state that was read is saved again."""
    net = co.Sequential(co.Conv1d(2, 4, 3), co.LSTM(4, 3, 2), co.GRUCell(3, 5), co.RNN(5, 2))
    net.forward_steps(torch.randn(3, 2, 7))
    state = net.get_state()
    assert [tuple(t.shape) for t in state] == [(3, 2, 2), (2, 3, 3), (2, 3, 3), (3, 5), (1, 3, 2)]
    for turn in range(2):
        path = tmp_path / f"{turn}"
        co.save_state(co.load_state(tmp_path / "0") if turn else state, path)
        read = co.load_state(path)
        assert all(torch.equal(a, b) for a, b in zip(read, state, strict=True))
        assert list(read.tensors) == list(state.tensors)
        assert all(torch.equal(a, read.tensors[name]) for name, a in state.tensors.items())
        net.set_state(read)
        assert list(map(torch.equal, net.get_state(), state)) == [True] * 5


def test_a_file_that_says_nothing_of_items(saved):
    """Files that older releases wrote: the tensors as they are."""
    rewrite(saved[2], without=("items",))
    read, state = co.load_state(saved[2]), saved[0].get_state()
    assert {name: t.shape for name, t in read.tensors.items()} == {name: t.shape for name, t in state.tensors.items()}
    saved[0].set_state(read)
    assert list(map(torch.equal, saved[0].get_state(), state)) == [True] * len(state)


def test_a_truncated_file_is_refused(saved):
    path = saved[2]
    content = path.read_bytes()
    for size in (0, 4, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(co.StateMismatch, match="is damaged"):
            co.load_state(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a")
    with pytest.raises(co.StateMismatch, match="not one that save_state wrote"):
        co.load_state(tmp_path / "a")
    (tmp_path / "b").write_text("hello")
    with pytest.raises(co.StateMismatch, match="damaged"):
        co.load_state(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        co.load_state(tmp_path / "c")


def rewrite(path: Path, sealed: bool = True, without: tuple[str, ...] = (), **changes: str) -> None:
    """Another header, with the right digest or without one."""
    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
    header["digest"] = BLANK
    save_file(
        load_file(path), path, metadata={k: v for k, v in header.items() if k not in (*without, *(() if sealed else ("digest",)))}
    )
    if sealed:
        seal(path)


def test_a_future_version_is_refused(saved):
    for sealed in (True, False):
        rewrite(saved[2], sealed=sealed, version="3")
        with pytest.raises(co.StateMismatch, match="has format version '3', this library reads 1 and 2. Update the library"):
            co.load_state(saved[2])


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": "["},
        {"frame": "{}"},
        {"frame": '{"shape": [3, "b"], "dtype": "float32", "device": "cpu"}'},
        {"frame": '{"shape": [3, 2], "dtype": "sum", "device": "cpu"}'},
        {"frame": '{"shape": [3, 2], "dtype": "float32", "device": "abacus"}'},
        {"frame": '{"shape": [1e999, 2], "dtype": "float32", "device": "cpu"}'},
        {"frame": "[" * 10**5},
        {"clock": "a"},
        {"clock": "-1"},
        {"items": "["},
        {"items": '[["0.window", "upside down"]]'},
    ],
)
def test_a_header_that_can_not_be_read_is_refused(saved, changes):
    rewrite(saved[2], **changes)
    with pytest.raises(co.StateMismatch, match="is damaged: its header can't be read"):
        co.load_state(saved[2])


@pytest.mark.parametrize("key", ["clock", "frame", "signature"])
def test_a_header_that_lacks_something_is_refused(saved, key):
    rewrite(saved[2], without=(key,))
    with pytest.raises(co.StateMismatch, match="is damaged: its header can't be read"):
        co.load_state(saved[2])


@pytest.mark.parametrize("damage", ["a name", "a shape", "a dtype", "none", "one more"])
def test_tensors_that_the_header_does_not_speak_of_are_refused(saved, damage: str):
    """They were a bare KeyError, or came to light when a step was taken."""
    net, clip, path = saved
    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), "digest": BLANK}
    tensors = load_file(path)
    name = sorted(tensors)[1]
    value = tensors.pop(name)
    tensors |= {
        "a name": {name + "x": value}, "a shape": {name: value[:, :0].clone()}, "a dtype": {name: value.double()}, "none": {},
        "one more": {name: value, "more": value + 1},
    }[damage]  # fmt: skip
    save_file(tensors, path, metadata=header)
    seal(path)
    with torch.no_grad():
        want = net.forward_steps(clip[:, :, 31:], update_state=False)
        with pytest.raises(co.StateMismatch, match="not those that its header speaks of .*: the file is damaged"):
            net.set_state(co.load_state(path))
        with pytest.raises(co.StateMismatch, match="not those that its header speaks of"):
            net.steps(clip[:, :, 31:], co.load_state(path))
        assert torch.equal(net.forward_steps(clip[:, :, 31:]), want), "the network kept its stream"


def test_a_device_that_is_not_here(saved):
    rewrite(saved[2], frame='{"shape": [3, 2], "dtype": "float32", "device": "cuda:7"}')
    with pytest.raises(co.StateMismatch, match=r"can't be moved to 'cuda:7' \(.*\)\. Name another device: .*device='cpu'"):
        co.load_state(saved[2])
    saved[0].set_state(co.load_state(saved[2], "cpu"))


# ---- the weights ----------------------------------------------------------------------------------------------------------------


def test_a_network_is_no_device(saved):
    net, _, path = saved
    with pytest.raises(
        TypeError, match=r"device is a torch.device or its name, got Sequential\. .* net\.set_state\(co\.load_state"
    ):
        co.load_state(path, net)


def test_other_weights_are_refused(saved):
    net, clip, path = saved
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].weight[0, 0, 0] += 1e-6
        want = other.forward_step(clip[:, :, 31], update_state=False)
        for load in (other.set_state, lambda state: other.steps(clip[:, :, 31:], state)):
            with pytest.raises(
                co.StateMismatch, match=r"other weights \(their digest is \w{12}…, that of the weights here \w{12}…\)"
            ):
                load(co.load_state(path))
        assert torch.equal(other.forward_step(clip[:, :, 31]), want), "the stream is as it was"
        state = co.load_state(path, allow_other_weights=True)  # as the message says
        y, _ = other.steps(clip[:, :, 31:], state)
        other.set_state(state)
        assert torch.equal(other.forward_steps(clip[:, :, 31:]), y)
        assert not torch.allclose(net.forward_steps(clip[:, :, 31:]), y, atol=0, rtol=0)


def test_weights_that_change_in_place_are_others(saved):
    net, _, path = saved
    net.set_state(co.load_state(path))
    with torch.no_grad():
        next(net[1].parameters()).mul_(2)
    with pytest.raises(
        co.StateMismatch, match="Load the weights that it was made with, or, if it is meant to go on with these, read it"
    ):
        net.set_state(co.load_state(path))
    snapshot = net.get_state()
    net.set_state(snapshot)
    with torch.no_grad():
        next(net.parameters()).add_(1)
    net.set_state(snapshot)  # in one process training goes on between snapshots


def test_a_state_is_saved_before_its_weights_change(saved):
    """Nobody could say any more with which it was made."""
    net, _, path = saved
    state = net.get_state()
    net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()})
    content = path.read_bytes()
    with pytest.raises(co.StateMismatch, match="the weights of the network have changed since get_state"):
        co.save_state(state, path)
    assert path.read_bytes() == content
    net.set_state(state)  # as the message says
    co.save_state(net.get_state(), path)
    net.set_state(co.load_state(path))


def test_the_weights_of_pure_steps_and_of_pickles(saved):
    net, clip, path = saved
    other = network()
    with torch.no_grad():
        _, state = net.steps(clip, net.init_state(clip[:, :, 0]))
        for made in (
            state,
            pickle.loads(pickle.dumps(state)),
            copy.deepcopy(net.get_state()),
            pickle.loads(pickle.dumps(net.get_state())),
        ):
            co.save_state(made, path)
            net.set_state(co.load_state(path))
            with pytest.raises(co.StateMismatch, match="other weights"):
                other.set_state(co.load_state(path))
        loaded = co.load_state(path)
        co.save_state(loaded, path)
        with pytest.raises(co.StateMismatch, match="other weights"):
            other.set_state(co.load_state(path))
        _, went_on = net.steps(clip, loaded)
    co.save_state(went_on, path)
    net.set_state(co.load_state(path))


def test_a_state_of_weights_that_nobody_knows(saved):
    """Of a pickle that was made when they had changed."""
    net, _, path = saved
    state = net.get_state()
    with torch.no_grad():
        net[0].bias.add_(1)
    co.save_state(pickle.loads(pickle.dumps(state)), path)
    with pytest.warns(UserWarning, match="does not name the weights with which it was made. Save the state again, or"):
        net.set_state(co.load_state(path))
    net.set_state(co.load_state(path, allow_other_weights=True))


def first_version(path: Path, **more: str) -> None:
    """As files were before they had digests."""
    with safe_open(path, framework="pt") as file:
        header = (
            {k: v for k, v in file.metadata().items() if k not in ("digest", "weights", "parts", "items")}
            | {"version": "1"}
            | more
        )
    save_file(load_file(path), path, metadata=header)


def test_files_of_the_first_version_are_read_with_a_warning(saved):
    net, clip, path = saved
    first_version(path)
    with pytest.warns(
        UserWarning, match="has no digest of its content, .* of version 1 of the format. Save the state again, or accept"
    ):
        state = co.load_state(path)
    with torch.no_grad():
        want = net.forward_step(clip[:, :, 31])
        net.set_state(state)
        assert torch.equal(net.forward_step(clip[:, :, 31]), want)
    network().set_state(co.load_state(path, allow_other_weights=True))  # without a warning, which would be an error


def test_a_file_is_not_of_the_first_version_because_it_says_so(saved):
    first_version(saved[2], weights="")
    with pytest.raises(co.StateMismatch, match="is damaged: its header is not that of version 1 of the format"):
        co.load_state(saved[2])
    rewrite(saved[2], sealed=False, version="2")
    with pytest.raises(co.StateMismatch, match="is damaged: its header is not that of version 2 of the format"):
        co.load_state(saved[2])


@pytest.mark.parametrize("other", [lambda: network(5), lambda: network().double(), lambda: co.Delay(2), lambda: network()[:2]])
def test_another_network_is_refused_and_keeps_its_state(saved, other):
    state, net = co.load_state(saved[2]), other()
    with pytest.raises(co.StateMismatch, match="belongs to another network"):
        net.set_state(state)
    assert net.get_state() is None


def test_a_cold_stream_has_no_state_to_save(tmp_path: Path):
    with pytest.raises(co.StateMismatch, match="get_state\\(\\) of a cold stream is None"):
        co.save_state(network().get_state(), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_at_once(saved):
    net, clip, path = saved
    with torch.no_grad():
        net.forward_step(clip[:, :, 31])
    co.save_state(net.get_state(), path)
    assert co.load_state(path).clock == 32
    assert [p.name for p in path.parent.iterdir()] == [path.name]
