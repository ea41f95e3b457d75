"""Modules that are broken on purpose, each in one way. No tests are in this file."""

from typing import Any

import torch
from torch import Tensor

import continual as co
from continual.core.state import StateNode, StateUpdates


class WrongDelay(co.Conv1d):
    delay = 5


class HeldBack(co.Conv1d):
    """An output waits for one input more, and the timing says so too: only a trace of what it needs can tell."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._window = type(self._window)(self._window.receptive_field + 1, 1, 1, 2)  # a tap too many, without a weight
        self._kept += 1

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return torch.conv1d(frames[:, :, :-1], self.weight, self.bias)

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor | None:
        return co.CoModule.advance_step(self, x, node, updates)


class QueuedOutput(co.Conv1d):
    """Outputs leave one call later than they could; a flush brings the last."""

    waiting: Tensor | None = None

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        y = self.forward_steps(input.unsqueeze(2), update_state=update_state)
        return None if y is None else y.squeeze(2)

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        parts = [p for p in (self.waiting, y) if p is not None]
        y = torch.cat(parts, 2) if parts else None
        if pad_end or y is None or not input.shape[2]:
            return y if pad_end else None
        if update_state:
            self.waiting = y[:, :, -1:]
        return y[:, :, :-1] if y.shape[2] > 1 else None

    def clean_state(self) -> None:
        super().clean_state()
        self.waiting = None


class Impure(co.Conv1d):
    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        return super().forward_step(input)


class ImpureCounter(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        if not update_state and self._stream is not None:
            self._stream.node.n_in += 1
        return y


class ImpureResult(co.Conv1d):
    """What it returns with update_state=False is off by one bit or so."""

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        y = super().forward_step(input, update_state)
        return y if update_state or y is None else y * (1 + 1e-6)


class LiveSnapshot(co.Conv1d):
    def get_state(self) -> Any:
        return self._stream


class ForgetfulSnapshot(co.Conv1d):
    def set_state(self, state: Any) -> None:
        super().set_state(state)
        if self._stream is not None:
            self._stream.node.tensors[0].mul_(1 + 1e-6)


class AcceptsAnything(co.Conv1d):
    def set_state(self, state: Any) -> None:
        if state is None or isinstance(state, co.State):
            super().set_state(state)


class BatchBound(co.Conv1d):
    """Takes snapshots of the running batch size only."""

    def set_state(self, state: Any) -> None:
        if state is not None and self._stream is not None and state.frame != self._stream.frame:
            raise co.StateMismatch("another batch size")
        super().set_state(state)


class LeakyRows(co.Conv1d):
    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        y = super().forward_step(input, update_state)
        return None if y is None else y + 0 * input.mean()


class LeakyChunks(co.Sequential):
    """Rows leak in chunks alone, and only where a row holds NaN."""

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        return y if y is None or input.shape[2] < 2 else y + 0 * input.sum()


class WrongFlush(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        if pad_end and not input.shape[2]:
            return None
        return super().forward_steps(input, pad_end, update_state)


class FlushOfNothing(co.Conv1d):
    """A flush after too few steps returns an output of zeros."""

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        short = pad_end and not input.shape[2] and self._stream is not None and 0 < self._stream.clock < 3
        return torch.zeros(len(input), 3, 1) if short else y


class FlushTouchesState(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        if pad_end:
            super().forward_step(torch.zeros(input.shape[:2]))
        return y


class NoGradient(co.Conv1d):
    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        with torch.no_grad():
            return super().forward_step(input, update_state)


class CutGradient(co.Conv1d):
    """The state is detached after each call, so that gradients do not reach earlier inputs."""

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        self.detach_state()
        return y


class LikesChunksOfThree(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        return y if y is None or input.shape[2] != 3 else y + 1e-3


class ForwardWrites(co.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        self.clean_state()
        return y


class ForwardReads(co.Conv1d):
    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y if self._stream is None else y + 1e-3 * self._stream.clock


class Grows(co.Conv1d):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seen: list[Tensor] = []

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        if update_state:
            self.seen.append(input.detach())
        return super().forward_step(input, update_state)


class RunningSum(co.AvgPool1d):
    """A mean by adding what comes and subtracting what goes: its error stays for ever."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.sum: Any = 0.0

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        state = self._stream
        total = self.sum + input
        y = super().forward_step(input, update_state=False)
        oldest = state.tensors["window"][:, state.clock % 3].clone() if state is not None else 0.0
        super().forward_step(input, update_state)
        if update_state:
            self.sum = total - oldest
        return None if y is None else total / 4

    def clean_state(self) -> None:
        super().clean_state()
        self.sum = 0.0


class ClaimsUnboundedMemory(RunningSum):
    """A running sum that says its memory is unbounded, so that what it keeps for ever is not looked for; `forward` has a window."""

    unbounded_memory = True


class CorruptedByException(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        if self._stream is not None and input.ndim == 3 and input.shape[0] != self._stream.frame.shape[0]:
            self._stream.node.tensors[0].zero_()
        return super().forward_steps(input, pad_end, update_state)


class AnyError(co.Conv1d):
    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        if input.shape[1] != 2:
            raise KeyError("channels")
        return super().forward_step(input, update_state)


class Broadcasts(co.Conv1d):
    """A single row is taken for all rows."""

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        if self._stream is not None and len(input) == 1:
            input = input.expand(self._stream.frame.shape[0], -1)
        return super().forward_step(input, update_state)


class HalfDone(co.Sequential):
    """Where a module inside raises, those before it have updated their state."""

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        try:
            return super().forward_step(input, update_state)
        except Exception as error:
            if self._stream is not None and not isinstance(error, co.ContinualError):
                self._stream.node.children[0].n_in += 1
            raise


class InStateDict(co.Conv1d):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("last", torch.zeros(1))

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        if update_state:
            self.last = input.detach().sum().reshape(1)
        return super().forward_step(input, update_state)

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        if update_state and input.shape[2]:
            self.last = input.detach().sum().reshape(1)
        return super().forward_steps(input, pad_end, update_state)


class WrongStart(co.Conv1d):
    """The start is not padded, and an output comes that should not: the first."""

    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        cold = self._stream is None
        y = super().forward_steps(input, pad_end, update_state)
        return y[:, :, 1:] if cold and y is not None and y.shape[2] > 1 else y


class TooEarly(co.Conv1d):
    """A step returns what the last window would be if the stream ended now."""

    def forward_step(self, input: Tensor, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input.unsqueeze(2), True, update_state)
        return None if y is None else y[:, :, -1]


class SharedByCopies(co.Conv1d):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


class InPlaceInput(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        if not torch.is_grad_enabled():
            input.zero_()
        return y


class EmptyIsAStep(co.Conv1d):
    def forward_steps(self, input: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        y = super().forward_steps(input, pad_end, update_state)
        return torch.zeros(len(input), 3, 0) if y is None and not input.shape[2] and not pad_end else y
