"""`torch.linspace` with as many values as a clip has frames: positions, a step apart. Its own operation takes a plain number of values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def linspace(start: Any, end: Any, steps: Any, **options: Any) -> Tensor:
    """Values at equal distances, from a first to a last one; the number of them may be a symbol."""
    dtype = options.get("dtype") or torch.get_default_dtype()
    if not isinstance(steps, torch.SymInt) or isinstance(start, Tensor) or isinstance(end, Tensor) or not dtype.is_floating_point:
        return torch.linspace(start, end, steps, **options)
    count: Any = steps
    return torch.arange(count, **options | {"dtype": dtype}) * ((end - start) / (steps - 1)) + start


BY_FUNCTION: dict[Any, Any] = {torch.linspace: linspace}
