"""Clients that send more than they may, or read less than they get."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from tests.serving.servers import STEP, Raw, clip, close_to, network, run, server, through, wanted
from tests.serving.test_faults import beside


async def flood(served: Any, count: int) -> Any:
    """Send far more than the credit, then read all answers."""
    async with Raw(served.url) as raw:
        await raw.opened()
        for seq in range(0, count, 10):
            await raw.frames(seq, clip(count, 3)[seq : seq + 10])
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
