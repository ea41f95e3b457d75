"""How errors name modules."""

from torch import nn


def named(path: str, module: nn.Module) -> str:
    """A module's path and class, as errors show them: ``"layer1.0.conv (Conv1d)"``."""
    name = type(module).__name__
    return f"{path} ({name})" if path else name
