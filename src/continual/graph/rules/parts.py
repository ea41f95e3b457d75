"""What rules of parts of tensors share."""

from __future__ import annotations

from ..builder import Builder
from ..call import Call, Refused
from ..layout import BATCH, TIME, Dim, Dims
from ..values import Stream


def whole(size: int) -> Dim:
    """A dimension that knows neither batch nor time."""
    return (size,) if size != 1 else ()


def with_dim(dims: Dims, at: int, dim: Dim) -> Dims:
    """A layout with another dimension in one place."""
    return (*dims[:at], dim, *dims[at + 1 :])


def alone(b: Builder, call: Call, x: Stream, dim: int, what: str) -> bool:
    """Whether a dimension is time. Refuses time that is merged with others, and the batch."""
    own = x.dims[dim]
    if own == (TIME,):
        return True
    if TIME in own:
        raise Refused(f"`{call.op}` {what} time merged with another dimension", "do it before the dimensions are merged")
    if BATCH in own:
        raise Refused(f"`{call.op}` {what} the rows of the batch", "keep the batch as it is")
    return False
