"""`Skip`."""

from .delay import Trim


class Skip(Trim):
    """Drop the first frames of a stream or clip.

    Args:
        steps: how many.

    Example:
        >>> skip = co.Skip(2)
        >>> skip.delay, skip(torch.arange(5.0).view(1, 1, 5))
        (2, tensor([[[2., 3., 4.]]]))
    """

    def __init__(self, steps: int):
        super().__init__(first=steps)

    def extra_repr(self) -> str:
        return f"{self.first}"
