"""The connections of clients by WebSocket: protocol ``continual.v1``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from .engine import Engine
from .protocol import DATA, END, GAP, HEADER, MULTIPLEXED, Array, Refused, header, parsed
from .streams import Group, OpenStream

LARGEST = 16 << 20  # bytes of a message, unless the credit's frames have more
OUTPUT = 8 << 20  # bytes that a connection may have unsent


Take = Callable[[bytes], bool]


class Wire(Protocol):
    """A WebSocket, of any library.

    Attributes:
        closing: whether nothing more can be sent.
        unsent: bytes that the client has not taken yet.
    """

    @property
    def closing(self) -> bool: ...
    @property
    def unsent(self) -> int: ...
    def send(self, message: bytes | str) -> None:
        """Send without waiting."""

    def abort(self) -> None:
        """Cut the client off."""

    async def close(self, code: int, reason: str) -> None:
        """Close in good order."""

    def messages(self, take: Take) -> AsyncIterator[bytes | str]:
        """The messages of the client, until it disconnects.

        Args:
            take: may be called with a binary message before it is yielded, while no earlier one is under way; then it is done if that
                returns true.
        """


class Connection:
    """A client: one stream, or many that are multiplexed. It is the sink of all of them.

    Args:
        engine: serves the streams.
        wire: to the client.
        limit: bytes of a message.
        output: bytes that may be unsent before the client is cut off.
    """

    def __init__(self, engine: Engine, wire: Wire, limit: int, output: int):
        self._engine, self._wire, self._limit, self._output = engine, wire, limit, output
        self.stream: OpenStream | None = None
        self.group: Group | None = None
        self._inputs, self._outputs = engine.model.inputs, engine.model.outputs
        self._closing: asyncio.Task[None] | None = None

    # ---- answers --------------------------------------------------------------------------------------------------------

    def _sent(self, message: bytes | str) -> None:
        """Send without waiting. A client that does not read is cut off before it takes the server's memory."""
        if self._wire.closing:
            return
        if self._wire.unsent > self._output:
            self._engine.metrics.refused["slow_reader"] += 1
            self._wire.abort()  # a message about it would wait behind all that is unsent
            return
        self._wire.send(message)

    def control(self, stream: OpenStream | None, message: dict[str, Any]) -> None:
        """As :class:`~continual.serving.streams.Sink`. Of a multiplexed stream it says which one."""
        self._sent(json.dumps(message | ({"stream": stream.row} if stream is not None and stream.group is not None else {})))
        if self.group is None and message["type"] == "moved":
            self._close(1001, "moved")

    def answer(self, stream: OpenStream, seq: int, outputs: Sequence[Array], count: int, flags: int, credit: int) -> None:
        """As :class:`~continual.serving.streams.Sink`."""
        self._sent(self._outputs.message(seq, outputs, flags, min(credit, 0xFFFF), count))

    def answers(self, rows: Array, seqs: Array, outputs: Sequence[Array], flags: int, credit: int) -> None:
        """As :class:`~continual.serving.streams.Sink`."""
        self._sent(self._outputs.multiplexed(rows, seqs, outputs, flags, credit))

    def refused(self, stream: OpenStream | None, error: Refused) -> None:
        """As :class:`~continual.serving.streams.Sink`. A connection without multiplexed streams is closed."""
        self.control(stream, error.message())
        if self.group is None:
            self._close(1008, error.code)

    def _close(self, code: int, reason: str) -> None:
        self._closing = self._closing or asyncio.get_running_loop().create_task(self._wire.close(code, reason))

    # ---- messages -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the client until it goes."""
        try:
            async for message in self._wire.messages(self._taken):
                try:
                    if isinstance(message, bytes):
                        await self._data(message)
                    else:
                        await self._control(parsed(message))
                except Refused as error:
                    await self._refuse(error)
        finally:
            await self._gone()

    async def _refuse(self, error: Refused) -> None:
        self._engine.metrics.refused[error.code] += 1
        row = error.more.get("stream")
        stream = self.stream if self.group is None else self._engine.table.by_row.get(-1 if row is None else row)
        if error.code == "overrun":  # the frames are refused, and not the stream
            self.control(stream, error.message())
            return
        self.refused(None, error)
        if stream is not None and stream.group is self.group:
            await self._engine.park(stream)

    async def _gone(self) -> None:
        members = self._engine.table.members(self.group) if self.group is not None else []
        for stream in [*members, *([self.stream] if self.stream is not None else [])]:
            await self._engine.park(stream)
        if self.group is not None:
            self._engine.table.groups.pop(self.group.number, None)

    def _taken(self, message: bytes) -> bool:
        """Take frames that are in order and have room. All others are for :meth:`_data`, which may wait or refuse."""
        if self.stream is None or not HEADER.size < len(message) <= self._limit:
            return False
        kind, flags, _, count, seq = HEADER.unpack_from(message)
        if kind != DATA or flags & (END | GAP) or len(message) != HEADER.size + count * self._inputs.nbytes:
            return False
        return self._engine.intake.take(self.stream, seq, self._inputs.data(message, count))

    async def _data(self, message: bytes) -> None:
        kind, flags, _, count, seq = header(message)
        if len(message) > self._limit:
            raise Refused("too_big", f"a message has at most {self._limit} bytes, got {len(message)}")
        if kind == MULTIPLEXED:
            if self.group is None:
                raise Refused("protocol", "no multiplexed stream is open")
            if count:
                await self._engine.intake.put_group(self.group, self._inputs.entries(message, count), bool(flags & GAP))
            return
        if self.stream is None or kind != DATA:
            raise Refused("protocol", "open or resume a stream before its frames")
        await self._engine.intake.put(self.stream, seq, self._inputs.data(message, count), bool(flags & GAP))
        if flags & END:
            self._engine.finish(self.stream)

    async def _control(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "open":
                await self._open(message.get("streams"))
            case "resume":
                await self._resume(message)
            case "finish":
                self._engine.finish(self._stream(message))
            case "close":
                await self._closed(message)
            case "reset":
                stream = self._stream(message)
                await self._engine.reset(stream)
                self._opened(stream)
            case "marker" if self.group is not None:
                one = self._stream(message) if "stream" in message else None
                self._engine.table.marker(self.group, one, message.get("id"))
            case "marker":
                self._stream(message).marker(message.get("id"))
            case "keepalive":
                for stream in self._engine.table.members(self.group) if self.group is not None else [self._stream(message)]:
                    stream.hear()
            case other:
                raise Refused("protocol", f"no message {other!r} here")

    def _stream(self, message: dict[str, Any]) -> OpenStream:
        """The open stream that a control message is about."""
        if self.group is not None:
            row = message.get("stream")
            if not isinstance(row, int):
                raise Refused("protocol", 'a message about a multiplexed stream names it: "stream"')
            return self._engine.table.of_row(self.group, row)
        if self.stream is None:
            raise Refused("protocol", "no stream is open: send open or resume")
        self.stream.hear()
        return self.stream

    async def _open(self, streams: Any) -> None:
        if streams is None:
            if self.stream is not None or self.group is not None:
                raise Refused("protocol", "this connection has a stream: take another connection, or open several by streams")
            [self.stream] = await self._engine.open(self)
            self._opened(self.stream)
            return
        if self.stream is not None or not isinstance(streams, int) or streams < 1:
            raise Refused("protocol", "streams is the number of multiplexed streams to open, from 1 up")
        for stream in await self._engine.open(self, self._group(), streams):
            self._opened(stream)

    def _group(self) -> Group:
        self.group = self.group or self._engine.table.new_group(self)
        return self.group

    async def _resume(self, message: dict[str, Any]) -> None:
        token, have = message.get("token"), message.get("have", -1)
        if not isinstance(token, str) or not isinstance(have, int):
            raise Refused("protocol", "resume names the token, and by have the last frame that was answered")
        if self.stream is not None or (self.group is not None and not message.get("multiplexed")):
            raise Refused("protocol", "this connection has a stream: take another connection")
        group = self._group() if message.get("multiplexed") else None
        stream = await self._engine.resume(token, have, self, group)
        self.stream = stream if group is None else None
        self._opened(stream)

    async def _closed(self, message: dict[str, Any]) -> None:
        """The client is done with a stream, which may have ended."""
        token = message.get("token")
        if self.group is not None:
            if isinstance(message.get("stream"), int) and not isinstance(token, str):
                await self._engine.close(self._stream(message))
            elif isinstance(token, str):
                self._engine.checkpoints.forget([token])
            return
        stream, self.stream = self.stream, None
        if stream is not None:
            await self._engine.close(stream)
        await self._wire.close(1000, "")

    def _opened(self, stream: OpenStream) -> None:
        model = self._engine.model
        outputs = {"outputs": model.outputs.described(), "credit": self._engine.credit}
        found = {"type": "opened", "token": stream.token, "next": stream.next}
        self.control(stream, found | model.inputs.described() | outputs | model.facts)
