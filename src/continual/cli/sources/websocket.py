"""Frames from a WebSocket server: one in each message, as :mod:`continual.cli.sources.lines` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from ...core.optional_packages import pip_install
from ..target import BadInput
from .base import Asked
from .lines import Lines


def opened(address: str, asked: Asked) -> Lines:
    """Connect to a server.

    Raises:
        BadInput: there is none.
    """
    connection, close = connected(address)
    return Lines(address, _messages(connection), close, asked, live=True)


def connected(address: str) -> tuple[Any, Callable[[], None]]:
    """A connection to a server, and what closes it.

    Raises:
        BadInput: there is none.
    """
    try:
        from websockets.exceptions import InvalidHandshake, InvalidURI
        from websockets.sync.client import connect
    except ImportError as error:
        raise BadInput(f"'{address}' needs websockets: {pip_install('websockets')} ({error})") from error
    stack = ExitStack()
    try:
        return stack.enter_context(connect(address, max_size=None, proxy=None)), stack.close
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
        raise BadInput(f"can't connect to '{address}' ({' '.join(str(error).split())})") from error


def _messages(connection: Any) -> Iterator[str | bytes]:
    from websockets.exceptions import ConnectionClosed

    while True:
        try:
            yield connection.recv(timeout=0.2)  # awake now and then, so that Ctrl-C is seen
        except TimeoutError:
            continue
        except ConnectionClosed:
            return
