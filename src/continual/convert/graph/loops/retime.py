"""Moves operations from the end of an iteration to the beginning of the next one, where this makes the state smaller."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Node as Fx

from .matching import Body, Fixed, Key, Result
from .simplify import flat, name_of, sizes


def retime(body: Body) -> None:
    """Carry the inputs of operations as states, rather than their results.

    An operation on results of one iteration, such as the product with a recurrent weight, reads no frame of the next iteration,
    which uses its result. So it counts as part of the earlier iteration, and its result as the state.
    """
    moved = True
    while moved:
        moved = False
        for key in reversed(body.keys):
            if (begins := _moved(body, key)) is not None:
                body.seeds |= begins
                body.keys.remove(key)
                body.keys.insert(_place(body, key), key)
                moved = True


def _moved(body: Body, key: Key) -> dict[tuple[Key, int], Any] | None:
    """Move one operation. Returns the initial values of the new states, or ``None`` if the operation stays."""
    uses = _uses(body, key)
    lag, own = _sources(body, key)
    if not own:
        return None
    if not all(isinstance(body.node[k].meta["val"], torch.Tensor) for k in own):  # states are tensors
        return None
    new = own - {k for k, kept in body.lags.items() if kept >= lag}
    beside = [k for k in body.keys if _sources(body, k) == (lag, own)]  # all pieces of one product
    if sum(_size(body.node[k]) for k in new) > sum(_size(body.node[k]) for k in beside):
        return None
    begins: dict[tuple[Key, int], Any] = {}
    for before in range(body.first - lag, body.first):
        found = _begins(body, key, before)
        if found is None:
            return None
        begins |= found
    for other, i, _ in uses:
        body.args[other][i] = Result(key, 0)
    body.args[key] = [Result(a.key, lag) if isinstance(a, Result) else a for a in body.args[key]]
    for before in range(body.first - lag, body.first):
        body.seeds.pop((key, before), None)
    return begins


def _uses(body: Body, key: Key) -> list[tuple[Key, int, Result]]:
    """Where iterations use results of an operation."""
    return [
        (other, i, a) for other in body.keys for i, a in enumerate(body.args[other]) if isinstance(a, Result) and a.key == key
    ]


def _sources(body: Body, key: Key) -> tuple[int, set[Key]]:
    """How many iterations later an operation's results are used, and which results it reads; nothing, if it can't move."""
    lags = {a.lag for _, _, a in _uses(body, key)}
    sources = [a for a in body.args[key] if not isinstance(a, Fixed)]
    if len(lags) != 1 or lags == {0} or _used_outside(body, key) or not all(isinstance(a, Result) and not a.lag for a in sources):
        return 0, set()
    return lags.pop(), {a.key for a in sources}


def _begins(body: Body, key: Key, before: int) -> dict[tuple[Key, int], Any] | None:
    """The initial states from which an operation computes those of its results, for one of the iterations before the first."""
    seed, args = body.seeds.get((key, before)), body.args[key]
    if not isinstance(seed, Fx) or name_of(seed) != name_of(body.node[key]):
        return None
    values = flat([seed.args, list(seed.kwargs.values())])
    if len(values) != len(args):
        return None
    found: dict[tuple[Key, int], Any] = {}
    for a, value in zip(args, values, strict=True):
        if isinstance(a, Fixed):
            if value is not a.value and (isinstance(value, Fx) or value != a.value):
                return None
            continue
        place = (a.key, before)
        known = found.get(place, body.seeds.get(place, value))
        if not isinstance(value, Fx) or known is not value or sizes(value) != sizes(body.node[a.key]):
            return None
        found[place] = value
    return found


def _used_outside(body: Body, key: Key) -> bool:
    """Whether something else than iterations uses results of an operation."""
    own = (node for node, (_, found) in body.where.items() if found == key)
    return any(user not in body.where for node in own for user in node.users)


def _size(node: Fx) -> int:
    """Elements for each row."""
    return math.prod(s for s in sizes(node) if not isinstance(s, torch.SymInt))


def _place(body: Body, key: Key) -> int:
    """Where an operation comes, behind what it uses of the same iteration."""
    own = {a.key for a in body.args[key] if isinstance(a, Result) and not a.lag}
    return max((i + 1 for i, other in enumerate(body.keys) if other in own), default=0)
