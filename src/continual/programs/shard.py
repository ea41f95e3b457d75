"""`Shard`: the rows of one program, their state, and the frames that wait, by numbers of rows. It knows no streams by name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from ..core.program.frame_schedule import OPEN
from ..core.state import Wire, rewire
from .lanes import Lanes
from .served import Served
from .step_program import ProgramState

ALL = None  # in place of an index: all requested rows


@dataclass
class Ending:
    """A row whose stream is at its end.

    Attributes:
        steps: of the stream.
        call: the next call.
        left: calls until all outputs have come.
        found: outputs that nobody has taken.
    """

    steps: int
    call: int
    left: int
    found: list[Wire] = field(default_factory=list)


class Shard:
    """The rows of one program.

    Args:
        program: serves the rows. Shards of one batch may share it.

    Attributes:
        steps: the number of steps of each row.
        endings: the rows that are at their end.
        calls, seconds: of the program so far.
    """

    def __init__(self, program: Served):
        self.program, self.schedule = program, program.schedule
        self.state: ProgramState = program.init_state()
        self.lanes = Lanes(program.lanes, program.buffers())
        self.steps = torch.zeros(program.batch, dtype=torch.int64)
        self.free = list(range(program.batch - 1, -1, -1))
        self.endings: dict[int, Ending] = {}
        self.calls, self.seconds = 0, 0.0
        self._active = torch.zeros(program.batch, dtype=torch.bool)
        self._ones = torch.ones(program.batch, dtype=torch.int64)
        self._least = -(self.schedule.outputs.first + torch.arange(self.schedule.per_call))  # outputs before an output exists

    def reset(self, row: int) -> None:
        """Restart a row."""
        self.program.reset(self.state, [row])
        self.steps[row] = 0
        self.endings.pop(row, None)

    # ---- calls ----------------------------------------------------------------------------------------------------------

    def _run(self, rows: Tensor, state: ProgramState) -> tuple[Wire, ProgramState]:
        """One call for some rows on a state. The outputs are of all rows."""
        started = time.perf_counter()
        self._active.zero_()
        self._active.index_fill_(0, rows, True)
        active = self._active.clone() if self.program.device.type == "cpu" else self._active.to(self.program.device)
        found = self.program.run(self.lanes.buffers, state, active)
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - started
        return found

    def call(self, rows: Tensor) -> Wire:
        """One call for some rows whose chunks are full, and for those that are at their end. Returns the outputs of the former."""
        device, ending = self.program.device, [row for row, e in self.endings.items() if e.left]
        y, self.state = self._run(torch.cat([rows, torch.tensor(ending)]) if ending else rows, self.state)
        for row in ending:
            self._end(self.endings[row], self.program.select(y, torch.tensor([row], device=device)))
        return self.program.select(y, rows.to(device))

    def _end(self, ending: Ending, y: Wire) -> None:
        """Keep the outputs that exist of a row that is at its end."""
        ending.found += self.existing(y, ending.call, ending.steps)
        ending.call, ending.left = ending.call + 1, ending.left - 1

    def existing(self, y: Wire, call: int, steps: int = OPEN) -> list[Wire]:
        """The outputs of a call that exist, in a stream of ``steps`` steps; an empty list if none does."""
        valid, dim = self.schedule.valid_in(call, steps), self.program.out_time
        return [rewire(lambda t: t.narrow(dim, valid.start, len(valid)), y)] if valid else []

    # ---- steps ----------------------------------------------------------------------------------------------------------

    def advance(self, rows: Tensor, parts: Sequence[Tensor], count: int) -> tuple[Wire, Tensor]:
        """Take ``count`` frames of some rows, and make the calls that they complete; at least one if rows are at their end.

        Args:
            rows: different rows.
            parts: frames ``(n, count, …)`` of each input.
            count: of frames.

        Returns:
            The outputs, as many for each row as the calls of any of them have, and which of them exist.
        """
        schedule, before = self.schedule, self.steps.index_select(0, rows)
        found: list[tuple[Tensor | None, Wire]] = []  # of each call
        groups = self._groups(before)
        taken = [0] * len(groups)
        while any(n < count for n in taken):
            due: list[Tensor | None] = []
            moved = list[tuple[Tensor, int]]()
            for i, (slot, index) in enumerate(groups):
                if taken[i] == count:
                    continue
                slot = 0 if taken[i] else slot
                n = min(count - taken[i], schedule.chunk - slot)
                own = rows if index is ALL else rows[index]
                whole = index is ALL and n == count
                chunk = parts if whole else [(x if index is ALL else x[index]).narrow(1, taken[i], n) for x in parts]
                self.lanes.put(own.to(self.program.device), slot, chunk)
                taken[i] += n
                moved.append((own, n))
                if slot + n == schedule.chunk:
                    due.append(index)
            if due:
                index = ALL if len(due) == len(groups) == 1 else torch.cat(cast(list[Tensor], due))
                found.append((index, self.call(rows if index is ALL else rows[index])))
            for own, n in moved:  # only now: a call that fails takes no step
                self.steps.index_add_(0, own, self._ones[: len(own)], alpha=n)
        if not found and any(e.left for e in self.endings.values()):
            self.call(rows[:0])
        return self._joined(found, len(rows)), self._valid(before, count, len(found))

    def _groups(self, steps: Tensor) -> list[tuple[int, Tensor | None]]:
        """The slots of the next frames, and which of the rows have them."""
        if self.schedule.chunk == 1 or not len(steps):
            return [(0, ALL)] if len(steps) else []
        slots = (steps - self.schedule.start) % self.schedule.chunk
        different = slots.unique().tolist()
        if len(different) == 1:
            return [(different[0], ALL)]
        return [(slot, (slots == slot).nonzero().flatten()) for slot in different]

    def _joined(self, found: list[tuple[Tensor | None, Wire]], rows: int) -> Wire:
        """The outputs of several calls, for all rows."""
        dim, per_call = self.program.out_time, self.schedule.per_call
        if len(found) == 1 and found[0][0] is ALL:
            return found[0][1]
        y = self.program.no_outputs(rows, per_call * len(found))
        for i, (index, part) in enumerate(found):

            def place(own: Tensor, x: Tensor, at: int = i * per_call, index: Tensor | None = index) -> None:
                own = own.narrow(dim, at, per_call)
                own.copy_(x) if index is ALL else own.index_copy_(0, index.to(own.device), x)

            rewire(place, y, part)
        return y

    def _valid(self, before: Tensor, count: int, calls: int) -> Tensor:
        """Which outputs of ``calls`` calls exist, ``(n, calls · outputs)``, for rows that have had ``before`` steps."""
        schedule = self.schedule
        done = before if schedule.chunk == 1 else (before - schedule.start).div_(schedule.chunk, rounding_mode="floor")
        outputs = done if schedule.per_call == 1 else done * schedule.per_call  # of the calls before
        if calls == 1 and schedule.chunk == 1:
            return outputs.unsqueeze(1) >= self._least
        first = outputs + schedule.outputs.first
        number = torch.arange(calls * schedule.per_call)
        made = (before - schedule.start + count).div_(schedule.chunk, rounding_mode="floor") - done
        return (first.unsqueeze(1) + number >= 0) & (number // schedule.per_call < made.unsqueeze(1))

    # ---- ends -----------------------------------------------------------------------------------------------------------

    def finish(self, row: int) -> None:
        """Mark the end of a row's stream. Later calls bring its outputs.

        Raises:
            ShapeMismatch: branches of the network differ in length after so many steps.
        """
        steps = int(self.steps[row])
        done = self.schedule.calls(steps)
        left = self.schedule.calls_to_end(done, steps) if steps else 0
        self.program.finish(self.state, row, steps)
        self.endings[row] = Ending(steps, done, left)

    def ended(self) -> list[tuple[int, Wire | None, bool]]:
        """Of each row that is at its end: its outputs since they were last asked for, if any, and whether they are the last."""
        found = []
        for row, ending in list(self.endings.items()):
            y = self._one(ending.found)
            if y is not None or not ending.left:
                found.append((row, y, not ending.left))
            ending.found = []
            if not ending.left:
                del self.endings[row]
        return found

    def flush(self, row: int) -> Wire | None:
        """The outputs that the end of a row's stream would bring now. Nothing changes."""
        steps = int(self.steps[row])
        if steps == 0:
            return None
        state = {name: t.clone() for name, t in self.state.items()}
        done = self.schedule.calls(steps)
        left = self.schedule.calls_to_end(done, steps)
        self.program.finish(state, row, steps)
        ending, rows = Ending(steps, done, left), torch.tensor([row])
        while ending.left:
            y, state = self._run(rows, state)
            self._end(ending, self.program.select(y, rows.to(self.program.device)))
        return self._one(ending.found)

    def _one(self, found: list[Wire]) -> Wire | None:
        return rewire(lambda *parts: torch.cat(parts, self.program.out_time), *found) if found else None

    # ---- snapshots ------------------------------------------------------------------------------------------------------

    def copies(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Copies of the numbers of steps, the state and the chunks of some rows, rows first."""
        on_device = rows.to(self.program.device)
        state = {name: t.index_select(0, on_device) for name, t in self.state.items()}
        return self.steps[rows], state, self.lanes.copies(on_device)

    def write(self, rows: Tensor, steps: Tensor, state: dict[str, Tensor], chunks: Sequence[Tensor]) -> None:
        """Continue some rows from copies."""
        on_device = rows.to(self.program.device)
        for name, t in state.items():
            self.state[name].index_copy_(0, on_device, t)
        self.lanes.write(on_device, chunks)
        self.steps[rows] = steps

    def row(self, row: int) -> dict[str, Tensor]:
        """A view of a row of each state tensor."""
        return {name: t[row] for name, t in self.state.items()}

    def waiting(self, row: int, steps: int | None = None) -> list[Tensor]:
        """A view of the frames of a row that wait after ``steps`` steps, by default its own."""
        return self.lanes.waiting(row, self.schedule.slot(int(self.steps[row]) if steps is None else steps))

    def restore(self, row: int, steps: int, state: dict[str, Tensor], waiting: Sequence[Tensor]) -> None:
        """Continue a row from a snapshot."""
        own = self.row(row)
        for name, value in state.items():
            own[name].copy_(value)
        self.lanes.restore(row, self.schedule.slot(steps), waiting)
        self.steps[row] = steps
        self.endings.pop(row, None)
