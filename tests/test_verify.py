"""`co.verify` passes what is right, and catches what is broken, at the right point of the contract and with numbers."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.report import Check
from continual.state import Call, Node

# ---- good networks -----------------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (lambda: co.Conv1d(2, 3, 3, padding=1), (2, 2, 30)),
    "strides, residual, pools": (
        lambda: co.Sequential(
            co.Conv1d(2, 4, 3, padding=1),
            nn.ReLU(),
            co.Residual(co.Conv1d(4, 4, 5, padding=2)),
            co.Conv1d(4, 4, 3, stride=2),
            co.AvgPool1d(2),
            co.MaxPool1d(3, stride=1, padding=1),
        ),
        (1, 2, 30),
    ),
    "branches": (
        lambda: co.BroadcastReduce(
            co.Conv1d(2, 4, 1), co.Conv1d(2, 4, 3, padding=1), co.Conv1d(2, 4, 5, padding=2), reduce="concat"
        ),
        (2, 2, 20),
    ),
    "delay": (lambda: co.Sequential(co.Delay(2), co.Conv1d(2, 3, 3)), (2, 2, 20)),
    "conditional": (
        lambda: co.Conditional(_never, co.Conv1d(2, 2, 5, padding=2), co.Conv1d(2, 2, 3, padding=1)),
        (2, 2, 20),
    ),
    "space": (lambda: co.Sequential(co.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.GELU()), (1, 2, 16, 4)),
    "bursts": (lambda: co.Conv1d(2, 3, 3, padding=4), (2, 2, 20)),
    "padding alone in some outputs": (
        lambda: co.Sequential(co.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=4)),
        (2, 2, 20),
    ),
    "reflection": (lambda: co.Conv1d(2, 3, 5, padding=2, padding_mode="reflect"), (2, 2, 20)),
    "causal by a crop": (lambda: co.Sequential(co.Conv1d(2, 3, 3, padding=2), co.Trim(0, 2)), (2, 2, 20)),
    "a crop before end padding": (
        lambda: co.Sequential(co.Trim(1, 1), co.MaxPool1d(4, stride=1, padding=2, ceil_mode=True), co.Conv1d(2, 2, 1)),
        (1, 2, 12),
    ),
    "nothing but a crop": (lambda: co.Delay(2, auto_shrink="lagging"), (1, 3, 10)),
    "skip": (lambda: co.Sequential(co.Skip(3), co.Conv1d(2, 3, 3, dilation=2)), (2, 2, 20)),
    "nothing but a constant": (lambda: co.Sequential(co.Conv1d(2, 3, 3, padding=1), co.Constant(2.0)), (2, 2, 12)),
    "no memory": (lambda: co.Sequential(nn.Conv1d(2, 3, 1), nn.Tanh()), (2, 2, 8)),
    "clip shorter than the receptive field of its padding": (lambda: co.Conv1d(1, 1, 9, padding=4), (2, 1, 6)),
    "a clip of one step": (lambda: co.Conv1d(1, 1, 3, padding=1), (2, 1, 1)),
}


def _never(module: nn.Module, x: Tensor) -> bool:
    return False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", GOOD)
def test_passes_what_is_right(name: str, dtype: torch.dtype) -> None:
    make, shape = GOOD[name]
    net = make().to(dtype)
    report = co.verify(net, torch.randn(shape, dtype=dtype))
    assert report.passed
    assert {c.point for c in report.checks} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}


def test_half_precision() -> None:
    assert co.verify(co.Conv1d(2, 3, 3, padding=1).bfloat16(), torch.randn(2, 2, 12).bfloat16()).passed


def test_takes_a_reference() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3))
    model(torch.randn(8, 2, 20))  # statistics that are not 0 and 1
    net = co.continual(model)
    model.train()
    report = co.verify(net, torch.randn(2, 2, 20), model)
    names = {c.name: c.outcome for c in report.checks}
    assert names["forward = reference"] == names["state_dict as the reference's"] == "passed"
    assert model.training


def test_several_streams() -> None:
    net = co.Parallel(co.Conv1d(2, 3, 3, padding=1), co.Conv1d(1, 2, 5, padding=2))
    report = co.verify(net, [torch.randn(2, 2, 16), torch.randn(2, 1, 16)], raise_on_fail=False)
    assert {c.name for c in report.failures} <= {"wrong inputs are refused"}  # a list of steps in the place of chunks: IndexError


class Frames:
    """A streaming object that is no module: a mean of three frames. Its state is a clock and the last two."""

    def __init__(self) -> None:
        self.held: tuple[int, Tensor] | None = None

    def forward_steps(self, x: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        clock, last = (0, torch.zeros(len(x), 2, 2)) if self.held is None else self.held
        if x.ndim != 3 or x.shape[:2] != last.shape[:2] or x.dtype != torch.float32:
            raise co.ShapeMismatch(f"a chunk is (B, 2, T), got {tuple(x.shape)}")
        frames = torch.cat((last, x), 2)
        if update_state:
            self.held = clock + x.shape[2], frames[:, :, -2:].clone()
        known = frames[:, :, max(0, 2 - clock) :]
        return _mean_of_three(known) if known.shape[2] > 2 and x.shape[2] else None

    def forward_step(self, x: Tensor, update_state: bool = True) -> Tensor | None:
        y = self.forward_steps(x.unsqueeze(-1), update_state=update_state)
        return None if y is None else y.squeeze(2)

    def get_state(self) -> Any:
        return None if self.held is None else (self.held[0], self.held[1].clone())

    def set_state(self, state: Any) -> None:
        if state is not None and (not isinstance(state, tuple) or state[1].dtype != torch.float32):
            raise co.StateMismatch("not a clock and two frames")
        self.held = None if state is None else (state[0], state[1].clone())

    def clean_state(self) -> None:
        self.held = None


def _mean_of_three(x: Tensor) -> Tensor:
    return nn.functional.avg_pool1d(x, 3, 1)


def test_takes_any_object_with_the_protocol() -> None:
    report = co.verify(Frames(), torch.randn(2, 2, 20), _mean_of_three)
    assert {c.name for c in report.skipped} >= {"delay", "counts as timing says", "state_dict has no stream state"}
    with pytest.raises(TypeError, match="Frames has no `forward`"):
        co.verify(Frames(), torch.randn(2, 2, 20))


def test_integer_input() -> None:
    class Embed(nn.Embedding):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sum(1).movedim(-1, 1)  # (B, C, T) to (B, E, T)

    net = co.Sequential(co.forward_stepping(Embed(7, 3)), nn.Conv1d(3, 4, 3, padding=1))
    # the embedding raises RuntimeError on the frame of the other network's state, before it is refused
    report = co.verify(net, torch.randint(0, 7, (2, 1, 16)), raise_on_fail=False)
    assert {c.name for c in report.failures} <= {"foreign states are refused"}
    assert "integer" in next(c for c in report.checks if c.point == 8).detail


# ---- the module is left as it was --------------------------------------------------------------------------------------


def test_leaves_the_module_as_it_was() -> None:
    torch.manual_seed(1)
    net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.Dropout(0.5), nn.BatchNorm1d(4).eval(), co.Conv1d(4, 2, 3))
    net.call_mode = "forward_steps"
    net.train()
    net[2].eval()
    x = torch.randn(3, 2, 20)
    net.forward_steps(x[:, :, :7])
    net[0].weight.grad = torch.ones_like(net[0].weight)
    state, weights = net.get_state(), copy.deepcopy(net.state_dict())
    flags, clip, random = [m.training for m in net.modules()], x.clone(), torch.get_rng_state()

    co.verify(net, x)

    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, clip)
    assert flags == [m.training for m in net.modules()]
    assert net.call_mode == "forward_steps"
    assert state.clock == net.get_state().clock == 7
    assert all(torch.equal(a, b) for a, b in zip(state.tensors.values(), net.get_state().tensors.values(), strict=True))
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert all(p.grad is None for n, p in net.named_parameters() if n != "0.weight")
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_a_cold_module_stays_cold() -> None:
    net = co.Conv1d(1, 1, 3)
    co.verify(net, torch.randn(2, 1, 8))
    assert net.get_state() is None


def test_draws_the_same_every_time() -> None:
    net, x = co.Conv1d(1, 2, 5, stride=2), torch.randn(2, 1, 20)
    assert str(co.verify(net, x, seed=3)) == str(co.verify(net, x, seed=3))


def test_refuses_a_clip_that_forward_refuses() -> None:
    with pytest.raises(co.ShapeMismatch, match=r"refuses the clip \(3, 1, 4\) float32"):
        co.verify(co.Conv1d(1, 1, 9), torch.randn(1, 1, 4))


def test_report_reads_as_a_table() -> None:
    report = co.verify(co.Conv1d(1, 1, 3), torch.randn(2, 1, 12))
    lines = str(report).splitlines()
    assert lines[0] == "co.verify: Conv1d on a clip (2, 1, 12) float32, tolerance 1e-05: passed"
    assert re.match(r"  2  any chunking +chunks and steps = forward +ok +12 splits, off by ", lines[3])
    assert all("no reference" in c.detail for c in report.skipped[:1])
    assert str(Check(6, "rows", "failed", "why")) == "contract point 6 (independent rows), rows: why"


def test_is_the_function_not_the_module() -> None:
    import continual.verify

    assert callable(continual.verify)
    assert co.verify is continual.verify


# ---- broken on purpose -------------------------------------------------------------------------------------------------


class WrongDelay(co.Conv1d):
    delay = 5


class HeldBack(co.Conv1d):
    """An output waits for one input more, and the timing says so too: only a trace of what it needs can tell."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._window = type(self._window)(self._window.receptive_field + 1, 1, 1, 2)  # a tap too many, without a weight
        self._kept += 1

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return super().over_time(frames[:, :, :-1], start, ended)

    def advance_step(self, x: Tensor, node: Node, call: Call) -> Tensor | None:
        return co.CoModule.advance_step(self, x, node, call)


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
            self._stream.node.seen += 1
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
                self._stream.node.kids[0].seen += 1
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


def _conv(cls: type[co.Conv1d], **options: Any) -> co.Conv1d:
    return cls(2, 3, 3, **{"padding": 1, **options})


def _two(cls: type[co.Sequential]) -> co.Sequential:
    return cls(co.Conv1d(2, 3, 3, padding=1), nn.ReLU(), co.Conv1d(3, 3, 3))


# the module, the point, the check and what its message says; the first that fails unless the check is given
BROKEN: dict[str, tuple[Any, int, str, str]] = {
    "wrong delay": (lambda: _conv(WrongDelay), 3, "delay", r"delay says 5, .* input 6; it came with input 2"),
    "held back": (
        lambda: _conv(HeldBack),
        3,
        "no output late",
        r"output 0 was held back: known after 2 inputs, delivered after 3",
    ),
    "output queued": (lambda: _conv(QueuedOutput), 3, "delay", r"delay says 1, .* input 2; it came with input 3"),
    "output queued, by the trace": (lambda: _conv(QueuedOutput), 3, "no output late", r"held back: known after 2 inputs, deli"),
    "update_state=False updates": (
        lambda: _conv(Impure),
        4,
        "update_state=False",
        r"forward_step\(update_state=False\) after 0 steps changed the state",
    ),
    "update_state=False counts": (
        lambda: _conv(ImpureCounter),
        4,
        "update_state=False",
        r"after 1 steps changed the state: \"?'?counts.* went from \(1, 0\) to \(2, 0\)",
    ),
    "update_state=False returns else": (
        lambda: _conv(ImpureResult),
        4,
        "update_state=False",
        r"does not return what the updating call returns: output 0 is off by \d",
    ),
    "live snapshot": (
        lambda: _conv(LiveSnapshot),
        5,
        "snapshot and restore",
        r"after 1 steps is live: later steps changed 'clock' ",
    ),
    "restores inexactly": (
        lambda: _conv(ForgetfulSnapshot),
        5,
        "snapshot and restore",
        r"differs from the snapshot: tensor 'window'",
    ),
    "takes anything for a state": (lambda: _conv(AcceptsAnything), 5, "foreign", r"set_state\(a string\) was accepted"),
    "one batch size": (lambda: _conv(BatchBound), 5, "another batch size", r"raised StateMismatch: another batch size"),
    "rows leak in steps": (
        lambda: _conv(LeakyRows),
        6,
        "rows",
        r"NaN in row 0 changed other rows \(single steps\): output 0 is off",
    ),
    "rows leak in chunks": (lambda: _two(LeakyChunks), 6, "rows", r"NaN in row 0 changed other rows \(split \["),
    "no flush": (lambda: _conv(WrongFlush), 2, "chunks and steps", r"pad_end\] differs from forward: 19 outputs instead of 20"),
    "flush of too few": (
        lambda: _conv(FlushOfNothing, padding=0),
        2,
        "flush at any moment",
        r"refuses a clip of 1 steps as too short, but the flush returned 1 outputs, not None",
    ),
    "flush touches the state": (
        lambda: _conv(FlushTouchesState),
        4,
        "pad_end=True",
        r"pad_end=True on a chunk of 3 after 0 steps, .* changed the state: 'clock' went from 3 to 4",
    ),
    "no gradients": (
        lambda: _conv(NoGradient),
        8,
        "gradients",
        r"gradient of the clip through split \[20 steps, 0 with pad_end\] is off by \d.*allowed",
    ),
    "gradients cut": (lambda: _conv(CutGradient), 8, "gradients", r"gradient of \S+.* through split .* off by \d"),
    "likes a chunk size": (
        lambda: _conv(LikesChunksOfThree),
        2,
        "chunks and steps",
        r"split \[.*3.*\] differs .* output \d+ is off by",
    ),
    "forward writes": (
        lambda: _conv(ForwardWrites),
        1,
        "forward leaves",
        r"\(after 1 steps\) changed the state: 'clock' vanished",
    ),
    "forward reads": (
        lambda: _conv(ForwardReads),
        1,
        "forward leaves",
        r"called after 1 steps, output 0 is off by \d.*in 20 of 20 outputs",
    ),
    "grows": (lambda: _conv(Grows), 7, "state does not grow", r"holds \d+ bytes and list items after 11 steps, and \d+ after 31"),
    "running sum": (
        lambda: RunningSum(4, stride=1),
        7,
        "what left the window",
        r"1e\+04 times the size more than 7 steps ago \(receptive_field \+ delay\) still show: output \d+ is off",
    ),
    "exception corrupts": (
        lambda: _conv(CorruptedByException),
        11,
        "wrong inputs are refused",
        r"forward_steps on one row more, which was refused, changed the state: tensor 'window' .* in \d+ of \d+ values",
    ),
    "any error": (lambda: _conv(AnyError), 11, "wrong inputs are refused", r"one channel more raised KeyError \('channels'\)"),
    "broadcasts a row": (
        lambda: _conv(Broadcasts),
        11,
        "wrong inputs are refused",
        r"a single row, after 10 steps, raised nothing",
    ),
    "exception inside": (
        lambda: _two(HalfDone),
        11,
        "an exception inside",
        r"inside Conv1d, in forward_step after 10 steps, changed",
    ),
    "state in state_dict": (
        lambda: _conv(InStateDict),
        9,
        "state_dict has no",
        r"streaming 20 steps changed .*'last' .* 1 of 1 values",
    ),
    "wrong start": (
        lambda: _conv(WrongStart),
        2,
        "chunks and steps",
        r"split \[20 with pad_end\] differs from forward: 19 outputs instead of 20",
    ),
    "too early": (lambda: _conv(TooEarly), 3, "no output late, none early", r"output \d came early: delivered after 1 inputs"),
    "copies share": (lambda: _conv(SharedByCopies), 9, "deepcopy", r"not independent: its steps changed the original's state"),
    "input in place": (lambda: _conv(InPlaceInput), 1, "forward leaves", r"forward_steps changed its input in place"),
    "empty chunk": (lambda: _conv(EmptyIsAStep), 11, "an empty chunk", r"after 0 steps returned \(2, 3, 0\), not None"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_catches_what_is_broken(name: str) -> None:
    make, point, check, message = BROKEN[name]
    channels = 2
    with pytest.raises(co.StreamMismatch) as caught:
        co.verify(make(), torch.randn(2, channels, 20))
    report = caught.value.report
    assert isinstance(report, co.Report)
    assert not report.passed
    found = [c for c in report.failures if c.point == point and c.name.startswith(check)]
    assert found, str(report)
    assert re.search(message, str(found[0])), str(found[0])
    subject = f"{type(make()).__name__} on a clip (2, 2, 20) float32"
    assert str(caught.value).startswith(f"{subject} breaks {report.failures[0]}")


# What breaks one point and no other must be blamed on that point alone.
ONLY = [
    "wrong delay", "held back", "rows leak in steps", "rows leak in chunks", "no gradients", "forward reads", "grows",
    "any error", "broadcasts a row", "live snapshot", "takes anything for a state", "one batch size", "exception inside",
    "update_state=False returns else", "flush of too few",
]  # fmt: skip


@pytest.mark.parametrize("name", ONLY)
def test_blames_no_other_point(name: str) -> None:
    make, point, _, _ = BROKEN[name]
    report = co.verify(make(), torch.randn(2, 2, 20), raise_on_fail=False)
    assert {c.point for c in report.failures} == {point}, str(report)


def test_wrong_weights_and_keys() -> None:
    net, other = co.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 3, 3, padding=1)
    report = co.verify(net, torch.randn(2, 2, 12), other, raise_on_fail=False)
    assert [c.name for c in report.failures] == ["forward = reference"]
    other = nn.Sequential(copy.deepcopy(nn.Conv1d(2, 3, 3, padding=1)))
    other[0].load_state_dict(net.state_dict())
    report = co.verify(net, torch.randn(2, 2, 12), other, raise_on_fail=False)
    assert [c.name for c in report.failures] == ["state_dict as the reference's"]
    assert report.failures[0].detail == "state_dict entry '0.weight': none here, (3, 2, 3) in the reference"


def test_lambdas_skip_the_pickle_alone() -> None:
    report = co.verify(co.Sequential(co.Lambda(lambda step: 2 * step), co.Conv1d(2, 2, 3)), torch.randn(2, 2, 12))
    assert [c.name for c in report.skipped if "pickled" in c.detail] == ["pickle in mid-stream"]


def test_long_clips_are_looked_at_in_places() -> None:
    from continual.checks.trial import Trial

    trial = Trial(co.Conv1d(1, 1, 3), torch.randn(2, 1, 3000))
    assert len(trial.positions()) <= 40
    assert trial.positions()[-1] == 3000
    assert len(trial.random_plan()) < 300
