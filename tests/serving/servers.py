"""Servers, clients and raw sockets of the tests in this folder."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import continual as co

for name in ("numpy", "prometheus_client", "websockets"):
    pytest.importorskip(name, reason=f"needs {name}, of the extra `serve`")

from continual.serving.protocol import DATA, HEADER, MULTIPLEXED, Format  # noqa: E402

STEP = torch.zeros(1, 3, dtype=torch.float64)


def network(channels: int = 2) -> Any:
    """Three numbers to two, with a delay of 3."""
    torch.manual_seed(5)
    return co.Sequential(co.Conv1d(3, 4, 3, padding=1), nn.Tanh(), co.Conv1d(4, channels, 5, padding=2)).double().eval()


def engine(net: Any = None, step: Any = STEP, **options: Any) -> Any:
    """An engine that compiles nothing."""
    return co.serve.Engine(network() if net is None else net, step, **{"capacity": 8, "backend": "eager", **options})


def server(net: Any = None, step: Any = STEP, grace: float = 2.0, **options: Any) -> Any:
    """A server on a free port."""
    own = {name: options.pop(name) for name in ("tokens", "origins", "tls", "output") if name in options}
    return co.serve.Server(engine(net, step, **options), port=0, grace=grace, **own)


def clip(length: int, seed: int = 0) -> Any:
    """Frames ``(T, 3)``."""
    return np.random.default_rng(seed).standard_normal((length, 3))


def wanted(net: Any, frames: Any, ended: bool = True) -> Any:
    """The outputs ``(T', C')`` of frames ``(T, C)``."""
    with torch.no_grad():
        y = net.forward_steps(torch.from_numpy(np.asarray(frames)).movedim(0, 1)[None], pad_end=ended)
    net.clean_state()
    return np.zeros((0, 2)) if y is None else y[0].movedim(1, 0).numpy()


def run(main: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
    """Run a test, but not for ever."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main, seconds)

    return asyncio.run(bounded())


async def through(url: str, frames: Any, piece: int = 1, pause: float = 0.0, **options: Any) -> Any:
    """The outputs of frames that are sent in pieces."""
    found: list[Any] = []
    async with co.serve.connect(url, **options) as stream:

        async def read() -> None:
            async for _, y in stream:
                found.append(y)

        reader = asyncio.create_task(read())
        for at in range(0, len(frames), piece):
            await stream.send(frames[at : at + piece])
            if pause:
                await asyncio.sleep(pause)
        await stream.finish()
        await reader
    return np.concatenate(found) if found else np.zeros((0, 2))


def close_to(a: Any, b: Any) -> None:
    """Equal in double precision: rows of a batch may be summed in other orders."""
    assert a.shape == b.shape
    assert np.abs(a - b).max(initial=0) <= 1e-12 * max(1.0, np.abs(b).max(initial=0))


class Raw:
    """A client by hand, which may do anything."""

    def __init__(self, url: str, **options: Any):
        self._url, self._options = url, options

    async def __aenter__(self) -> Raw:
        from websockets.asyncio.client import connect

        self.socket = await connect(
            self._url, subprotocols=["continual.v1"], compression=None, max_size=None, proxy=None, **self._options
        )
        return self

    async def __aexit__(self, *_: Any) -> None:
        if not self.socket.transport.is_closing():
            await self.socket.close()

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self, kind: str | None = None) -> Any:
        """The next control message (of a kind), or data as a header and arrays."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, str):
                found = json.loads(message)
                if kind is None or found["type"] == kind:
                    return found
            elif kind in (None, "data"):
                type_, flags, credit, count, seq = HEADER.unpack_from(message)
                read = self.outputs.data if type_ == DATA else self.outputs.entries
                return {"type": "data", "flags": flags, "credit": credit, "count": count, "seq": seq, "y": read(message, count)}

    async def opened(self, **message: Any) -> Any:
        """Open or resume a stream."""
        await self.say(**(message or {"type": "open"}))
        found = await self.hear()
        assert found["type"] == "opened", found
        self.inputs, self.outputs = Format.from_json(found), Format.from_json(found["outputs"])
        return found

    async def frames(self, seq: int, frames: Any, flags: int = 0) -> None:
        await self.socket.send(self.inputs.message(seq, [frames], flags))

    async def many(self, streams: Any, seqs: Any, frames: Any) -> None:
        await self.socket.send(self.inputs.multiplexed(np.asarray(streams), np.asarray(seqs), [frames]))


class Proxy:
    """A connection to a server that can be cut, at random after some bytes or by hand; bytes may be lost with it."""

    def __init__(self, port: int, seed: int = 0, every: int = 0):
        self._port, self._random, self._every = port, random.Random(seed), every
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/v1/stream"
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        left = [self._random.randint(1000, self._every) if self._every else 1 << 60]
        self._open |= {writer, down}

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                left[0] -= len(data)
                if left[0] < 0:
                    self.cuts += 1
                    break
                to.write(data)
                await to.drain()

        tasks = [asyncio.create_task(copy(reader, down)), asyncio.create_task(copy(up, writer))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, down):
            self._open.discard(end)
            end.transport.abort()


__all__ = ["MULTIPLEXED", "Proxy", "Raw", "clip", "close_to", "engine", "network", "run", "server", "through", "wanted"]
