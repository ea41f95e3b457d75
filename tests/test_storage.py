"""States in files: written, read in another process's place, and refused where they can't be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import continual as co


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


def test_several_streams_at_once(tmp_path: Path):
    net = co.Parallel(co.Conv1d(2, 2, 3, padding=1), co.Delay(2))
    clips = [torch.randn(2, 2, 20), torch.randn(2, 3, 20)]
    net.forward_steps([c[:, :, :7] for c in clips])
    co.save_state(net.get_state(), tmp_path / "s")
    went_on = net.forward_steps([c[:, :, 7:] for c in clips])
    net.set_state(co.load_state(tmp_path / "s"))
    for a, b in zip(went_on, net.forward_steps([c[:, :, 7:] for c in clips])):
        assert torch.equal(a, b)


def test_a_truncated_file_is_refused(saved):
    path = saved[2]
    content = path.read_bytes()
    for size in (0, 4, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(co.StateMismatch, match="is damaged or no state file"):
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


def rewrite(path: Path, **changes: str) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
    save_file(load_file(path), path, metadata=header)


def test_a_future_version_is_refused(saved):
    rewrite(saved[2], version="2")
    with pytest.raises(co.StateMismatch, match="has format version '2', this library reads 1"):
        co.load_state(saved[2])


def test_a_damaged_header_is_refused(saved):
    rewrite(saved[2], frame="[")
    with pytest.raises(co.StateMismatch, match="header .* is damaged"):
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
