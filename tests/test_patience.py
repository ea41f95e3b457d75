"""What is said on a terminal while something takes long."""

from __future__ import annotations

import io
import sys
import time

import pytest
import torch

import continual as co
from continual import patience
from continual.program import step_program


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def waiting_at(found: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error, in a test's body: pytest takes it for itself between a fixture and its test."""
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    return found


def test_what_takes_long_is_told_and_its_end(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)
    with patience.told("compiling X"):
        time.sleep(0.2)
        assert terminal.getvalue() == "continual: compiling X …\n"
    assert terminal.getvalue().splitlines()[1:] == ["continual: compiling X: 0 s"]


def test_the_end_is_told_where_it_is_an_error(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)

    def failing() -> None:
        with patience.told("compiling X"):
            time.sleep(0.2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert len(terminal.getvalue().splitlines()) == 2


def test_what_is_quick_is_not_told(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)
    monkeypatch.setattr(patience, "PATIENCE", 30.0)
    began = time.monotonic()
    with patience.told("compiling X"):
        pass
    assert time.monotonic() - began < 20, "it waited for its own timer"
    assert terminal.getvalue() == ""


def test_nothing_is_told_in_a_file(monkeypatch: pytest.MonkeyPatch):
    file = waiting_at(io.StringIO(), monkeypatch)
    with patience.told("compiling X"):
        time.sleep(0.2)
    assert file.getvalue() == ""


def test_a_program_that_is_compiled(monkeypatch: pytest.MonkeyPatch):
    """Its first call is part of it, since torch.compile compiles there; later calls have nothing to tell."""
    terminal = waiting_at(Terminal(), monkeypatch)

    def slow(planned, example):
        time.sleep(0.2)
        return core

    def core(*given):
        terminal.write("called\n")
        return given[0], given[0], given[1], given[4]

    monkeypatch.setitem(step_program.MAKERS, "aot", slow)
    program = co.compile(co.Sequential(co.Conv1d(2, 2, 3)).eval(), torch.zeros(1, 2), backend="aot")
    state = program.init_state()
    for _ in range(2):
        program.run(torch.zeros(1, 2, 1), state)
    said = "continual: compiling Sequential for aot"
    assert terminal.getvalue().splitlines() == [f"{said} …", "called", f"{said}: 0 s", "called"]
