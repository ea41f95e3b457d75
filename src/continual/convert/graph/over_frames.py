"""What is computed of a constant that the module repeats for every frame: of one frame, which broadcasts, or of several frames.

``p.expand(b, t, -1)`` is the same for all frames. Behind operations on each frame it stays so, and one frame of it is kept. A fold, a
convolution or a sum over time gives other values at the edges of the clip: these need its frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .instructions import resolve
from .values import ITEM, LengthDependent, Value, leaves

ON_EACH_FRAME = {
    "expand", "expand_as", "broadcast_to", "repeat", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze",
    "transpose", "permute", "movedim", "t", "mT", "swapaxes", "clone", "contiguous", "detach", "alias", "to", "_to_copy", "type_as",
    "linear", "matmul", "mm", "bmm", "layer_norm", "softmax", "cat", "stack", "select", "index_select", "embedding",
}  # fmt: skip


def over_frames(value: LengthDependent) -> bool:
    """Whether an operation that a value is computed by may take several frames at once."""
    return any(not _on_each(part.name) for part in parts_of(value) if any(_made_of(part)))


def parts_of(value: LengthDependent) -> Iterator[LengthDependent]:
    """A value, and those that it is computed from."""
    yield value
    for part in _made_of(value):
        yield from parts_of(part)


def _made_of(value: LengthDependent) -> Iterator[LengthDependent]:
    found: list[Value] = leaves([*value.args.values()])
    return (v for v in found if isinstance(v, LengthDependent))


def _on_each(name: str) -> bool:
    if name == ITEM or name.split(".")[1] in ON_EACH_FRAME:
        return True
    return torch.Tag.pointwise in getattr(resolve(name), "tags", ())
