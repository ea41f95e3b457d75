"""A server: the WebSocket of an engine, and beside it health, metrics, the model's card and the page."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..core.optional_packages import package
from . import metrics
from .access import Access
from .engine import Engine
from .grpc_server import GrpcServer
from .protocol import PATH, SUBPROTOCOL
from .websocket import Connection

LARGEST = 16 << 20  # bytes of a message, unless the credit's frames have more
OUTPUT = 8 << 20  # bytes that a connection may have unsent
SCRIPT = "text/javascript"
SHARED = (("Access-Control-Allow-Origin", "*"),)  # pages of other sites may load these files; streams are another question
PAGES = {"/": ("index.html", "text/html"), "/app.js": ("app.js", SCRIPT), "/continual.js": ("continual.js", SCRIPT)}


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
        self._access, self._grpc, self._tls, self._output = Access(host, tokens, origins), grpc, tls, output
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
        await Connection(self.engine, socket, self.limit, self._output).run()

    def _requested(self, socket: Any, request: Any) -> Any:
        """Answer what is not a stream; ``None`` for a WebSocket that is let in."""
        url = urlsplit(request.path)
        if url.path == "/livez":
            return socket.respond(HTTPStatus.OK, "ok\n")
        if url.path == "/readyz":
            ready = self.engine.ready and not self.engine.draining
            return socket.respond(
                HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, "ready\n" if ready else "not ready\n"
            )
        if url.path in PAGES:  # which hold no secrets: what they show needs the token
            name, kind = PAGES[url.path]
            return _response(
                socket, resources.files(__package__).joinpath("page", name).read_bytes(), f"{kind}; charset=utf-8", SHARED
            )
        token = next(iter(parse_qs(url.query).get("token", [])), "")
        if not self._access.allows(request.headers.get("Authorization", ""), token):
            return socket.respond(HTTPStatus.UNAUTHORIZED, "a bearer token is needed\n")
        if url.path == PATH:
            return self._stream_requested(socket, request)
        if url.path == "/metrics":
            return _response(socket, *metrics.text(self.engine.metrics, self.engine.gauges))
        if url.path == "/v1/model":
            return _response(socket, json.dumps(self._model()).encode(), "application/json")
        if url.path == "/v1/live":
            return _response(socket, json.dumps(self._live()).encode(), "application/json")
        return socket.respond(HTTPStatus.NOT_FOUND, "not found\n")

    def _stream_requested(self, socket: Any, request: Any) -> Any:
        if not self._access.allows_page(request.headers.get("Origin"), request.headers.get("Host")):
            return socket.respond(HTTPStatus.FORBIDDEN, "a page of another site: --origin lets its pages in\n")
        if not self.engine.ready:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")
        return None

    def _model(self) -> dict[str, Any]:
        model = self.engine.model
        return {**model.facts, **model.inputs.described(), "outputs": model.outputs.described(), "credit": self.engine.credit}

    def _live(self) -> dict[str, Any]:
        """What the page shows."""
        m = self.engine.metrics
        times = {f"p{q}": m.frame.percentile(q) for q in (50, 99)}
        return {**self.engine.gauges(), "frames": m.frames, **times, "refused": sum(m.refused.values())}


def _response(socket: Any, body: bytes, kind: str, more: Sequence[tuple[str, str]] = ()) -> Any:
    response = socket.respond(HTTPStatus.OK, "")
    response.body = body
    headers = (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"))
    for name, value in (*headers, *more):
        if name in response.headers:
            del response.headers[name]
        response.headers[name] = value
    return response
