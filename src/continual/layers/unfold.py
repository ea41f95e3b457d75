"""`Unfold`: the frames of a window as channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.state import StepSpec
from .window import SlidingWindow, per_dim


class Unfold(SlidingWindow):
    """The frames of a sliding window side by side in the channels: ``(B, C, T, *S)`` to ``(B, C*k, T', *S)``.

    Channel ``c*k + i`` is channel ``c`` of the window's frame ``i``, the order of ``nn.Unfold`` and of a convolution's weight. With a
    linear layer behind it this is a convolution over time. On ``(B, C, T, S)`` it equals ``nn.Unfold((k, 1), (dilation, 1), (padding, 0),
    (stride, 1))`` with its last dimension split into ``(T', S)``.

    Args:
        kernel_size: frames in a window, ``k``.
        dilation: steps from frame to frame.
        padding: frames of zeros at both ends.
        stride: steps from window to window.

    Example:
        >>> pairs = co.Unfold(2)
        >>> pairs(torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[1., 2.],
                 [2., 3.]]])
        >>> pairs.forward_step(torch.zeros(1, 3)), pairs.forward_step(torch.ones(1, 3))
        (None, tensor([[0., 1., 0., 1., 0., 1.]]))
    """

    has_products = False

    def __init__(self, kernel_size: int, dilation: int = 1, padding: int = 0, stride: int = 1):
        super().__init__()
        values = ("kernel_size", kernel_size), ("dilation", dilation), ("padding", padding), ("stride", stride)
        for name, value in values:
            if isinstance(value, Sequence) and len(value) > 1:
                raise ValueError(f"Unfold slides over time alone: {name} is one number, got {value}. Space stays as it is")
        k, d, p, s = (per_dim(value, 1, name)[0] for name, value in values)
        self.kernel_size, self.dilation, self.padding, self.stride = (k,), (d,), (p,), (s,)
        self.set_window(k, s, p, p, d, "zeros")

    def forward(self, input: Tensor) -> Tensor:
        """All windows of the clip."""
        return self.windows_of(input)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        return frame.resized(frame.shape[0], frame.shape[1] * self._taps, *frame.shape[2:])

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return torch.stack(self.taps(frames), 2).flatten(1, 2)

    def arrange(self, pieces: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(p.transpose(1, 2) for p in pieces)

    def over_time_step(self, parts: Sequence[Tensor], x: Tensor) -> Tensor:
        return torch.cat((*parts, x.unsqueeze(2)), 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self._taps}, dilation={self.dilation[0]}, padding={self.padding[0]}, stride={self.stride[0]}"
