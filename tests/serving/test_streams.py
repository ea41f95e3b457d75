"""Streams through a server equal those that run alone: whatever the network, however often they lose their connection."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.long import by_turns, one_in
from tests.programs.test_stream_rows import NETWORKS
from tests.serving.servers import STEP, Proxy, Raw, clip, close_to, network, run, server, through, wanted


@pytest.mark.parametrize("name", by_turns(NETWORKS, 2, of="served"))
def test_random_lives_of_streams_equal_streams_alone(name: str):
    """Ten clients of different lengths and paces, whose connections are cut after some random bytes."""
    net = NETWORKS[name]()

    async def main() -> Any:
        async with server(NETWORKS[name](), capacity=12, credit=4, checkpoint_every=8, shards=2) as served:
            async with Proxy(served.port, seed=1, every=9000) as proxy:
                clips = [clip(20 + 9 * i, i) for i in range(10)]
                outs = await asyncio.gather(*(through(proxy.url, x, 1 + i % 6, 0.001 * (i % 3)) for i, x in enumerate(clips)))
                resumed = served.engine.metrics.resumes["resumed"]
                await asyncio.sleep(0)
            return clips, outs, resumed, proxy.cuts, served.engine.gauges()["open"]

    clips, outs, resumed, cuts, left = run(main())
    for x, y in zip(clips, outs, strict=True):
        close_to(y, wanted(net, x))
    assert cuts > 3
    assert resumed > 3
    assert left == 0


@pytest.mark.parametrize("name", by_turns(NETWORKS, 3, of="resumed"))
def test_resumed_outputs_are_the_same_bits(name: str):
    """A stream alone in its row, cut between any two frames, gives the very bits of one that is not cut."""

    async def main(cuts: int) -> Any:
        async with server(NETWORKS[name](), capacity=1, credit=3, checkpoint_every=5) as served, Proxy(served.port) as proxy:
            found: list[Any] = []
            async with co.serve.connect(proxy.url) as stream:

                async def read() -> None:
                    async for seq, y in stream:
                        found.extend((seq + i, row.tobytes()) for i, row in enumerate(y))

                reader = asyncio.create_task(read())
                for t, frame in enumerate(clip(60)):
                    await stream.send(frame[None])
                    if cuts and t % 7 == 3:
                        proxy.cut()
                await stream.finish()
                await reader
            return found, stream.resumed

    (one, none), (two, often) = run(main(0)), run(main(1))
    assert none == 0
    assert often >= 8
    assert one == two
    net = NETWORKS[name]()
    close_to(np.stack([np.frombuffer(row) for _, row in one]), wanted(net, clip(60)).reshape(len(one), -1))


def test_two_inputs_one_of_which_is_no_stream():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 2, 3, stride=2, padding=1)

        def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x)
            return y * gain.unsqueeze(2), y.transpose(1, 2)

    torch.manual_seed(3)
    module = Scaled().double().eval()
    x, gain = torch.randn(2, 3, 13).double(), torch.rand(2, 2).double() - 2
    net = co.continual(module, (x, gain), time_dim=(2, None))

    async def main() -> Any:
        async with server(net, [x[:1, :, 0], gain[:1]]) as served:
            found: list[Any] = []
            for i in range(2):
                async with co.serve.connect(served.url) as stream:
                    await stream.send([x[i].T.numpy(), gain[i].expand(13, 2).numpy()])
                    await stream.finish()
                    found.append([y async for _, y in stream])
            return found

    want = module(x, gain)
    for i, outs in enumerate(run(main())):
        close_to(np.concatenate([y[0] for y in outs]), want[0][i].T.detach().numpy())
        close_to(np.concatenate([y[1] for y in outs]), want[1][i].detach().numpy())


def test_multiplexed_streams_equal_streams_alone():
    """Out of step, several frames of one in a message, one that ends, one that is closed and whose row another takes."""
    net = network()
    clips = [clip(30, i) for i in range(6)]

    async def main() -> Any:
        async with server(credit=8) as served, Raw(served.url) as raw:
            await raw.opened(type="open", streams=5)
            numbers = [0] + [(await raw.hear("opened"))["stream"] for _ in range(4)]
            numbers = sorted({*range(5), *numbers})
            found: dict[int, list[Any]] = {n: [] for n in range(8)}
            state = dict.fromkeys(numbers, 0)
            which = {n: clips[n] for n in numbers}
            waiting = 0

            async def take() -> None:
                nonlocal waiting
                answer = await raw.hear("data")
                waiting -= answer["credit"]
                for entry in answer["y"]:
                    found[int(entry["stream"])].append((int(entry["seq"]), entry["f0"].copy()))

            for turn in range(40):
                chosen = [n for n in numbers for _ in range(1 + (turn + n) % 2) if (turn + 2 * n) % 3]
                rows, seqs, frames = [], [], []
                for n in chosen:
                    if state[n] < 30:
                        rows.append(n)
                        seqs.append(state[n])
                        frames.append(which[n][state[n]])
                        state[n] += 1
                if rows:
                    await raw.many(rows, seqs, np.stack(frames))
                    waiting += len(rows)
                while waiting:
                    await take()
                if turn == 20:
                    await raw.say(type="close", stream=4)
                    numbers.remove(4)
                    found.pop(4), found.setdefault(4, [])
                    state[4], which[4] = 0, clips[5]
                    await raw.say(type="open", streams=1)
                    again = await raw.hear("opened")
                    assert again["stream"] == 4
                    numbers.append(4)
            while state[4] < 30:
                await raw.many([4], [state[4]], which[4][state[4]][None])
                state[4], waiting = state[4] + 1, waiting + 1
                while waiting:
                    await take()
            for n in range(5):
                await raw.say(type="finish", stream=n)
            ended = 0
            while ended < 5:
                message = await raw.hear()
                if message["type"] == "ended":
                    ended += 1
                elif message["type"] == "data":
                    for entry in message["y"]:
                        found[int(entry["stream"])].append((int(entry["seq"]), entry["f0"].copy()))
            return found

    found = run(main())
    for n in range(5):
        x = clips[5 if n == 4 else n]
        close_to(np.stack([y for _, y in found[n]]), wanted(net, x))
        assert [s for s, _ in found[n]] == list(range(net.delay, 30 + net.delay))


def test_every_message_is_answered_once_and_markers_come_after():
    async def main() -> Any:
        async with server() as served, Raw(served.url) as raw:
            opened = await raw.opened()
            assert (opened["delay"], opened["receptive_field"], opened["stride"], opened["credit"]) == (3, 7, "1", 32)
            frames = clip(9)
            first = raw.inputs.message(0, [frames[:2]])
            await raw.socket.send([first[:5], first[5:40], first[40:]])  # a message in three pieces
            for seq, count in ((2, 1), (3, 0), (3, 4), (7, 2)):
                await raw.frames(seq, frames[seq : seq + count])
            await raw.say(type="marker", id="m")
            answers = [await raw.hear("data") for _ in range(5)]
            marker = await raw.hear()
            await raw.say(type="keepalive")
            await raw.say(type="marker", id=2)
            assert await raw.hear() == {"type": "marker", "id": 2}
            return answers, marker

    answers, marker = run(main())
    assert marker == {"type": "marker", "id": "m"}
    assert sorted((a["credit"], a["count"], a["seq"]) for a in answers) == sorted(
        [(2, 0, 1), (1, 0, 2), (0, 0, 3), (4, 4, 3), (2, 2, 7)]
    )
    y = np.concatenate([a["y"][0] for a in answers if a["count"]])
    close_to(y, wanted(network(), clip(9), ended=False))


def test_markers_of_multiplexed_streams_come_after_the_frames_before_them():
    """Of one stream, and of all; in their order; a stream that is closed or ends is waited for no more."""

    async def main() -> Any:
        async with server(credit=4) as served, Raw(served.url) as raw:
            await raw.opened(type="open", streams=3)
            for _ in range(2):
                await raw.hear("opened")
            said: list[Any] = []
            await raw.many([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], clip(5))
            await raw.say(type="marker", id="all")
            await raw.say(type="marker", id="one", stream=1)
            await raw.many([2, 2], [0, 1], clip(2))
            await raw.say(type="marker", id="gone", stream=2)
            await raw.say(type="close", stream=2)
            await raw.say(type="finish", stream=1)
            await raw.say(type="marker", id="ended", stream=0)
            credit = 0
            while not said or said[-1][0] != "ended":
                message = await raw.hear()
                if message["type"] == "data":
                    credit += message["credit"]
                elif message["type"] == "marker":
                    said.append((message["id"], message.get("stream"), credit))
            while (await raw.hear())["type"] != "ended":
                pass
            await raw.say(type="marker", id="none")
            last = await raw.hear("marker")
            await raw.say(type="marker", id="wrong", stream=7)
            return said, last, (await raw.hear("error"))["code"]

    said, last, wrong = run(main())
    assert [(id, stream) for id, stream, _ in said] == [("all", None), ("one", 1), ("gone", 2), ("ended", 0)]
    assert said[0][2] >= 5
    assert (last, wrong) == ({"type": "marker", "id": "none"}, "unknown_stream")


def test_a_reset_stream_begins_anew():
    async def main() -> Any:
        async with server() as served, Raw(served.url) as raw:
            await raw.opened()
            await raw.frames(0, clip(5, 1))
            await raw.hear("data")
            await raw.say(type="reset")
            assert (await raw.hear("opened"))["next"] == 0
            await raw.frames(0, clip(9))
            return (await raw.hear("data"))["y"][0]

    close_to(run(main()), wanted(network(), clip(9), ended=False))


def test_the_synchronous_client():
    def client(url: str) -> Any:
        with co.serve.Stream(url) as stream:
            stream.send(clip(40))
            stream.finish()
            return np.concatenate([y for _, y in stream])

    async def main() -> Any:
        async with server() as served:
            return await asyncio.to_thread(client, served.url)

    close_to(run(main()), wanted(network(), clip(40)))
    with pytest.raises(co.serve.ServeError, match="unreachable"), co.serve.Stream("ws://127.0.0.1:9/v1/stream", patience=0.1):
        pass
    with pytest.raises(ValueError, match="with co.serve.Stream"):
        co.serve.Stream("ws://127.0.0.1:9").send(clip(1))


def test_what_a_client_sends_is_checked_where_it_is():
    async def main() -> None:
        async with server() as served, co.serve.connect(served.url) as stream:
            for bad, words in (
                (clip(3).astype(np.float32), "takes float64, got float32"),
                (clip(3)[:, :2], r"takes frames \(n, 3\), got \(3, 2\)"),
                ([clip(3), clip(3)], "takes 1 inputs, got 2"),
            ):
                with pytest.raises(ValueError, match=words):
                    await stream.send(bad)
            await stream.send(clip(9))
            await stream.finish()
            close_to(np.concatenate([y async for _, y in stream]), wanted(network(), clip(9)))
            with pytest.raises(ValueError, match="frames after finish"):
                await stream.send(clip(1))

    run(main())


@one_in(3)
def test_an_exported_file_is_served(tmp_path: Any):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    path = co.export(network(), STEP, tmp_path / "net.onnx", rate=50)

    async def main() -> Any:
        engine = co.serve.Engine(co.load(path), capacity=4, shards=2)
        async with co.serve.Server(engine, port=0) as served:
            async with co.serve.connect(served.url) as stream:
                rate = stream.facts["rate"]
            return rate, await asyncio.gather(*(through(served.url, clip(30, i), 4) for i in range(3)))

    rate, outs = run(main())
    assert rate == 50
    for i, y in enumerate(outs):
        close_to(y, wanted(network(), clip(30, i)))
