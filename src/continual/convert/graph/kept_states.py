"""Tensors that a module keeps as attributes from call to call: a state with which users stream the module by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...core.naming import named
from .capture import fresh


class KeptStates:
    """Runs a module, each time from the state in which it was.

    Args:
        module: the module.

    Attributes:
        found: the attributes that runs have changed.
    """

    def __init__(self, module: nn.Module):
        self._module, self.found = module, list[str]()

    def run(self, inputs: Sequence[Tensor]) -> Any:
        """The module's outputs. Afterwards the tensors in its attributes are as before; other attributes keep what the run has set."""
        before = [(path, m, dict(m.__dict__)) for path, m in self._module.named_modules()]
        try:
            return self._module(*fresh(inputs))
        finally:
            for path, m, own in before:
                for name, value in list(m.__dict__.items()):
                    kept = own.get(name)
                    if value is not kept and name in own and (_has_tensors(value) or _has_tensors(kept)):
                        m.__dict__[name] = kept
                        if not _equal(value, kept):  # a weight that hooks compute again is not a state
                            self.found.append(f"'{name}' of {named(path, m)}" if path else f"'{name}'")

    @property
    def note(self) -> str | None:
        """What users should know."""
        if not self.found:
            return None
        names = ", ".join(dict.fromkeys(self.found))
        return (
            f"the module keeps {names} from call to call. A stream has a state of its own instead, which begins with the value at the "
            "conversion; forward begins with that value each time"
        )


def _equal(a: Any, b: Any) -> bool:
    """Whether two attributes hold the same values."""
    left, right = tree_leaves(a), tree_leaves(b)
    return len(left) == len(right) and all(
        isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and bool((x == y).all())
        for x, y in zip(left, right, strict=True)
    )


def _has_tensors(value: Any) -> bool:
    return isinstance(value, (Tensor, tuple, list, dict)) and any(isinstance(t, Tensor) for t in tree_leaves(value))
