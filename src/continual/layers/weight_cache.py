"""Weights laid out again for the fast path, once per version of the parameter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.module import CoModule
from ..core.state import StepSpec
from ..errors import ShapeMismatch
from .local import check_home

_Layout = tuple[Any, Any, Any, Any]  # a weight, its version and address, and what was made of it; or of several


class PackedWeight(CoModule):
    """Base class of layers that keep second layouts of weights."""

    _layouts: dict[str, _Layout] | None = None
    _prepared = frozenset({"_layouts"})

    def _laid_out(self, name: str, weight: Tensor, lay: Callable[[Tensor], Any]) -> Any:
        """What ``lay`` makes of a weight, under a name of its own.

        It is made once per version of the parameter. A change that torch does not count as one (writing to ``weight.data``) is
        noticed when a stream starts.
        """
        layouts = self._layouts
        if layouts is None:
            layouts = self.__dict__["_layouts"] = {}
        version, kept = -1 if weight.is_inference() else weight._version, layouts.get(name)
        if kept is not None and kept[0] is weight and kept[1] == version and kept[2] == weight.data_ptr():
            return kept[3]
        with torch.no_grad():
            made = lay(weight)
        layouts[name] = (weight, version, weight.data_ptr(), made)
        return made

    def _laid_out_together(self, name: str, weights: Sequence[Tensor], lay: Callable[[Sequence[Tensor]], Any]) -> Any:
        """The same of several weights."""
        layouts = self._layouts
        if layouts is None:
            layouts = self.__dict__["_layouts"] = {}
        versions, places = [-1 if w.is_inference() else w._version for w in weights], [w.data_ptr() for w in weights]
        kept = layouts.get(name)
        if kept is not None and kept[1] == versions and kept[2] == places and all(map(operator.is_, kept[0], weights)):
            return kept[3]
        with torch.no_grad():
            made = lay(weights)
        layouts[name] = (weights, versions, places, made)
        return made

    def _forget_layouts(self) -> None:
        """Lay weights out again at the next use: a stream starts."""
        self.__dict__.pop("_layouts", None)


class FoldedWeight(PackedWeight):
    """Base class of layers that keep a second layout of their ``weight``. A subclass says which: :meth:`_fold`."""

    weight: Tensor

    def _fold(self, weight: Tensor) -> Any:
        """The weight, or what is used instead of it."""
        return weight

    def _folded(self) -> Any:
        """The layout of :meth:`_fold`."""
        weight = self._parameters.get("weight")
        if weight is None:  # computed by a parametrisation, new at each access
            return self._fold(self.weight)
        return self._laid_out("weight", weight, self._fold)


def check_images(conv: Any, frame: StepSpec, name: str) -> None:
    """Refuse steps of another rank, number of channels, device or dtype than a convolution is for."""
    if len(frame.shape) != conv.dims + 1 or frame.shape[1] != conv.in_channels:
        dims = ", ".join(["B", str(conv.in_channels), *"HW"[2 - (conv.dims - 1) :]])
        raise ShapeMismatch(f"{name}: expects steps ({dims}), got {tuple(frame.shape)}")
    check_home(conv.weight, frame, name, mixed=torch.is_autocast_enabled(frame.device.type))
