"""Clients that send more than they may, or read less than they get."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from continual.serving.client import ServedStream
from continual.serving.inbox import Inbox
from continual.serving.protocol import Spec
from tests.serving.servers import STEP, Proxy, Raw, clip, close_to, network, run, server, through, wanted
from tests.serving.test_faults import beside


async def flood(served: Any, count: int) -> Any:
    """Send far more than the credit, in messages with less and with more than it, then read all answers."""
    sizes, seq = np.random.default_rng(0), 0
    async with Raw(served.url) as raw:
        await raw.opened()
        while seq < count:
            piece = clip(count, 3)[seq : seq + int(sizes.integers(1, 19))]
            await raw.frames(seq, piece)
            seq += len(piece)
        answers: list[Any] = []
        while sum(a["credit"] for a in answers) < count:
            answers.append(await raw.hear("data"))
        return answers


def test_a_flood_waits():
    answers = beside(lambda served: flood(served, 400), credit=8, overload="block")
    y = np.concatenate([a["y"][0] for a in answers if a["count"]])
    close_to(y, wanted(network(), clip(400, 3), ended=False))


def test_a_flood_loses_its_oldest_frames():
    async def fault(served: Any) -> Any:
        answers = await flood(served, 400)
        return answers, served.engine.metrics.dropped["overload"]

    answers, dropped = beside(fault, credit=8, overload="drop-oldest")
    assert dropped > 50
    assert sum(a["credit"] for a in answers) == 400
    assert any(a["flags"] & 4 for a in answers), "that frames are missing is said"
    assert sum(a["count"] for a in answers) <= 400 - dropped


async def until(so: Callable[[], bool]) -> None:
    while not so():
        await asyncio.sleep(0.001)


def test_it_is_said_which_frames_are_dropped():
    """Of one message: its frames before them, and the answer's flag; the client's gaps are not taken for dropped frames."""

    async def main() -> Any:
        async with server(credit=8, overload="drop-oldest") as served, Raw(served.url) as raw:
            await raw.opened()
            lock = served.engine._between
            await lock.acquire()  # no steps meanwhile

            await raw.frames(0, clip(2))
            await until(lambda: len(lock._waiters or ()) == 1)  # a step, which takes the first frame
            await raw.frames(5, clip(4)[:3], 4)
            await raw.frames(8, clip(4)[:2])
            await raw.frames(10, clip(5))  # of eleven that are left three are too many
            await until(lambda: len(lock._waiters or ()) == 2)
            lock.release()
            said = [await raw.hear() for _ in range(6)]
            return [(m["first"], m["next"]) for m in said if m["type"] == "dropped"], [
                (m["flags"], m["credit"], m["seq"]) for m in said if m["type"] == "data"
            ]

    dropped, answers = run(main())
    assert dropped == [(1, 2), (5, 7)]
    assert answers == [(4, 2, 1), (4, 3, 7), (0, 2, 9), (0, 5, 10)]


def test_frames_that_were_dropped_are_left_out_when_a_stream_is_resumed(monkeypatch: pytest.MonkeyPatch):
    """A client that sends more than its credit: its outputs are those of the frames that were not dropped, cut or not."""
    kept, frames = set(range(300)), clip(300)
    adopt, told = ServedStream._adopt, ServedStream._told

    def greedy(self: Any, found: Any) -> None:
        adopt(self, found)
        self.credit = 40

    def noted(self: Any, message: Any) -> None:
        if message["type"] == "dropped":
            kept.difference_update(range(message["first"], message["next"]))
        told(self, message)

    monkeypatch.setattr(ServedStream, "_adopt", greedy)
    monkeypatch.setattr(ServedStream, "_told", noted)

    async def main() -> Any:
        async with server(credit=8, overload="drop-oldest", checkpoint_every=64) as served, Proxy(served.port) as proxy:
            found: list[Any] = []
            async with co.serve.connect(proxy.url) as stream:

                async def read() -> None:
                    async for _, y in stream:
                        found.append(y)

                reader = asyncio.create_task(read())
                for at in range(0, 300, 20):
                    await stream.send(frames[at : at + 20])
                    if at in (100, 180):
                        before = stream._have
                        while stream._have == before:
                            await asyncio.sleep(0.001)
                        proxy.cut()
                await stream.finish()
                await reader
            return np.concatenate(found), stream.resumed, stream.dropped

    y, resumed, dropped = run(main())
    assert resumed == 2
    assert 50 < dropped == 300 - len(kept)
    close_to(y, wanted(network(), frames[sorted(kept)]))


def test_a_checkpoint_of_frames_that_were_dropped_later_is_given_up():
    """Frames that had taken their step are dropped when they come again: no later resume goes on from a state that has seen them."""

    async def main() -> Any:
        frames = clip(12)
        async with server(credit=4, capacity=1, overload="drop-oldest", checkpoint_every=4) as served:
            async with Raw(served.url) as raw:
                token = (await raw.opened())["token"]
                for t in range(8):
                    await raw.frames(t, frames[t : t + 1])
                    await raw.hear("data")
                await until(lambda: served.engine.checkpoints.store.get(token)[0].next == 8)
            lock = served.engine._between
            async with Raw(served.url) as raw:
                assert (await raw.opened(type="resume", token=token, have=3))["next"] == 4
                await lock.acquire()
                await raw.frames(4, frames[4:8])
                await until(lambda: len(lock._waiters or ()) == 1)  # a step, which takes frame 4
                await raw.frames(8, frames[8:])
                await until(lambda: len(lock._waiters or ()) == 2)
                lock.release()
                dropped = await raw.hear("dropped")
            async with Raw(served.url) as raw:
                begun = (await raw.opened(type="resume", token=token, have=7))["next"]
                await raw.frames(4, frames[4:5])
                await raw.hear("data")
                await raw.frames(8, frames[8:], 4)
                return dropped, begun, (await raw.hear("data"))["y"][0]

    dropped, begun, y = run(main())
    assert (dropped["first"], dropped["next"], begun) == (5, 8, 4)
    close_to(y, wanted(network(), clip(12)[[0, 1, 2, 3, 4, 8, 9, 10, 11]], ended=False)[2:])


def test_multiplexed_streams_lose_their_oldest_frames():
    """It is said which, their credit comes back, and a stream that is resumed leaves them out."""

    async def main() -> Any:
        async with server(credit=4, overload="drop-oldest") as served, Raw(served.url) as raw:
            token = (await raw.opened(type="open", streams=1))["token"]
            await raw.many([0] * 12, range(12), clip(12))
            dropped, credit, y = [], 0, []
            while credit < 12:
                message = await raw.hear()
                if message["type"] == "dropped":
                    dropped.append((message["stream"], message["first"], message["next"]))
                else:
                    credit += message["credit"]
                    y += [entry["f0"] for entry in message["y"]]
            async with Raw(served.url) as again:
                row = (await again.opened(type="resume", token=token, have=-1, multiplexed=True))["stream"]
                await again.socket.send(again.inputs.multiplexed(np.full(4, row), np.arange(8, 12), [clip(12)[8:]], 4))
                z: list[Any] = []
                while len(z) < len(y):
                    z += [entry["f0"] for entry in (await again.hear("data"))["y"]]
            return dropped, np.stack(y), np.stack(z)

    dropped, y, z = run(main())
    assert dropped == [(0, t, t + 1) for t in range(8)]
    close_to(y, wanted(network(), clip(12)[8:], ended=False))
    close_to(z, y)


def test_a_ring_of_frames_equals_a_queue():
    inbox, queue, random, seq = Inbox(2, 5, [Spec.of((2,), np.float32)]), deque[int](), np.random.default_rng(0), 0
    for _ in range(300):
        count = int(random.integers(0, 6 - len(queue)))
        seq += int(random.integers(0, 3))
        inbox.put_many(1, seq, [np.arange(seq, seq + count, dtype=np.float32)[:, None] * [1, -1]], 0.0)
        queue.extend(range(seq, seq + count))
        seq += count
        assert inbox.busy == bool(queue)
        assert inbox.first(np.array([0, 1]), np.array([7, seq])).tolist() == [7, queue[0] if queue else seq]
        if random.random() < 0.3:
            runs = inbox.drop(1, count := int(random.integers(0, len(queue) + 1)))
            assert [n for first, last in runs for n in range(first, last + 1)] == [queue.popleft() for _ in range(count)]
            assert all(b[0] > a[1] + 1 for a, b in pairwise(runs))
        for _ in range(min(len(queue), int(random.integers(0, 4)))):
            taken, wanted = inbox.take(), queue.popleft()
            assert inbox.busy == bool(queue)
            assert (taken.rows.tolist(), taken.seq.tolist()) == ([1], [wanted])
            assert taken.parts[0].tolist() == [[wanted, -wanted]]


def test_frames_beyond_the_credit_are_refused_and_the_stream_goes_on():
    async def fault(served: Any) -> Any:
        async with Raw(served.url) as raw:
            await raw.opened()
            await raw.frames(0, clip(9))
            error = await raw.hear("error")
            await raw.frames(error["next"], clip(9)[:8])
            y = (await raw.hear("data"))["y"][0]
            await raw.frames(8, clip(9)[8:])
            return error, np.concatenate([y, (await raw.hear("data"))["y"][0]])

    error, y = beside(fault, credit=8, overload="refuse")
    assert (error["code"], error["next"], error["retry_after"]) == ("overrun", 0, 0.0)
    close_to(y, wanted(network(), clip(9), ended=False))


def test_a_client_that_never_reads_is_cut_off():
    """Outputs of 512 kB each: what is unsent stays below the limit, and the row is free."""

    class Wide(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat_interleave(1 << 14, 1)

    net = co.Sequential(co.forward_stepping(Wide())).eval()

    async def main() -> Any:
        async with server(net, STEP, output=2 << 20, credit=8) as served:
            bystander = asyncio.create_task(through(served.url, clip(30, 9), 1, 0.001))
            async with Raw(served.url, max_queue=1) as raw:
                await raw.opened()
                largest = 0
                for seq in range(400):
                    await raw.frames(seq, clip(1))
                    await asyncio.sleep(0.001)
                    unsent = [s.transport.get_write_buffer_size() for s in served._server.connections]
                    largest = max([largest, *unsent])
                    if served.engine.metrics.refused["slow_reader"]:
                        break
                refused = served.engine.metrics.refused["slow_reader"]
                raw.socket.transport.abort()
            y = await bystander
            assert y.shape == (30, 3 << 14)
            assert (y == clip(30, 9).repeat(1 << 14, 1)).all()
            return refused, largest

    refused, largest = run(main())
    assert refused == 1
    assert largest < 4 << 20


@pytest.mark.long
def test_memory_is_flat_for_a_minute():
    """Two clients that never read, and send without credit: one waits, and one is cut off and comes again."""

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    async def flood(url: str, until: float) -> int:
        from websockets.exceptions import ConnectionClosed

        cuts = 0
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionClosed, OSError):
                async with Raw(url, max_queue=1) as raw:
                    await raw.opened()
                    seq = 0
                    while time.monotonic() < until:
                        await asyncio.wait_for(raw.frames(seq, clip(50)), max(0.1, until - time.monotonic()))
                        seq += 50
            cuts += 1
        return cuts

    async def main() -> Any:
        async with server(output=1 << 18) as served:
            until = time.monotonic() + 60
            floods = [asyncio.create_task(flood(served.url, until)) for _ in range(2)]
            sizes = []
            while time.monotonic() < until:
                close_to(await through(served.url, clip(30)), wanted(network(), clip(30)))
                await asyncio.sleep(0.5)
                sizes.append(megabytes())
            await asyncio.gather(*floods, return_exceptions=True)
            return sizes

    sizes = run(main(), 120)
    assert max(sizes[len(sizes) // 2 :]) < max(sizes[: len(sizes) // 4]) + 20
