"""What clients do wrong, each beside a bystander whose stream stays exact."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

import continual as co
from tests.serving.servers import Raw, clip, close_to, engine, network, run, server, through, wanted

Fault = Callable[[Any], Awaitable[Any]]


def beside(fault: Fault, **options: Any) -> Any:
    """What a fault gives, while a bystander streams before, during and after it."""

    async def main() -> Any:
        async with server(**options) as served:
            bystander = asyncio.create_task(through(served.url, clip(150, 9), 1, 0.001))
            found = await fault(served)
            assert not bystander.done() or bystander.exception() is None
            close_to(await bystander, wanted(network(), clip(150, 9)))
            close_to(await through(served.url, clip(9, 8)), wanted(network(), clip(9, 8)))
            for _ in range(100):
                if not served.engine.gauges()["open"]:
                    break
                await asyncio.sleep(0.01)
            assert served.engine.gauges()["open"] == 0, "a row is not free"
            return found

    return run(main())


async def refusal(served: Any, *messages: Any, opened: bool = True) -> Any:
    """The error that messages bring, and how the connection ends."""
    async with Raw(served.url) as raw:
        if opened:
            await raw.opened()
        for message in messages:
            await raw.socket.send(message)
        error = await raw.hear("error")
        await raw.socket.wait_closed()
        assert raw.socket.close_code == 1008
        assert raw.socket.close_reason == error["code"]
        return error


def message(frames: Any, seq: int = 0, flags: int = 0) -> bytes:
    from continual.serving.protocol import Format, Spec

    return Format((Spec.of((3,), np.float64),)).message(seq, [frames], flags)


NAN = clip(3)
NAN[1, 2] = np.nan
GARBAGE: dict[str, tuple[Any, str, str]] = {
    "not finite": (message(NAN), "not_finite", "frame 1 has NaN or infinities"),
    "half a frame": (message(clip(3))[:-5], "shape", r"3 frames of float64 \(3,\) are 72 bytes, got 67"),
    "a later frame": (message(clip(3), 7), "sequence", "frame 0 is next, got 7"),
    "a frame of another type": (b"\x07" + message(clip(3))[1:], "protocol", "of type 1 or 2, got 7"),
    "multiplexed": (b"\x02" + message(clip(3))[1:], "protocol", "no multiplexed stream is open"),
    "bytes": (b"garbage", "protocol", "at least 16 bytes, got 7"),
    "no JSON": ("{", "protocol", "is JSON"),
    "JSON of another kind": ("[1]", "protocol", 'an object with a "type"'),
    "a long text": (json.dumps({"type": "marker", "id": "x" * 70000}), "too_big", "at most 65536 characters"),
    "an unknown message": ('{"type": "sing"}', "protocol", "no message 'sing' here"),
    "a second stream": ('{"type": "open"}', "protocol", "this connection has a stream"),
    "no streams": ('{"type": "open", "streams": 0}', "protocol", "from 1 up"),
    "no token": ('{"type": "resume"}', "protocol", "resume names the token"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_refused(name: str):
    bad, code, words = GARBAGE[name]
    error = beside(lambda served: refusal(served, bad))
    assert error["code"] == code
    assert re.search(words, error["message"]), error["message"]


def test_frames_before_a_stream():
    error = beside(lambda served: refusal(served, message(clip(1)), opened=False))
    assert (error["code"], error["message"]) == ("protocol", "open or resume a stream before its frames")
    error = beside(lambda served: refusal(served, '{"type": "finish"}', opened=False))
    assert error["code"] == "protocol"
    error = beside(lambda served: refusal(served, json.dumps({"type": "resume", "token": "0" * 32, "have": -1}), opened=False))
    assert error["code"] == "unknown_stream"


def test_frames_that_are_not_finite_pass_if_it_is_meant():
    async def fault(served: Any) -> Any:
        return await through(served.url, NAN)

    found = beside(fault, finite="pass")
    assert np.isnan(found).any()


def test_messages_that_are_too_big():
    async def fault(served: Any) -> Any:
        served.limit = 1 << 12
        error = await refusal(served, message(clip(200)))
        async with Raw(served.url) as raw:
            await raw.opened()
            await raw.socket.send(b"\x01" + bytes(80 << 20))  # more than is read
            await raw.socket.wait_closed()
        return error, raw.socket.close_code

    error, code = beside(fault)
    assert error["code"] == "too_big"
    assert code == 1009


def test_faults_of_multiplexed_streams_are_theirs_alone():
    async def fault(served: Any) -> Any:
        async with Raw(served.url) as raw:
            await raw.opened(type="open", streams=4)
            for _ in range(3):
                await raw.hear("opened")
            good = clip(9)
            bad = good[:1].copy()
            bad[0, 0] = np.inf
            await raw.many([0, 1, 2, 77], [0, 0, 5, 0], np.concatenate([good[:1], bad, good[:1], good[:1]]))
            errors = [await raw.hear("error") for _ in range(3)]
            await raw.many([3] * 9, range(9), good)  # one more than the credit
            errors.append(await raw.hear("error"))
            found = []
            for t in range(1, 9):
                await raw.many([0], [t], good[t : t + 1])
            while len(found) < 9 - 3:
                for entry in (await raw.hear("data"))["y"]:
                    if entry["stream"] == 0:
                        found.append(entry["f0"])
            await raw.say(type="finish")
            last = await raw.hear("error")
            return errors, np.stack(found), last

    errors, y, last = beside(fault, credit=8)
    assert {(e["stream"], e["code"]) for e in errors} == {
        (1, "not_finite"),
        (2, "sequence"),
        (77, "unknown_stream"),
        (3, "overrun"),
    }
    close_to(y, wanted(network(), clip(9), ended=False))
    assert last["code"] == "protocol"


def test_clients_that_vanish_free_their_rows():
    async def fault(served: Any) -> Any:
        for i in range(20):
            raw = Raw(served.url)
            await raw.__aenter__()
            await raw.opened()
            await raw.frames(0, np.full((5, 3), float(i)))
            raw.socket.transport.abort()
        return None

    beside(fault, capacity=24)


def test_silent_clients_are_closed_and_may_come_back():
    async def main() -> Any:
        async with server(idle=0.2) as served, Raw(served.url) as raw:
            opened = await raw.opened()
            await raw.frames(0, clip(9))
            early = (await raw.hear("data"))["y"][0]
            for _ in range(4):
                await asyncio.sleep(0.1)
                await raw.say(type="keepalive")
            assert served.engine.gauges()["open"] == 1
            error = await raw.hear("error")
            async with Raw(served.url) as again:
                resumed = await again.opened(type="resume", token=opened["token"], have=8)
                await again.frames(0, clip(20), 1)
                late = (await again.hear("data"))["y"][0]
            return early, error["code"], resumed["next"], late

    early, code, next, late = run(main())
    assert (code, next) == ("idle", 0)
    close_to(np.concatenate([early, late]), wanted(network(), clip(20), ended=False))


def test_multiplexed_streams_that_send_are_not_silent():
    """They were closed after the time for silence, since their frames were not heard one by one."""

    async def main() -> Any:
        async with server(idle=0.3) as served, Raw(served.url) as raw:
            await raw.opened(type="open", streams=2)
            await raw.hear("opened")
            for t in range(12):
                await raw.many([0], [t], clip(12)[t : t + 1])
                await asyncio.sleep(0.06)
            return await raw.hear("error"), served.engine.gauges()["open"]

    error, left = run(main())
    assert (error["stream"], error["code"]) == (1, "idle")
    assert left == 1


def test_a_full_server_says_so_and_takes_the_next_one_later():
    async def main() -> Any:
        async with server(capacity=2) as served, Raw(served.url) as raw:
            await raw.opened(type="open", streams=2)
            async with Raw(served.url) as other:
                await other.say(type="open")
                error = await other.hear("error")
            waits = asyncio.create_task(through(served.url, clip(9)))
            await asyncio.sleep(0.2)
            assert not waits.done()
            await raw.say(type="close", stream=1)
            close_to(await waits, wanted(network(), clip(9)))
            async with Raw(served.url) as other:
                await other.say(type="open", streams=2)
                assert (await other.hear("error"))["code"] == "full"
            assert served.engine.gauges()["open"] == 1, "those that fitted are closed again"
            return error

    error = run(main())
    assert (error["code"], error["retry_after"]) == ("full", 1.0)


def test_frames_that_are_left_out_are_said():
    async def main() -> Any:
        async with server() as served, Raw(served.url) as raw:
            await raw.opened()
            await raw.frames(0, clip(5))
            await raw.hear("data")
            await raw.frames(100, clip(9)[5:], 4)
            return await raw.hear("data")

    answer = run(main())
    assert answer["seq"] == 100
    close_to(answer["y"][0], wanted(network(), clip(9), ended=False)[2:])


def test_a_row_that_is_used_again_holds_nothing():
    """Clients that close, vanish, finish and are silent at the same time, in two rows, for a while."""

    async def main() -> None:
        async with server(capacity=2, idle=0.3) as served:

            async def client(i: int) -> None:
                if i % 4 == 3:
                    close_to(await through(served.url, clip(12, i)), wanted(network(), clip(12, i)))
                    return
                raw = Raw(served.url)
                await raw.__aenter__()
                await raw.say(type="open")
                while (found := await raw.hear())["type"] != "opened":
                    await asyncio.sleep(0.02)
                    if found["type"] == "error":
                        await raw.socket.close()
                        await raw.__aenter__()
                        await raw.say(type="open")
                await raw.socket.send(message(np.full((7, 3), 1e6 * i)))
                if i % 4 == 0:
                    raw.socket.transport.abort()
                elif i % 4 == 1:
                    await raw.say(type="finish")
                    await raw.say(type="close")
                await asyncio.sleep(0.05)
                await raw.socket.close()

            await asyncio.gather(*(client(i) for i in range(16)))

    run(main())


@pytest.mark.parametrize("overload", ["block", "refuse", "drop-oldest"])
def test_what_still_comes_of_a_closed_stream_goes_nowhere(overload: str):
    """Neither does the next stream of its row get its frames, nor does its connection wait for room."""

    class Silent:
        def __getattr__(self, _: str) -> Any:
            return lambda *_: None

    async def main() -> Any:
        async with engine(capacity=1, credit=4, overload=overload) as own:
            sink: Any = Silent()
            [first] = await own.open(sink)
            await own.park(first)
            [second] = await own.open(sink)
            assert second.row == first.row
            for count in (2, 9):
                await own.intake.put(first, 0, [clip(count)])
                assert not own.intake.take(first, 0, [clip(count)])
            found = own._inbox.waiting(second.row), second.next, first.next
            async with own._between:  # no step meanwhile
                await own.intake.put(second, 0, [clip(3)])
                own.finish(first)
                resetting = asyncio.create_task(own.reset(first))
            with pytest.raises(co.serve.Refused, match="the stream is closed: open another one"):
                await resetting
            while own.metrics.frames < 3:
                await asyncio.sleep(0.001)
            return found, own.table.is_open(second)

    assert run(main(), 20) == ((0, 0, 0), True)


def test_a_step_that_fails_closes_its_streams(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    async def main() -> Any:
        async with server() as served, Raw(served.url) as raw:
            await raw.opened()
            step = served.engine.model.step

            def broken(*_: Any) -> Any:
                raise RuntimeError("out of memory")

            monkeypatch.setattr(served.engine.model, "step", broken)
            await raw.frames(0, clip(3))
            error = await raw.hear("error")
            monkeypatch.setattr(served.engine.model, "step", step)
            close_to(await through(served.url, clip(9)), wanted(network(), clip(9)))
            return error

    error = run(main())
    assert (error["code"], error["message"]) == ("internal", "RuntimeError: out of memory")
    assert "a step failed" in caplog.text


def test_half_open_sockets_do_not_hold_a_server():
    """Clients that never answer the closing handshake, one of which never reads at all."""

    async def main() -> float:
        served = server(grace=0.4)
        await served.start()
        raws = [Raw(served.url) for _ in range(3)]
        for raw in raws:
            await raw.__aenter__()
            await raw.opened()
            raw.socket.transport.pause_reading()
        started = time.monotonic()
        await served.stop()
        took = time.monotonic() - started
        for raw in raws:
            raw.socket.transport.abort()
        return took

    assert run(main()) < 15


def test_options_that_make_no_sense():
    for options, words in (
        ({"credit": 0}, "credit is from 1 to 65535 frames, got 0"),
        ({"overload": "wait"}, "overload is one of 'block', 'drop-oldest', 'refuse', not 'wait'"),
        ({"finite": "maybe"}, "finite is one of"),
    ):
        with pytest.raises(ValueError, match=words):
            server(**options)
