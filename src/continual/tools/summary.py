"""`summary`: the cost of every module of a network in a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from ..core.module import CoModule
from ..core.state import State, StateNode, frames
from ..core.step_spec import Inputs


@dataclass(frozen=True)
class Row:
    """One module with its submodules.

    Attributes:
        path: its name in ``named_modules``.
        type: class name.
        params: number of parameters; shared parameters count in each module.
        macs_step: multiply-adds of convolutions and matrix products per input step of the network, mean over a stride period.
        macs_clip: the same for one clip.
        receptive_field, delay, stride: from the network's input to this module's output, in input steps.
        state_bytes: for the whole batch.
    """

    path: str
    type: str
    params: int
    macs_step: Fraction
    macs_clip: int
    receptive_field: int
    delay: int
    stride: int | Fraction
    state_bytes: int


@dataclass(frozen=True)
class Summary:
    """The rows of a network, the first for the network itself. Prints as a table.

    Attributes:
        rows: in the order of the network.
        steps: length of the clip that ``macs_clip`` is for.
        rate: steps per second; ``None`` if not known.
    """

    rows: tuple[Row, ...]
    steps: int
    rate: float | None = None

    def __str__(self) -> str:
        delay = "delay" if self.rate is None else "delay (ms)"
        titles = (
            "module",
            "type",
            "params",
            "MACs/step",
            f"MACs/clip of {self.steps}",
            "receptive field",
            delay,
            "stride",
            "state bytes",
        )
        table = [titles, *(self._cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(titles))]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in table
        ]
        return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])

    def _cells(self, row: Row) -> tuple[str, ...]:
        above = [
            r.path for r in self.rows if r.path and row.path.startswith(f"{r.path}.")
        ]  # the modules around it that have rows
        depth = len(above) + bool(row.path)
        name = row.path[len(max(above, key=len)) + 1 :] if above else row.path
        delay = f"{row.delay}" if self.rate is None else f"{row.delay} ({1000 * row.delay / self.rate:.1f})"
        return (
            "  " * depth + (name or "network"),
            row.type,
            f"{row.params:,}",
            f"{float(row.macs_step):,.0f}",
            f"{row.macs_clip:,}",
            f"{row.receptive_field:,}",
            delay,
            str(row.stride),
            f"{row.state_bytes:,}",
        )


def summary(net: CoModule, step: Inputs, *, clip_length: int | None = None, rate: float | None = None) -> Summary:
    """Parameters, multiply-adds, timing and state of every module, as a table.

    Args:
        net: the network.
        step: an example step ``(B, C, *S)``; multiply-adds are for one row, state bytes for all rows.
        clip_length: steps of the clip to compare with; by default the receptive field.
        rate: steps per second; with it the table gives the delay in milliseconds too.

    Raises:
        ShapeMismatch: the network can't take such a step.

    Example:
        >>> net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.ReLU(), co.AvgPool1d(2))
        >>> print(co.summary(net, torch.zeros(1, 2), clip_length=8))
        module   type        params  MACs/step  MACs/clip of 8  receptive field  delay  stride  state bytes
        ───────────────────────────────────────────────────────────────────────────────────────────────────
        network  Sequential      28         24             192                4      2       2           32
          0      Conv1d          28         24             192                3      1       1           16
          1      ReLU             0          0               0                3      1       1            0
          2      AvgPool1d        0          0               0                4      2       2           16
    """
    state = net.init_state(step)
    steps = clip_length or net.receptive_field
    return Summary(tuple(_rows(net, state, state.node, steps)), steps, rate)


def _rows(net: CoModule, state: State, node: StateNode, steps: int) -> Iterator[Row]:
    windows = node.kind.startswith("windows of ")
    is_queue = windows or node.kind in ("queue", "positions")  # they belong to no module
    module = cast(CoModule, net if is_queue else net.part(node.path))
    below = [list(_rows(net, state, child, steps)) for child in node.children]
    if is_queue and not node.tensors:
        return
    if windows:  # they have the timing of the module that they are of
        module = cast(CoModule, net.part(node.path.rpartition(".")[0]) if "." in node.path else net)
    timing = node.before.then(module.timing) if windows or not is_queue else node.before
    direct = [rows[0] for rows in below if rows]
    outs = [] if is_queue else frames(node.out)
    own = Fraction(sum(module.macs_per_output(node, f) for f in outs))
    n_in, n_out = node.before.ended(steps), timing.ended(steps)
    of_clip = sum(module.macs_of_clip(node, f, n_in, n_out) for f in outs)
    yield Row(
        path=f"{node.path} (waits)" if is_queue and not windows else node.path,
        type="windows" if windows else "queue" if is_queue else type(module).__name__,
        params=0 if is_queue else sum(p.numel() for p in module.parameters()),
        macs_step=own / Fraction(timing.stride) + sum((r.macs_step for r in direct), Fraction(0)),
        macs_clip=int(of_clip) + sum(r.macs_clip for r in direct),
        receptive_field=timing.receptive_field,
        delay=timing.delay,
        stride=timing.stride,
        state_bytes=sum(t.numel() * t.element_size() for n in node.walk() for t in n.tensors),
    )
    for rows in below:
        yield from rows
