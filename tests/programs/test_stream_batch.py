"""`co.StreamBatch`: many streams that come and go, each as if it ran alone."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core.weights_digest import fingerprint
from continual.programs.snapshot import ProgramWeights
from tests.contract import assert_equal


def network() -> Any:
    torch.manual_seed(3)
    block = co.Residual(co.Sequential(co.Conv1d(4, 4, 3, padding=1), nn.Tanh()))
    return co.Sequential(co.Conv1d(3, 4, 3, stride=2, padding=1), block).double().eval()


def batch(capacity: int = 3, **options: Any) -> Any:
    return co.StreamBatch(network(), torch.zeros(1, 3, dtype=torch.float64), capacity, backend="eager", **options)


def frame() -> Tensor:
    return torch.randn(3, dtype=torch.float64)


def run(streams: Any, stream: Any, clip: Tensor) -> Tensor:
    """A clip ``(C, T)`` through one stream; all its outputs."""
    found = [y for t in range(clip.shape[1]) if (y := streams.step({stream: clip[:, t]})[stream]) is not None]
    rest = streams.flush(stream)
    return torch.cat([torch.stack(found, 1), *([] if rest is None else [rest])], 1)


def test_a_stream_equals_the_clip_whatever_others_do():
    streams = batch()
    others = [streams.open("a"), streams.open("b")]
    stream, clip = streams.open("mine"), torch.randn(3, 21, dtype=torch.float64)
    found = []
    for t in range(21):
        out = streams.step(
            {"mine": clip[:, t], **({others[t % 2]: torch.full((3,), torch.nan, dtype=torch.float64)} if t % 3 else {})}
        )
        if out[stream] is not None:
            found.append(out[stream])
    found += streams.flush("mine").unbind(1)
    assert_equal(torch.stack(found, 1), network()(clip[None])[0], "the stream")


def test_a_place_that_was_used_begins_anew():
    streams, clip = batch(1), torch.randn(3, 12, dtype=torch.float64)
    stream = streams.open()
    run(streams, stream, torch.full((3, 7), torch.nan, dtype=torch.float64))
    streams.close(stream)
    other = streams.open()
    assert other != stream
    assert_equal(run(streams, other, clip), network()(clip[None])[0], "after another stream")
    streams.reset(other)
    assert_equal(run(streams, other, clip), network()(clip[None])[0], "after a reset")


def test_a_stream_can_t_end_where_branches_differ_in_length():
    """A path that gives whole groups of three beside one that gives every step; found by random networks."""
    path = co.Sequential(co.Conv1d(2, 2, 3, stride=3), co.ConvTranspose1d(2, 2, 1, stride=3, output_padding=2))
    net = co.BroadcastReduce(nn.Identity(), path, reduce="concat").double().eval()
    streams, clip = co.StreamBatch(net, torch.zeros(1, 2, dtype=torch.float64), backend="eager"), torch.randn(2, 6).double()
    stream = streams.open()
    found = [streams.step({stream: clip[:, t]})[stream] for t in range(4)]
    with pytest.raises(co.ShapeMismatch, match="ends after 4 steps, where branches .* differ in length.* end it after 6 steps"):
        streams.flush(stream)
    found += [streams.step({stream: clip[:, t]})[stream] for t in (4, 5)]
    whole = torch.cat([*(y for y in found if y is not None), *([] if (y := streams.flush(stream)) is None else [y])], 1)
    assert_equal(whole, net(clip[None])[0], "the stream after what it refused")


def test_flushing_changes_nothing():
    streams, clip = batch(), torch.randn(3, 14, dtype=torch.float64)
    stream, found = streams.open(), []
    assert streams.flush(stream) is None
    for t in range(14):
        if (y := streams.step({stream: clip[:, t]})[stream]) is not None:
            found.append(y)
        rest = streams.flush(stream)
        whole = torch.stack([*found, *(rest.unbind(1) if rest is not None else ())], 1)
        assert_equal(whole, network()(clip[None, :, : t + 1])[0], f"after {t + 1} steps")


def test_errors_leave_all_streams_as_they_were():
    streams, clip = batch(2), torch.randn(3, 9, dtype=torch.float64)
    a, b = streams.open(), streams.open("b")
    streams.step({a: clip[:, 0], "b": clip[:, 0]})
    with pytest.raises(KeyError, match="no stream 'c' is open"):
        streams.step({a: clip[:, 1], "c": clip[:, 1]})
    with pytest.raises(co.ShapeMismatch, match=r"stream 'b': takes frames \(3,\).*got \(4,\).*No stream has moved"):
        streams.step({a: clip[:, 1], "b": torch.zeros(4, dtype=torch.float64)})
    with pytest.raises(co.ShapeMismatch, match="float32"):
        streams.step({a: clip[:, 1].float()})
    with pytest.raises(co.ShapeMismatch, match="takes 1 tensor a step, got 2"):
        streams.step({a: [clip[:, 1], clip[:, 1]]})
    with pytest.raises(co.ShapeMismatch, match=r"a frame is a torch.Tensor, got numpy.ndarray: write torch.from_numpy\(frame\)"):
        streams.step({a: clip[:, 1].numpy()})
    with pytest.raises(
        co.MissingFrames, match=r"stream 0 has no frame \(None\)\. Leave it out .*co\.Streams\(batch, gaps='hold'\)"
    ):
        streams.step({a: None, "b": clip[:, 1]})
    assert isinstance(streams.step({a: None, "c": None}, return_exceptions=True)[a], co.MissingFrames)
    with pytest.raises(co.CapacityError, match="all 2 streams are in use"):
        streams.open()
    with pytest.raises(co.CapacityError, match="'b' is open already"):
        streams.open("b")
    with pytest.raises(co.StateMismatch, match="takes a snapshot"):
        streams.restore(a, None)
    streams.close(b)
    for call in (streams.close, streams.reset, streams.flush, streams.snapshot):
        with pytest.raises(KeyError, match="no stream 'b'"):
            call(b)
    assert streams.statistics.steps == 2
    rest = run(streams, a, clip[:, 1:])
    assert_equal(rest, network()(clip[None])[0], "the stream goes on")


def test_what_it_can_not_be_made_of():
    with pytest.raises(ValueError, match="capacity is at least 1, got 0"):
        batch(0)
    with pytest.raises(co.NotStreamable, match="training mode"):
        co.StreamBatch(network().train(), torch.zeros(1, 3, dtype=torch.float64), backend="eager")


def test_growing_keeps_the_streams():
    streams, clips = batch(1, grow=True), torch.randn(5, 3, 17, dtype=torch.float64)
    outs: dict[Any, list[Tensor]] = {}
    for t in range(17):
        if t in (0, 2, 3, 7, 8):
            outs[streams.open()] = []
        inputs = {i: clips[i, :, t] for i in outs}
        for i, y in streams.step(inputs).items():
            outs[i] += [] if y is None else [y]
    assert streams.capacity == 8
    assert len(streams) == 5
    assert 4 in streams
    starts = dict(zip(streams.ids, (0, 2, 3, 7, 8)))
    for i, found in outs.items():
        rest = streams.flush(i)
        whole = torch.stack([*found, *(rest.unbind(1) if rest is not None else ())], 1)
        assert_equal(whole, network()(clips[i : i + 1, :, starts[i] :])[0], f"stream {i}")


@pytest.mark.parametrize("seen", [0, 1, 2, 7, 8])
def test_snapshots_go_on_elsewhere(seen: int):
    streams, other, clip = batch(), batch(2), torch.randn(3, 15, dtype=torch.float64)
    stream = streams.open()
    first = [streams.step({stream: clip[:, t]})[stream] for t in range(seen)]
    snapshot = streams.snapshot(stream)
    streams.step({stream: frame()})  # which the snapshot does not see
    other.open()
    there = other.open()
    other.restore(there, pickle.loads(pickle.dumps(snapshot)))
    found = [*first, *(other.step({there: clip[:, t]})[there] for t in range(seen, 15))]
    rest = other.flush(there)
    whole = torch.stack([y for y in found if y is not None] + list(rest.unbind(1) if rest is not None else ()), 1)
    assert_equal(whole, network()(clip[None])[0], f"restored after {seen} steps")
    assert snapshot.nbytes > 0


def test_a_snapshot_of_another_network_is_refused():
    streams = batch()
    stream = streams.open()
    other = co.StreamBatch(co.Conv1d(3, 4, 3).double().eval(), torch.zeros(1, 3, dtype=torch.float64), 1, backend="eager")
    snapshot = other.snapshot(other.open())
    clip = torch.randn(3, 8, dtype=torch.float64)
    with pytest.raises(co.StateMismatch, match="another network or chunk"):
        streams.restore(stream, snapshot)
    wider, snapshot = batch(chunk=4), streams.snapshot(stream)
    there = wider.open()
    with pytest.raises(co.StateMismatch, match="another network or chunk"):
        wider.restore(there, snapshot)
    assert_equal(run(streams, stream, clip), network()(clip[None])[0], "the stream is as it was")


def test_a_snapshot_of_other_weights_is_refused(tmp_path: Any):
    pytest.importorskip("safetensors", reason="needs safetensors, of the extra `io`")
    net, clip = copy.deepcopy(network()), torch.randn(3, 13, dtype=torch.float64)
    with torch.no_grad():
        list(net.parameters())[1][0] += 1e-9
    streams = batch()
    other = co.StreamBatch(net, torch.zeros(1, 3, dtype=torch.float64), 2, backend="eager")
    ids, found = [streams.open(), other.open()], []
    for t in range(6):
        streams.step({ids[0]: clip[:, t]})
        found.append(other.step({ids[1]: clip[:, t]})[ids[1]])
    snapshot = streams.snapshot(ids[0])
    co.save_state(snapshot, tmp_path / "s")
    for given in (snapshot, pickle.loads(pickle.dumps(snapshot)), co.load_state(tmp_path / "s")):
        with pytest.raises(
            co.StateMismatch, match=r"StreamBatch\.restore: this state was made with other weights \(their digest is"
        ):
            other.restore(ids[1], given)
        streams.restore(ids[0], given)
    found += [other.step({ids[1]: clip[:, t]})[ids[1]] for t in range(6, 13)]
    found += other.flush(ids[1]).unbind(1)
    assert_equal(torch.stack([y for y in found if y is not None], 1), net(clip[None])[0], "the stream is as it was")
    other.restore(ids[1], snapshot, allow_other_weights=True)
    other.restore(ids[1], co.load_state(tmp_path / "s", allow_other_weights=True))
    assert other.snapshot(ids[1]).steps == 6
    assert len({streams.weights, other.weights, snapshot.weights}) == 2


@pytest.mark.parametrize("backend", ["eager", "inductor", "aot"])
def test_weights_that_change_under_a_batch(backend: str):
    """Eager streams go on with the new ones, code of AOTInductor with the old ones, and of inductor's nobody can say it."""
    net = copy.deepcopy(network())
    streams = co.StreamBatch(net, torch.zeros(1, 3, dtype=torch.float64), 2, backend="eager")
    streams.served._weights = ProgramWeights(net, backend)  # as if the backend were that: compiling takes half a minute
    stream = streams.open()
    for _ in range(2):
        streams.step({stream: frame()})
    snapshot, kept = streams.snapshot(stream), copy.deepcopy(net.state_dict())
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    match backend:
        case "eager":
            assert streams.weights == fingerprint(net) != snapshot.weights
            with pytest.raises(co.StateMismatch, match="other weights"):
                streams.restore(stream, snapshot)
        case "aot":
            assert streams.weights == snapshot.weights
            streams.restore(stream, snapshot)
        case _:
            for call in (streams.snapshot, lambda stream: streams.restore(stream, snapshot)):
                with pytest.raises(co.StateMismatch, match=r"have changed since its program was compiled \(backend 'inductor'\)"):
                    call(stream)
    net.load_state_dict(kept)
    streams.restore(stream, snapshot)
    assert streams.snapshot(stream).weights == snapshot.weights


@pytest.mark.parametrize("damage", ["no tensor", "another shape", "another dtype", "steps", "no steps that wait"])
def test_a_snapshot_that_lacks_something_is_refused(damage: str):
    """It was a bare KeyError or ValueError, or went on."""
    streams = batch()
    stream, clip = streams.open(), torch.randn(3, 12, dtype=torch.float64)
    first = [streams.step({stream: clip[:, t]})[stream] for t in range(5)]
    whole = streams.snapshot(stream)
    assert whole.pending[0].shape[1] > 0
    tensors = dict(whole.tensors)
    name = next(n for n, t in tensors.items() if t.ndim > 1)
    broken = {
        "no tensor": {"tensors": {n: t for n, t in tensors.items() if n != name}},
        "another shape": {"tensors": tensors | {name: tensors[name][:1, :1]}},
        "another dtype": {"tensors": tensors | {name: tensors[name].float()}},
        "steps": {"steps": whole.steps + 1},
        "no steps that wait": {"pending": ()},
    }[damage]
    with pytest.raises(co.StateMismatch, match="another network or chunk"):
        streams.restore(stream, dataclasses.replace(whole, **broken))
    rest = [streams.step({stream: clip[:, t]})[stream] for t in range(5, 12)]
    found = torch.stack([y for y in (*first, *rest) if y is not None] + list(streams.flush(stream).unbind(1)), 1)
    assert_equal(found, network()(clip[None])[0], "the stream is as it was")


OTHER_PROCESS = """
import sys, torch, continual as co
from tests.programs.test_stream_batch import batch
streams = batch(2)
stream = streams.open()
streams.restore(stream, co.load_state(sys.argv[1]))
found = [streams.step({stream: torch.full((3,), float(t), dtype=torch.float64)})[stream] for t in range(5)]
print([y.sum().item() for y in found if y is not None])
"""


def test_another_process_goes_on(tmp_path: Any):
    pytest.importorskip("safetensors", reason="needs safetensors, of the extra `io`")
    streams = batch()
    stream = streams.open()
    for _ in range(5):
        streams.step({stream: frame()})
    path = tmp_path / "stream.safetensors"
    co.save_state(streams.snapshot(stream), path)
    loaded = co.load_state(path)
    assert isinstance(loaded, co.StreamSnapshot)
    assert loaded.steps == 5
    found = [streams.step({stream: torch.full((3,), float(t), dtype=torch.float64)})[stream] for t in range(5)]
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([y.sum().item() for y in found if y is not None])


def test_threads_take_turns():
    streams, clips = batch(4), torch.randn(4, 3, 30, dtype=torch.float64)
    ids, found, errors = [streams.open() for _ in range(4)], {}, []

    def work(i: int) -> None:
        try:
            found[i] = run(streams, ids[i], clips[i])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for i in range(4):
        assert_equal(found[i], network()(clips[i : i + 1])[0], f"thread {i}")


def test_statistics_count():
    streams = batch()
    stream = streams.open()
    before = streams.statistics
    assert (before.streams, before.capacity, before.steps, before.calls, before.milliseconds) == (1, 3, 0, 0, 0.0)
    for _ in range(4):
        streams.step({stream: frame()})
    streams.step({})
    after = streams.statistics
    assert (after.steps, after.calls) == (4, 2)
    assert after.milliseconds > 0
    assert repr(streams) == "StreamBatch(Sequential, 1 of 3 streams, backend='eager')"


def test_several_inputs_and_layouts_of_a_converted_module():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3, padding=1)

        def forward(self, x: Tensor, gain: Tensor) -> Tensor:
            return self.conv(x.transpose(1, 2)).transpose(1, 2) * gain.unsqueeze(1)

    net, clips, gains = Net().double().eval(), torch.randn(2, 11, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    twin = co.continual(net, (clips, gains), time_dim=(1, None))
    streams = co.StreamBatch(twin, (clips[:1, 0], gains[:1]), 3, backend="eager")
    ids = [streams.open(), streams.open()]
    found: dict[Any, list[Tensor]] = {i: [] for i in ids}
    for t in range(11):
        for i, y in streams.step({i: (clips[i, t], gains[i]) for i in ids}).items():
            found[i] += [] if y is None else [y]
    want = net(clips, gains)
    for i in ids:
        assert_equal(torch.stack([*found[i], *streams.flush(i).unbind(0)]), want[i], f"stream {i}")


class TimeFirst(nn.Module):
    """Clips ``(T, B, C)``; a sequence, and stacked filters ``(2, B, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x.permute(1, 2, 0))
        return y.permute(2, 0, 1), y.transpose(0, 1)


def test_outputs_of_any_layout_lose_their_batch_wherever_it_is():
    """Steps of outputs whose batch is not first had it first, and a flush kept it where time is first."""
    torch.manual_seed(0)
    net, clips = TimeFirst().double().eval(), torch.randn(11, 2, 3, dtype=torch.float64)
    twin, want = co.continual(net, clips, time_dim=0), net(clips)
    steps = [y for x in clips if (y := twin.forward_step(x)) is not None]
    assert_equal(torch.stack([y[1] for y in steps], 2), want[1][:, :, :10], "steps of stacked filters")
    streams = co.StreamBatch(twin, clips[0, :1], 3, backend="eager")
    ids = [streams.open(), streams.open()]
    found: list[list[Any]] = [[], []]
    for x in clips:
        for i, y in streams.step({i: x[i] for i in ids}).items():
            found[i] += [] if y is None else [y]
    for i in ids:
        last: Any = streams.flush(i)
        for k, what in enumerate(("frames", "filters")):
            made = torch.cat([torch.stack([y[k] for y in found[i]], k), last[k]], k)
            assert_equal(made, want[k][:, i], f"{what} of stream {i}")


def test_compiling_leaves_the_network_as_it_was():
    """Found by hand: tensors that are made once for all calls were made while the graph was traced, and then used outside."""
    net = co.MultiheadAttention(8, 2, sequence_len=12, embed_dim_second=True, positions="alibi").eval()
    clip = torch.randn(2, 8, 30)
    want = co.MultiheadAttention(8, 2, sequence_len=12, embed_dim_second=True, positions="alibi")
    want.load_state_dict(net.state_dict())
    co.compile(net, clip[:, :, 0], backend="eager").export()
    assert_equal(net.forward_steps(clip), want(clip), "after an export")
