"""A WebSocket of the package `websockets` as a :class:`~continual.serving.websocket.Wire`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..core.optional_packages import package


class Socket:
    """A client's socket.

    Args:
        socket: a ``ServerConnection``.
    """

    def __init__(self, socket: Any):
        self._socket = socket
        self._broadcast = package("websockets.asyncio.server", "serve", "continual serve").broadcast
        self._lost = package("websockets", "serve", "continual serve").ConnectionClosed

    @property
    def closing(self) -> bool:
        """As of a wire."""
        return bool(self._socket.transport.is_closing())

    @property
    def unsent(self) -> int:
        """As of a wire."""
        return int(self._socket.transport.get_write_buffer_size())

    def send(self, message: bytes | str) -> None:
        """As of a wire."""
        self._broadcast((self._socket,), message)

    def abort(self) -> None:
        """As of a wire."""
        self._socket.transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """As of a wire."""
        await self._socket.close(code, reason)

    async def __aiter__(self) -> AsyncIterator[bytes | str]:
        """As of a wire."""
        try:
            async for message in self._socket:
                yield message
        except self._lost:  # clients vanish
            return
