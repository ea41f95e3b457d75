"""Access to a server: from this machine without a token, from others with one; and the web pages that may open streams."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")


class Access:
    """The tokens of a server.

    Args:
        host: the server binds to.
        tokens: a request needs one of them; without tokens, requests need none.
        origins: pages of these sites may open streams, as ``https://example.com``, beside the server's own.

    Raises:
        ValueError: another host than this machine without tokens.
    """

    def __init__(self, host: str, tokens: Sequence[str], origins: Sequence[str] = ()):
        if host not in LOCAL and not tokens:
            raise ValueError(
                f"serve: binding to {host!r} lets everyone in who reaches this machine: give a token (--token-file FILE), or bind to "
                "127.0.0.1"
            )
        self._tokens, self._origins = [token.encode() for token in tokens], {o.rstrip("/") for o in origins}

    def allows(self, authorization: str, token: str = "") -> bool:
        """Whether a request has a token, compared in constant time.

        Args:
            authorization: ``Bearer …``, or what the client has sent in its place.
            token: where a client can't send that.
        """
        if not self._tokens:
            return True
        kind, _, found = authorization.partition(" ")
        sent = found.strip() if kind.lower() == "bearer" else token
        return any([hmac.compare_digest(sent.encode(), own) for own in self._tokens])

    def allows_page(self, origin: str | None, host: str | None) -> bool:
        """Whether a page may open a stream.

        Args:
            origin: of the page; ``None``: the client is not a page.
            host: of the server, in the request.
        """
        return origin is None or urlsplit(origin).netloc == host or origin in self._origins
