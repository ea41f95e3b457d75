"""Exact windows in compiled programs, stream batches and exported files."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

import continual as co
from tests.convert.windows import Eeg, Residual, Tagger, Video, close, made, noise, shared, stacked, way, windows_of
from tests.long import by_turns

__all__ = ["shared", "way"]  # fixtures

CASES = {
    "residual": (lambda: Residual(gate=True), (3, 40), 2, None),
    "residual, each step": (Residual, (3, 41), 2, 1),
    "residual, every 3": (Residual, (3, 40), 2, 3),
    "hops longer than windows": (Residual, (3, 30), 2, 44),
    "eeg": (Eeg, (1, 5, 128), 3, None),
    "frames in rows": (Video, (9, 3, 8, 6), 1, None),
    "last states": (lambda: Tagger("states"), (3, 19), 2, None),
}


@pytest.mark.parametrize("name", by_turns(CASES, 3))
def test_programs_give_the_modules_scores(name, way):
    module, shape, dim, every = CASES[name]
    module, length = made(module()), shape[dim - 1]
    net = co.continual(module, noise(2, *shape), time_dim=dim, every=every)
    every = net.windows.every
    clip = noise(3, *shape[: dim - 1], 2 * length + every, *shape[dim:], seed=4)
    program = co.compile(net, clip.select(dim, 0), backend="eager")
    assert program.chunk == every
    outs = [program.step(clip.select(dim, t)) for t in range(clip.shape[dim])]
    assert [t for t, y in enumerate(outs) if y is not None] == list(range(length - 1, clip.shape[dim], every))
    close(stacked([y for y in outs if y is not None]), stacked(windows_of(module, clip, length, every, dim)))
    assert program.flush() is None


def test_chunks_of_several_hops(shared):
    module = made(Residual())
    net = co.continual(module, noise(2, 3, 40))
    program = co.compile(net, noise(2, 3), chunk=12, backend="eager")
    clip = noise(2, 3, 96)
    outs = [program.step(clip[:, :, t]) for t in range(96)]
    want = stacked(windows_of(module, clip, 40, 4))
    close(torch.cat([y for y in outs if y is not None], 2), want[:, :, : sum(y.shape[2] for y in outs if y is not None)])


@pytest.mark.parametrize("every", [3, 1])
def test_streams_that_come_and_go(way, every):
    module = made(Residual())
    net = co.continual(module, noise(2, 3, 40), every=every)
    clip = noise(3, 3, 90)
    streams = co.StreamBatch(net, noise(1, 3), capacity=2, backend="eager")
    ids, seen, found = {0: streams.open(), 1: streams.open()}, {0: 0, 1: 0, 2: 0}, {0: [], 1: [], 2: []}
    for t in range(80):
        if t == 50:
            streams.close(ids.pop(0))
            ids[2] = streams.open()
        taking = [k for k in ids if (t + k) % 5]
        outs = streams.step({ids[k]: clip[k, :, seen[k]] for k in taking})
        for k in taking:
            seen[k] += 1
            found[k] += [] if outs[ids[k]] is None else [(seen[k], outs[ids[k]])]
    for k, scores in found.items():
        assert [n for n, _ in scores] == list(range(40, seen[k] + 1, every))
        for n, y in scores:
            close(y, module(clip[k : k + 1, :, n - 40 : n])[0])


@pytest.mark.parametrize("suffix, every", by_turns(product(["pt2", "onnx"], [4, 1]), 4))
def test_exported_files(suffix: str, every: int, tmp_path: Path, shared):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    module = made(Residual()).float()
    net = co.continual(module, noise(2, 3, 40).float(), every=every)
    file = co.load(co.export(net, torch.zeros(2, 3), tmp_path / f"net.{suffix}"))
    clip = noise(2, 3, 77).float()
    want = stacked(windows_of(module, clip, 40, every))
    assert (file.forward_steps(clip) - want).abs().max() < 1e-5


def test_compiled_in_one_graph(shared):
    module = made(Residual()).float()
    net = co.continual(module, noise(2, 3, 40).float())
    clip = noise(2, 3, 60).float()
    program = co.compile(net, clip[:, :, 0])
    outs = [program.step(clip[:, :, t]) for t in range(60)]
    want = stacked(windows_of(module, clip, 40, 4))
    assert (stacked([y for y in outs if y is not None]) - want).abs().max() < 1e-5


def test_verify_takes_clips_of_any_length():
    """A clip longer than a window was compared with the reference's one score of all of it."""
    module, clip = made(Residual()), noise(2, 3, 51)
    net = co.continual(module, clip[:, :, :40])
    report = co.verify(net, clip, reference=module, raise_on_fail=False)
    assert not [f for f in report.failures if "reference" in str(f)]
