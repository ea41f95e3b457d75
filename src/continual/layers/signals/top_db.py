"""`TopDB`: a floor that follows the loudest value so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..recurrence import Recurrence, States


class TopDB(Recurrence):
    """Lift values that lie more than ``top_db`` below the largest one of a stream so far: ``max(x, peak - top_db)``.

    What ``top_db`` of torchaudio and librosa does with the largest value of a whole clip. Of steps ``(B, C, *S)`` in decibels, all channels
    and places of a row have one peak.

    Args:
        top_db: the distance, above 0.

    Raises:
        ValueError: a distance that is not above 0.

    Example:
        >>> top = co.TopDB(20.0)
        >>> top(torch.tensor([[[-50.0, -10.0, -50.0]]]))
        tensor([[[-50., -10., -30.]]])
    """

    has_products = False

    def __init__(self, top_db: float = 80.0):
        super().__init__()
        if not top_db > 0:
            raise ValueError(f"TopDB: top_db is above 0, got {top_db}")
        self.top_db = float(top_db)

    def initial_state(self, x: Tensor) -> States:
        return {"peak": x.new_full((x.shape[0], 1), -math.inf)}

    def recur(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        peak = torch.maximum(state["peak"], x.flatten(1).amax(1, keepdim=True))
        return torch.maximum(x, (peak - self.top_db).view(-1, *(1,) * (x.ndim - 1))), {"peak": peak}

    def recur_chunk(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        loudest = x.transpose(1, 2).flatten(2).amax(2)  # (B, n)
        peaks = torch.cat((state["peak"], loudest), 1).cummax(1).values[:, 1:]
        floor = (peaks - self.top_db).view(x.shape[0], 1, -1, *(1,) * (x.ndim - 3))
        return torch.maximum(x, floor), {"peak": peaks[:, -1:]}

    def extra_repr(self) -> str:
        return f"{self.top_db}"
