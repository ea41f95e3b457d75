"""Makes the frames of a source into steps of a network: chooses channels, shapes signals, scales pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .network import Subject
from .sources.base import Block, Facts
from .target import BadInput

THINNEST = 32  # largest aspect ratio: beyond it the resized frame before the crop would be huge
MEAN = "mean"


@dataclass(frozen=True)
class Layout:
    """How the one input of a network is laid out.

    Attributes:
        step: the shape of a frame, without batch and time.
        batch, time: the dimensions of both in a chunk.
        dtype: of its values.
    """

    step: tuple[int, ...]
    batch: int
    time: int
    dtype: torch.dtype

    @staticmethod
    def of(net: Any, made: Subject) -> Layout:
        """That of a network, by its example.

        Raises:
            BadInput: it has several inputs, or none that is a stream.
        """
        times = getattr(net, "time_dims", None) or (getattr(net, "time_dim", 2),)
        if len(times) != 1 or len(made.clips) != 1 or times[0] is None:
            raise BadInput(f"the network takes {len(made.clips)} inputs; a source gives frames for one")
        time, shape = times[0], made.clips[0].shape
        if len(shape) <= max(time, 1):
            raise BadInput(f"--clip {tuple(shape)}: there is no dim {time}, which is time; give (batch, channels, time, space)")
        batch = 1 if time == 0 else 0
        return Layout(tuple(n for i, n in enumerate(shape) if i not in (batch, time)), batch, time, made.clips[0].dtype)

    @property
    def takes_pictures(self) -> bool:
        """Whether a step is an image ``(3, H, W)`` or ``(1, H, W)``."""
        return len(self.step) == 3 and self.step[0] in (1, 3)

    @property
    def channels(self) -> int:
        """How many numbers a step has."""
        return math.prod(self.step)

    def chunk(self, frames: Tensor) -> Tensor:
        """Frames ``(n, *step)`` as a chunk of one stream."""
        first, second = sorted((self.batch, self.time))
        laid = frames.movedim(0, first if self.time == first else second - 1)
        return laid.unsqueeze(self.batch).to(self.dtype)


def chosen(block: Block, columns: str | None, facts: Facts) -> np.ndarray:
    """The frames of a block with the channels that are wanted, ``(n, k)``, or as they are.

    Args:
        block: frames.
        columns: names or numbers (from 1) with commas, or ``mean``; ``None`` for all.
        facts: of the source.

    Raises:
        BadInput: there is no such channel.
    """
    if columns is None:
        return block.frames
    frames = block.frames.reshape(block.count, -1)
    if columns == MEAN:
        return frames.mean(1, keepdims=True)
    return frames[:, [_place(name.strip(), facts, frames.shape[1]) for name in columns.split(",")]]


def _place(name: str, facts: Facts, width: int) -> int:
    if name in facts.channels:
        return list(facts.channels).index(name)
    if name.isdecimal() and 1 <= int(name) <= width:
        return int(name) - 1
    raise BadInput(f"--columns {name}: '{facts.name}' has {_named(facts, width)}")


def _named(facts: Facts, width: int) -> str:
    shown = ", ".join(list(facts.channels)[:12]) + (", …" if len(facts.channels) > 12 else "")
    return f"{width} numbers in a frame" + (f" ({shown})" if facts.channels else "")


def steps_of(frames: np.ndarray, layout: Layout, facts: Facts) -> Tensor:
    """Frames of a signal as steps ``(n, *step)``.

    Raises:
        BadInput: a frame has another number of values than a step.
    """
    width = math.prod(frames.shape[1:])
    if width != layout.channels:
        one = f"--columns mean, or --columns {(list(facts.channels) or ['1'])[0]}" if layout.channels == 1 else "--columns A,B,…"
        fewer = f": choose with {one}" if width > layout.channels else ""
        raise BadInput(
            f"'{facts.name}' has {_named(facts, width)}, and the network takes steps of {layout.channels} {layout.step}{fewer}"
        )
    return torch.from_numpy(np.array(frames, dtype=np.float64)).reshape(len(frames), *layout.step)


def pixels_of(frame: Any) -> np.ndarray:
    """The upright picture ``(H, W, 3)`` of a frame of PyAV."""
    pixels = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90) % 4))


def prepared(frame: Any, size: int | tuple[int, int], mean: float, std: float) -> Tensor:
    """A frame as a step of a network: ``(1, 3, height, width)``, the centre of the upright image, normalised.

    Raises:
        BadInput: the aspect ratio of the frame is too large.
    """
    pixels = pixels_of(frame)
    tall, wide = (size, size) if isinstance(size, int) else size
    height, width = pixels.shape[:2]
    if max(height, width) > THINNEST * min(height, width):
        raise BadInput(f"its frames are {width} × {height}: one side is more than {THINNEST} times the other")
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255
    fits_height = height * wide <= width * tall  # the frame is at least as wide as the step: its height decides the scale
    shape = (tall, width * tall // height) if fits_height else (height * wide // width, wide)
    image = F.interpolate(image, shape, mode="bilinear", antialias=True, align_corners=False)
    top, left = (shape[0] - tall) // 2, (shape[1] - wide) // 2
    return (image[:, :, top : top + tall, left : left + wide] - mean) / std
