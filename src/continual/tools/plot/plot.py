"""`plot`: inputs, outputs, delay and receptive field of a network on a signal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...core.module import CoModule
from ...core.step_spec import Inputs
from ...errors import ShapeMismatch
from ..pictures import GREY, MARK, OURS, SEEN, SMALL, bare, figure, legend, save
from .story import FEW, Story, probabilities, story_of

if TYPE_CHECKING:
    from ...export.runner import Runner

FRAMES = 10  # of a video


def plot(
    net: CoModule | Runner,
    clip: Inputs,
    *,
    rate: float | None = None,
    labels: Sequence[str] | None = None,
    top: int = 5,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Stream a clip through a network, and draw what comes in, what comes out, of which moment, and when.

    The first row of the batch is drawn, the first input and the first output. Up to 8 channels are lines, more are an image, and three (or
    one) channels with two dimensions of space a strip of frames. The last panel shows one output closely: the inputs that it sees, the
    moment that it is about, and when it comes.

    Args:
        net: a streaming network, of which a stream of its own is taken; or a file opened by :func:`continual.load`.
        clip: as ``forward_steps`` takes it; a list for several inputs.
        rate: steps per second, for an axis in seconds.
        labels: names of classes: the outputs are drawn as probabilities (by a softmax, unless they are).
        top: how many classes to draw, those that are ever the likeliest.
        title: of the figure.
        path: where to save it, too.

    Returns:
        A ``matplotlib.figure.Figure``, which notebooks show.

    Raises:
        ImportError: matplotlib is not installed.
        ShapeMismatch: the clip gives no output, or ``labels`` are not as many as the classes.

    Example:
        >>> net = co.Sequential(co.Conv1d(1, 4, 9, padding=4), nn.ReLU(), co.Conv1d(4, 1, 1)).eval()
        >>> drawn = co.plot(net, torch.randn(1, 1, 200), rate=100)
        >>> [axes.get_title(loc="left")[:13] for axes in drawn.axes[:3]]
        ['What comes in', 'What comes ou', 'A closer look']
    """
    story = story_of(net, clip, rate)
    chosen = None if labels is None else _classes(story, labels, top)
    video = story.kind == "video"
    made = figure("co.plot", 11, 7.6 if video else 8.2, title or f"{story.name}, step by step")
    above, middle, below = made.subplots(3, 1, height_ratios=[0.8 if video else 1, 1, 1.25])
    end = len(story.inputs) * story.unit
    _inputs(above, story, end)
    _outputs(middle, story, end, chosen)
    _closer(below, story, chosen)
    below.set_xlabel("steps" if story.rate is None else "seconds")
    if path is not None:
        save(made, path)
    return made


Classes = list[tuple[int, str]]  # numbers and names


def _classes(story: Story, labels: Sequence[str], top: int) -> Classes:
    """The classes that are drawn."""
    if story.outputs.ndim != 2 or story.outputs.shape[1] != len(labels):
        raise ShapeMismatch(
            f"co.plot: {len(labels)} labels for outputs {tuple(story.outputs.shape[1:])}: give one for each class"
        )
    best = probabilities(story.outputs).amax(0).argsort(descending=True)[:top].tolist()
    return [(i, labels[i]) for i in best]


# ---- panels -----------------------------------------------------------------------------------------------------------------


def _inputs(axes: Any, story: Story, end: float) -> None:
    axes.set_title("What comes in", loc="left")
    if story.kind == "video":
        _strip(axes, story, end)
    else:
        _signal(axes, story.inputs, [t * story.unit for t in range(len(story.inputs))], story.unit, GREY)
    axes.set_xlim(0, end)


def _outputs(axes: Any, story: Story, end: float, chosen: Classes | None) -> None:
    late = story.duration(story.lookahead)
    said = f", at the moment that it is about; it came {late} later" if story.lookahead else ", at the moment that it is about"
    axes.set_title(f"What comes out{said}", loc="left")
    times = [m * story.unit for m in story.about]
    if chosen is None:
        _signal(axes, story.outputs, times, story.unit, OURS)
    else:
        scores = probabilities(story.outputs)
        for i, name in chosen:
            axes.plot(times, scores[:, i].tolist(), lw=1.6, label=name)
        axes.set_ylim(-0.02, 1.05)
        axes.set_ylabel("probability")
        legend(axes, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=min(6, len(chosen)))
    first = min(times, default=0.0)
    if story.about[0] > 0:
        axes.axvspan(0, first, color=GREY, alpha=0.12, lw=0)
        axes.text(
            0,
            0.5,
            f"  no output yet: {story.duration(story.delay)}",
            transform=axes.get_xaxis_transform(),
            fontsize=SMALL,
            color=GREY,
        )
    axes.set_xlim(0, end)
    bare(axes)


def _closer(axes: Any, story: Story, chosen: Classes | None) -> None:
    """One output: what it sees, what it is about, when it comes."""
    j, (first, last) = story.marked, story.seen
    came, about = story.came[j], story.about[j]
    field = last - first + 1
    begin, end = first - max(2, 0.15 * field), max(last, came) + max(2, 0.3 * field)
    unit, line = story.unit, _line(story.inputs)
    shown = [t for t in range(len(line)) if begin <= t <= end]
    axes.set_title("A closer look at one output", loc="left")
    axes.axvspan((first - 0.5) * unit, (last + 0.5) * unit, color=SEEN, alpha=0.18, lw=0, label=f"sees {story.duration(field)}")
    marker = "o" if len(shown) < 80 else None
    axes.plot([t * unit for t in shown], [line[t] for t in shown], color=GREY, lw=1, marker=marker, ms=3, label="input")
    what, outs = _shown(story, chosen)
    near = [i for i, c in enumerate(story.came) if begin <= c <= end and c < len(line)]
    other = axes.twinx()
    other.step(
        [story.came[i] * unit for i in near],
        [outs[i] for i in near],
        where="post",
        color=OURS,
        lw=1.4,
        label=f"{what}, when it comes",
    )
    other.plot([came * unit], [outs[j]], "o", color=MARK, ms=7, zorder=4)
    axes.axvline(about * unit, color=MARK, lw=1, ls=":")
    late = (
        f"comes {story.duration(story.lookahead)} after the moment that it is about"
        if story.lookahead
        else "comes with the step that it is about"
    )
    axes.axvline(came * unit, color=MARK, lw=1, ls="--", label=late)
    if story.lookahead:
        arrow = {"arrowstyle": "->", "lw": 1.6, "color": MARK}
        axes.annotate("", (came * unit, 0.94), (about * unit, 0.94), xycoords=axes.get_xaxis_transform(), arrowprops=arrow)
    axes.set_xlim(begin * unit, end * unit)
    handles = [a.get_legend_handles_labels() for a in (axes, other)]
    legend(
        axes,
        handles[0][0] + handles[1][0],
        handles[0][1] + handles[1][1],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=4,
    )
    for own in (axes, other):
        own.set_yticks([])
        bare(own)


def _shown(story: Story, chosen: Classes | None) -> tuple[str, list[float]]:
    """What is drawn of the outputs closely: of classes the likeliest one of the output that is explained."""
    if chosen is None:
        return "output", _line(story.outputs)
    scores = probabilities(story.outputs)
    number, name = max(chosen, key=lambda c: float(scores[story.marked, c[0]]))
    return name, [float(v) for v in scores[:, number]]


# ---- signals ----------------------------------------------------------------------------------------------------------------


def _signal(axes: Any, values: Tensor, times: list[float], unit: float, colour: str) -> None:
    """Channels as lines, or as an image where there are many."""
    flat = values.flatten(1) if values.ndim > 1 else values.unsqueeze(1)
    channels = flat.shape[1]
    if channels <= FEW:
        for c in range(channels):
            axes.plot(times, flat[:, c].tolist(), lw=1.2, color=colour if channels == 1 else None)
        axes.margins(y=0.08)
    else:
        span = (times[0] - unit / 2, times[-1] + unit / 2, 0, channels)
        axes.imshow(flat.T.numpy(), aspect="auto", origin="lower", extent=span, cmap="viridis", interpolation="nearest")
        axes.set_ylabel(f"{channels:,} values")
    axes.set_yticks([])
    bare(axes)


def _strip(axes: Any, story: Story, end: float) -> None:
    """Some frames of a video, each where its time is."""
    count = min(FRAMES, len(story.inputs))
    low, high = story.inputs.amin(), story.inputs.amax()
    wide = end / count
    for k in range(count):
        frame = story.inputs[min(len(story.inputs) - 1, round((k + 0.5) * len(story.inputs) / count))]
        image = ((frame - low) / (high - low).clamp(min=1e-12)).movedim(0, -1).expand(-1, -1, 3)
        axes.imshow(image.numpy(), extent=((k + 0.02) * wide, (k + 0.98) * wide, 0, 1), aspect="auto", interpolation="nearest")
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    bare(axes)


def _line(values: Tensor) -> list[float]:
    """One number for each step: the channel that moves most, or the mean of a frame."""
    flat = values.flatten(1) if values.ndim > 1 else values.unsqueeze(1)
    if flat.shape[1] > FEW:
        return [float(v) for v in flat.mean(1)]
    best = int(flat.var(0, correction=0).argmax()) if len(flat) > 1 else 0
    return [float(v) for v in flat[:, best]]
