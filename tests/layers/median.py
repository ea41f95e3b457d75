"""A sliding-window layer of a user's own, in one file."""

import torch

import continual as co


class Median(co.SlidingWindow):
    """The median of the newest frames ``(B, C, T, *S)``."""

    def __init__(self, size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.set_window(size, stride, padding, padding)

    def over_time(self, frames: torch.Tensor, start: int, ended: int | None) -> torch.Tensor:
        size, stride = self._window.receptive_field, self._window.stride
        return frames.unfold(2, size, stride).median(-1).values
