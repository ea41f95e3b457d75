"""An engine as an ASGI application, in a small server of such applications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import torch

import continual as co
from tests.serving.servers import Raw, clip, close_to, engine, network, run, through, wanted


def scope(kind: str, path: str, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    path, _, query = path.partition("?")
    encoded = [(k.encode(), v.encode()) for k, v in headers.items()]
    return {
        "type": kind,
        "path": path,
        "query_string": query.encode(),
        "headers": encoded,
        "subprotocols": ["continual.v1"],
        **more,
    }


async def called(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What an application sends to one request."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": f"{scope['type']}.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Any, str]]:
    """An application between the events of its life, below a path, and the address of its streams."""
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    own = {name: options.pop(name) for name in ("tokens", "origins", "output", "grace") if name in options}
    app = co.serve.Asgi(engine(**options), **own)
    events: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, events.get, said.put))

    async def connected(socket: Any) -> None:
        first = [{"type": "websocket.connect"}]

        async def receive() -> dict[str, Any]:
            if first:
                return first.pop()
            try:
                message = await socket.recv()
            except ConnectionClosed:
                return {"type": "websocket.disconnect"}
            kind = "bytes" if isinstance(message, bytes) else "text"
            return {"type": "websocket.receive", "bytes": None, "text": None, kind: message}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.send":
                await socket.send(message.get("bytes") or message["text"])
            elif message["type"] == "websocket.close":
                await socket.close(message["code"], message["reason"])

        headers = dict(socket.request.headers.raw_items())
        await app(scope("websocket", socket.request.path, headers, root_path="/net"), receive, send)
        await socket.close()

    await events.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    async with serve(connected, "127.0.0.1", 0, subprotocols=["continual.v1"], compression=None, close_timeout=1) as sockets:
        yield app, f"ws://127.0.0.1:{sockets.sockets[0].getsockname()[1]}/net/v1/stream"
        await events.put({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await life


def test_streams_through_an_application():
    async def main() -> Any:
        async with served(credit=4, checkpoint_every=8, tokens=["secret"]) as (app, url):
            outs = await asyncio.gather(*(through(url, clip(20 + i, i), 1 + i % 3, token="secret") for i in range(5)))
            async with Raw(f"{url}?token=secret") as raw:
                await raw.opened()
                await raw.socket.send("{")
                error = await raw.hear("error")
                await raw.socket.wait_closed()
                return outs, error, raw.socket.close_code, app.engine.gauges()["open"]

    outs, error, code, left = run(main())
    for i, y in enumerate(outs):
        close_to(y, wanted(network(), clip(20 + i, i)))
    assert (error["code"], code, left) == ("protocol", 1008, 0)


def test_an_application_that_stops_moves_its_streams():
    async def main() -> Any:
        async with contextlib.AsyncExitStack() as stack:
            async with served(grace=1.0) as (_, url):
                raw = await stack.enter_async_context(Raw(url))
                await raw.opened()
                await raw.frames(0, clip(5))
                await raw.hear("data")
            return await raw.hear("moved")

    assert run(main())["next"] == 5


def test_a_client_that_never_reads_is_cut_off():
    class Wide(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat_interleave(1 << 14, 1)

    async def main() -> Any:
        net = co.Sequential(co.forward_stepping(Wide())).eval()
        async with served(net=net, output=2 << 20, credit=8) as (app, url):
            bystander = asyncio.create_task(through(url, clip(30, 9), 1, 0.001))
            async with Raw(url, max_queue=1) as raw:
                await raw.opened()
                for seq in range(400):
                    await raw.frames(seq, clip(1))
                    await asyncio.sleep(0.001)
                    if app.engine.metrics.refused["slow_reader"]:
                        break
                raw.socket.transport.abort()
            y = await bystander
            assert (y == clip(30, 9).repeat(1 << 14, 1)).all()
            while app.engine.gauges()["open"]:
                await asyncio.sleep(0.01)
            return app.engine.metrics.refused["slow_reader"]

    assert run(main()) == 1


def test_what_an_application_answers():
    async def main() -> Any:
        async with served(tokens=["secret"]) as (app, _):
            found = {}
            for path in ("/livez", "/v1/model", "/v1/model?token=secret", "/continual.js", "/v1/stream?token=secret"):
                start, body = await called(app, scope("http", path, {}))
                found[path] = start["status"], body["body"][:20]
                assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
            refused = await called(app, scope("websocket", "/v1/stream", {}))
            extended = await called(app, scope("websocket", "/v1/stream", {}, extensions={"websocket.http.response": {}}))
            headers = {"Authorization": "Bearer secret", "Origin": "https://example.com", "Host": "here"}
            other = await called(app, scope("websocket", "/v1/stream", headers))
            return found, refused, extended, other

    found, refused, extended, other = run(main())
    assert {path: status for path, (status, _) in found.items()} == {
        "/livez": 200,
        "/v1/model": 401,
        "/v1/model?token=secret": 200,
        "/continual.js": 200,
        "/v1/stream?token=secret": 426,
    }
    assert found["/v1/model?token=secret"][1].startswith(b'{"network"')
    assert [(m["type"], m["code"], m["reason"]) for m in refused] == [("websocket.close", 1008, "a bearer token is needed")]
    assert extended[0]["status"] == 401
    assert "another site" in other[0]["reason"]
