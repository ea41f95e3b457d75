"""Loops that go on by several frames, over windows, or behind temporal strides."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph.loops import rolled
from continual.convert.graph.loops.paces import pace_of
from tests.convert.loops.paced_networks import CASES, Parts, windows
from tests.long import one_in
from tests.programs.rows import check_rows


@cache
def made(name: str) -> tuple[co.CoModule, nn.Module, Tensor]:
    """The converted network, the module, and a clip longer than its example, whose end no stride divides."""
    module = Parts(CASES[name].run).double().eval()
    for p in module.parameters():
        nn.init.normal_(p, std=0.4)
    frames = CASES[name].frames
    return co.continual(module, torch.randn(2, 3, frames).double()), module, torch.randn(3, 3, 2 * frames + 1).double()


@pytest.mark.parametrize("name", CASES)
def test_such_loops_stream(name: str) -> None:
    net, module, clip = made(name)
    assert (net.delay, net.stride[0]) == CASES[name][2:]
    co.verify(net, clip, reference=module)


@pytest.mark.parametrize("name", ["two_rates", "padded", "clamped", "backward_in_windows"])
def test_such_loops_in_a_program(name: str) -> None:
    net, _, clip = made(name)
    check_rows(net, clip)


def chunks(m: Parts, x: Tensor) -> Tensor:
    return m.recurrent([m.near(c).mean(2) for c in x.split(4, dim=2)])


def test_a_last_chunk_with_fewer_frames_is_refused() -> None:
    clip = torch.randn(2, 3, 16)
    with pytest.raises(co.NotStreamable, match="an iteration takes 4 frames, and the last one fewer if the clip ends within it"):
        co.continual(Parts(chunks).eval(), clip)
    cropped = Parts(lambda m, x: chunks(m, x[:, :, : x.shape[2] // 4 * 4])).eval()  # the remedy
    co.verify(co.continual(cropped, clip), torch.randn(2, 3, 63), reference=cropped)


def test_an_example_of_three_chunks() -> None:
    """Other short clips have as many."""
    module = Parts(lambda m, x: chunks(m, x[:, :, : x.shape[2] // 4 * 4])).eval()
    co.verify(co.continual(module, torch.randn(2, 3, 12)), torch.randn(2, 3, 41), reference=module)


def test_a_score_of_all_windows_is_an_exact_window() -> None:
    module = Parts(lambda m, x: torch.stack([m.near(w).amax(2) for w in windows(x, 12, 6)], 2).mean(2)).eval()
    net = co.continual(module, torch.randn(2, 3, 48))
    assert (net.windows.length, net.windows.every) == (48, 6)
    assert net.windows.reuse > 0.8
    co.verify(net, torch.randn(2, 3, 110), reference=module)


@pytest.mark.parametrize(("width", "hop"), [(1, 1), (1, 3), (5, 3), (20, 10), (7, 64), (100, 50)])
def test_the_pace_is_the_distance_of_lengths_with_another_iteration(width: int, hop: int) -> None:
    def total(frames: int) -> int | None:
        return 4 + 3 * ((frames - width) // hop + 1) if frames >= width else None

    asked: list[int] = []
    pace = pace_of(lambda n: asked.append(n) or total(n), 1000)
    assert pace is not None
    assert pace.frames == hop
    assert len(set(asked)) < 60
    assert min(asked) > 0


def test_a_module_that_takes_multiples_has_a_pace() -> None:
    assert pace_of(lambda n: None if n % 8 else n // 16, 960) == (16, 32, 8)


def test_no_loop_has_no_pace() -> None:
    asked: list[int] = []
    assert pace_of(lambda n: asked.append(n) or (9 if n >= 2900 else None), 3000) is None
    assert len(asked) < 24  # lengths that the module refuses are asked for once
    assert pace_of(lambda n: 9, 1000) is None
    assert pace_of(lambda n: 9 if n == 16 else None, 16) is None


@one_in(2)
def test_lengths_of_a_module_without_loops_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example and two short clips have as many calls."""
    monkeypatch.setattr(rolled, "pace_of", lambda *_: pytest.fail("not needed"))
    co.continual(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 20))


def test_clips_that_are_exported_end_within_an_iteration() -> None:
    pace = pace_of(lambda n: 4 + (n - 3) // 10, 500)
    assert pace is not None
    assert next(pace.clips()) == (74, 64)
    assert next(pace.clips(full=True)) == (82, 72)
