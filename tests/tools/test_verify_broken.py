"""`co.verify` catches what is broken, at the right point of the contract and with numbers."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.tools.broken import (
    AcceptsAnything,
    AnyError,
    BatchBound,
    Broadcasts,
    ClaimsUnboundedMemory,
    CorruptedByException,
    CutGradient,
    EmptyIsAStep,
    FlushOfNothing,
    FlushTouchesState,
    ForgetfulSnapshot,
    ForwardReads,
    ForwardWrites,
    Grows,
    HalfDone,
    HeldBack,
    Impure,
    ImpureCounter,
    ImpureResult,
    InPlaceInput,
    InStateDict,
    LeakyChunks,
    LeakyRows,
    LikesChunksOfThree,
    LiveSnapshot,
    NoGradient,
    QueuedOutput,
    RunningSum,
    SharedByCopies,
    TooEarly,
    WrongDelay,
    WrongFlush,
    WrongStart,
)


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
    "rows leak in chunks": (lambda: _two(LeakyChunks), 6, "rows", r"NaN in row 1 changed other rows \(split \["),
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
    "grows": (lambda: _conv(Grows), 7, "state does not grow", r"holds \d+ bytes and list items after 47 steps, and \d+ after 63"),
    "running sum": (
        lambda: RunningSum(4, stride=1),
        7,
        "what left the window",
        r"1e\+04 times the size more than 7 steps ago \(receptive_field \+ delay\) still show: output \d+ is off",
    ),
    "running sum that claims unbounded memory": (
        lambda: ClaimsUnboundedMemory(4, stride=1),
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
        r"streaming 14 steps changed .*'last' .* 1 of 1 values",
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
