"""Rows of what networks are used for: loops over frames, exact windows, front ends, and a thousand streams at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from tests.convert.loops.networks import ConvLSTMCell

from . import signals, zoo
from .loops import Looped
from .measure import require_equal
from .subjects import Subject, recompute, streaming
from .window_signals import Keywords
from .workloads import WORKLOADS

ROWS = 1000  # streams of a batch
EXAMPLE = 9  # frames of the clip on which loops are converted
THEIRS = "it has nothing like it"


class Swapped(nn.Module):
    """A module of clips ``(B, T, C, *S)`` for clips ``(B, C, T, *S)``."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x.transpose(1, 2)).transpose(1, 2)
        return y


def of_loop(name: str, cell: Callable[[], Any], states: int, frame: tuple[int, ...]) -> Subject:
    """A cell over frames; without us people call it by hand, and keep its state."""
    torch.manual_seed(0)
    looped = Looped(cell(), states).eval()
    module = Swapped(looped).eval()
    start = time.perf_counter()
    net: Any = co.continual(module, torch.randn(2, frame[0], EXAMPLE, *frame[1:]))
    took = time.perf_counter() - start
    clip = torch.randn(1, frame[0], 8, *frame[1:])
    x = clip[:, :, 0].clone()
    state = looped.cold(x)

    def by_hand() -> Any:
        nonlocal state
        state = looped.cell(x, state)
        return state

    return streaming(name, net, module, clip, by_hand, took, THEIRS)


def of_window(name: str, plan: co.WindowPlan) -> Subject:
    """A classifier of spectrograms of 100 frames: a score of each window, every other frame."""
    torch.manual_seed(0)
    module = zoo.alive(Keywords()).eval()
    example = torch.randn(2, 1, 100, 40)
    start = time.perf_counter()
    net: Any = co.continual(module, example, windows=plan)
    took = time.perf_counter() - start
    length, hop = net.windows.length, net.windows.every
    clip = torch.randn(1, 1, length + 2 * hop, 40)

    def whole(x: Tensor) -> Tensor:
        return torch.stack([module(x[:, :, i : i + length]) for i in range(0, x.shape[2] - length + 1, hop)], 2)

    call = recompute(module, clip[:, :, :length], clip[:, :, length : length + hop].clone())
    require_equal("window", call(), whole(clip)[:, :, 1])
    return streaming(name, net, whole, clip, call, took, THEIRS)


def of_front_end(name: str, place: int) -> Subject:
    """Log-mel in hops of 160 samples, alone or before convolutions."""
    torch.manual_seed(0)
    work = signals.workloads()[place]
    hop, field = signals.HOP, int(work.net.receptive_field)
    clip = torch.randn(1, 1, field + 2 * hop)

    def module(x: Tensor) -> Tensor:
        y: Tensor = work.module(x[:, 0])
        return y

    call = recompute(module, clip[:, :, :field], clip[:, :, field : field + hop].clone())
    require_equal("window", call(), module(clip)[:, :, 1:2])
    return replace(streaming(name, work.net, module, clip, call, 0.0, THEIRS), clip_operations=0.0)  # no one counts torch.stft


def of_tcn_rows(name: str) -> Subject:
    """The TCN of the layers, for a thousand streams."""
    workload = next(w for w in WORKLOADS if w.name.startswith("TCN of 8"))
    plain = workload.constant_rate()
    net: Any = co.continual(plain)
    clip = torch.randn(ROWS, 64, net.receptive_field + 2)
    call = recompute(plain, clip[:, :, : net.receptive_field], clip[:, :, :1].clone())
    return streaming(name, net, plain, clip, call, 0.0, THEIRS)


def of_keyword_rows(name: str) -> Subject:
    """The keyword spotter of the zoo, for a thousand streams."""
    torch.manual_seed(0)
    net: Any = zoo.alive(co.models.create("kws_ds_cnn"))
    field, hop = int(net.receptive_field), int(net.step_size)
    clip = torch.randn(ROWS, 1, net.delay + 1 + 2 * hop, *net.step_shape[1:])
    call = recompute(net.forward, torch.randn(ROWS, 1, field, *net.step_shape[1:]), clip[:, :, :hop].clone())
    return streaming(name, net, net.forward, clip, call, 0.0, THEIRS)


def made(build: Callable[..., Subject], name: str, *options: Any) -> Subject:
    """With ordinary parameters, as in networks that were loaded before."""
    with torch.inference_mode(False), torch.no_grad():
        return build(name, *options)


def rows() -> dict[str, Callable[[], Subject]]:
    """All of them, for the suite."""
    found: dict[str, tuple[Any, ...]] = {
        "loop of a ConvLSTM 16, 32²": (of_loop, partial(ConvLSTMCell, 16, 16), 2, (16, 32, 32)),
        "loop of a GRUCell 64": (of_loop, partial(nn.GRUCell, 64, 64), 1, (64,)),
        "window of 100 × 40, taken over": (of_window, co.WindowPlan(every=2)),
        "window of 100 × 40, recomputed": (of_window, co.WindowPlan(every=2, stride=0)),
        "log-mel, hop 160": (of_front_end, 0),
        "log-mel and 3 × Conv1d, hop 160": (of_front_end, 1),
        f"TCN of 8 × Conv1d 64 k3, {ROWS:,} streams": (of_tcn_rows,),
        f"kws_ds_cnn, {ROWS:,} streams": (of_keyword_rows,),
    }
    return {name: partial(made, build, name, *options) for name, (build, *options) in found.items()}
