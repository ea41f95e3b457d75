"""A second transport of an engine: the bidirectional stream of the open inference protocol (KServe), by gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..core.optional_packages import package
from .access import Access
from .engine import Engine
from .grpc_call import INPUT, RESULT, Call
from .kserve import PACKAGE, SERVICE, datatype, messages


class GrpcServer:
    """Serves the streams of an engine by gRPC, beside or without a :class:`~continual.serving.server.Server`.

    A stream is a sequence of requests of one ``ModelStreamInfer`` call with the same ``sequence_id``, of which the first says
    ``sequence_start`` and the last ``sequence_end``. A request has frames ``(n, C, *S)`` as ``x0``, ``x1`` … Its response has the outputs
    that they brought as ``y0`` …, ``(count, C', *S')``. Its parameters are ``seq`` of the frame that completed the first of them, the
    ``token`` of the stream, ``next`` and ``checkpoint``. The response to the last request has the outputs of the end too. A stream is
    resumed by ``sequence_start`` with the parameters ``token`` and ``have``; its first response says by ``next`` with which frame to go
    on.

    Args:
        engine: it is started and stopped by its owner.
        host, port: to bind to; port 0: any that is free.
        tokens: one of them is needed, as the metadata ``authorization: Bearer …``.
        tls: a key and a certificate (PEM).

    Raises:
        ValueError: another host than this machine without tokens.
    """

    def __init__(
        self,
        engine: Engine,
        host: str = "127.0.0.1",
        port: int = 8801,
        *,
        tokens: Sequence[str] = (),
        tls: tuple[bytes, bytes] | None = None,
    ):
        self.engine, self.host, self.port = engine, host, port
        self._access, self._tls = Access(host, tokens), tls
        self._grpc = package("grpc", "grpc", "the gRPC transport")
        self._aio = package("grpc.aio", "grpc", "the gRPC transport")
        self._server: Any = None

    async def __aenter__(self) -> GrpcServer:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind, and serve."""
        m, grpc = messages(), self._grpc

        def unary(handler: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(handler, request.FromString, lambda r: r.SerializeToString())

        handlers = {
            "ServerLive": unary(self._live, m.ServerLiveRequest),
            "ServerReady": unary(self._ready, m.ServerReadyRequest),
            "ModelReady": unary(self._model_ready, m.ModelReadyRequest),
            "ModelMetadata": unary(self._metadata, m.ModelMetadataRequest),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                self._stream, m.ModelInferRequest.FromString, lambda r: r.SerializeToString()
            ),
        }
        limit = 4 * max(16 << 20, self.engine.credit * self.engine.model.inputs.nbytes)
        self._server = self._aio.server(
            options=[("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers),))
        address = f"{self.host}:{self.port}"
        if self._tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([self._tls]))
        await self._server.start()

    async def stop(self, grace: float = 1.0) -> None:
        """End all calls."""
        await self._server.stop(grace)

    # ---- calls ----------------------------------------------------------------------------------------------------------

    async def _live(self, request: Any, context: Any) -> Any:
        return messages().ServerLiveResponse(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        return messages().ServerReadyResponse(ready=self.engine.ready and not self.engine.draining)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        return messages().ModelReadyResponse(ready=self.engine.ready and not self.engine.draining)

    async def _metadata(self, request: Any, context: Any) -> Any:
        await self._let_in(context)
        model = self.engine.model
        found = messages().ModelMetadataResponse(name=model.facts["network"], platform="continual", versions=["1"])
        for own, format, name in ((found.inputs, model.inputs, INPUT), (found.outputs, model.outputs, RESULT)):
            for i, spec in enumerate(format.specs):
                own.add(name=f"{name}{i}", datatype=datatype(spec.dtype), shape=[-1, *spec.shape])
        return found

    async def _let_in(self, context: Any) -> None:
        """End a call without a token."""
        authorization = next((v for k, v in context.invocation_metadata() if k == "authorization"), "")
        if not self._access.allows(str(authorization)):
            await context.abort(self._grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._let_in(context)
        await Call(self.engine, context).run(requests)
