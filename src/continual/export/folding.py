"""Constant folding for ExecuTorch."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..core.optional_packages import package


def folded(program: Any) -> Any:
    """A program whose weights are constants, as XNNPACK and its quantizer need them.

    A cast that changes nothing gives the parameter itself, which torch does not take for a constant.
    """
    folding = package("executorch.exir.passes.constant_prop_pass", "executorch", "co.export")
    made = folding.constant_prop_pass(program)
    for name, value in made.constants.items():
        if isinstance(value, nn.Parameter):
            made.constants[name] = value.detach()
    return made
