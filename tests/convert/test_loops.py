"""Loops over the frames of a clip that are not a recurrence are found before a long export, and are refused on a short one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph import conversion as convert
from continual.convert.graph import frame_loops as loops
from continual.convert.graph.frame_loops import calls_of, shortened


class Filter(nn.Module):
    """A recursive filter, sample by sample, whose gain falls with their number."""

    def __init__(self, shortest: int = 1):
        super().__init__()
        self.gain, self.shortest = nn.Parameter(torch.tensor(0.5)), shortest

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < self.shortest:
            raise ValueError("too short")
        y, found = x[:, 0], []
        for i, frame in enumerate(x.unbind(1)):
            y = frame + self.gain * y / (i * i + 2)
            found.append(y)
        return torch.stack(found, 1)


class Layers(nn.Module):
    """As many layers as others have frames."""

    def __init__(self, count: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(2, 2, 1) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).relu()
        return x


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames of the clips that are exported."""
    frames: list[int] = []
    whole = convert.capture

    def capture(module: nn.Module, clip: Any, time_dim: Any) -> Any:
        found = whole(module, clip, time_dim)
        frames.append(found.steps)
        return found

    monkeypatch.setattr(convert, "capture", capture)
    return frames


@pytest.mark.parametrize(("shortest", "looked_at"), [(1, 8), (20, 24)])
def test_a_loop_over_frames_is_refused_on_a_short_clip(exported: list[int], shortest: int, looked_at: int) -> None:
    """The export grew with the clip, by up to half a second for each 10 frames."""
    with pytest.raises(co.NotStreamable, match=r"a number in the loop depends on the iteration: \d+, \d+") as refused:
        co.continual(Filter(shortest).eval(), torch.randn(2, 400), time_dim=1)
    assert "y = frame + self.gain * y / (i * i + 2)" in str(refused.value)
    assert exported == [looked_at]


def test_short_clips_and_many_layers_are_exported_once(exported: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "MANY", 8)
    module = Layers(10).eval()
    clip = torch.randn(2, 2, 50)
    torch.testing.assert_close(co.continual(module, clip)(clip), module(clip))
    with pytest.raises(co.NotStreamable, match="a number in the loop"):
        co.continual(Filter().eval(), torch.randn(2, 7), time_dim=1)
    assert exported == [50, 7]


def test_a_run_on_shapes_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "ENOUGH", 20)
    calls = calls_of(Filter().eval(), (torch.randn(2, 90),))
    assert calls is not None
    assert max(calls.values()) == 21


def test_a_loop_that_needs_the_whole_clip_is_exported_as_it_is() -> None:
    """No length that is tried suits it."""
    assert shortened(Filter(60).eval(), (torch.randn(2, 60),), 1) is None


def test_the_look_leaves_the_module_alone() -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x * 2
            return self.last

    module = Keeps().eval()
    assert calls_of(module, (torch.randn(2, 3),)) is not None
    assert not hasattr(module, "last")


def test_the_window_of_a_long_loop_is_not_exported():
    """It would take minutes: the refusal of the stream comes as fast as without windows."""
    with pytest.raises(co.NotStreamable, match="a number in the loop"):
        co.continual(Filter().eval(), torch.randn(2, 4000), time_dim=1)
