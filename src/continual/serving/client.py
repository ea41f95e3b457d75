"""A stream on a server: it reconnects, resumes and obeys the credit by itself."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..core.optional_packages import package
from .protocol import END, GAP, PASSING, REPLAYED, SUBPROTOCOL, Array, Format, Refused, header

PATIENCE = 60.0  # seconds of trying to come back
FIRST, LONGEST = 0.05, 2.0  # seconds between tries
UNSENT = 1 << 20  # bytes


class ServeError(RuntimeError):
    """A server refuses a stream, or can't be reached.

    Attributes:
        code: of the protocol; ``"unreachable"`` for a server that does not answer.
        passing: whether the same may succeed later.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.passing = code in (*PASSING, "unreachable") or retry_after is not None


class ServedStream:
    """A stream on a server. Made by :func:`connect`.

    Attributes:
        token: with it, any server of the same store continues the stream.
        inputs, outputs: formats of frames and of outputs.
        facts: properties of the network: ``delay``, ``receptive_field``, ``stride``, ``rate`` …
        resumed: how often the stream has changed its connection.
        dropped: how many frames the server has dropped, because the client had sent more than its credit.
    """

    def __init__(self, url: str, token: str | None, tls: ssl.SSLContext | None, patience: float):
        self._url, self._auth, self._tls, self.patience = url, token, tls, patience
        self.token, self.resumed, self.credit, self.dropped = "", -1, 0, 0
        self.facts: dict[str, Any] = {}
        self.inputs = self.outputs = Format(())
        self._kept: deque[tuple[int, list[Array]]] = deque()  # frames since the checkpoint to go on from, by messages
        self._unsent: deque[tuple[int, list[Array]]] = deque()  # those that this connection has not sent
        self._saved: list[int] = []  # the frames that checkpoints go on with
        self._next = self._first = 0  # number of the next frame, and of the first that is kept or was dropped
        self._at = self._high = 0  # the frame that the server has next, and that no server has had
        self._sent = deque[
            tuple[int, int]
        ]()  # the last frame of each message that is not answered, of this connection; its frames
        self._under_way = 0  # frames in these messages
        self._have = -1  # the last frame that was answered, or output of the end
        self._results: asyncio.Queue[tuple[int, Array | list[Array]] | Exception | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._socket: Any = None
        self._finished = self._over = self._ended = self._told_end = False
        self._error: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # ---- what callers do ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> ServedStream:
        await self._connected()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run()), loop.create_task(self._keep_alive())]
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def send(self, frames: Any) -> None:
        """Send frames, and wait while the stream has no credit.

        Args:
            frames: ``(n, C, *S)``, numpy; several inputs as a list.

        Raises:
            ValueError: frames of another shape or dtype, or after :meth:`finish`.
            ServeError: the server has refused the stream.
        """
        if self._finished:
            raise ValueError("frames after finish(): open another stream")
        try:
            parts = self.inputs.checked(frames)
        except Refused as error:
            raise ValueError(str(error)) from None
        for at in range(0, len(parts[0]), self.credit):
            self._check()
            piece = [x[at : at + self.credit].copy() for x in parts]
            self._kept.append((self._next, piece))
            self._unsent.append((self._next, piece))
            self._next += len(piece[0])
            end = self._next
            self._transmit()
            while self._unsent and self._unsent[0][0] < end and not self._over:
                await self._changed.wait()
                self._changed.clear()
            await self._drained()
        self._check()

    async def finish(self) -> None:
        """No more frames come: the outputs of the end follow, then the iteration ends."""
        self._check()
        self._finished = True
        self._transmit()

    def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        return self

    async def __anext__(self) -> tuple[int, Any]:
        """The next outputs: ``seq``, the frame that completed the first of them, and ``(count, C', *S')``, a list for several outputs."""
        found = await self._results.get()
        if found is None or isinstance(found, Exception):
            self._results.put_nowait(found)
            raise StopAsyncIteration if found is None else found
        return found

    async def close(self) -> None:
        """Close the stream. It can't be resumed."""
        self._over = True
        self._say(json.dumps({"type": "close", "token": self.token}))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        self._results.put_nowait(None)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._over:
            raise ServeError("unknown_stream", "the stream is over")

    # ---- the connection -------------------------------------------------------------------------------------------------

    def _say(self, message: bytes | str) -> None:
        """Send without waiting, if there is a connection."""
        if self._socket is not None:
            package("websockets.asyncio.server", "serve", "co.serve").broadcast((self._socket,), message)

    async def _drained(self) -> None:
        """Wait while the operating system takes no more."""
        while self._socket is not None and self._socket.transport.get_write_buffer_size() > UNSENT:
            await asyncio.sleep(0.002)

    def _transmit(self) -> None:
        """Send the frames that are due, as far as the credit goes; and after the last one, that there are no more."""
        while self._socket is not None and self._unsent and self._under_way < self.credit:
            seq, parts = self._unsent.popleft()
            room = self.credit - self._under_way
            if len(parts[0]) > room:
                self._unsent.appendleft((seq + room, [x[room:] for x in parts]))
                parts = [x[:room] for x in parts]
            flags = (REPLAYED if seq < self._high else 0) | (GAP if seq > self._at else 0)
            self._say(self.inputs.message(seq, parts, flags))
            self._at = seq + len(parts[0])
            self._high = max(self._high, self._at)
            self._sent.append((self._at - 1, len(parts[0])))
            self._under_way += len(parts[0])
        if self._socket is not None and self._finished and not self._unsent and not self._told_end:
            self._told_end = True
            self._say(json.dumps({"type": "finish"}))
        self._changed.set()

    async def _connected(self) -> None:
        """Connect, and open or resume the stream.

        Raises:
            ServeError: the server refuses it, or does not answer for a while.
        """
        started, wait = time.monotonic(), FIRST
        while True:
            try:
                return await self._once()
            except ServeError as error:
                refused = error
                if not error.passing:
                    raise
            if time.monotonic() - started > self.patience:
                raise refused
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST)

    async def _once(self) -> None:
        ws = package("websockets", "serve", "co.serve")
        headers = {"Authorization": f"Bearer {self._auth}"} if self._auth else None
        try:
            socket = (
                await package("websockets.asyncio.client", "serve", "co.serve")
                .connect(
                    self._url,
                    subprotocols=[SUBPROTOCOL],
                    additional_headers=headers,
                    compression=None,
                    max_size=None,
                    proxy=None,
                    ping_timeout=None,
                    ssl=self._tls if self._tls is not None or not self._url.startswith("wss") else True,
                    open_timeout=10.0,
                )
                .__aenter__()
            )
        except ws.InvalidStatus as error:
            status = error.response.status_code
            code = "unreachable" if status >= 500 else "protocol"
            raise ServeError(
                code, f"{self._url} answers {status}: {error.response.body.decode(errors='replace').strip()}"
            ) from None
        except (OSError, ws.WebSocketException, TimeoutError) as error:
            raise ServeError("unreachable", f"{self._url}: {error}") from None
        ask = {"type": "resume", "token": self.token, "have": self._have} if self.token else {"type": "open"}
        try:
            await socket.send(json.dumps(ask))
            found = json.loads(await asyncio.wait_for(socket.recv(), 30.0))
        except (ws.ConnectionClosed, TimeoutError) as error:
            await socket.close()
            raise ServeError("unreachable", f"{self._url}: {error}") from None
        if found["type"] != "opened":
            await socket.close()
            said = found.get("message", f"unexpected {found}")
            raise ServeError(found.get("code", "protocol"), said, found.get("retry_after"))
        self._adopt(found)
        self._replay(socket, int(found["next"]))

    def _adopt(self, found: dict[str, Any]) -> None:
        if not self.token:
            self.inputs, self.outputs = Format.from_json(found), Format.from_json(found["outputs"])
        own = ("type", "token", "next", "shape", "dtype", "outputs", "credit")
        self.token, self.credit = found["token"], int(found["credit"])
        self.facts = {k: v for k, v in found.items() if k not in own}
        self.resumed += 1

    def _replay(self, socket: Any, next: int) -> None:
        """Go on with the frames that the server does not have."""
        if not self._first <= next <= self._next:
            kept = f"frames {self._first} to {self._next - 1} are kept here"
            raise ServeError("unknown_stream", f"the server goes on with frame {next}, and {kept}")
        self._sent.clear()
        self._saved.clear()
        self._socket, self._at, self._under_way, self._told_end = socket, next, 0, False
        self._unsent = _without(self._kept, 0, next)
        self._transmit()

    async def _run(self) -> None:
        """Read answers, and come back where the connection is lost."""
        ws = package("websockets", "serve", "co.serve")
        try:
            while not self._ended:
                socket = self._socket
                try:
                    if socket is not None:
                        async for message in socket:
                            self._got(message)
                            if self._ended:
                                break
                except ws.ConnectionClosed:
                    pass
                if not self._ended:
                    self._socket = None
                    await self._connected()
            self._say(json.dumps({"type": "close", "token": self.token}))
            self._results.put_nowait(None)
        except ServeError as error:
            self._error = error
            self._results.put_nowait(error)
        finally:
            self._over = True
            self._changed.set()

    def _got(self, message: bytes | str) -> None:
        if isinstance(message, str):
            return self._told(json.loads(message))
        _, flags, _, count, seq = header(message)
        parts = self.outputs.data(message, count)
        if flags & END:
            fresh = max(0, self._have + 1 - seq)
            self._have = max(self._have, seq + count - 1)
            self._forget()
            seq, count, parts = seq + fresh, count - fresh, [x[fresh:] for x in parts]
        elif self._sent:
            last, frames = self._sent.popleft()
            self._have, self._under_way = max(self._have, last), self._under_way - frames
            self._forget()
            self._transmit()
        if count > 0:
            self._results.put_nowait((seq, parts[0] if len(parts) == 1 else parts))

    def _forget(self) -> None:
        """Drop the frames before the last checkpoint all of whose answers have come: the server goes on from that one."""
        if not self._saved or self._saved[0] > self._have + 1:
            return
        next = self._first = max(n for n in self._saved if n <= self._have + 1)
        self._saved = [n for n in self._saved if n > next]
        while self._kept and self._kept[0][0] + len(self._kept[0][1][0]) <= next:
            self._kept.popleft()

    def _told(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "checkpoint":
                self._saved.append(int(message["next"]))
                self._forget()
            case "dropped":  # they are not sent again: what the server goes on from has not seen them
                first, next = int(message["first"]), int(message["next"])
                self.dropped += next - first
                self._kept = _without(self._kept, first, next)
            case "ended":
                self._ended = True
            case "moved":
                self._url = message.get("url") or self._url
            case "error" if message["code"] not in PASSING:
                raise ServeError(message["code"], message["message"])

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(10.0)
            self._say(json.dumps({"type": "keepalive"}))


def _without(kept: Sequence[tuple[int, list[Array]]], first: int, next: int) -> deque[tuple[int, list[Array]]]:
    """Messages of frames, but not those from ``first`` up to ``next``."""
    found: deque[tuple[int, list[Array]]] = deque()
    for seq, parts in kept:
        before, after = (min(len(parts[0]), max(0, n - seq)) for n in (first, next))
        if before:
            found.append((seq, [x[:before] for x in parts]))
        if after < len(parts[0]):
            found.append((seq + after, [x[after:] for x in parts]))
    return found


def connect(url: str, *, token: str | None = None, tls: ssl.SSLContext | None = None, patience: float = PATIENCE) -> ServedStream:
    """A stream on a server, as ``async with co.serve.connect(url) as stream``.

    Args:
        url: of the server, ``ws://host:port/v1/stream`` or ``wss://…``.
        token: the server's bearer token.
        tls: for certificates of your own.
        patience: seconds of trying to reconnect.

    Example:
        >>> stream = co.serve.connect("ws://127.0.0.1:8800/v1/stream")
        >>> stream.resumed
        -1
    """
    return ServedStream(url, token, tls, patience)
