"""A sliding-window layer of a user's own, in one file."""

import torch

import continual as co


class Spread(co.SlidingWindow):
    """The difference of the largest and the smallest value of the newest frames ``(B, C, T, *S)``."""

    def __init__(self, size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.set_window(size, stride, padding, padding)

    def over_time(self, frames: torch.Tensor, start: int, ended: int | None) -> torch.Tensor:
        size, stride = self._window.receptive_field, self._window.stride
        windows = frames.unfold(2, size, stride)
        return windows.amax(-1) - windows.amin(-1)
