"""The figure of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..tools.pictures import BLUE, GREY, INK, MARK, ORANGE, SKY, TITLE, figure, legend, save

NOISY, CLEAN, STREAM = SKY, INK, MARK
SEEN_NOT, CLOSER = ORANGE, BLUE


@dataclass(frozen=True)
class Story:
    """The data of the figure: signals by sample, ``streamed`` with NaN before the first output."""

    title: str
    noisy: np.ndarray
    clean: np.ndarray
    streamed: np.ndarray
    rate: float
    delay: int
    held_out: int
    facts: str


def draw(story: Story, path: Path) -> None:
    """Save the figure.

    Args:
        story: its data.
        path: a .png, .pdf or .svg file.
    """
    seconds = np.arange(story.clean.size) / story.rate
    delay = story.delay / story.rate
    start, stop = _zoom(story)
    drawn = figure("the demonstration", 12, 8.5, f"{story.title}\n")
    top, middle, bottom = drawn.subplots(3, 1, height_ratios=[1, 1, 1.5])
    drawn.text(0.5, 0.945, story.facts, ha="center", fontsize=TITLE, color=GREY)

    top.set_title("What comes in: the recording with noise", loc="left")
    top.plot(seconds, story.clean, color=CLEAN, lw=3, alpha=0.25, label="clean recording")
    top.plot(seconds, story.noisy, color=NOISY, lw=0.9, label="noisy input")

    middle.set_title(f"What comes out, sample by sample, shifted back by the delay of {1000 * delay:.0f} ms", loc="left")
    middle.plot(seconds, story.clean, color=CLEAN, lw=3, alpha=0.25, label="clean recording")
    middle.plot(seconds - delay, story.streamed, color=STREAM, lw=1.1, label="streamed output")
    for axis in (top, middle):
        axis.axvspan(story.held_out / story.rate, seconds[-1], color=SEEN_NOT, alpha=0.12, lw=0)
        axis.axvspan(seconds[start], seconds[stop], fill=False, edgecolor=CLOSER, lw=1.2, ls="--")
        axis.set_xlim(0, seconds[-1])
        for second, said in ((0, " seen in training"), (story.held_out / story.rate, " not seen in training")):
            axis.text(second, 0.93, said, transform=axis.get_xaxis_transform(), color=INK, va="top")

    bottom.set_title("A closer look (dashed above): each output arrives a fixed delay after the sample it belongs to", loc="left")
    part = slice(start, stop)
    bottom.plot(seconds[part], story.noisy[part], color=NOISY, lw=1, label="noisy input")
    bottom.plot(seconds[part], story.clean[part], color=CLEAN, lw=4, alpha=0.25, label="clean recording")
    bottom.plot(seconds[part], story.streamed[part], color=STREAM, lw=1.6, label="streamed output, when it arrives")
    bottom.set_xlim(seconds[start], seconds[stop])
    peak = start + int(np.argmax(story.clean[start : max(start + 1, stop - story.delay)]))
    if story.delay and peak + story.delay < stop:
        height = story.clean[peak] * 1.02
        bottom.annotate("", (seconds[peak] + delay, height), (seconds[peak], height), arrowprops={"arrowstyle": "->", "lw": 1.6})
        bottom.text(seconds[peak] + delay / 2, height, f"{story.delay} steps\n{1000 * delay:.0f} ms", ha="center", va="bottom")
        bottom.margins(y=0.22)
    bottom.set_xlabel("seconds")
    for axis in (top, middle, bottom):
        legend(axis, loc="upper right", bbox_to_anchor=(1, 1 if axis is bottom else 1.2), ncols=3)
        axis.set_yticks([])
    save(drawn, path)


def _zoom(story: Story) -> tuple[int, int]:
    """A stretch around the highest peak of the part not seen in training."""
    size = story.clean.size
    width = min(size - 1, max(6 * story.delay, size // 5))
    seen = story.clean[story.held_out : max(story.held_out + 1, size - width // 2)]
    peak = story.held_out + int(np.argmax(seen))
    start = max(0, min(peak - width // 3, size - 1 - width))
    return start, start + width
