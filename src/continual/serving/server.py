"""A server: the WebSocket of an engine, and beside it health, metrics, the model's card and the page."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..core.optional_packages import package
from .access import Access
from .engine import Engine
from .grpc_server import GrpcServer
from .pages import Answer, Pages, Request
from .protocol import PATH, SUBPROTOCOL
from .server_socket import Socket, connection_class
from .websocket import LARGEST, OUTPUT, Connection


class Server:
    """Serves an engine on a socket.

    Args:
        engine: it is started and stopped with the server.
        host, port: to bind to; port 0: any that is free.
        tokens: one of them is needed, as ``Authorization: Bearer …`` or, where a browser can't send headers, ``?token=…``. Without tokens
            the server binds to this machine alone.
        origins: of other sites whose pages may open streams, such as ``https://example.com``.
        tls: certificates.
        grpc: another transport of the same engine, which is started and stopped with this one.
        output: bytes that a connection may have unsent before it is cut off.
        grace: seconds for streams to move when the server stops.

    Raises:
        ValueError: another host than this machine without tokens.

    Example:
        >>> import asyncio
        >>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU())).eval()
        >>> async def clip():
        ...     async with co.serve.Server(co.serve.Engine(net, torch.zeros(1, 2), backend="eager"), port=0) as server:
        ...         async with co.serve.connect(server.url) as stream:
        ...             await stream.send(torch.randn(5, 2).numpy())
        ...             await stream.finish()
        ...             return [(seq, y.shape) async for seq, y in stream]
        >>> asyncio.run(clip())
        [(1, (4, 4)), (5, (1, 4))]
    """

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 8800,
        *,
        tokens: Sequence[str] = (),
        origins: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        grpc: GrpcServer | None = None,
        output: int = OUTPUT,
        grace: float = 20.0,
    ):
        self.engine, self.host, self.port, self.grace = engine, host, port, grace
        self._pages, self._grpc, self._tls, self._output = Pages(engine, Access(host, tokens, origins)), grpc, tls, output
        self.limit = max(LARGEST, engine.credit * engine.model.inputs.nbytes + 64)
        self._server: Any = None
        self._connections: set[Connection] = set()

    @property
    def url(self) -> str:
        """Of the WebSocket."""
        return f"{'wss' if self._tls else 'ws'}://{self.host}:{self.port}{PATH}"

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind, then compile: ``/livez`` answers meanwhile, ``/readyz`` afterwards."""
        server = package("websockets.asyncio.server", "serve", "continual serve")
        self._server = await server.serve(
            self._serve,
            self.host,
            self.port,
            subprotocols=[SUBPROTOCOL],
            process_request=self._requested,
            create_connection=connection_class(),
            compression=None,
            max_size=4 * self.limit,  # what is a little too big is said to be so
            max_queue=8,
            ping_interval=20.0,
            ping_timeout=None,  # a busy moment is no death: silent streams are closed by the engine
            close_timeout=2.0,
            ssl=self._tls,
            server_header=None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        await self.engine.start()
        if self._grpc is not None:
            await self._grpc.start()

    async def stop(self) -> None:
        """Streams are kept and moved to another server; then connections are closed, also those that do not answer."""
        if self._server is None:
            return
        self._server.close(close_connections=False)
        await self.engine.stop(self.grace)
        if self._grpc is not None:
            await self._grpc.stop()
        sockets = list(self._server.connections)
        closing = [asyncio.ensure_future(s.close(1001, "stopped")) for s in sockets]
        if closing:
            await asyncio.wait(closing, timeout=min(1.0, self.grace) + 0.1)
        for s in sockets:
            if not s.connection_lost_waiter.done():
                s.transport.abort()
        self._server.close()
        await self._server.wait_closed()
        self._server = None

    async def run(self, ready: Callable[[Server], None] = lambda server: None) -> None:
        """Serve until SIGTERM or SIGINT."""
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        async with self:
            ready(self)
            await stopped.wait()

    # ---- connections ----------------------------------------------------------------------------------------------------

    async def _serve(self, socket: Any) -> None:
        await Connection(self.engine, Socket(socket), self.limit, self._output).run()

    def _requested(self, socket: Any, request: Any) -> Any:
        """Answer what is not a stream; ``None`` for a WebSocket that is let in."""
        url, headers = urlsplit(request.path), request.headers
        asked = Request(url.path, url.query, headers.get("Authorization", ""), headers.get("Origin"), headers.get("Host"))
        found = self._pages.answer(asked)
        return None if found is None else _response(socket, found)


def _response(socket: Any, answer: Answer) -> Any:
    response = socket.respond(answer.status, "")
    response.body = answer.body
    for name, value in answer.headers:
        if name in response.headers:
            del response.headers[name]
        response.headers[name] = value
    return response
