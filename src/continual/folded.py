"""A weight laid out anew for the fast path, once per version of the parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .module import CoModule


class FoldedWeight(CoModule):
    """Base class of layers that keep a second layout of their ``weight``. A subclass says which: :meth:`_fold`."""

    weight: Tensor
    _cache: tuple[Tensor, int, int, Any] | None = None
    _prepared = frozenset({"_cache"})

    def _fold(self, weight: Tensor) -> Any:
        """The weight, or what is used instead of it."""
        return weight

    def _folded(self) -> Any:
        """The layout of :meth:`_fold`.

        It is made once per version of the parameter. A change that torch does not count as one (writing to ``weight.data``) is
        noticed when a stream starts.
        """
        weight = self._parameters.get("weight")
        if not isinstance(weight, nn.Parameter):  # computed by a parametrisation, new at each access
            return self._fold(self.weight)
        version = -1 if weight.is_inference() else weight._version
        cache = self._cache
        if cache is not None and cache[0] is weight and cache[1] == version and cache[2] == weight.data_ptr():
            return cache[3]
        with torch.no_grad():
            folded = self._fold(weight)
        self.__dict__["_cache"] = (weight, version, weight.data_ptr(), folded)
        return folded

    def _refold(self) -> None:
        """Lay it out anew at the next use: a stream starts."""
        self.__dict__.pop("_cache", None)
