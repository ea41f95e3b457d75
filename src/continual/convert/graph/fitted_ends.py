"""Ends of streams whose number of frames is a function of a length: the last frames are cut off, or padding follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.fitted import Fitted
from ...core.program.context import KernelContext, Run
from ...core.program.frame_schedule import FrameSchedule
from ...core.state import StateNode, StateUpdates, StepSpec
from ...core.step_spec import length
from ...core.timing import IDENTITY, Timing, Window
from ...errors import ShapeMismatch
from ...layers.window import SlidingWindow
from ...layers.window_program import Windows
from .exec_context import ExecContext
from .instructions import Layer


class FitEnd(SlidingWindow):
    """Cuts or pads a stream, when it ends, to the number of frames that a function of a length gives.

    Args:
        fitted: the function. The length is that of the stream itself, or of another wire of the graph.
        beside: whether it is that of another wire.
        most: the largest number of padded frames.
        waiting: the largest number of frames that wait, since they may be cut off.
        mode: of the padding, as ``torch.nn.functional.pad`` names it.
        value: of padding by a constant.
    """

    has_products = False

    def __init__(self, fitted: Fitted, beside: bool, most: int, waiting: int, mode: str, value: float):
        super().__init__()
        self.fitted, self.beside, self.most, self.waiting = fitted, beside, most, waiting
        self.mode, self.value = mode, value
        self._window, self._memoryless = Window(end=most), False
        self._fill = "zeros" if mode == "constant" else mode
        self._taps = self._dilation = 1
        mirrored = {"constant": 0, "replicate": 1, "reflect": most + 1}[mode] if most else 0
        self._padded_end, self._kept = most, max(waiting, mirrored)

    @property
    def timing(self) -> Timing:
        """For the stream by itself; the length of another wire is known only in the graph."""
        return IDENTITY if self.beside else self.fitted

    @property
    def kind(self) -> str:
        return f"{type(self).__name__} {self.fitted} {self.mode} {self.value}"

    @property
    def fill_value(self) -> float:
        return self.value

    def fit(self, x: Tensor, count: int) -> Tensor:
        """A clip ``(B, C, T, *S)``, cut or padded to ``count`` frames."""
        more = count - x.shape[2]
        if more <= 0:
            return x[:, :, :count]
        if self.mode == "constant":
            return F.pad(x, (*(0,) * 2 * (x.ndim - 3), 0, more), value=self.value)
        return torch.cat((x, self._mirrored(x, 0, more)[1]), 2)

    def check(self, frame: StepSpec, path: str) -> StepSpec:
        return frame

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return frames.clone() if frames._is_view() else frames  # a view may be of the ring, which goes on

    def advance_fitted(
        self, x: Tensor | None, node: StateNode, ends: tuple[int, int], updates: StateUpdates
    ) -> tuple[Tensor | None, int]:
        """Run a chunk.

        Args:
            x: the frames that arrive.
            node: the state.
            ends: how many frames the stream, and the wire whose length decides, would have if the stream ended now.
            updates: takes changes of state.
        """
        seen = node.n_in
        n = seen + (0 if x is None else x.shape[2])
        sent, ended = self.fitted.of_wires((n, ends[0]), (n, ends[1]))
        sent = ended if updates.final else sent
        updates.tick(node, n, sent)
        if x is not None and self._kept:
            updates.ring(node, 0, seen, x)
        if sent <= node.n_out:
            return None, ended
        return self.over_time(self._gather(x, node, node.n_out, sent, n), node.n_out, None), ended

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        return self.advance_fitted(x, node, (n_if_ended, n_if_ended), updates)

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        """The case without waiting frames: each leaves when it comes."""
        seen = node.n_in
        updates.ticks.append((node, seen + 1, seen + 1))
        if node.tensors:
            updates.slots.append((node.tensors[0][:, seen % self._kept], x))
        return x

    def plan(self, node: StateNode, lookahead: int | None) -> tuple[int, int, int | None] | None:
        return None if self.fitted.cuts else super().plan(node, None)

    def program_on(self, ctx: KernelContext, leaves: FrameSchedule) -> Run:
        """The end of each row. The number of frames is decided where they leave."""
        ctx.out_schedule = leaves
        fill = self.value if self.mode == "constant" else self.mode
        windows = Windows(ctx, self._window, ctx.node.in_spec, fill, self.most)
        return lambda x, rows: windows.frames(rows, x)


@dataclass(eq=False)
class FittedEnd(Layer):
    """A layer whose number of frames follows from the length of the wire ``to``."""

    to: int = 0

    def chunk(self, m: ExecContext) -> None:
        x = None if m.env[self.slot] is None else self.arriving(m, m.frames[self.before])
        module: Any = self.module
        ends = m.ends[self.before], m.ends[self.to]
        y, m.ends[self.wire] = module.advance_fitted(x, m.nodes[self.state_node], ends, m.call)
        m.frames[self.wire] = length(y)
        self.leaving(m, y, length(y))

    def clip(self, m: ExecContext) -> None:
        module: Any = self.module
        frames, to = m.frames[self.before], m.frames[self.to]
        _, count = module.fitted.of_wires((frames, frames), (to, to))
        if not count:
            raise ShapeMismatch(
                f"{self.path}: a clip with {frames} steps here is too short for the padding or the cut at its end"
            )
        m.frames[self.wire] = count
        self.leaving(m, module.fit(self.arriving(m, frames), count), count)
