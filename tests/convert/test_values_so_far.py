"""Modules that give the state after the clip, or another value of its last frame, beside a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import continual as co
from tests.convert.cases import noise, seeded
from tests.convert.loops.networks import ConvLSTMCell
from tests.export.artefacts import unwritten
from tests.programs.rows import check_rows


class Recurrent(nn.Module):
    """What a recurrent layer gives."""

    def __init__(self, kind: type = nn.LSTM, **options: Any):
        super().__init__()
        self.layer = kind(5, 6, **options)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Delayed(nn.Module):
    """The sequence waits for later frames, and so does what leaves with it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.layer, self.behind = (
            nn.Conv1d(5, 5, 3, padding=1),
            nn.GRU(5, 6, batch_first=True),
            nn.Conv1d(6, 4, 5, padding=2),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.layer(self.before(x).transpose(1, 2))
        return self.behind(y.transpose(1, 2)), h.squeeze(0).tanh()


class Loop(nn.Module):
    """A cell by hand, with both of its states, nested."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = ConvLSTMCell(2, 3)

    def forward(self, x: Tensor) -> Any:
        h = c = x.new_zeros(x.shape[0], 3, *x.shape[3:])
        outs = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            outs.append(h)
        return {"frames": torch.stack(outs, 1), "states": [[h, c]]}


class Picked(nn.Module):
    """The last frame, without a state."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = x.cumsum(1)
        return y, y[:, -1], x[:, -1:]


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, tuple[int, ...]]] = {
    "lstm of two layers": (lambda: Recurrent(num_layers=2, batch_first=True), (2, 14, 5), 1, (1, 2)),
    "gru, time first": (lambda: Recurrent(nn.GRU, num_layers=2), (14, 2, 5), 0, (1,)),
    "behind a delay": (Delayed, (2, 5, 14), 2, (1,)),
    "a loop": (Loop, (2, 9, 2, 5, 4), 1, (1, 2)),
    "the last frame": (Picked, (2, 14, 5), 1, (1, 2)),
}


def made(name: str) -> tuple[Any, nn.Module, Tensor]:
    """The converted network, the module, and a clip longer than its example."""
    build, shape, time, _ = CASES[name]
    module, longer = seeded(build), list(shape)
    longer[time] = 2 * shape[time] + 5
    return co.continual(module, noise(*shape), time_dim=time), module, noise(*longer)


@pytest.mark.parametrize("name", CASES)
def test_values_of_the_clip_so_far(name: str) -> None:
    """They leave in each step; after the last one they are the module's."""
    net, module, clip = made(name)
    assert net.windows is None
    assert net.running == CASES[name][3]
    assert sum("the stream after each step" in note for note in net.notes) == len(net.running)
    co.verify(net, clip, reference=module)
    with torch.no_grad():
        want, got = tree_leaves(module(clip)), tree_leaves(net(clip))
        last = tree_leaves(net.forward_steps(clip, pad_end=True))
    for i, w in enumerate(want):
        torch.testing.assert_close(got[i], w)
        torch.testing.assert_close(last[i].select(net.output_time_dims[i], -1) if i in net.running else last[i], w)


@pytest.mark.parametrize("name", ["gru, time first", "behind a delay", "the last frame"])
def test_in_programs_and_files(name: str) -> None:
    net, _, clip = made(name)
    check_rows(net, clip)
    runner = unwritten(net, clip.select(net.time_dim, 0))
    want = tree_leaves(net.forward_steps(clip))
    for got, w in zip(tree_leaves(runner.forward_steps(clip)), want, strict=True):
        torch.testing.assert_close(got, w)


def test_a_step_is_as_the_module_nests_it() -> None:
    net, module, clip = made("lstm of two layers")
    y, (h, c) = net.forward_step(clip[:, 0])
    want = module(clip[:, :1])
    torch.testing.assert_close((y.unsqueeze(1), (h, c)), want)


class Meets(Recurrent):
    """Every frame is multiplied with the state after the last one."""

    def forward(self, x: Tensor) -> Any:
        y, h = self.layer(x)
        return y * h[0].unsqueeze(1), h


class Mean(Recurrent):
    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)[0]
        return y, y.mean(1)


class Fixed(Recurrent):
    """A frame by its number: the last one of the example alone."""

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)[0]
        return y, y[:, 13]


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Meets, "the last frame of the whole clip meets the clip's frames again, in `mul`"),
        (Mean, "frames leave together with a value of the whole clip that is not its last frame"),
        (Fixed, "frames leave together with a value of the whole clip that is not its last frame"),
    ],
)
def test_other_values_beside_frames_are_refused(cls: type, reason: str) -> None:
    with pytest.raises(co.NotStreamable, match=reason):
        co.continual(seeded(lambda: cls(nn.GRU, batch_first=True)), noise(2, 14, 5), time_dim=1)
