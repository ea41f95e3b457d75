"""Streams that go on in another process, on another backend, after a crash; stores; and streams that can't go on."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from continual.serving.blobs import packed, unpacked
from continual.serving.store import Checkpoint, MemoryStore
from tests.long import by_turns, one_in
from tests.serving.servers import STEP, Proxy, Raw, clip, close_to, engine, network, run, server, through, wanted

MODEL = "tests/serving/servers.py:network"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Process:
    """`continual serve` in a process of its own."""

    def __init__(self, port: int, *options: str, target: str = MODEL):
        code = "from continual.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", target, "--clip", "1,3,20", "--dtype", "float64"]
        command += ["--port", str(port), "--capacity", "4", "--backend", "eager", *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        self.log: list[str] = []

    async def ready(self) -> Process:
        assert self._process.stderr is not None
        while not any("ready on" in line for line in self.log):
            line = await asyncio.to_thread(self._process.stderr.readline)
            assert line, "".join(self.log)
            self.log.append(line)
        return self

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        _, rest = await asyncio.to_thread(self._process.communicate)
        self.log.append(rest)
        return self._process.returncode


async def streamed(url: str, frames: Any, moments: dict[int, Any]) -> tuple[Any, int]:
    """The outputs of frames, with something that happens before some of them."""
    found: list[Any] = []
    async with co.serve.connect(url) as stream:

        async def read() -> None:
            async for seq, y in stream:
                found.extend((seq + i, row) for i, row in enumerate(y))

        reader = asyncio.create_task(read())
        for t, frame in enumerate(frames):
            if t in moments:
                await moments[t]()
            await stream.send(frame[None])
        await stream.finish()
        await reader
        return found, stream.resumed


@pytest.mark.parametrize("how", by_turns(["SIGKILL", "SIGTERM"], 2))
def test_another_process_goes_on(how: str, tmp_path: Path):
    """After `kill -9` from the last checkpoint, after SIGTERM from the present state: no output is missing or twice."""
    port, frames = free_port(), clip(120)

    async def main() -> Any:
        store = ("--store", str(tmp_path), "--checkpoint-every", "32", "--credit", "8", "--grace", "2")
        processes = [await Process(port, *store).ready()]

        async def crash() -> None:
            processes[-1].kill(signal.Signals[how])
            code = await processes[-1].ended()
            assert code == (-signal.SIGKILL if how == "SIGKILL" else 0), "".join(processes[-1].log)
            processes.append(Process(port, *store))
            await processes[-1].ready()

        found, resumed = await streamed(f"ws://127.0.0.1:{port}/v1/stream", frames, {70: crash})
        processes[-1].kill(signal.SIGTERM)
        assert await processes[-1].ended() == 0
        return found, resumed

    found, resumed = run(main(), 120)
    assert resumed == 1
    assert [seq for seq, _ in found] == list(range(3, 123))
    close_to(np.stack([y for _, y in found]), wanted(network(), frames))


@one_in(3)
def test_another_backend_goes_on(tmp_path: Path):
    """A server stops; one that runs the network in onnxruntime takes its streams over, multiplexed ones too."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    port, frames, many = free_port(), clip(60), clip(40, 7)

    async def main() -> Any:
        first = co.serve.Server(co.serve.Engine(network(), STEP, capacity=4, backend="eager", store=tmp_path), port=port, grace=2)
        await first.start()
        second = co.serve.Server(co.serve.Engine(network(), STEP, capacity=3, backend="onnxruntime", store=tmp_path), port=port)
        async with Raw(first.url) as raw:
            opened = await raw.opened(type="open", streams=1)
            outs: list[Any] = []

            async def send(raw: Raw, times: range) -> None:
                for t in times:
                    await raw.many([opened["stream"]], [t], many[t : t + 1])
                    outs.extend(entry["f0"] for entry in (await raw.hear("data"))["y"])

            await send(raw, range(20))
            moved: list[Any] = []

            async def change() -> None:
                stopping = asyncio.create_task(first.stop())
                moved.append(await raw.hear("moved"))
                await stopping
                await second.start()

            found, resumed = await streamed(first.url, frames, {30: change})
        async with Raw(second.url) as raw:
            opened = await raw.opened(type="resume", token=opened["token"], have=19, multiplexed=True)
            assert opened["next"] == moved[0]["next"] == 20
            await send(raw, range(20, 40))
        await second.stop()
        return found, resumed, outs

    found, resumed, outs = run(main())
    assert resumed == 1
    close_to(np.stack([y for _, y in found]), wanted(network(), frames))
    close_to(np.stack(outs), wanted(network(), many, ended=False))


def test_a_lost_process_without_a_store_is_said(tmp_path: Path):
    """Never continued silently: the client is told that its stream is gone."""
    port = free_port()

    async def main() -> None:
        first = server()
        first.port = port
        await first.start()
        async with co.serve.connect(first.url) as stream:
            await stream.send(clip(9))
            await first.stop()
            async with server(network(2)) as other:
                stream._url = other.url
                with pytest.raises(co.serve.ServeError, match="unknown_stream: stream .* is not kept here"):
                    async for _ in stream:
                        pass
                with pytest.raises(co.serve.ServeError, match="unknown_stream"):
                    await stream.send(clip(1))

    run(main())


def test_other_weights_are_refused(tmp_path: Path):
    changed = network()
    with torch.no_grad():
        next(changed.parameters())[0] += 1e-9

    async def main() -> Any:
        async with server(store=tmp_path) as served, Raw(served.url) as raw:
            token = (await raw.opened())["token"]
            await raw.frames(0, clip(9))
            await raw.hear("data")
        async with server(changed, store=tmp_path) as served, Raw(served.url) as raw:
            await raw.say(type="resume", token=token, have=8)
            return await raw.hear("error"), dict(served.engine.metrics.resumes)

    error, resumes = run(main())
    assert error["code"] == "other_model"
    assert resumes == {"other_model": 1}


def test_the_newest_connection_wins(tmp_path: Path):
    """In one server, and in two that share a store: the old one writes nothing any more, and says so."""

    async def main() -> Any:
        async with server(store=tmp_path, credit=4, checkpoint_every=4) as one, server(store=tmp_path) as two:
            async with Raw(one.url) as a, Raw(one.url) as b, Raw(two.url) as c:
                token = (await a.opened())["token"]
                await a.frames(0, clip(3))
                await a.hear("data")
                await b.opened(type="resume", token=token, have=2)
                first = await a.hear("error")
                await b.frames(0, clip(3))
                await b.hear("data")
                await c.opened(type="resume", token=token, have=2)
                await c.frames(0, clip(20))
                y = (await c.hear("data"))["y"][0]
                for seq in range(3, 12):
                    await b.frames(seq, clip(20)[seq : seq + 1])
                second = await b.hear("error")
                return first, second, y

    first, second, y = run(main())
    assert (first["code"], second["code"]) == ("unknown_stream", "unknown_stream")
    assert "another connection" in first["message"]
    assert "another server" in second["message"]
    close_to(y, wanted(network(), clip(20), ended=False))


def test_streams_of_nobody_are_forgotten():
    async def main() -> Any:
        async with server(keep=0.3) as served:
            async with Raw(served.url) as raw:
                token = (await raw.opened())["token"]
            async with Raw(served.url) as raw:
                open_ = (await raw.opened())["token"]
                await asyncio.sleep(0.1)
                parked = served.engine.gauges()["parked"]
                await asyncio.sleep(0.8)
                store = served.engine.checkpoints.store
                return parked, store.get(token), store.get(open_), served.engine.gauges()["parked"]

    parked, gone, kept, later = run(main())
    assert parked == 1
    assert (gone, later) == ([], 0)
    assert kept, "a stream that is open is kept, however long"


def test_old_streams_are_moved():
    async def main() -> Any:
        async with server(max_age=0.3, credit=4) as served:
            found, resumed = await streamed(served.url, clip(60), {t: (lambda: asyncio.sleep(0.02)) for t in range(60)})
            return found, resumed

    found, resumed = run(main())
    assert resumed >= 2
    close_to(np.stack([y for _, y in found]), wanted(network(), clip(60)))


def test_a_disk_that_is_full_stops_no_stream(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    class Broken(MemoryStore):
        def put(self, checkpoints: Any) -> set[str]:
            raise OSError("no space left on device")

    async def main() -> Any:
        async with server(store=Broken(), credit=4, checkpoint_every=4) as served, Proxy(served.port) as proxy:

            async def cut() -> None:
                proxy.cut()

            return await streamed(proxy.url, clip(40), {25: cut})

    found, resumed = run(main())
    assert resumed == 1
    close_to(np.stack([y for _, y in found]), wanted(network(), clip(40)))
    assert "could not be written" in caplog.text


def test_a_store_that_is_out_of_reach_is_waited_for(caplog: pytest.LogCaptureFixture):
    class Flaky(MemoryStore):
        left = 2

        def create(self, tokens: Any, model: str) -> None:
            self.left -= 1
            if self.left >= 0:
                raise ConnectionError("no route to host")
            super().create(tokens, model)

    async def main() -> Any:
        async with server(store=Flaky(), capacity=1) as served:
            return await through(served.url, clip(9))

    close_to(run(main()), wanted(network(), clip(9)))
    assert caplog.text.count("the store fails") == 2


def test_a_damaged_checkpoint_is_refused_and_its_row_is_free():
    async def main() -> Any:
        async with server(capacity=1, credit=4, checkpoint_every=4) as served:
            async with Raw(served.url) as raw:
                token = (await raw.opened())["token"]
                for seq in range(9):
                    await raw.frames(seq, clip(9)[seq : seq + 1])
                    await raw.hear("data")
            kept = served.engine.checkpoints.store._streams[token][2]
            kept[0] = kept[0]._replace(blob=kept[0].blob[:-1] + b"x")
            async with Raw(served.url) as raw:
                await raw.say(type="resume", token=token, have=8)
                error = await raw.hear("error")
            close_to(await through(served.url, clip(9)), wanted(network(), clip(9)))
            return error, served.engine.metrics.resumes["damaged"]

    error, damaged = run(main())
    assert error["code"] == "unknown_stream"
    assert "is damaged" in error["message"]
    assert damaged == 1


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_states_that_are_no_whole_number_of_words(channels: int):
    """Numbers of 4 and of 8 bytes lie one after another in a checkpoint; some of 8 begin at an odd multiple of 4."""
    net = co.Sequential(co.Conv1d(3, channels, 4, padding=1), co.Conv1d(channels, 2, 2)).eval()
    batch = co.StreamBatch(net, torch.zeros(1, 3), capacity=4, backend="eager")
    rows = batch.rows([batch.open() for _ in range(3)])
    frames = torch.randn(9, 3, 3)
    for frame in frames[:6]:
        batch.step_rows(rows, frame)
    blobs = packed(batch.snapshot_rows(rows))
    wanted = [batch.step_rows(rows, frame)[0].clone() for frame in frames[6:]]
    for n in (3, 1):  # as many at once
        for at in range(0, 3, n):
            batch.restore_rows(rows[at : at + n], unpacked(blobs[at : at + n], batch.snapshot_rows(rows[:1])))
    for frame, y in zip(frames[6:], wanted, strict=True):
        assert torch.equal(batch.step_rows(rows, frame)[0], y)


def test_a_stream_that_can_not_go_on_leaves_its_row_free(monkeypatch: pytest.MonkeyPatch):
    """Whatever fails: a device that is out of memory, say. The next try goes on."""

    async def main() -> Any:
        async with engine(capacity=1, credit=4, checkpoint_every=4) as own:
            sink = SimpleNamespace(refused=lambda *_: None)
            (stream,) = await own.open(sink)
            (blob,) = packed(own.streams.snapshot_rows([stream.row]))
            own.checkpoints.store.put([Checkpoint(stream.token, stream.epoch, 0, own.model.digest, blob)])
            await own.park(stream)
            with monkeypatch.context() as broken:
                broken.setattr(own.streams, "restore_rows", fails)
                with pytest.raises(RuntimeError, match="no memory"):
                    await own.resume(stream.token, -1, sink)
            return (await own.resume(stream.token, -1, sink)).token == stream.token

    def fails(*_: Any) -> None:
        raise RuntimeError("no memory")

    assert run(main())


def test_frames_are_kept_until_the_answers_before_a_checkpoint_have_come():
    """A checkpoint may be told before the answers to its last frames: if these are lost, the server goes on from the one before."""
    stream = co.serve.connect("ws://127.0.0.1:1/v1/stream")
    for seq in range(0, 60, 5):
        stream._kept.append((seq, [np.zeros((5, 2), np.float32)]))
    stream._have = 44
    for next in (40, 48):
        stream._told({"type": "checkpoint", "next": next})
    assert stream._kept[0][0] == 40
    stream._have = 47
    stream._forget()
    assert stream._kept[0][0] == 45
