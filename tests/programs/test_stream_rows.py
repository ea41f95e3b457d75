"""Streams by the numbers of their rows: the same as by name, in one array; ends that come with later steps; shards; files."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import continual as co
from tests.contract import assert_equal
from tests.long import one_in
from tests.programs.test_constant_inputs import scaled
from tests.programs.test_stream_batch import TimeFirst, batch, network

np = pytest.importorskip("numpy")


def causal() -> Any:
    torch.manual_seed(5)
    return co.Sequential(co.Conv1d(3, 4, 3), nn.Tanh(), co.Conv1d(4, 2, 4, padding=2)).double().eval()


def gru() -> Any:
    torch.manual_seed(5)
    return co.Sequential(co.GRU(3, 5, 2), co.Linear(5, 2, channel_dim=1)).double().eval()


def attention() -> Any:
    torch.manual_seed(5)
    return co.MultiheadAttention(3, 1, sequence_len=6, embed_dim_second=True).double().eval()


def upsampled() -> Any:
    torch.manual_seed(5)
    return co.Sequential(co.Conv1d(3, 4, 3), co.ConvTranspose1d(4, 2, 4, stride=2)).double().eval()


def windows() -> Any:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).tanh().mean(2))

    torch.manual_seed(5)
    return co.continual(Classifier().double().eval(), torch.randn(2, 3, 7).double())


NETWORKS = {"causal": causal, "strided": network, "gru": gru, "attention": attention, "upsampled": upsampled, "windows": windows}


def streams_of(net: Any, capacity: int = 6, **options: Any) -> Any:
    return co.StreamBatch(net, torch.zeros(1, 3, dtype=torch.float64), capacity, backend="eager", **options)


def present(y: Tensor, valid: Tensor) -> list[list[Tensor]]:
    """Of each row, the outputs that exist, from steps or chunks."""
    if valid.ndim == 1:
        y, valid = y.unsqueeze(2), valid.unsqueeze(1)
    return [[y[i, :, j] for j in row.nonzero().flatten().tolist()] for i, row in enumerate(valid)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shards", [1, 3])
def test_rows_give_what_names_give(name: str, shards: int):
    """Bit for bit, in steps and in chunks of any length, whatever phase the rows are in."""
    net = NETWORKS[name]()
    by_row, by_name = streams_of(net, shards=shards), streams_of(net, shards=shards)
    ids = [by_row.open() for _ in range(5)]
    assert [by_name.open() for _ in range(5)] == ids
    found: dict[int, list[Tensor]] = {i: [] for i in ids}
    wanted: dict[int, list[Tensor]] = {i: [] for i in ids}
    given: dict[int, list[Tensor]] = {i: [] for i in ids}
    for turn in range(24):
        chosen = [i for i in ids if (turn * 7 + i * 3) % 4]
        count = (0, 1, 2, 5)[turn % 4]
        frames = torch.randn(len(chosen), 3, max(count, 1), dtype=torch.float64)
        x = frames if count else frames[:, :, 0]
        y, valid = by_row.step_rows(by_row.rows(chosen), x)
        assert y.shape[0] == valid.shape[0] == len(chosen)
        for i, outs in zip(chosen, present(y, valid), strict=True):
            found[i] += outs
        for t in range(frames.shape[2]):
            out = by_name.step({i: frames[k, :, t] for k, i in enumerate(chosen)})
            for i, y in out.items():
                if y is not None:
                    wanted[i] += list(y.unbind(1)) if y.ndim > 1 else [y]
        for k, i in enumerate(chosen):
            given[i].append(frames[k])
    for i in ids:
        assert len(found[i]) == len(wanted[i]) > 3
        assert all(torch.equal(a, b) for a, b in zip(found[i], wanted[i], strict=True))
        assert by_row.steps(i) == by_name.steps(i) == sum(x.shape[1] for x in given[i])
        rest = by_row.flush(i)
        whole = torch.stack([*found[i], *(rest.unbind(1) if rest is not None else ())], 1)
        clip = torch.cat(given[i], 1)[None]
        assert_equal(whole, net.forward_steps(clip, pad_end=True)[0], f"stream {i}")
        net.clean_state()


def test_numpy_for_numpy():
    streams, other = batch(4), batch(4)
    rows = np.array([streams.open(), streams.open()])
    ids = [other.open(), other.open()]
    last = None
    for t in range(6):
        x = np.frombuffer(np.random.default_rng(t).standard_normal((2, 3)).tobytes()).reshape(2, 3)  # read only, as from a socket
        y, valid = streams.step_rows(rows, x)
        want, exist = other.step_rows(other.rows(ids), torch.from_numpy(x.copy()))
        assert isinstance(y, np.ndarray)
        assert isinstance(valid, np.ndarray)
        assert valid.dtype == bool
        assert (valid == exist.numpy()).all()
        assert (y[valid] == want.numpy()[valid]).all()
        if last is not None and valid.any():
            assert (last[0] == last[1]).all(), "an output of an earlier step has changed"
        last = (y, y.copy()) if valid.any() else last
    out = np.full((2, 4), np.nan)
    again, valid = streams.step_rows(rows, x, out=out)
    assert again is out
    want, exist = other.step_rows(other.rows(ids), torch.from_numpy(x.copy()))
    assert (valid == exist.numpy()).all()
    assert (out == want.numpy()).all()
    with pytest.raises(co.ShapeMismatch, match=r"the outputs are \[\(2, 4\)\], out= has \[\(2, 3\)\]"):
        streams.step_rows(rows, x, out=out[:, :3])


def test_rows_that_are_refused_move_nothing():
    streams, clip = batch(3), torch.randn(3, 9, dtype=torch.float64)
    a, b = streams.open(), streams.open()
    rows = streams.rows([a, b])
    first = streams.step_rows(rows, clip[None, :, 0].expand(2, 3))
    for bad, error, words in (
        (([rows[0], 2], clip[None, :, 1].expand(2, 3)), KeyError, r"rows \[2\] are of no open stream"),
        (([rows[0], rows[0]], clip[None, :, 1].expand(2, 3)), KeyError, "a row occurs twice"),
        (([rows[0], 3], clip[None, :, 1].expand(2, 3)), KeyError, "from 0 to 2"),
        ((rows, clip[None, :, 1]), co.ShapeMismatch, r"takes frames \(2, 3\) float64.*for 2 rows; got \(1, 3\)"),
        ((rows, clip[None, :2, 1].expand(2, 2)), co.ShapeMismatch, r"got \(2, 2\) float64. No stream has moved"),
        ((rows, clip[None, :2, :4].expand(2, 2, 4)), co.ShapeMismatch, r"or chunks of them.*got \(2, 2, 4\)"),
        ((rows, clip[None, :, 1].expand(2, 3).float()), co.ShapeMismatch, "float32"),
        ((rows, [clip[None, :, 1].expand(2, 3)] * 2), co.ShapeMismatch, "takes 1 tensors, got 2"),
        ((rows, "frames"), co.ShapeMismatch, "takes tensors or numpy arrays, not str"),
    ):
        with pytest.raises(error, match=words):
            streams.step_rows(*bad)
    assert streams.statistics.steps == 2
    with pytest.raises(KeyError, match="no stream 'c'"):
        streams.rows([a, "c"])
    y, valid = streams.step_rows(rows, clip[None, :, 1:].expand(2, 3, 8))
    for outs, early in zip(present(y, valid), present(*first), strict=True):
        assert_equal(torch.stack([*early, *outs], 1), network().forward_steps(clip[None])[0], "streams go on")


def test_a_bad_frame_is_refused_alone():
    streams, clip = batch(3), torch.randn(3, 8, dtype=torch.float64)
    ids = [streams.open(), streams.open(), streams.open()]
    found = []
    for t in range(8):
        bad = (torch.zeros(4).double(), torch.zeros(3), "a frame", [clip[:, t]] * 2)[t % 4]
        out = streams.step({ids[0]: clip[:, t], ids[1]: bad, "c": clip[:, t]}, return_exceptions=True)
        assert isinstance(out[ids[1]], co.ShapeMismatch)
        assert isinstance(out["c"], KeyError)
        found += [] if out[ids[0]] is None else [out[ids[0]]]
    assert_equal(torch.stack([*found, *streams.flush(ids[0]).unbind(1)], 1), network()(clip[None])[0], "beside bad frames")
    assert (streams.steps(ids[0]), streams.steps(ids[1])) == (8, 0)
    assert streams.step({ids[1]: clip[:, 0]}, return_exceptions=True) == {ids[1]: None}


# ---- ends ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "windows"])
@pytest.mark.parametrize("length", [0, 1, 2, 9, 10])
def test_an_end_comes_with_later_steps(name: str, length: int):
    net, clip = NETWORKS[name](), torch.randn(3, 24, dtype=torch.float64)
    streams, alone = streams_of(net, 4, shards=2), streams_of(net, 2)
    ids, other = [streams.open() for _ in range(3)], alone.open()
    got: dict[Any, list[Tensor]] = {i: [] for i in ids}
    for t in range(length):
        for i, y in streams.step({i: clip[:, t] for i in ids[:2]}).items():
            got[i] += [] if y is None else list(y.unbind(1)) if y.ndim > 1 else [y]
        alone.step({other: clip[:, t]})
    rest = alone.flush(other)
    want = [] if rest is None else list(rest.unbind(1))
    streams.finish(ids[0])
    assert streams.ending == [ids[0]]
    assert ids[0] not in streams
    calls, ends = streams.statistics.calls, list[Tensor]()
    for t in range(24):
        out = streams.step({ids[2]: clip[:, t]} if t % 2 else {})
        if ids[0] in out:
            ends += [] if out[ids[0]] is None else list(out[ids[0]].unbind(1))
    assert not streams.ending
    assert len(ends) == len(want)
    assert all(torch.equal(a, b) for a, b in zip(ends, want, strict=True))
    assert streams.statistics.calls - calls <= 24 + 12
    left = streams.flush(ids[1])  # of the second row: torch may sum it in another order than the first
    assert (left is None) == (rest is None)
    if rest is not None:
        assert_equal(left, rest, "another stream")
    assert len({int(streams.rows([streams.open()])[0]) for _ in range(2)}) == 2, "the row is free"


def test_a_stream_that_ends_takes_no_more():
    streams, clip = batch(1), torch.randn(3, 9, dtype=torch.float64)
    streams.open("a")
    row = streams.rows(["a"])
    streams.step_rows(row, clip[None, :, :4])
    streams.finish("a")
    for call in (lambda: streams.step({"a": clip[:, 4]}), lambda: streams.finish("a"), lambda: streams.snapshot("a")):
        with pytest.raises(KeyError, match="it was finished, and takes no more frames"):
            call()
    with pytest.raises(KeyError, match="of no open stream"):
        streams.step_rows(row, clip[None, :, 4])
    with pytest.raises(co.CapacityError, match="'a' is open already"):
        streams.open("a")
    with pytest.raises(co.CapacityError, match="all 1 streams are in use"):
        streams.open("b")
    streams.close("a")  # what is still to come is given up
    assert streams.open("b") == "b"
    found = present(*streams.step_rows(streams.rows(["b"]), clip[None]))[0]
    streams.finish("b")
    ends = []
    while "b" in streams.ending:
        streams.step_rows([], torch.zeros(0, 3, dtype=torch.float64))
        ends += streams.ended()
    assert [e.stream for e in ends] == ["b"] * len(ends)
    assert [e.done for e in ends] == [False] * (len(ends) - 1) + [True]
    found += [y for e in ends if e.y is not None for y in e.y.unbind(1)]
    assert_equal(torch.stack(found, 1), network()(clip[None])[0], "a row that was given up and used again")


def test_an_end_that_is_refused_leaves_the_stream_open():
    path = co.Sequential(co.Conv1d(2, 2, 3, stride=3), co.ConvTranspose1d(2, 2, 1, stride=3, output_padding=2))
    net = co.BroadcastReduce(nn.Identity(), path, reduce="concat").double().eval()
    streams = co.StreamBatch(net, torch.zeros(1, 2, dtype=torch.float64), backend="eager")
    stream, clip = streams.open(), torch.randn(2, 6).double()
    found = [streams.step({stream: clip[:, t]})[stream] for t in range(4)]
    with pytest.raises(co.ShapeMismatch, match="ends after 4 steps"):
        streams.finish(stream)
    assert not streams.ending
    found += [streams.step({stream: clip[:, t]})[stream] for t in (4, 5)]
    streams.finish(stream)
    while streams.ending:
        found += streams.step({}).values()
    assert_equal(torch.cat([y for y in found if y is not None], 1), net(clip[None])[0], "the stream")


def test_a_long_end_adds_one_call_to_each_step_of_others():
    """`flush` of a delay of 255 ran 255 calls while all others waited."""
    wide = co.Residual(co.Conv1d(3, 3, 257, padding=128)).double().eval()
    streams = streams_of(wide, 4)
    assert wide.delay == 128
    a, b = streams.open(), streams.open()
    for _ in range(3):
        streams.step({a: torch.randn(3).double(), b: torch.randn(3).double()})
    calls = streams.statistics.calls
    streams.finish(a)
    assert streams.statistics.calls == calls
    for n in range(1, 5):
        streams.step({b: torch.randn(3).double()})
        assert streams.statistics.calls == calls + n


# ---- cost ---------------------------------------------------------------------------------------------------------------------


class Counted(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["causal", "strided"])
def test_the_operations_of_a_step_do_not_depend_on_the_number_of_streams(name: str):
    counts = []
    for n in (2, 40):
        streams = streams_of(NETWORKS[name](), 64)
        rows = streams.rows([streams.open() for _ in range(n)])
        frames = torch.randn(n, 3, dtype=torch.float64)
        for _ in range(4):
            streams.step_rows(rows, frames)
        with Counted() as counted:
            streams.step_rows(rows, frames)
            streams.step_rows(rows, frames)
        counts.append(counted.count)
    assert counts[0] == counts[1]


def test_warming_up_compiles_and_moves_no_stream(monkeypatch: pytest.MonkeyPatch):
    from continual.programs import step_program

    made = []
    eager = step_program.MAKERS["eager"]
    monkeypatch.setitem(step_program.MAKERS, "eager", lambda *a: made.append(1) or eager(*a))
    streams, other, clip = batch(4, shards=2), batch(4, shards=2), torch.randn(3, 8, dtype=torch.float64)
    ids = [streams.open(), streams.open(), streams.open()]
    assert [other.open() for _ in ids] == ids
    assert not made
    streams.warm_up()
    assert len(made) == 1, "shards share their code"
    for t in range(8):
        if t == 3:
            streams.warm_up()
        one, two = streams.step({i: clip[:, t] for i in ids}), other.step({i: clip[:, t] for i in ids})
        assert all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in zip(one.values(), two.values()))
    streams.warm_up()
    assert len(made) == 2  # of both batches


def test_streams_go_where_most_are_and_other_shards_are_not_called():
    streams = batch(6, shards=3)
    ids = [streams.open() for _ in range(4)]
    assert sorted(streams.rows(ids).tolist()) == [0, 1, 2, 3]
    streams.close(ids[0])
    assert int(streams.rows([streams.open()])[0]) == 0
    calls = streams.statistics.calls
    for _ in range(4):
        streams.step({ids[2]: torch.zeros(3).double()})
    assert streams.statistics.calls == calls + 2  # chunks of 2, one shard
    for bad in ({"capacity": 5, "shards": 2}, {"capacity": 4, "shards": 0}):
        with pytest.raises(ValueError, match=r"is not divided by shards="):
            batch(**bad)


# ---- snapshots ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [(1, 1), (3, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("seen", [0, 1, 5, 6])
def test_snapshots_of_rows_go_on_elsewhere(shards: tuple[int, int], seen: int):
    streams, other, clips = batch(6, shards=shards[0]), batch(8, shards=shards[1]), torch.randn(5, 3, 15, dtype=torch.float64)
    rows = streams.rows([streams.open() for _ in range(5)])[[3, 0, 4, 1, 2]]
    found = present(*streams.step_rows(rows, clips[:, :, :seen]))
    snapshot = streams.snapshot_rows(rows)
    streams.step_rows(rows, torch.randn(5, 3, dtype=torch.float64))  # which the snapshot does not see
    there = other.rows([other.open() for _ in range(8)])[[6, 2, 5, 0, 7]]
    other.restore_rows(there, snapshot)
    for outs, more in zip(found, present(*other.step_rows(there, clips[:, :, seen:])), strict=True):
        outs += more
    for i, outs in enumerate(found):
        assert_equal(torch.stack(outs, 1), network().forward_steps(clips[i : i + 1])[0], f"restored after {seen} steps")
    assert len(snapshot) == 5
    assert snapshot.nbytes > 0


def test_snapshots_of_rows_that_do_not_fit():
    streams = batch(4)
    rows = streams.rows([streams.open() for _ in range(3)])
    streams.step_rows(rows, torch.randn(3, 3, 5, dtype=torch.float64))
    snapshot = streams.snapshot_rows(rows)
    with pytest.raises(co.StateMismatch, match="2 rows are to go on, the snapshot is of 3"):
        streams.restore_rows(rows[:2], snapshot)
    with pytest.raises(co.StateMismatch, match="takes a snapshot of snapshot_rows, not StreamSnapshot"):
        streams.restore_rows(rows, streams.snapshot(0))
    other = streams_of(causal(), 4)
    there = other.rows([other.open() for _ in range(3)])
    with pytest.raises(co.StateMismatch, match="another network or chunk"):
        other.restore_rows(there, snapshot)
    changed = network()
    with torch.no_grad():
        next(changed.parameters())[0] += 1e-9
    other = streams_of(changed, 4)
    there = other.rows([other.open() for _ in range(3)])
    with pytest.raises(co.StateMismatch, match=r"other weights.*restore_rows\(…, allow_other_weights=True\)"):
        other.restore_rows(there, snapshot)
    other.restore_rows(there, snapshot, allow_other_weights=True)
    assert [other.steps(i) for i in range(3)] == [5, 5, 5]


# ---- layouts ------------------------------------------------------------------------------------------------------------------


def test_two_inputs_of_which_one_is_no_stream():
    module, net, clip, gain = scaled(3)
    streams = co.StreamBatch(net, [clip[:1, :, 0], gain[:1]], 4, shards=2, backend="eager")
    rows = streams.rows([streams.open() for _ in range(3)])[1:]
    y, valid = streams.step_rows(rows, [clip.numpy(), gain.numpy()])
    found = present(torch.from_numpy(y), torch.from_numpy(valid))
    for i in range(2):
        want = module(clip, gain)[i]
        rest = streams.flush(i + 1)
        assert_equal(torch.stack([*found[i], *([] if rest is None else rest.unbind(1))], 1), want, f"stream {i}")


def test_outputs_of_any_layout_have_rows_first():
    torch.manual_seed(0)
    net, clips = TimeFirst().double().eval(), torch.randn(11, 2, 3, dtype=torch.float64)
    twin, want = co.continual(net, clips, time_dim=0), net(clips)
    streams = co.StreamBatch(twin, clips[0, :1], 3, backend="eager")
    rows = streams.rows([streams.open() for _ in range(2)])
    (one, two), valid = streams.step_rows(rows, clips.movedim(1, 0))  # chunks (n, T, C)
    assert valid.shape == (2, 11)
    for i in range(2):
        assert_equal(one[i][valid[i]], want[0][:10, i], "frames (n, T, C)")
        assert_equal(two[i][:, valid[i]], want[1][:, i, :10], "filters (n, 2, T)")
    (one, two), valid = streams.step_rows(rows, clips[0])
    assert (one.shape, two.shape, valid.shape) == ((2, 2), (2, 2), (2,))


# ---- exported files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["onnx", pytest.param("pt2", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["strided", "gru"])
def test_an_exported_file_serves_streams(format: str, name: str, tmp_path: Any):
    """Without a compiler. Streams pause, end, are snapshot, and go on in another batch."""
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    net = NETWORKS[name]()
    step = torch.zeros(1, 3, dtype=torch.float64)
    runner = co.load(co.export(net, step, tmp_path / f"net.{format}"))
    streams, other = co.StreamBatch(runner, capacity=6, shards=2), co.StreamBatch(runner, capacity=3)
    streams.warm_up()
    ids, clips = [streams.open() for _ in range(5)], torch.randn(5, 3, 14, dtype=torch.float64)
    found: dict[int, list[Tensor]] = {i: [] for i in ids}
    steps = dict.fromkeys(ids, 0)
    for turn in range(30):
        chosen = [i for i in ids if (turn + i) % 3 and steps[i] < 14 - i]
        if not chosen:
            continue
        frames = torch.stack([clips[i, :, steps[i]] for i in chosen])
        for i, outs in zip(chosen, present(*streams.step_rows(streams.rows(chosen), frames)), strict=True):
            found[i] += outs
            steps[i] += 1
    moved = streams.snapshot_rows(streams.rows(ids[:3]))
    there = [other.open() for _ in range(3)]
    other.restore_rows(other.rows(there), moved)
    for batch_, own in ((other, dict(zip(there, ids[:3]))), (streams, {i: i for i in ids[3:]})):
        for i, j in own.items():
            rest = batch_.flush(i)
            batch_.finish(i)
            ends = []
            while batch_.ending:
                ends += [] if (y := batch_.step({}).get(i)) is None else list(y.unbind(1))
            assert len(ends) == (0 if rest is None else rest.shape[1])
            whole = torch.stack([*found[j], *ends], 1)
            assert_equal(whole, net(clips[j : j + 1, :, : 14 - j])[0], f"stream {j}")
    with pytest.raises(co.StateMismatch, match="other weights|another network"):
        streams.restore_rows(streams.rows(ids[:3]), streams_of(net, 3).snapshot_rows([]))
    with pytest.raises(TypeError, match="knows its steps"):
        co.StreamBatch(runner, step)


def test_what_a_batch_can_not_be_made_of(tmp_path: Any):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    step = torch.zeros(2, 3, dtype=torch.float64)
    fixed = co.load(co.export(causal(), step, tmp_path / "fixed.onnx", batch=2, flush=False))
    with pytest.raises(ValueError, match="exported for 2 rows, and each shard has 4"):
        co.StreamBatch(fixed, capacity=4)
    streams = co.StreamBatch(fixed, capacity=4, shards=2)
    stream = streams.open()
    streams.step({stream: step[0]})
    with pytest.raises(co.ExportError, match="exported with flush=False"):
        streams.finish(stream)
    assert stream in streams
    with pytest.raises(TypeError, match="takes an example step"):
        co.StreamBatch(causal())


CACHED = """
import sys, time, torch, continual as co
from continual.programs.backends import package_cache
made = []
keep = package_cache._keep
package_cache._keep = lambda *a: (made.append(1), keep(*a))
from tests.programs.test_stream_rows import causal, streams_of
torch.manual_seed(1)
streams = co.StreamBatch(causal(), torch.zeros(1, 3).double(), 2, backend="aot")
streams.warm_up()
stream = streams.open()
x = torch.randn(3, 12).double()
print(len(made), [round(float(y.sum()), 12) for t in range(12) if (y := streams.step({stream: x[:, t]})[stream]) is not None])
"""


@one_in(3)
def test_another_process_compiles_nothing_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    outs = [subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    (first, one), (second, two) = (o.strip().split(" ", 1) for o in outs)
    assert (first, second) == ("1", "0")
    assert one == two
    damaged = next((tmp_path / "continual").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = subprocess.run([sys.executable, "-c", CACHED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"1 {one}"
