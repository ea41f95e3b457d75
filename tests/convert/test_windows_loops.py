"""Exact windows of loops over frames that are not a recurrence, and of modules of registered classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.convert.test_loops import Filter
from tests.convert.test_registered import CoEcho, Echo
from tests.convert.windows import close, made, noise, stacked, windows_of


class Backwards(nn.Module):
    """A cell from the last frame to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 4)
        for t in reversed(range(x.shape[2])):
            h = self.cell(x[:, :, t], h)
        return self.head(h)


def test_a_loop_over_many_frames_has_windows():
    """It was refused from 32 frames on."""
    module, clip = made(Backwards()), noise(2, 3, 43)
    net = co.continual(module, clip[:, :, :40])
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 1)))


def test_a_sequence_of_such_a_loop_is_refused_with_the_remedy():
    module, clip = made(Filter()), noise(2, 38)
    with pytest.raises(co.NotStreamable, match=r"output=-1\), the last frame of each window of 35 steps"):
        co.continual(module, clip[:, :35], time_dim=1)
    net = co.continual(module, clip[:, :35], time_dim=1, output=-1)
    close(net.forward_steps(clip), stacked([y[:, -1] for y in windows_of(module, clip, 35, 1, 1)]))


def test_a_loop_that_is_too_long_is_refused_with_the_length_that_is_not():
    with pytest.raises(co.NotStreamable, match=r"a number in the loop(?s:.)*of each window of \d{3} steps"):
        co.continual(made(Filter()), noise(2, 4000), time_dim=1)
    with pytest.raises(
        co.NotStreamable, match=r"a loop over 4000 frames, and up to 2,000 such calls(?s:.)*an example of \d{3} frames at most"
    ):
        co.continual(made(Filter()), noise(2, 4000), time_dim=1, output=-1)


class Guarded(Echo):
    """The same, whose code looks at values: torch.export does not follow it."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.abs().max()) > 1e6:
            return x
        return super().forward(x)


class Scored(nn.Module):
    """A module of a registered class between convolutions, and one score of the clip."""

    def __init__(self, echo: type[Echo]):
        super().__init__()
        self.conv, self.echo, self.head = nn.Conv1d(3, 4, 5), echo(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.echo(self.conv(x)).amax(2))


@pytest.mark.parametrize("echo", [Echo, Guarded])
def test_windows_of_registered_classes(echo, monkeypatch):
    """They stay one call where their code has a loop over many frames, or can't be exported. It was exported, or refused."""
    from continual.core import registry

    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    monkeypatch.setattr(registry, "_chosen", {})
    co.convert.register(echo, CoEcho)
    module, clip = made(Scored(echo)), noise(2, 3, 43)
    net = co.continual(module, clip[:, :, :40], windows=co.WindowPlan())
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 1)))
    assert "echo: is computed as CoEcho" in net.notes
    with torch.no_grad():
        net.echo.scale.mul_(-0.7)
    net.clean_state()
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 1)))
