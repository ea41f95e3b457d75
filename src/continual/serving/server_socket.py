"""A WebSocket of the package `websockets` as a :class:`~continual.serving.websocket.Wire`."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

from ..core.optional_packages import package
from .websocket import Take

WHO = "continual serve"


def connection_class() -> Any:
    """``ServerConnection``, whose binary messages are taken at once where that can be: no task wakes up for them.

    Messages keep their order: as long as one is with the task of the connection, all that follow go there too.
    """
    base = package("websockets.asyncio.server", "serve", WHO).ServerConnection
    frames = package("websockets.frames", "serve", WHO)
    binary, data = frames.Opcode.BINARY, frames.DATA_OPCODES

    class Direct(base):  # type: ignore[misc, valid-type]  # known when it is called
        take: Take | None = None
        with_task = 0  # messages

        def process_event(self, event: Any) -> None:
            opcode = getattr(event, "opcode", None)
            if opcode in data and event.fin:
                if opcode is binary and not self.with_task and self.take is not None and self.take(event.data):
                    return
                self.with_task += 1
            super().process_event(event)

    return Direct


TEXT, BINARY = 0x81, 0x82  # the first byte of a frame that is a whole message


def _head(kind: int, size: int) -> bytes:
    """The head of a frame of a server (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((kind, size))
    return struct.pack(">BBH", kind, 126, size) if size < 1 << 16 else struct.pack(">BBQ", kind, 127, size)


class Socket:
    """A client's socket.

    Args:
        socket: a connection of :func:`connection_class`.
    """

    def __init__(self, socket: Any):
        self._socket = socket
        self._open = package("websockets.protocol", "serve", WHO).State.OPEN
        self._lost = package("websockets", "serve", WHO).ConnectionClosed

    @property
    def closing(self) -> bool:
        """As of a wire."""
        return bool(self._socket.transport.is_closing())

    @property
    def unsent(self) -> int:
        """As of a wire."""
        return int(self._socket.transport.get_write_buffer_size())

    def send(self, message: bytes | str) -> None:
        """As of a wire. It writes the frame itself: whole messages of a server, without a mask and without compression."""
        if self._socket.protocol.state is self._open:
            data = message if isinstance(message, bytes) else message.encode()
            self._socket.transport.write(_head(BINARY if data is message else TEXT, len(data)) + data)

    def abort(self) -> None:
        """As of a wire."""
        self._socket.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """As of a wire."""
        await self._socket.close(code, reason)

    async def messages(self, take: Take) -> AsyncIterator[bytes | str]:
        """As of a wire."""
        self._socket.take = take
        try:
            async for message in self._socket:
                yield message
                self._socket.with_task -= 1
        except self._lost:  # clients vanish
            return
