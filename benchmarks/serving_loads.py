"""What clients do to the server of :mod:`benchmarks.serving`: loads, and faults beside a stream that does nothing wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from continual.serving.protocol import HEADER, Format


class Client:
    """A connection without the library's client, to cost as little as can be."""

    def __init__(self, url: str):
        self._url = url

    async def open(self, **message: Any) -> list[int]:
        """Open streams, and return their numbers."""
        from websockets.asyncio.client import connect

        self.socket = await connect(
            self._url, subprotocols=["continual.v1"], compression=None, max_size=None, proxy=None, ping_interval=None
        )
        await self.socket.send(json.dumps({"type": "open", **message}))
        numbers = []
        for _ in range(message.get("streams", 1)):
            found = json.loads(await self.socket.recv())
            numbers.append(found.get("stream", 0))
        self.inputs, self.outputs = Format.from_json(found), Format.from_json(found["outputs"])
        return numbers

    async def data(self) -> tuple[int, int, int]:
        """The flags, credit and seq of the next answer."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, bytes):
                _, flags, credit, _, seq = HEADER.unpack_from(message)
                return flags, credit, seq


async def sockets(url: str, count: int, rate: float, seconds: float) -> tuple[int, Any]:
    """Clients with a socket and a rate each. Returns frames and latencies."""
    latencies: list[float] = []
    clients = [Client(url) for _ in range(count)]
    for client in clients:
        await client.open()

    async def one(i: int) -> int:
        client = clients[i]
        frames = np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32)
        total, sent = int(seconds * rate), []

        async def read() -> None:
            for t in range(total):
                await client.data()
                latencies.append(time.perf_counter() - sent[t])

        reader = asyncio.create_task(read())
        begin = time.perf_counter() + i / count / rate
        for t in range(total):
            await asyncio.sleep(max(0.0, begin + t / rate - time.perf_counter()))
            sent.append(time.perf_counter())
            await client.socket.send(client.inputs.message(t, [frames]))
        await reader
        await client.socket.close()
        return total

    return sum(await asyncio.gather(*(one(i) for i in range(count)))), latencies


async def multiplexed(url: str, count: int, rate: float, seconds: float) -> tuple[int, Any]:
    """One socket with many streams, all of which send at once, `rate` times a second."""
    client = Client(url)
    numbers = np.array(await client.open(streams=count))
    frames = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    total, latencies, done = int(seconds * rate), list[float](), 0
    sent: list[float] = []

    async def read() -> None:
        nonlocal done
        while done < total * count:
            _, credit, _ = await client.data()
            latencies.extend([time.perf_counter() - sent[done // count]] * credit)
            done += credit

    reader = asyncio.create_task(read())
    begin = time.perf_counter()
    for t in range(total):
        await asyncio.sleep(max(0.0, begin + t / rate - time.perf_counter()))
        sent.append(time.perf_counter())
        await client.socket.send(client.inputs.multiplexed(numbers, np.full(count, t), [frames]))
    await reader
    await client.socket.close()
    return total * count, latencies


async def first_frame(url: str) -> tuple[float, float]:
    """Milliseconds of the first frame of a new server, and the median of the next 200."""
    client, times = Client(url), []
    await client.open()
    for t in range(201):
        started = time.perf_counter()
        await client.socket.send(client.inputs.message(t, [np.zeros((1, 8), np.float32)]))
        await client.data()
        times.append(1000 * (time.perf_counter() - started))
    await client.socket.close()
    return times[0], float(np.median(times[1:]))


async def an_end(url: str) -> tuple[float, float]:
    """The median latency of a stream in ms, without and with other streams beside it that end with a delay of 255."""
    client, times = Client(url), list[list[float]]()
    await client.open()
    t = 0
    for ends in (False, True):
        own: list[float] = []
        others = [Client(url) for _ in range(8)]
        for other in others:
            await other.open()
            await other.socket.send(other.inputs.message(0, [np.zeros((30, 8), np.float32)]))
        await asyncio.sleep(0.1)
        for i in range(160):
            if ends and i % 20 == 0:
                await others[i // 20].socket.send(json.dumps({"type": "finish"}))
            started = time.perf_counter()
            await client.socket.send(client.inputs.message(t, [np.zeros((1, 8), np.float32)]))
            await client.data()
            own.append(1000 * (time.perf_counter() - started))
            t += 1
        times.append(own)
        for other in others:
            await other.socket.close()
    await client.socket.close()
    return float(np.median(times[0])), float(np.median(times[1]))


async def beside_faults(url: str, seconds: float) -> tuple[float, float]:
    """The p99 latency in ms of a stream with 50 frames a second: alone, and beside clients that do all that is wrong, again and again."""
    times = list[float]()
    for bad in (False, True):
        others = multiprocessing.get_context("spawn").Process(target=misbehave, args=(url,), daemon=True)
        if bad:
            others.start()
            await asyncio.sleep(3.0)  # until it has begun
        _, latencies = await sockets(url, 1, 50, seconds)
        if bad:
            others.kill()
        times.append(float(np.percentile(1000 * np.array(latencies), 99)))
    return times[0], times[1]


def misbehave(url: str) -> None:
    """The process of clients that do all that is wrong, for ever."""
    from websockets.exceptions import WebSocketException

    frame = np.zeros((1, 8), np.float32)

    async def flood(client: Client) -> None:  # without credit, and without reading
        client.socket.transport.pause_reading()
        for seq in range(0, 1 << 20, 50):
            await client.socket.send(client.inputs.message(seq, [frame.repeat(50, 0)]))

    async def send(client: Client, message: bytes | str) -> None:
        await client.socket.send(message)
        await client.socket.wait_closed()

    async def again(fault: Callable[[Client], Awaitable[None]]) -> None:
        while True:
            client = Client(url)
            with contextlib.suppress(WebSocketException, OSError, TimeoutError):
                await client.open()
                await asyncio.wait_for(fault(client), 1.0)
                client.socket.transport.abort()
            await asyncio.sleep(0.05)

    async def main() -> None:
        faults: list[Callable[[Client], Awaitable[None]]] = [
            flood,
            lambda client: send(client, client.inputs.message(0, [frame * np.nan])),
            lambda client: send(client, "garbage"),
            lambda client: send(client, bytes(1 << 22)),
            lambda client: asyncio.sleep(0),  # vanishes
        ]
        await asyncio.gather(*(again(fault) for fault in faults))

    asyncio.run(main())
