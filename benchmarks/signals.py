"""Front ends in steps of a hop, beside recomputing the window with torch.

    python -m benchmarks.signals [--no-compiled] [--rounds N] [--markdown FILE]

Log-mel of 80 bands, 512 samples and a hop of 160, alone and before three convolutions. The window is kept by its caller, who appends the
hop (`torch.cat`), and computed with `torch.stft`. Candidates take turns; ratios are taken within each round. One thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

from . import report
from .measure import require_equal
from .timing import Local, Timings, alternate, conditions

N_FFT, HOP, MELS = 512, 160, 80
MIN_BLOCK = 0.02  # seconds
HEADER = ("network", "window, µs", "a hop / window", "compiled / window", "single samples, µs each")


class Recomputed(nn.Module):
    """Log-mel of a window as people write it."""

    def __init__(self, filters: Tensor):
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT))
        self.register_buffer("filters", filters)

    def forward(self, x: Tensor) -> Tensor:
        """``(1, T)`` to ``(1, MELS, frames)``."""
        spectra = torch.stft(x, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        power = spectra.abs().pow(2)
        return torch.matmul(power.transpose(1, 2), self.filters).transpose(1, 2).clamp(min=1e-10).log()


@dataclass
class Workload:
    """A streaming network, and a module for clips that is the same function."""

    name: str
    net: Any
    module: nn.Module


def workloads() -> list[Workload]:
    """Log-mel, and log-mel before three convolutions."""
    mel = co.LogMel(16_000, N_FFT, hop_length=HOP, n_mels=MELS, center=False)
    convs: list[nn.Module] = []
    for i in range(3):
        convs += [nn.Conv1d(64 if i else MELS, 64, 3), nn.ReLU()]
    deep = co.continual(nn.Sequential(*convs))
    alone = Workload("log-mel", mel.eval(), Recomputed(mel.fb).eval())
    return [
        alone,
        Workload("log-mel, 3 convolutions", co.Sequential(mel, *deep).eval(), nn.Sequential(alone.module, *convs).eval()),
    ]


def window_of(work: Workload) -> Callable[[], Tensor]:
    """Keep the window, and compute it."""
    window, hop = torch.randn(1, int(work.net.receptive_field)), torch.randn(1, HOP)

    def call() -> Tensor:
        nonlocal window
        window = torch.cat((window[:, HOP:], hop), 1)
        y: Tensor = work.module(window)
        return y

    return call


def hop_of(work: Workload) -> Callable[[], Tensor]:
    """``forward_steps`` on a hop, in the middle of a stream."""
    net, hop = work.net.new_stream(), torch.randn(1, 1, HOP)
    net.forward_steps(torch.randn(1, 1, int(net.receptive_field)))
    return lambda: net.forward_steps(hop)


def compiled(work: Workload) -> Callable[[], Tensor]:
    """A call of the compiled program."""
    program, hop = co.compile(work.net, torch.zeros(1, 1), backend="aot"), torch.randn(1, 1, HOP)
    state = program.init_state()

    def call() -> Tensor:
        nonlocal state
        y, _, state = program.run(hop, state)
        return y  # type: ignore[return-value]

    return call


def samples_of(work: Workload) -> Callable[[], None]:
    """The samples of a hop one by one."""
    net, samples = work.net.new_stream(), torch.randn(1, 1, HOP).unbind(2)
    net.forward_steps(torch.randn(1, 1, int(net.receptive_field)))

    def call() -> None:
        for sample in samples:
            net.forward_step(sample)

    return call


def measured(work: Workload, with_compiled: bool, rounds: int) -> Timings:
    """Time all candidates of a workload."""
    clip = torch.randn(1, 1, 4000)
    require_equal("the stream", work.net.new_stream().forward_steps(clip), work.module(clip[:, 0]))
    calls = {"window": window_of(work), "hop": hop_of(work), "samples": samples_of(work)}
    if with_compiled:
        with torch.inference_mode(False), torch.no_grad():
            calls["compiled"] = compiled(work)
    return alternate([Local(name, call) for name, call in calls.items()], rounds, MIN_BLOCK)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__)
    parser.add_argument("--no-compiled", action="store_true", help="leave out co.compile(backend='aot')")
    parser.add_argument("--rounds", type=int, default=25, help="rounds that count")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'signals' of a page")
    args = parser.parse_args(argv)
    rows = []
    for work in workloads():
        with conditions(1):
            found = measured(work, not args.no_compiled, args.rounds)
        ratios = [f"{found.ratio(n, 'window').median:.2f}×" if n in found.rounds else "–" for n in ("hop", "compiled")]
        each = found.stats("samples").median * 1e6 / HOP
        rows.append((work.name, report.number(found.stats("window").median * 1e6), *ratios, report.number(each)))
    said = f"Measured: {report.Machine.here()}; 1 thread, batch 1, medians of alternating blocks."
    text = f"{said}\n\n{report.markdown_table(HEADER, rows)}"
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "signals", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
