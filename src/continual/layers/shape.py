"""`Reshape`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor

from .local import LocalInTime


class Reshape(LocalInTime):
    """Reshape every step, batch included.

    Args:
        shape: the step's new shape ``(B, C, *S)``, in numbers or as one tuple; one entry may be -1.
        contiguous: make the result contiguous in memory.

    Example:
        >>> to_joints = co.Reshape(-1, 3, 25)
        >>> to_joints.forward_step(torch.zeros(2, 75)).shape, to_joints(torch.zeros(2, 75, 10)).shape
        (torch.Size([2, 3, 25]), torch.Size([2, 3, 10, 25]))
    """

    def __init__(self, *shape: int | Sequence[int], contiguous: bool = False):
        super().__init__()
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        if len(sizes) < 2 or not all(isinstance(size, int) for size in sizes):
            raise ValueError(f"Reshape needs at least batch and channels, Reshape(-1, channels, …); got {shape}")
        self.shape, self.contiguous = cast("tuple[int, ...]", tuple(sizes)), contiguous

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, T, *S)`` with every frame reshaped."""
        y = input.movedim(2, -1).reshape(*self.shape, input.shape[2]).movedim(-1, 2)
        return y.contiguous() if self.contiguous else y

    def local_step(self, x: Tensor) -> Tensor:
        y = x.reshape(self.shape)
        return y.contiguous() if self.contiguous else y

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape)) + (", contiguous=True" if self.contiguous else "")
