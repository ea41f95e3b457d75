"""A trained module behind another way to call it: the reference that a streaming layer is compared with. No tests are in this file."""

from __future__ import annotations

from typing import Any

from torch import nn


class Reference(nn.Module):
    """Base class: the module is no child, so that the keys of its ``state_dict`` stay those of the module. A subclass runs it.

    Args:
        inner: the ``torch.nn`` module.
    """

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = [inner]
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.inner[0]._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> Any:
        self.inner[0].train(mode)
        return self
