"""Outputs to a WebSocket server: a JSON object for each, as in files of JSON lines."""

from __future__ import annotations

import json

from ..sources.websocket import connected
from ..target import BadInput
from .base import Result, Sink


class WebSocket(Sink):
    """Sends a message for each output."""

    def __init__(self, name: str):
        self.name = name
        self._connection, self.close = connected(name)  # type: ignore[method-assign]

    def write(self, result: Result) -> None:
        from websockets.exceptions import ConnectionClosed  # it is there, for the connection was made by it

        try:
            self._connection.send(json.dumps(result.data()))
        except ConnectionClosed as error:
            raise BadInput(f"--sink '{self.name}': the server closed the connection ({error})") from error
