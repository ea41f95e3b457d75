"""Files of states with damages of all kinds: they are refused, always by the same type of error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import continual as co
from tests.long import LONG
from tests.tools.damage import WAYS, damaged
from tests.tools.test_storage import first_version


def network() -> co.Sequential:
    torch.manual_seed(5)
    return co.Sequential(co.Conv1d(2, 3, 4, stride=2, padding=1), nn.BatchNorm1d(3), co.GRU(3, 2), co.Delay(2)).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file of each kind of state."""
    net, clip, path = network(), torch.randn(2, 2, 15), tmp_path_factory.mktemp("states") / "state"
    found = {}
    with torch.no_grad():
        net.forward_steps(clip)
    co.save_state(net.get_state(), path)
    found["network"] = path.read_bytes()
    streams = co.StreamBatch(net, torch.zeros(1, 2), 2, backend="eager")
    stream = streams.open()
    for t in range(8):
        streams.step({stream: clip[0, :, t]})
    co.save_state(streams.snapshot(stream), path)
    found["batch"] = path.read_bytes()
    timed = co.Stream(net, rate=10, gaps="hold", lateness=0.3)
    timed.steps([clip[:, :, t] for t in (0, 1, 2, 4, 5)], indices=(0, 1, 2, 4, 5))
    co.save_state(timed.get_state(), path)
    found["clock"] = path.read_bytes()
    return found


def check(content: bytes, count: int, seed: int, path: Path) -> None:
    for _, copy in damaged(content, count, seed):
        path.write_bytes(copy)
        with pytest.raises(co.StateMismatch, match="is damaged"):
            co.load_state(path)


@pytest.mark.parametrize("kind", ["network", "batch", "clock"])
def test_damaged_files_are_refused(written: dict[str, bytes], kind: str, tmp_path: Path):
    check(written[kind], 200, 7, tmp_path / "state")


@LONG
@pytest.mark.parametrize("kind", ["network", "batch", "clock"])
@pytest.mark.parametrize("seed", range(5))
def test_thousands_of_damaged_files_are_refused(written: dict[str, bytes], kind: str, seed: int, tmp_path: Path):
    check(written[kind], 2000, seed, tmp_path / "state")


def test_bits_everywhere_in_a_file_matter(written: dict[str, bytes], tmp_path: Path):
    content = written["network"]
    for at in range(0, len(content), 5):
        (tmp_path / "state").write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(co.StateMismatch, match="is damaged"):
            co.load_state(tmp_path / "state")


@pytest.mark.parametrize("kind", ["network", "batch"])
def test_files_without_digests_are_read_or_refused(written: dict[str, bytes], kind: str, tmp_path: Path):
    """Of the first version: what can't be noticed is taken, and all else is an error of this library."""
    net, path = network(), tmp_path / "state"
    streams = co.StreamBatch(net, torch.zeros(1, 2), 2, backend="eager")
    stream = streams.open()
    path.write_bytes(written[kind])
    first_version(path)
    refused = 0
    for _, copy in damaged(path.read_bytes(), 150, 2):
        path.write_bytes(copy)
        try:
            state = co.load_state(path, allow_other_weights=True)
            net.set_state(state) if kind == "network" else streams.restore(stream, state)
        except co.StateMismatch:
            refused += 1
    assert 100 < refused < 150


def test_damages_are_of_all_kinds():
    ways = {how for how, _ in damaged(bytes(range(256)) * 9, 200, 0)}
    assert ways == set(WAYS)
