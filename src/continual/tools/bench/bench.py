"""`bench`: how fast a network streams, in each form that runs here, against recomputing windows and clips."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.module import CoModule
from ...core.progress import Progress
from ...core.step_spec import Inputs
from ...errors import NotStreamable
from ...export.runner import Runner
from ...streams.network import name_of
from .forms import NAMES, FileForms, Form, FormName, Forms, Missing, folder, noise
from .result import Benchmark, FormTimes
from .timing import alternate, conditions


def bench(
    net: CoModule | Runner,
    step: Inputs,
    *,
    rate: float | None = None,
    forms: Sequence[FormName] | None = None,
    clip_length: int | None = None,
    threads: int = 1,
    seconds: float = 4.0,
    rounds: int = 15,
    name: str | None = None,
    progress: bool | None = None,
) -> Benchmark:
    """Measure a step of a network in each form that runs here, and what recomputing costs.

    The forms take turns in blocks, so that whatever else the machine does meets all of them. Each call is timed by itself.

    Args:
        net: a streaming network, in eval mode, which is not changed; or a file opened by :func:`continual.load`, with one form, ``"file"``.
        step: an example step ``(B, C, *S)``, a list for several inputs. Real numbers are replaced by noise.
        rate: steps per second, by default that of a file: adds the real-time factor, and how many streams one core keeps up with.
        forms: ``"eager"`` (``forward_step``), ``"fused"`` (of ``co.fuse(net)``), ``"compiled"`` (``co.compile``, which takes seconds to
            minutes), and the exported forms ``"onnxruntime"``, ``"openvino"`` and ``"executorch"``. ``"window"``: the clip network on the
            last ``receptive_field`` steps, for each output. ``"clip"``: the clip network on a whole clip. ``None``: all for which the
            compiler and the packages are here.
        clip_length: steps of the clip; ``None``: 64, or two windows if that is more.
        threads: of PyTorch and of the runtimes.
        seconds: to measure, all forms together, about. Slow calls are measured three times a round at least.
        rounds: blocks of each form.
        name: of the network, for the table; ``None``: its class.
        progress: whether to show on the standard error what is done, if it takes long; ``None``: on a terminal.

    Returns:
        The times: ``print`` shows a table, ``.plot()`` a picture, ``.to_dict()`` gives numbers.

    Raises:
        NotStreamable: not a streaming network, or one in training mode.
        ValueError: an unknown form, or none that runs here.

    Example:
        >>> net = co.Sequential(co.Conv1d(4, 8, 9), nn.BatchNorm1d(8), nn.ReLU()).eval()
        >>> found = co.bench(net, torch.zeros(1, 4), rate=100, forms=("eager", "fused", "window"), seconds=0.05, rounds=3)
        >>> print(found)
        Sequential, steps (1, 4), 1 thread on ...; delay 8 (80 ms)
        form ...p50 ...p99 ...a step  speed-up  real time  streams a core ...state ...peak
        ...
        eager ...
        >>> found["window"].ratio, found.window, sorted(found.to_dict())[:3]
        (1.0, 9, ['clip', 'delay', 'device'])
    """
    _check(net, rate, forms)
    rate = net.rate if isinstance(net, Runner) and rate is None else rate
    with conditions(threads), folder() as path, Progress(f"measuring {name_of(net)}", progress) as doing:
        if isinstance(net, Runner):
            made: Forms | FileForms = FileForms(net, noise(step))
        else:
            made = Forms(net, noise(step), clip_length, threads, Path(path))
        found, missing = _made(made, list(forms) if forms is not None else made.default(), forms is not None, doing)
        if not found:
            raise ValueError(f"co.bench: none of these forms runs here: {missing}")
        wait = torch.cuda.synchronize if made.device.type == "cuda" else None
        blocks = alternate(
            [form.call for form in found],
            [form.period for form in found],
            rounds,
            seconds,
            wait,
            lambda done: doing.part(done, rounds, "rounds"),
        )
    return Benchmark(
        name or name_of(net),
        tuple(_times(found, blocks, rate, made, threads)),
        missing,
        tuple(tuple(t.shape) for t in ([step] if isinstance(step, Tensor) else step)),  # type: ignore[union-attr]
        made.window,
        made.clip_length,
        net.delay,
        rate,
        threads,
        machine(made.device),
        str(made.device),
        rounds,
    )


def _check(net: Any, rate: float | None, forms: Sequence[str] | None) -> None:
    if not isinstance(net, (CoModule, Runner)):
        raise NotStreamable(
            f"co.bench takes a streaming network, not {type(net).__name__}: convert it by co.continual(module, clip) "
            "before, or open a file by co.load(path)"
        )
    if isinstance(net, CoModule) and net.training:
        raise NotStreamable("co.bench measures inference, and this network is in training mode: co.bench(net.eval(), step)")
    if rate is not None and not rate > 0:
        raise ValueError(f"co.bench: rate is above 0, got {rate!r}")
    if unknown := [name for name in forms or () if name not in NAMES]:
        raise ValueError(f"co.bench: forms are {', '.join(map(repr, NAMES))}, not {unknown[0]!r}")


def _made(forms: Forms | FileForms, names: list[FormName], asked: bool, doing: Progress) -> tuple[list[Form], dict[str, str]]:
    """The forms that run here, and why others do not."""
    found, missing = list[Form](), dict[str, str]()
    for i, name in enumerate(names):
        doing.part(i, len(names), f"making {name}")
        try:
            found.append(forms.make(name))
        except Missing as error:
            if asked or name != "fused":
                missing[name] = str(error)
    return found, missing


def _times(
    forms: list[Form], blocks: list[list[list[float]]], rate: float | None, made: Forms | FileForms, threads: int
) -> list[FormTimes]:
    each = [[_of_period(calls, form.period) / form.steps for calls in own] for form, own in zip(forms, blocks, strict=True)]
    window = next((own for form, own in zip(forms, each, strict=True) if form.name == "window"), None)
    found = []
    for form, own, steps in zip(forms, blocks, each, strict=True):
        calls = sorted(t for block in own for t in block)
        step = statistics.median(steps)
        ratio = None if window is None else statistics.median(w / s for w, s in zip(window, steps, strict=True))
        load = None if rate is None else 1 / (rate * step)
        found.append(
            FormTimes(
                form.name,
                statistics.median(calls),
                calls[min(len(calls) - 1, int(0.99 * len(calls)))],
                step,
                ratio,
                load,
                None if load is None or made.device.type != "cpu" else int(made.rows * load / threads),
                form.state,
                form.peak,
            )
        )
    return found


def _of_period(calls: Sequence[float], period: int) -> float:
    """The time of a call, the mean over a period of calls with different work. Calls that something interrupted do not count."""
    return statistics.fmean(statistics.median(calls[i::period]) for i in range(period))


def machine(device: torch.device) -> str:
    """The processor, or the GPU, and the version of PyTorch."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = _processor() or platform.machine()
    return f"{name}, torch {torch.__version__.partition('+')[0]}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((" ".join(line.partition(":")[2].split()) for line in lines if line.startswith("model name")), "")
