"""An engine as an ASGI application, for Ray Serve and other ASGI servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from .access import LOCAL, Access
from .engine import Engine
from .pages import Answer, Pages, Request
from .protocol import SUBPROTOCOL
from .websocket import LARGEST, OUTPUT, Connection, Take

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Asgi:
    """The streams of an engine as an ASGI application, with all responses of :class:`~continual.serving.server.Server`.

    The engine starts and stops with the application's lifespan. The server that runs it binds the addresses: give tokens if other
    machines can reach it.

    Args:
        engine: it serves the streams.
        tokens, origins, output: as of :class:`~continual.serving.server.Server`.
        grace: seconds for streams to move when the application stops.

    Example:
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU())).eval()
        >>> app = co.serve.Asgi(co.serve.Engine(net, torch.zeros(1, 2), backend="eager"))  # uvicorn.run(app)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tokens: Sequence[str] = (),
        origins: Sequence[str] = (),
        output: int = OUTPUT,
        grace: float = 20.0,
    ):
        self.engine, self._grace, self._output = engine, grace, output
        self._pages = Pages(engine, Access(LOCAL[0], tokens, origins))
        self._limit = max(LARGEST, engine.credit * engine.model.inputs.nbytes + 64)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request, one WebSocket, or the life of the application."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            answer = self._pages.answer(_request(scope)) or NO_SOCKET
            await send({"type": "http.response.start", "status": int(answer.status), "headers": _encoded(answer)})
            await send({"type": "http.response.body", "body": answer.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                await self.engine.start()
            else:
                await self.engine.stop(self._grace)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _socket(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # that it connects
        answer = self._pages.answer(_request(scope))
        if answer is not None or SUBPROTOCOL not in scope.get("subprotocols", ()):
            await self._refuse(answer or NO_SOCKET, scope, send)
            return
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        wire = AsgiSocket(receive, send)
        try:
            await Connection(self.engine, wire, self._limit, self._output).run()
        finally:
            await wire.finished()

    async def _refuse(self, answer: Answer, scope: dict[str, Any], send: Send) -> None:
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008, "reason": answer.body.decode().strip()})
            return
        await send({"type": "websocket.http.response.start", "status": int(answer.status), "headers": _encoded(answer)})
        await send({"type": "websocket.http.response.body", "body": answer.body})


NO_SOCKET = Answer(HTTPStatus.UPGRADE_REQUIRED, b"a WebSocket of the protocol continual.v1 is served here\n")


def _encoded(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in answer.headers]


def _request(scope: dict[str, Any]) -> Request:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))  # a server may serve the application below a path
    query, authorization = scope.get("query_string", b"").decode("latin-1"), headers.get(b"authorization", "")
    return Request(path, query, authorization, headers.get(b"origin"), headers.get(b"host"))


DONE = 1000  # the code of a connection that is closed because its client is done


class AsgiSocket:
    """A WebSocket of ASGI as a :class:`~continual.serving.websocket.Wire`: a task sends what waits, one message after another.

    Args:
        receive, send: of the application's call.
    """

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self.closing, self.unsent = False, 0
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                await self._send(message)
            except Exception:  # of the server, whose client is gone
                self.closing = True
                self._gone.set()
            if message["type"] == "websocket.close" or self.closing:
                return
            self.unsent -= len(message.get("bytes") or message.get("text", ""))

    def send(self, message: bytes | str) -> None:
        """As of a wire."""
        self.unsent += len(message)
        self._waiting.put_nowait({"type": "websocket.send", "bytes" if isinstance(message, bytes) else "text": message})

    def abort(self) -> None:
        """As of a wire."""
        self.closing = True
        self._writer.cancel()
        self._gone.set()

    async def close(self, code: int, reason: str) -> None:
        """As :class:`~continual.serving.websocket.Wire`. A done client closes by itself: sending to it may raise."""
        if code == DONE and not self.closing:
            with contextlib.suppress(TimeoutError):
                self.closing = (await asyncio.wait_for(self._receive(), 1.0))["type"] == "websocket.disconnect"
        if not self.closing:
            self._waiting.put_nowait({"type": "websocket.close", "code": code, "reason": reason})
            await asyncio.wait([self._writer], timeout=2.0)
        self.abort()

    async def finished(self) -> None:
        """Send what waits, and end."""
        await self.close(1001, "")
        await asyncio.gather(self._writer, return_exceptions=True)

    async def messages(self, take: Take) -> AsyncIterator[bytes | str]:
        """As :class:`~continual.serving.websocket.Wire` says; ``take`` is not used: every message is yielded."""
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            while True:
                message = asyncio.ensure_future(self._receive())
                await asyncio.wait([gone, message], return_when=asyncio.FIRST_COMPLETED)
                if not message.done():
                    message.cancel()
                    return
                found = message.result()
                if found["type"] == "websocket.disconnect":
                    self.closing = True
                    return
                data = found.get("bytes")
                yield found["text"] if data is None else data
        finally:
            gone.cancel()
