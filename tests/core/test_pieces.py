"""Long chunks of large frames are computed in pieces: with the same outputs and state, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core import inputs
from continual.core.state import StepSpec
from tests.contract import assert_equal
from tests.long import by_turns

SIZE = 4  # the smallest piece


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames are large."""
    monkeypatch.setattr(inputs, "PIECE", 1)


def lengths_of(net: co.CoModule) -> list[int]:
    """How long the chunks are that a module gets from now on."""
    found: list[int] = []
    advance = net.advance

    def watched(x: Any, *rest: Any) -> Any:
        found.append(inputs.length(x))
        return advance(x, *rest)

    net.__dict__["advance"] = watched
    return found


class Frames(nn.Module):
    """Space, norms and a residual, for conversion by the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.down = nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Conv3d(4, 3, (3, 1, 1), (2, 1, 1))
        nn.init.uniform_(self.norm.running_mean)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.down(torch.relu(y) + y)


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "one layer": (lambda: co.Conv1d(2, 3, 5, padding=2), (2, 2, 31)),
    "strides": (lambda: co.Sequential(co.Conv1d(2, 4, 3, stride=2, padding=1), nn.Tanh(), co.MaxPool1d(3, 3)), (3, 2, 41)),
    "residual": (lambda: co.Residual(co.Conv2d(2, 2, 3, padding=1)), (2, 2, 21, 3)),
    "up": (lambda: co.Sequential(co.Conv1d(2, 3, 3), co.ConvTranspose1d(3, 2, 4, 2), co.Conv1d(2, 2, 2)), (2, 2, 23)),
    "recurrent": (lambda: co.Sequential(co.GRU(2, 5), co.Linear(5, 2, channel_dim=1)), (2, 2, 19)),
    "attention": (lambda: co.MultiheadAttention(4, 2, sequence_len=6, embed_dim_second=True), (2, 4, 26)),
    "end padding alone": (lambda: co.Conv1d(2, 3, 9, padding=8), (2, 2, 14)),
    "converted": (lambda: co.continual(Frames().eval(), torch.randn(1, 2, 9, 5, 4)), (2, 2, 27, 5, 4)),
}


@pytest.mark.parametrize("name", by_turns(NETWORKS, 2))
def test_the_contract(name: str):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    net, clip = build().eval(), torch.randn(*shape)
    co.verify(net, clip, splits=3)
    lengths = lengths_of(net)
    with torch.no_grad():
        got = net.forward_steps(clip, pad_end=True)
        assert_equal(got, net(clip))
    whole = [n for n in lengths if n]
    assert (sum(whole), len(whole)) == (shape[2], -(-shape[2] // SIZE))
    assert max(whole) <= SIZE


def test_an_error_in_a_later_piece_changes_nothing():
    def careful(x: Tensor) -> Tensor:
        if bool((x > 100).any()):
            raise ValueError("too loud")
        return x

    net = co.Sequential(co.Conv1d(1, 2, 3), co.Lambda(careful), co.Conv1d(2, 1, 3)).eval()
    clip = torch.randn(2, 1, 30)
    with torch.no_grad():
        want = net.forward_steps(clip)
        net.clean_state()
        parts = [net.forward_steps(clip[:, :, :9])]
        loud = clip[:, :, 9:].clone()
        loud[:, :, 15] = 1e6
        with pytest.raises(ValueError, match="too loud"):
            net.forward_steps(loud)
        parts.append(net.forward_steps(clip[:, :, 9:]))
    assert_equal(torch.cat(parts, 2), want)


@pytest.mark.parametrize("pad_end", [False, True])
def test_a_look_ahead_leaves_the_stream(pad_end: bool):
    net = co.Sequential(co.Conv1d(2, 3, 3, padding=1), co.Conv1d(3, 2, 3, stride=2, padding=1)).eval()
    clip = torch.randn(2, 2, 40)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :7])
        state = net.get_state()
        ahead = net.forward_steps(clip[:, :, 7:], pad_end=pad_end, update_state=False)
        assert net.get_state().clock == 7
        assert all(torch.equal(a, b) for a, b in zip(state.tensors.values(), net.get_state().tensors.values(), strict=True))
        assert_equal(net.forward_steps(clip[:, :, 7:], pad_end=pad_end), ahead)


def test_snapshots_from_before_keep_what_they_had():
    net = co.Conv1d(2, 3, 4).eval()
    clip = torch.randn(1, 2, 50)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :10])
        before = net.get_state()
        want = net.forward_steps(clip[:, :, 10:])
        net.set_state(before)
        assert_equal(net.forward_steps(clip[:, :, 10:]), want)


def test_gradients_are_those_of_the_whole_chunk():
    net = co.Conv1d(2, 3, 3)
    clip, lengths = torch.randn(2, 2, 20), lengths_of(net)
    net.forward_steps(clip)
    with torch.no_grad():
        net.forward_steps(clip)
    assert lengths == [20] + [SIZE] * 5


def test_small_frames_and_other_devices_take_chunks_whole(monkeypatch: pytest.MonkeyPatch):
    x = torch.randn(1, 2, 50)
    assert [p.shape[2] for p in inputs.pieces(x, 0)] == [50]
    monkeypatch.undo()
    assert [p.shape[2] for p in inputs.pieces(x, inputs.PIECE // 20)] == [17, 17, 16]
    assert [p.shape[2] for p in inputs.pieces(x, inputs.PIECE // 50)] == [50]
    assert [[t.shape[2] for t in p] for p in inputs.pieces([x, x], inputs.PIECE // 30)] == [[25, 25], [25, 25]]
    frame = co.Conv1d(2, 3, 3).init_state(torch.zeros(5, 2))
    assert frame.largest == 5 * 3 * 4
    assert StepSpec.of(torch.zeros(5, 2)).nbytes == 40
    assert StepSpec.of(torch.zeros(5, 2, device="meta")).nbytes == 0
