"""What is said on a terminal while something takes long."""

from __future__ import annotations

import io
import sys
import time

import pytest
import torch

import continual as co
from continual.core import progress
from continual.core.progress import Progress
from continual.programs import step_program


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def waiting_at(found: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error, in a test's body: pytest takes it for itself between a fixture and its test."""
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    return found


def test_a_terminal_keeps_one_line_and_is_cleared(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)
    with Progress("converting Net") as doing:
        doing("exporting it")
        time.sleep(0.1)
    assert "\rcontinual: converting Net: 0 s, exporting it" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith(" \r")


def test_the_line_is_cleared_where_it_ends_with_an_error(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)

    def failing() -> None:
        with Progress("compiling X"):
            time.sleep(0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert terminal.getvalue().endswith(" \r")


def test_what_is_quick_is_not_told(monkeypatch: pytest.MonkeyPatch):
    terminal = waiting_at(Terminal(), monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 30.0)
    began = time.monotonic()
    with Progress("compiling X"):
        pass
    assert time.monotonic() - began < 20, "it waited for its own patience"
    assert terminal.getvalue() == ""


def test_nothing_is_told_in_a_file_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch):
    file = waiting_at(io.StringIO(), monkeypatch)
    with Progress("compiling X"):
        time.sleep(0.1)
    assert file.getvalue() == ""
    with Progress("compiling X", shown=True):
        time.sleep(0.1)
    assert file.getvalue().startswith("continual: compiling X: 0 s\n")


def test_a_program_that_is_compiled(monkeypatch: pytest.MonkeyPatch):
    """Its first call is part of it, since torch.compile compiles there; later calls have nothing to tell."""
    terminal = waiting_at(Terminal(), monkeypatch)

    def slow(planned, example):
        time.sleep(0.1)
        return core

    def core(*given):
        terminal.write("called\n")
        return given[0], given[0], given[1], given[4]

    monkeypatch.setitem(step_program.MAKERS, "aot", slow)
    program = co.compile(co.Sequential(co.Conv1d(2, 2, 3)).eval(), torch.zeros(1, 2), backend="aot")
    state = program.init_state()
    program.run(torch.zeros(1, 2, 1), state)
    first = terminal.getvalue()
    assert "\rcontinual: compiling Sequential for aot: 0 s" in first
    program.run(torch.zeros(1, 2, 1), state)
    assert terminal.getvalue() == first + "called\n"
