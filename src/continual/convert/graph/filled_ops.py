"""Operations that make a tensor of one value, by name; ``None``: the value is an argument.

Uninitialised tensors may have any value; here they are zero.
"""

from __future__ import annotations

PLAIN = {"zeros": 0.0, "empty": 0.0, "ones": 1.0, "full": None}  # take sizes
SIZED = {"new_zeros": 0.0, "new_empty": 0.0, "new_ones": 1.0, "new_full": None}  # take a tensor of the same type, and sizes
LIKE = {"zeros_like": 0.0, "empty_like": 0.0, "ones_like": 1.0, "full_like": None}  # take a tensor of the same size
VALUE_FREE = frozenset({*SIZED, *LIKE})  # take a tensor, and read none of its values
EVERY = PLAIN | SIZED | LIKE
