"""Building C++ sources: once for each machine, by several processes at once, and not where it can't be done."""

import ctypes
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

import continual as co
from continual.layers.native import build, depthwise

SOURCE = 'extern "C" int answer() { return 42; }\n'
compiled = pytest.mark.skipif(build.found_compiler() is None, reason="no C++ compiler on this machine")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source file, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "small.cpp"
    path.write_text(SOURCE)
    return path


@compiled
def test_it_is_built_once(source: Path, monkeypatch: pytest.MonkeyPatch):
    library = build.built(source)
    assert library is not None
    assert ctypes.CDLL(str(library)).answer() == 42
    assert os.listdir(library.parent) == [library.name]  # nothing else is left
    monkeypatch.setattr(build, "_build", lambda *args: pytest.fail("it was built again"))
    assert build.built(source) == library


@compiled
def test_another_source_flag_or_processor_has_another_library(source: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = build.found_compiler() or []
    keys = [build._key(source, compiler)]
    source.write_text(SOURCE + "// and more\n")
    keys.append(build._key(source, compiler))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DMORE"))
    keys.append(build._key(source, compiler))
    monkeypatch.setattr(build, "_processor", lambda: "another")
    keys.append(build._key(source, compiler))
    assert len(set(keys)) == 4


@compiled
def test_several_build_at_once(source: Path):
    start, found = threading.Barrier(3), []

    def one() -> None:
        start.wait()
        found.append(build.built(source))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert os.listdir(found[0].parent) == [found[0].name]
    assert ctypes.CDLL(str(found[0])).answer() == 42


@pytest.mark.parametrize("command", ["false", "no-such-compiler", "sh -c 'echo it is broken >&2; exit 3'"])
def test_a_broken_compiler_is_told_of(
    command: str, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("CXX", command)
    with caplog.at_level(logging.INFO, "continual.layers.native"):
        assert build.built(source) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "small.cpp: could not be built, torch's own operations are used" in record.getMessage()
    assert ("it is broken" in record.getMessage()) == ("echo" in command)


def test_no_compiler(source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO, "continual.layers.native"):
        assert build.built(source) is None
    assert "no C++ compiler was found" in caplog.text


def test_a_cache_that_can_not_be_written(source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # a file
    assert build.built(source) is None
    assert "could not be built" in caplog.text


def steps(net: co.Conv3d, clip: torch.Tensor) -> torch.Tensor:
    net.clean_state()
    with torch.no_grad():
        return torch.stack([y for y in map(net.forward_step, clip.unbind(2)) if y is not None], 2)


def test_without_a_compiler_torch_computes(source: Path, monkeypatch: pytest.MonkeyPatch):
    net, clip = co.Conv3d(16, 16, 3, groups=16), torch.randn(2, 16, 5, 6, 7)
    expected = net(clip)
    monkeypatch.setattr(depthwise, "library", depthwise.library.__wrapped__)
    monkeypatch.setenv("CXX", "false")
    torch.testing.assert_close(steps(net, clip), expected)
    assert net._layouts is not None
    assert net._layouts["native"][-1] is None


@pytest.mark.parametrize("value, is_used", [("0", False), ("1", True)])
def test_the_variable_turns_it_off(value: str, is_used: bool, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setenv("CONTINUAL_NATIVE", value)
    monkeypatch.setattr(build, "built", lambda path: asked.append(path))
    assert depthwise.library.__wrapped__() is None
    assert bool(asked) == is_used


def test_a_library_that_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"nothing")
    monkeypatch.delenv("CONTINUAL_NATIVE", raising=False)
    monkeypatch.setattr(build, "built", lambda path: broken)
    assert depthwise.library.__wrapped__() is None
    assert f"{broken} can't be loaded" in caplog.text
