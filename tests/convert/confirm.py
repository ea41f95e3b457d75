"""Whether a line of a program can't be streamed, by what it does alone: no knowledge of operations. No tests are in this file.

A stream has given its outputs when the clip's end is not known yet. So the outputs of a clip and those of the same clip with more
frames are equal, up to some at the end whose number does not grow with the clip. And rows do not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.convert.random_modules import RandomModule

# Multiples of the rates of most networks, and lengths beyond each. Between them a legitimate look ahead does not grow.
SHORT, LONG = (96, (97, 98, 102, 108, 288)), (288, (289, 290, 294, 300, 384))
GROWS = 0.4  # of all outputs are withheld
ROWS = 2


def frames_of(value: Tensor, dims: str) -> Tensor:
    """A value with time in dim 0 and the batch in dim 1."""
    if "M" in dims:
        return value.unflatten(0, (ROWS, -1)).movedim(1, 0)
    return value.movedim((dims.index("T"), dims.index("B")), (0, 1))


def agreeing(a: Tensor, b: Tensor) -> int:
    """How many leading frames are equal."""
    n = min(len(a), len(b))
    if n == 0 or a.shape[1:] != b.shape[1:]:
        return 0
    same = torch.isclose(a[:n].double(), b[:n].double(), 1e-8, 1e-8, equal_nan=True).flatten(1).all(1)
    return int(same.long().cumprod(0).sum())


def withheld(values: dict[int, Tensor | None], length: int, beyond: Sequence[int], dims: str) -> float | None:
    """The part of a clip's outputs that longer clips have otherwise; ``None`` if the line refuses such clips."""
    first = values[length]
    later = [v for n in beyond if (v := values[n]) is not None]
    if first is None or not later:
        return None
    own = frames_of(first, dims)
    return 1 - min(agreeing(own, frames_of(v, dims)) for v in later) / max(1, len(own))


def mixes_rows(module: RandomModule, length: int) -> list[bool]:
    """Which values of the first row change with the second."""
    clips, others = module.clips(length, ROWS), list(module.clips(length, ROWS, seed=99))
    for i, (x, y, dims) in enumerate(zip(clips, others, module.dims)):
        if "B" in dims:
            b = dims.index("B")
            others[i] = torch.cat((x.narrow(b, 0, 1), y.narrow(b, 1, 1)), b)
    found = []
    for a, c, dims in zip(module.module.values(*clips), module.module.values(*others), module.dims):
        if a is None or c is None or not {"B", "M"} & set(dims):
            found.append(False)
            continue
        b = 0 if "M" in dims else dims.index("B")
        if a.shape[b] % ROWS:  # of a clip of one length, which this is not
            found.append(False)
            continue
        rows = [v.unflatten(b, (ROWS, -1)).select(b, 0) for v in (a.double(), c.double())]
        found.append(not torch.allclose(rows[0], rows[1], 1e-8, 1e-8, equal_nan=True))
    return found


def growing(module: RandomModule, length: int) -> list[Tensor]:
    """Clips whose later frames are larger, so that the largest of all is mostly one of the last: it shows what looks at all frames."""
    found = []
    for x, dims in zip(module.clips(length, ROWS), module.dims):
        if "T" in dims:
            sizes = 1 + torch.arange(length, dtype=x.dtype) / LONG[1][-1]
            x = x * sizes.view([-1 if letter == "T" else 1 for letter in dims])
        found.append(x)
    return found


def unstreamable(module: RandomModule) -> dict[int, str]:
    """The lines whose values can't be streamed, and why; also those that merely take such values."""
    lengths = sorted({SHORT[0], LONG[0], *SHORT[1], *LONG[1]})
    with torch.no_grad():
        runs = {n: module.module.values(*growing(module, n)) for n in lengths}
        mixing = mixes_rows(module, SHORT[0])
    found: dict[int, str] = {}
    for i, dims in enumerate(module.dims):
        values = {n: run[i] for n, run in runs.items()}
        line = i - module.module.inputs
        if mixing[i]:
            found[line] = "a row depends on the other"
        elif not {"T", "M"} & set(dims):  # a value of the clip, which streams as a window
            continue
        elif all(v is None for v in values.values()):
            found[line] = "it refuses clips of other lengths"
        else:
            parts = [withheld(values, length, beyond, dims) for length, beyond in (SHORT, LONG)]
            if all(part is not None and part > GROWS for part in parts):
                found[line] = (
                    f"{parts[0]:.0%} and {parts[1]:.0%} of the outputs of {SHORT[0]} and {LONG[0]} frames depend on what follows"
                )
    return found


def faults(module: RandomModule, found: dict[int, str]) -> dict[int, str]:
    """Those of the lines in which it begins."""
    inputs, ops = module.module.inputs, module.module.lines
    return {i: why for i, why in found.items() if not any(j - inputs in found for j in ops[i].inputs)}
