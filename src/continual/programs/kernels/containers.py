"""Containers in step programs, and modules that are local in time."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...containers.conditional import Conditional
from ...containers.parallel import Parallel
from ...containers.sequential import Sequential
from ...containers.streams import Rewiring
from ...core.program.context import Lag, Rows, Run, Site, built, kernel
from ...core.program.frame_schedule import Pace
from ...core.state import Node, Wire, frames, rewire
from ...core.timing import IDENTITY
from ...layers.closure import Identity
from ...layers.local import Local


@kernel(Local)
def local(site: Site) -> Run:
    """The module itself, on the frames that come."""
    layer: Any = site.module
    if isinstance(layer, Identity):
        return lambda x, rows: x
    return lambda x, rows: layer.clip(x)


@kernel(Rewiring)
def rewiring(site: Site) -> Run:
    """Streams in another order."""
    layer: Any = site.module
    return lambda x, rows: layer.rearrange(x)


@kernel(Sequential)
def sequential(site: Site) -> Run:
    """One after another."""
    runs = children(site)

    def run(x: Wire, rows: Rows) -> Wire:
        for child in runs:
            x = child(x, rows)
        return x

    return run


def children(site: Site) -> list[Run]:
    """The children of a container."""
    kids: Any = site.module
    return [built(site.plan, child, node) for child, node in zip(kids.kids, site.node.kids, strict=False)]


@kernel(Parallel)
def parallel(site: Site) -> Run:
    """Side by side: outputs that are early wait in queues."""
    layer: Any = site.module
    runs, size = children(site), len(layer.kids)
    timings = [node.before.then(child.timing) for child, node in zip(layer.kids, site.node.kids, strict=False)]
    queues = [
        queue(site, node, kid.out, site.plan.pace(t))
        for t, kid, node in zip(timings, site.node.kids, site.node.kids[size:], strict=False)
    ]

    def run(x: Wire, rows: Rows) -> Wire:
        outs = [child(part, rows) for child, part in zip(runs, layer.split(x), strict=True)]
        return layer.merge([waited(q, y, rows, site.leaves.frames) for q, y in zip(queues, outs, strict=True)])

    return run


def queue(site: Site, node: Node, out: Any, wire: Pace) -> list[Lag]:
    """The queues of a branch, one for each of its tensors."""
    within = Site(site.plan, site.module, node, IDENTITY)
    return [within.lag(f"queue{i or ''}", f, site.leaves.first - wire.first, wire) for i, f in enumerate(frames(out))]


def waited(queues: list[Lag], y: Wire, rows: Rows, count: int) -> Wire:
    """What leaves a branch, when all others have come as far."""
    own = iter(queues)

    def one(t: Tensor) -> Tensor:
        return next(own).waited(rows, t, count)

    return rewire(one, y)


@kernel(Conditional)
def conditional(site: Site) -> Run:
    """Which module is run is known with the data alone."""
    raise site.refuse(
        "its predicate looks at the data, and a program does the same for all of them. Compile its two modules, and choose outside"
    )
