"""The table of streams that the Python backend uses, without a server."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import continual as co
from tests.export.networks import NETWORKS as EXPORTED
from tests.long import by_turns, one_in
from tests.triton.conftest import Written
from tests.triton.networks import NETWORKS, about, assert_close, clips, made, outputs, requests, solo

pytest.importorskip("onnxruntime", reason="runs ONNX files")

from continual.triton.server.slot_table import Chunk, NoSlot, SlotError, SlotTable

UNET = EXPORTED["unet"]
SERVER = Path(__file__).parents[2] / "src" / "continual" / "triton" / "server"


def table_of(folder: Path, slots: int = 4, **options: Any) -> SlotTable:
    return SlotTable(str(folder / "1" / "model.onnx"), slots, threads=1, **options)


def chunk(request: dict[str, Any]) -> Chunk:
    return Chunk(request["stream"], request["x"], request["start"], request["end"])


def named(folder: Path, answer: list[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([*(o.name for o in about(folder).outputs), "valid"], answer, strict=True))


@pytest.mark.parametrize("network", by_turns(NETWORKS, 2))
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_streams_together_are_as_if_alone(written: Written, network: str, steps: int):
    folder, (net, step) = written(network, "python"), made(network)
    table, metadata = table_of(folder), about(folder)
    streams = {k: clips(step, steps + 3 * k, k) for k in range(4)}
    plans = {k: requests(metadata, clip, k) for k, clip in streams.items()}
    answers: dict[int, list[dict[str, np.ndarray]]] = {k: [] for k in streams}
    for t in range(max(map(len, plans.values()))):
        together = [k for k in plans if t < len(plans[k])]
        for k, answer in zip(together, table.step([chunk(plans[k][t]) for k in together]), strict=True):
            answers[k].append(named(folder, answer))
    for k, clip in streams.items():
        assert_close(outputs(metadata, answers[k]), solo(net, clip))
    assert len(table) == 0


@pytest.mark.parametrize("network", by_turns(["conv", "strided"], 2))
def test_streams_that_come_and_go_at_random(written: Written, network: str):
    """Any of them move at a time, ids come again, some streams are begun again in their middle."""
    folder, (net, step) = written(network, "python"), made(network)
    table, metadata, rng = table_of(folder), about(folder), np.random.default_rng(5)
    open_now: dict[int, tuple[Any, list[dict[str, Any]], list[dict[str, np.ndarray]]]] = {}
    ended = 0
    for seed in range(150):
        for stream in rng.permutation(4)[: rng.integers(0, 3)].tolist():
            if stream not in open_now or rng.random() < 0.05:
                clip = clips(step, int(rng.integers(1, 25)), seed)
                open_now[stream] = clip, requests(metadata, clip, stream), []
        moving = [stream for stream in open_now if rng.random() < 0.7]
        answers = table.step([chunk(open_now[stream][1].pop(0)) for stream in moving])
        for stream, answer in zip(moving, answers, strict=True):
            clip, left, found = open_now[stream]
            found.append(named(folder, answer))
            if not left:
                assert_close(outputs(metadata, found), solo(net, clip))
                del open_now[stream]
                ended += 1
    assert ended > 20
    assert len(table) <= len(open_now)


def test_streams_that_step_together_are_one_call(written: Written):
    folder, (_, step) = written("conv", "python"), made("conv")
    table = table_of(folder)
    plans = [requests(about(folder), clips(step, 6, k), k, end=False) for k in range(4)]
    for together in zip(*plans, strict=True):
        table.step([chunk(r) for r in together])
    assert table.calls == 6


def test_two_chunks_of_a_stream_follow_each_other(written: Written):
    folder, (net, step) = written("conv", "python"), made("conv")
    clip = clips(step, 12, 4)
    plan = requests(about(folder), clip, 5)
    answers = table_of(folder).step([chunk(r) for r in plan])
    assert_close(outputs(about(folder), [named(folder, a) for a in answers]), solo(net, clip))


def test_other_streams_do_not_notice_a_bad_request(written: Written):
    """NaN in a stream, a frame of another shape, a stream that is not open."""
    folder, (net, step) = written("conv", "python"), made("conv")
    table, metadata, clip = table_of(folder), about(folder), clips(step, 12, 4)
    bad = Chunk(9, [np.full((1, 2, 1), np.nan, np.float32)], start=True)
    good = []
    for t, request in enumerate(requests(metadata, clip, 5)):
        others = [bad if t < 3 else Chunk(9, bad.inputs), Chunk(10, bad.inputs), Chunk(11, [bad.inputs[0][:, :1]], start=True)]
        first, answer, *errors = table.step([others[0], chunk(request), *others[1:]])
        assert not isinstance(first, SlotError)
        assert "sequence 10 is not open" in str(errors[0])
        assert "takes float32 (1, 2, 1), got float32 (1, 1, 1)" in str(errors[1])
        good.append(named(folder, answer))
    assert_close(outputs(metadata, good), solo(net, clip))


def test_a_table_without_a_free_slot_refuses(written: Written):
    folder, (_, step) = written("conv", "python"), made("conv")
    table = table_of(folder, slots=2)
    first = [chunk(requests(about(folder), clips(step, 3, k), k, end=False)[0]) for k in range(3)]
    answers = table.step(first)
    assert isinstance(answers[2], NoSlot)
    assert "all 2 streams are in use" in str(answers[2])
    assert not isinstance(table.step([Chunk(1, first[1].inputs, end=True)])[0], SlotError)
    assert not isinstance(table.step([first[2]])[0], SlotError)
    assert len(table) == 2


def test_idle_streams_lose_their_slots_when_they_are_needed(written: Written):
    folder, (_, step) = written("conv", "python"), made("conv")
    now = [0.0]
    table = table_of(folder, slots=2, idle=10.0, clock=lambda: now[0])
    first = [chunk(requests(about(folder), clips(step, 3, k), k, end=False)[0]) for k in range(4)]
    table.step([first[0]])
    now[0] = 6.0
    table.step([first[1]])
    now[0] = 9.0
    assert isinstance(table.step([first[2]])[0], NoSlot)
    now[0] = 11.0
    assert not isinstance(table.step([first[2]])[0], SlotError)
    assert "not open" in str(table.step([Chunk(0, first[0].inputs)])[0])
    assert not isinstance(table.step([Chunk(1, first[1].inputs)])[0], SlotError)


def test_a_start_that_fails_leaves_no_stream_behind(written: Written):
    """Not the one that had this id before either: the server has ended it."""
    folder, (_, step) = written("conv", "python"), made("conv")
    table = table_of(folder)
    plan = requests(about(folder), clips(step, 5, 1), 3)
    table.step([chunk(plan[0])])
    (error,) = table.step([Chunk(3, [plan[0]["x"][0][:, :1]], start=True)])
    assert isinstance(error, SlotError)
    (error,) = table.step([chunk(plan[1])])
    assert "not open" in str(error)
    assert len(table) == 0


def test_an_end_that_fails_closes_the_stream(written: Written):
    folder, (_, step) = written("conv", "python"), made("conv")
    table = table_of(folder)
    table.step([chunk(requests(about(folder), clips(step, 5, 1), 3)[0])])
    (error,) = table.step([Chunk(3, [np.zeros((1, 5, 1), np.float32)], end=True)])
    assert isinstance(error, SlotError)
    assert len(table) == 0


def test_a_stream_of_no_steps_is_refused(written: Written):
    """All frames of its only chunk are from before it."""
    folder = written("strided", "python")
    before = -about(folder).start
    assert before > 0
    table = table_of(folder)
    (error,) = table.step([Chunk(1, [np.zeros((1, 2, before, 6), np.float32)], start=True, end=True)])
    assert "has no steps" in str(error)
    (error,) = table.step([Chunk(1, [np.zeros((1, 2, 0, 6), np.float32)], start=True, end=True)])
    assert "or of 1 to 2 steps in the last request of a sequence, got float32 (1, 2, 0, 6)" in str(error)
    assert len(table) == 0


def test_inputs_of_different_lengths_are_refused(written: Written, monkeypatch: pytest.MonkeyPatch):
    table = table_of(written("two_inputs", "python"))
    monkeypatch.setitem(table._about, "chunk", 2)  # as if the network had strides
    for port, channels in zip(table._inputs, (2, 3), strict=True):
        monkeypatch.setitem(port, "shape", [None, channels, 2])
    x = [np.zeros((1, 2, 2), np.float32), np.zeros((1, 3, 1), np.float32)]
    (error,) = table.step([Chunk(1, x, start=True, end=True)])
    assert "equally long, got [1, 2] steps" in str(error)


def test_a_failing_network_moves_nothing(written: Written, monkeypatch: pytest.MonkeyPatch):
    folder, (net, step) = written("conv", "python"), made("conv")
    table, metadata, clip = table_of(folder), about(folder), clips(step, 9, 2)
    plan = requests(metadata, clip, 3)
    answers = table.step([chunk(r) for r in plan[:4]])

    class Broken:
        def run(self, *_: Any) -> None:
            raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(table, "_session", Broken())
        (error,) = table.step([chunk(plan[4])])
    assert "the network failed: out of memory" in str(error)
    answers += table.step([chunk(r) for r in plan[4:]])
    assert_close(outputs(metadata, [named(folder, a) for a in answers]), solo(net, clip))


@pytest.mark.parametrize("file", ["model.py", "slot_table.py"])
def test_the_files_run_in_older_pythons_without_this_library(file: str):
    tree = ast.parse((SERVER / file).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module).split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & {"torch", "continual"}


@one_in(3)
def test_an_end_where_branches_differ_in_length(tmp_path: Path):
    """As ``forward`` refuses such a clip. Streams that end beside it get their outputs."""
    path = co.export(UNET.net(), UNET.step(), tmp_path / "unet.onnx")
    table, clip = SlotTable(str(path), 2, threads=1), UNET.clip(8, batch=2).numpy()
    before = -co.load(path).metadata.start  # frames of the first request that are from before the stream
    assert 1 <= before <= 3
    for stream in (0, 1):
        table.step([Chunk(stream, [clip[stream : stream + 1, :, :4]], start=True)])
    wrong, right = table.step(
        [Chunk(0, [clip[:1, :, 4 : 5 + before]], end=True), Chunk(1, [clip[1:, :, 4 : 4 + before]], end=True)]
    )
    assert isinstance(wrong, SlotError)
    assert "sequence 0: ends after 5 steps, where branches of the network differ in length" in str(wrong)
    assert int(right[-1].sum()) == 4
    assert len(table) == 0
