"""The HTTP responses of a server, for any transport: health, metrics, the model's card, and the page with its files."""

from __future__ import annotations

import json
from http import HTTPStatus
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from . import metrics
from .access import Access
from .engine import Engine
from .protocol import PATH

PLAIN, JSON, SCRIPT = "text/plain; charset=utf-8", "application/json", "text/javascript; charset=utf-8"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", SCRIPT),
    "/continual.js": ("continual.js", SCRIPT),
}


class Answer(NamedTuple):
    """An answer by HTTP."""

    status: HTTPStatus
    body: bytes
    kind: str = PLAIN
    more: tuple[tuple[str, str], ...] = ()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """All of them."""
        own = [("Content-Type", self.kind), ("Content-Length", str(len(self.body))), ("Cache-Control", "no-store")]
        return [*own, *self.more]


SHARED = (("Access-Control-Allow-Origin", "*"),)  # pages of other sites may load these files; streams are another question


class Request(NamedTuple):
    """An HTTP request.

    Attributes:
        path, query: of the address.
        authorization, origin, host: headers; empty or ``None`` without them.
    """

    path: str
    query: str
    authorization: str
    origin: str | None
    host: str | None


class Pages:
    """Answers to requests.

    Args:
        engine: is shown.
        access: who is let in.
    """

    def __init__(self, engine: Engine, access: Access):
        self._engine, self._access = engine, access

    def answer(self, request: Request) -> Answer | None:
        """The answer; ``None`` for the request of a stream that may be opened."""
        engine, path = self._engine, request.path
        if path == "/livez":
            return Answer(HTTPStatus.OK, b"ok\n")
        if path == "/readyz":
            ready = engine.ready and not engine.draining
            return Answer(HTTPStatus.OK, b"ready\n") if ready else _not_ready()
        if path in FILES:  # without secrets: the data that they show needs the token
            name, kind = FILES[path]
            return Answer(HTTPStatus.OK, resources.files(__package__).joinpath("page", name).read_bytes(), kind, SHARED)
        if not self._access.allows(request.authorization, next(iter(parse_qs(request.query).get("token", [])), "")):
            return Answer(HTTPStatus.UNAUTHORIZED, b"a bearer token is needed\n")
        if path == PATH:
            return self._stream(request)
        if path == "/metrics":
            return Answer(HTTPStatus.OK, *metrics.text(engine.metrics, engine.gauges))
        if path == "/v1/model":
            return Answer(HTTPStatus.OK, json.dumps(self._model()).encode(), JSON)
        if path == "/v1/live":
            return Answer(HTTPStatus.OK, json.dumps(self._live()).encode(), JSON)
        return Answer(HTTPStatus.NOT_FOUND, b"not found\n")

    def _stream(self, request: Request) -> Answer | None:
        if not self._access.allows_page(request.origin, request.host):
            return Answer(HTTPStatus.FORBIDDEN, b"a page of another site: --origin lets its pages in\n")
        return None if self._engine.ready else _not_ready()

    def _model(self) -> dict[str, Any]:
        model = self._engine.model
        return {**model.facts, **model.inputs.described(), "outputs": model.outputs.described(), "credit": self._engine.credit}

    def _live(self) -> dict[str, Any]:
        """What the page shows."""
        m = self._engine.metrics
        times = {f"p{q}": m.frame.percentile(q) for q in (50, 99)}
        return {**self._engine.gauges(), "frames": m.frames, **times, "refused": sum(m.refused.values())}


def _not_ready() -> Answer:
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n")
