"""The figures of docs/streams.md: ``python -m benchmarks.streams --markdown docs/streams.md`` trains the network of the demonstration,
streams an ECG of which frames are lost under each policy, and measures steps of three networks. About six minutes; parts by ``--only``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from continual.cli.denoise import denoiser, noise, train
from continual.tools import pictures

from . import report

LOST = 0.1  # of all frames
BURST = 25  # frames
RATE = 360.0
POLICIES: dict[str, dict[str, Any]] = {
    "hold": {"gaps": "hold"},
    "zero": {"gaps": "zero"},
    "interpolate": {"gaps": "interpolate"},
    "reset": {"gaps": "reset"},
}
COLOURS = dict(zip(("hold", "zero", "interpolate", "reset"), pictures.CYCLE))


@dataclass(frozen=True)
class Signal:
    """A trained network, and a recording that it has not seen.

    Attributes:
        net: the streaming network.
        noisy, clean: ``(1, 1, T)``.
    """

    net: Any
    noisy: Tensor
    clean: Tensor


def signal(steps: int) -> Signal:
    """The network of `continual demo`, trained on 60 % of the ECG of PyWavelets."""
    import pywt

    samples = torch.tensor(pywt.data.ecg(), dtype=torch.float32)
    held_out = int(0.6 * len(samples))
    clean = (samples - samples[:held_out].median()) / samples[:held_out].std()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = denoiser()
    train(plain, clean[:held_out], RATE, steps, generator, lambda loss: None)
    noisy = clean + noise((1, len(clean)), RATE, generator)[0]
    return Signal(co.continual(plain), noisy.view(1, 1, -1), clean.view(1, 1, -1))


# ---- gaps -------------------------------------------------------------------------------------------------------------------


def losses(length: int, run: int, seed: int = 0) -> list[bool]:
    """Which frames come: a tenth is lost in runs of so many, the first and the last frame never."""
    generator = torch.Generator().manual_seed(seed)
    came = [True] * length
    while sum(not c for c in came) < LOST * length:
        start = int(torch.randint(1, length - run - 1, (1,), generator=generator))
        if all(came[start - 1 : start + run + 1]):
            came[start : start + run] = [False] * run
    return came


@dataclass(frozen=True)
class Gapped:
    """A stream with gaps against the stream without.

    Attributes:
        policy: its name.
        moments: of its outputs, in steps.
        values: of its outputs.
        flagged: which of them say that they see a gap.
        error: root mean square of the difference, relative to the outputs without gaps, in percent.
        worst: the largest difference, the same.
        missing: outputs that the stream without gaps has, and this one has not.
    """

    policy: str
    moments: list[int]
    values: list[float]
    flagged: list[bool]
    error: float
    worst: float
    missing: int


def streamed(own: Signal, came: Sequence[bool], policy: str) -> Gapped:
    """One stream."""
    stream = co.Stream(own.net, rate=RATE, **POLICIES[policy])
    found = []
    for t, frame in enumerate(own.noisy.unbind(2)):
        if came[t]:
            found += stream.step(frame, time=t / RATE)
    found += stream.finish()
    with torch.no_grad():
        whole = own.net(own.noisy)[0, 0]
    moments = [int(out.index) for out in found]
    values = torch.stack([out.value[0, 0] for out in found])
    off = (values - whole[moments]) / whole.square().mean().sqrt()
    return Gapped(
        policy,
        moments,
        values.tolist(),
        [out.flags.gap for out in found],
        100 * float(off.square().mean().sqrt()),
        100 * float(off.abs().max()),
        own.noisy.shape[2] - len(found),
    )


def gaps(own: Signal, path: Path) -> str:
    """The table of the experiment; the picture is saved."""
    body, shown = [], {}
    for name, run in (("single frames", 1), (f"runs of {BURST} frames", BURST)):
        came = losses(own.noisy.shape[2], run)
        for policy in POLICIES:
            found = streamed(own, came, policy)
            shown[run, policy] = found
            share = sum(found.flagged) / len(found.flagged)
            body.append(
                [name, policy, f"{found.error:.1f} %", f"{found.worst:.0f} %", f"{100 * share:.0f} %", str(found.missing)]
            )
    _picture(own, losses(own.noisy.shape[2], BURST), [shown[BURST, p] for p in POLICIES], path)
    header = ["lost: 10 %", "policy", "error (RMS)", "largest error", "outputs flagged", "outputs missing"]
    return f"Measured: {report.Machine.here()}.\n\n{report.markdown_table(header, body)}"


def _picture(own: Signal, came: Sequence[bool], found: Sequence[Gapped], path: Path) -> None:
    length = len(came)
    first = next(t for t in range(length // 3, length) if not came[t]) - 90
    part = slice(first, min(length, first + 330))
    with torch.no_grad():
        whole = own.net(own.noisy)[0, 0].tolist()
    seconds = [t / RATE for t in range(length)]
    title = "A tenth of the frames is lost, 25 in a row: what the network gives under each policy"
    figure = pictures.figure("benchmarks.streams", 11, 8.6, title)
    axes = figure.subplots(1 + len(found), 1, sharex=True, height_ratios=[1.2, *[1] * len(found)])
    noisy = own.noisy[0, 0].tolist()
    axes[0].plot(
        seconds[part], [x if c else float("nan") for x, c in zip(noisy, came, strict=True)][part], color=pictures.GREY, lw=1
    )
    axes[0].set_title("what comes in", loc="left")
    for axis in axes:
        for t in range(part.start, part.stop):
            if not came[t]:
                axis.axvspan((t - 0.5) / RATE, (t + 0.5) / RATE, color=pictures.MARK, alpha=0.12, lw=0)
        axis.set_yticks([])
    for axis, one in zip(axes[1:], found, strict=True):
        axis.plot(seconds[part], whole[part], color=pictures.INK, lw=3, alpha=0.25, label="nothing lost")
        at = [(m, v) for m, v in zip(one.moments, one.values, strict=True) if part.start <= m < part.stop]
        values = dict(at)
        line = [values.get(t, float("nan")) for t in range(part.start, part.stop)]
        axis.plot(seconds[part], line, color=COLOURS[one.policy], lw=1.5, label=f"gaps={one.policy!r}")
        said = f"; {one.missing} outputs are missing" if one.missing else ""
        axis.set_title(f"{one.policy}: error {one.error:.1f} % of the signal{said}", loc="left")
        pictures.legend(axis, loc="upper right", ncols=2)
    axes[-1].set_xlabel("seconds")
    pictures.save(figure, path)


# ---- a video ----------------------------------------------------------------------------------------------------------------

WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0), "rest": (0, 0)}
SIDE, LENGTH = 24, 8  # pixels, frames of a clip


def film(ways: Sequence[str], frames: int, seed: int) -> Tensor:
    """A bright spot that goes each of these ways for so many frames, over the edges to the other side ``(1, T, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    at = SIDE * torch.rand(2, generator=generator)
    place, made = torch.arange(SIDE, dtype=torch.float32), []
    for way in ways:
        for _ in range(frames):
            at = (at + torch.tensor(WAYS[way])) % SIDE
            off = [(place - x + SIDE / 2) % SIDE - SIDE / 2 for x in at]
            made.append(torch.exp(-(off[0].square().unsqueeze(1) + off[1].square()) / 6))
    clip = torch.stack(made)
    return (clip + 0.25 * torch.randn(clip.shape, generator=generator)).unsqueeze(0)


def directions(steps: int) -> nn.Module:
    """A classifier of clips that says which way the spot goes."""
    names = list(WAYS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv3d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool3d((1, 2, 2)), nn.Conv3d(12, 24, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(24, len(names)),
        )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    for step in range(steps):
        labels = torch.arange(20) % len(names)
        clips = torch.stack([film([names[i]], LENGTH, 1000 * step + k) for k, i in enumerate(labels.tolist())])
        loss = nn.functional.cross_entropy(net(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def video(steps: int, path: Path) -> None:
    """The scores of the classifier on a video in which the spot turns, window for window."""
    module = directions(steps)
    clip = film(["right", "down", "rest", "left", "up"], 25, -1).unsqueeze(0)
    net = co.continual(module, clip[:, :, :LENGTH])
    co.plot(
        net,
        clip,
        rate=25,
        labels=list(WAYS),
        title="Which way does it go? A classifier of 8 frames on each frame's window",
        path=path,
    )


# ---- three networks ---------------------------------------------------------------------------------------------------------


def subjects(own: Signal) -> dict[str, tuple[str, Any, float, dict[str, Any]]]:
    """What it is, the network, its rate, and how it is measured."""
    video = {"forms": ("eager", "fused", "window", "clip"), "rounds": 5, "clip_length": 150}
    return {
        "denoiser": ("The ECG network of the demonstration, at 360 samples per second", own.net, RATE, {}),
        "kws_ds_cnn": ("`kws_ds_cnn`, spoken words, at 50 frames per second", _zoo("kws_ds_cnn"), 50.0, {}),
        "cox3d_s": ("`cox3d_s`, videos of 160², at 5 frames per second", _zoo("cox3d_s"), 5.0, video),
    }


def _zoo(name: str) -> Any:
    return co.models.create(name).eval()


def benches(own: Signal, page: Path, only: Sequence[str]) -> None:
    """A table and a picture for each of three networks."""
    for name, (title, net, rate, options) in subjects(own).items():
        if only and name not in only:
            continue
        step = torch.zeros(1, *getattr(net, "step_shape", (1,)))
        found = co.bench(net, step, rate=rate, name=name, **({"seconds": 8.0} | options))
        print(found, flush=True)
        found.plot(page.with_name(f"bench_{name}.png"))
        header, *body = found.table
        notes = "\n".join(f"- {note}" for note in found.notes)
        said = f"**{title}.** {found.title}.\n\n{report.markdown_table(header, body)}\n\n{notes}"
        report.write_markdown(
            page, f"bench {name}", f"{said}\n\n![co.bench](bench_{name}.png)\n\nMeasured: {report.Machine.here()}."
        )


def main() -> None:
    """Write the sections and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, required=True, help="the page; pictures lie beside it")
    parser.add_argument("--only", choices=("gaps", "bench", "plot"), action="append", help="these parts alone")
    parser.add_argument(
        "--network", choices=("denoiser", "kws_ds_cnn", "cox3d_s"), action="append", help="for bench: these alone"
    )
    parser.add_argument("--steps", type=int, default=600, help="of training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    own, folder, wanted = signal(args.steps), args.markdown.parent, args.only or ["gaps", "bench", "plot"]
    if "gaps" in wanted:
        report.write_markdown(args.markdown, "gaps", gaps(own, folder / "gaps.png"))
    if "plot" in wanted:
        co.plot(
            own.net, own.noisy, rate=RATE, title="An ECG through a network of clips, step by step", path=folder / "plot_ecg.png"
        )
        video(args.steps // 3, folder / "plot_video.png")
    if "bench" in wanted:
        benches(own, args.markdown, args.network or [])


if __name__ == "__main__":
    main()
