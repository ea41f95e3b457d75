"""Streams in replicas of Ray Serve, and recordings in datasets of Ray. What needs no Ray runs without it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import continual as co
from continual.serving.client import ServedStream
from continual.serving.protocol import HEADER, REPLAYED
from continual.serving.ray_keeper import Keeper
from continual.serving.ray_map import chains, rows_of
from continual.serving.store import Checkpoint
from tests.serving.servers import STEP, Raw, clip, close_to, network, run, wanted
from tests.serving.test_resuming import free_port

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray, of the extra `ray`")
# Ray leaves sockets and files to the end of the process, and asks itself for what it will no longer do.
ray_warns = pytest.mark.filterwarnings("ignore")
EVERY, CREDIT = 16, 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # the paths of sockets must be short
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        yield ray
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class Application:
    """An application of Ray Serve, whose replicas note their processes in a folder."""

    def __init__(self, folder: Path, port: int):
        self.folder, self.url = folder, f"ws://127.0.0.1:{port}/v1/stream"

    def processes(self) -> set[int]:
        """Those of all replicas so far."""
        return {int(path.name) for path in self.folder.iterdir()}

    def run(self, replicas: int) -> set[int]:
        """Start it, or change it. Returns the processes of the new replicas."""
        from ray import serve

        folder, before = self.folder, self.processes()

        def make() -> Any:
            (folder / str(os.getpid())).touch()
            return network()

        options = {"credit": CREDIT, "backend": "eager", "actor_options": {"num_cpus": 0.1}, "pace": 0.0}
        app = co.serve.ray_app(make, STEP, capacity=8, replicas=replicas, checkpoint_every=EVERY, max_age=2.0, **options)
        serve.run(app, name="app")
        return self.processes() - before


@pytest.fixture(scope="module")
def application(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    from ray import serve

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield Application(tmp_path_factory.mktemp("replicas"), port)
    serve.shutdown()


async def streamed(url: str, frames: Any, pause: float, before: Any = None) -> tuple[list[tuple[int, bytes]], Any]:
    """The outputs of frames, with something that happens before one in the middle."""
    found: list[tuple[int, bytes]] = []
    async with co.serve.connect(url) as stream:

        async def read() -> None:
            async for seq, y in stream:
                found.extend((seq + i, row.tobytes()) for i, row in enumerate(y))

        reader = asyncio.create_task(read())
        for t in range(len(frames)):
            if before is not None and t == len(frames) // 2:
                await asyncio.to_thread(before)
            await stream.send(frames[t : t + 1])
            await asyncio.sleep(pause)
        await stream.finish()
        await reader
        return found, stream


async def resumed(url: str, seconds: float = 60.0, **message: Any) -> tuple[Raw, int]:
    """A connection on which a stream was resumed, and its next frame; tried again while there are no replicas."""
    from websockets.exceptions import WebSocketException

    until = time.monotonic() + seconds
    while True:
        raw = Raw(url)
        try:
            await raw.__aenter__()
            return raw, (await raw.opened(type="resume", **message))["next"]
        except (OSError, WebSocketException):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


def check(found: list[tuple[int, bytes]], frames: Any) -> None:
    """No output is missing, or twice, or another one."""
    assert [seq for seq, _ in found] == list(range(3, len(frames) + 3))
    close_to(np.stack([np.frombuffer(y) for _, y in found]), wanted(network(), frames))


@needs_ray
@ray_warns
@pytest.mark.long
def test_replicas_that_are_killed_and_taken_away(application: Application, monkeypatch: pytest.MonkeyPatch):
    """Six streams: a replica is killed, then the application shrinks to one replica. Nothing is missing, and little is sent again."""
    again: dict[Any, list[int]] = {}  # frames that were sent again, for each change of the connection
    say = ServedStream._say

    def noted(self: Any, message: Any) -> None:
        if isinstance(message, bytes):
            _, flags, _, count, _ = HEADER.unpack_from(message)
            if flags & REPLAYED:
                own = again.setdefault((self.token, self.resumed), [0])
                own[0] += count
        say(self, message)

    monkeypatch.setattr(ServedStream, "_say", noted)
    pids = application.run(2)
    assert len(pids) == 2

    async def main(change: Any, length: int, pause: float) -> Any:
        clips = [clip(length + i, i) for i in range(6)]
        outs = await asyncio.gather(*(streamed(application.url, x, pause, None if i else change) for i, x in enumerate(clips)))
        for x, (found, _) in zip(clips, outs, strict=True):
            check(found, x)
        return sum(stream.resumed for _, stream in outs)

    killed = run(main(lambda: os.kill(min(pids), signal.SIGKILL), 150, 0.005), 120)
    assert killed >= 1
    sent = [own[0] for own in again.values()]
    print("frames sent again after a kill:", sent)
    assert 0 < max(sent) <= EVERY + CREDIT

    again.clear()
    moved = run(main(lambda: application.run(1), 700, 0.01), 240)
    until = time.monotonic() + 40
    while len(left := [pid for pid in application.processes() if Path(f"/proc/{pid}").exists()]) > 1:
        assert time.monotonic() < until, left
        time.sleep(0.2)
    assert moved >= 6
    sent = [own[0] for own in again.values()]
    print("frames sent again by moves:", sent, "moves:", moved)
    assert max(sent, default=0) <= CREDIT


@needs_ray
@ray_warns
@pytest.mark.long
def test_repeats_are_the_same_bits_in_another_replica_and_the_keeper_may_start_again(application: Application, cluster: Any):
    pids = application.run(2)
    frames = clip(60)

    async def main() -> Any:
        outs: dict[int, bytes] = {}

        async def send(raw: Any, first: int, last: int) -> list[tuple[int, bytes]]:
            found = []
            for t in range(first, last):
                await raw.frames(t, frames[t : t + 1], 1)
                answer = await raw.hear("data")
                found += [(answer["seq"] + i, y.tobytes()) for i, y in enumerate(answer["y"][0] if answer["count"] else [])]
            return found

        async with Raw(application.url) as raw:
            token = (await raw.opened())["token"]
            outs.update(await send(raw, 0, 40))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        raw, begun = await resumed(application.url, token=token, have=20)  # an earlier output than the last one that it has
        repeats = await send(raw, begun, 40)
        keeper = await asyncio.to_thread(cluster.get_actor, "continual-keeper", "continual")
        await asyncio.to_thread(lambda: cluster.kill(keeper, no_restart=False))
        later = await send(raw, 40, 60)
        await raw.socket.close()
        raw, after = await resumed(application.url, token=token, have=59)
        await raw.socket.close()
        return outs, begun, repeats, later, after

    outs, begun, repeats, later, after = run(main(), 200)
    assert 0 < begun <= 21
    assert [seq for seq, _ in repeats] == list(range(21, 40)), "those that the client has are not sent again"
    assert all(outs[seq] == y for seq, y in repeats)
    whole = np.stack([np.frombuffer(y) for _, y in sorted({**outs, **dict(later)}.items())])
    close_to(whole, wanted(network(), frames, ended=False))
    assert after > 40, "the keeper has started again, and has the stream from the replica that serves it"


class Gained(nn.Module):
    """Two inputs, a temporal stride, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 2, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return y, y * self.conv(gain)


@needs_ray
@ray_warns
@pytest.mark.long
def test_recordings_in_blocks_equal_whole_ones(cluster: Any):
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    lengths = {"a": 90, "b": 17, "c": 30, "d": 40, "e": 1}
    clips = {name: clip(n, n) for name, n in lengths.items()}
    rows = [{"recording": name, "time": 7 + t, "frames": x[t], "gain": -x[t]} for name, x in clips.items() for t in range(len(x))]
    dataset = ray.data.from_items(rows, override_num_blocks=8).filter(lambda row: row["recording"] != "c")

    def of(found: list[dict[str, Any]], name: str, column: str = "y") -> Any:
        own = [row for row in found if row["recording"] == name]
        assert [row["index"] for row in own] == list(range(len(own)))
        return np.stack([row[column] for row in own])

    found = co.ray_map(network(), dataset, workers=2, chunk=16, actor_options={"num_cpus": 0.5}).take_all()
    del clips["c"]
    for name, x in clips.items():
        close_to(of(found, name), wanted(network(), x))

    torch.manual_seed(3)
    module = Gained().double().eval()
    net = co.continual(module, (torch.randn(1, 3, 9).double(), torch.randn(1, 3, 9).double()))
    found = co.ray_map(net, dataset, frames=["frames", "gain"], actor_options={"num_cpus": 0.5}).take_all()
    for name, x in clips.items():
        clips_in = torch.from_numpy(x).T[None]
        for i, y in enumerate(module(clips_in, -clips_in)):
            close_to(of(found, name, f"y{i}"), y[0].T.detach().numpy())

    missing = ray.data.from_items([row for row in rows if row["time"] != 30], override_num_blocks=3)
    with pytest.raises(ValueError, match=r"recording 'a'.*dataset\.sort"):
        co.ray_map(network(), missing)


# ---- without Ray --------------------------------------------------------------------------------------------------------


def test_the_rows_of_each_recording():
    found = rows_of(np.array(["b", "a", "b", "c", "b"], object))
    assert {name: rows.tolist() for name, rows in found.items()} == {"a": [1], "b": [0, 2, 4], "c": [3]}


def test_recordings_that_lie_in_the_same_blocks_go_together():
    blocks = [
        [("b", 0, 4, 5), ("a", 10, 19, 10)],
        [("c", 5, 5, 1)],
        [("a", 3, 9, 7), ("d", 0, 1, 2), ("b", 5, 6, 2)],
        [("e", 0, 9, 10)],
    ]
    assert sorted(chains(blocks)) == [(["a"], [2, 0]), (["b"], [0, 2]), (["c"], [1]), (["d"], [2]), (["e"], [3])]
    assert chains([[("a", 0, 3, 4), ("b", 5, 6, 2)], [("a", 4, 4, 1), ("b", 7, 9, 3)]]) == [(["a", "b"], [0, 1])]
    for wrong, words in (
        ([[("a", 0, 3, 4)], [("a", 5, 6, 2)]], "frame 4 is next, and a block has 2 from 5 to 6"),
        ([[("a", 0, 3, 4)], [("a", 2, 6, 5)]], "frame 4 is next, and a block has 5 from 2 to 6"),
        ([[("a", 0, 3, 3)]], "frame 0 is next, and a block has 3 from 0 to 3"),
        ([[("a", 0, 3, 0)]], "frame 0 is next, and a block has some twice from 0 to 3"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            chains(wrong)


def test_a_keeper_that_starts_again_takes_streams_from_those_that_serve_them():
    keeper = Keeper()

    def kept(epoch: int, next: int) -> Checkpoint:
        return Checkpoint("t", epoch, next, "net", bytes([next]))

    assert keeper.put([kept(2, 9)]) == set(), "an unknown stream"
    assert keeper.put([kept(1, 12)]) == {"t"}, "of a server that has lost it"
    assert keeper.put([kept(3, 15)]) == set(), "of one that has claimed it before the keeper started again"
    assert keeper.put([kept(2, 18)]) == {"t"}
    assert [(c.epoch, c.next) for c in keeper.get("t")] == [(3, 15), (3, 9)]
    assert keeper.claim("t", 15) == 4


def test_streams_that_are_open_anywhere_are_not_forgotten():
    """Replicas ask one keeper to forget old streams, and each names its own."""
    keeper = Keeper()
    keeper.create(["a", "b"], "net")
    time.sleep(0.03)
    assert keeper.expire(0.02, ["a"]) == 1
    assert keeper.expire(0.02, []) == 1, "heard of a moment ago"
    time.sleep(0.03)
    assert keeper.expire(0.02, []) == 0


def test_it_is_said_what_ray_needs(monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in ("ray", "ray.serve"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: co.serve.ray_app(network, STEP), lambda: co.ray_map(network(), None)):
        with pytest.raises(co.ExportError, match=r"pip install 'ray\[serve\]'"):
            call()
    with pytest.raises(ValueError, match="time_dim is from 1 up"):
        co.ray_map(network(), None, time_dim=0)
