"""One call of ``ModelStreamInfer``: several streams, each a sequence of requests and their responses."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from .engine import Engine
from .kserve import datatype, messages, set_value, value
from .protocol import END, Array, Refused
from .streams import OpenStream

INPUT, RESULT = "x", "y"  # and a number: the names of inputs and outputs
OUTPUT = 8 << 20  # bytes that a call may have unsent


def _number(parameters: Any, name: str, default: int) -> int:
    found = value(parameters, name, default)
    if not isinstance(found, int):
        raise Refused("protocol", f"the parameter {name} is a number, got {found!r}")
    return found


class Requests:
    """The stream of one sequence of requests.

    Attributes:
        stream: the open stream.
        ids: of the requests that are not answered.
        said: parameters of the next response.
        last: outputs and ``seq`` of the last request, which wait for those of the end.
    """

    def __init__(self, stream: OpenStream):
        self.stream = stream
        self.ids: deque[str] = deque()
        self.said: dict[str, Any] = {"token": stream.token, "next": stream.next}
        self.last: list[tuple[int, Sequence[Array]]] = []
        self.ending = False


class Call:
    """A call, the sink of its streams.

    Args:
        engine: serves the streams.
        context: of the call.
    """

    def __init__(self, engine: Engine, context: Any):
        self._engine, self._context = engine, context
        self._sequences: dict[Any, Requests] = {}
        self._out: asyncio.Queue[Any] = asyncio.Queue()
        self._unsent = 0

    async def run(self, requests: AsyncIterator[Any]) -> None:
        """Serve the client until it ends the call, and all responses are written."""
        writer = asyncio.get_running_loop().create_task(self._write())
        try:
            async for request in requests:
                try:
                    await self._request(request)
                except Refused as error:
                    await self._wrong(request, error)
            while self._sequences and any(s.ids for s in self._sequences.values()):
                await asyncio.sleep(0.005)
            self._out.put_nowait(None)
            await writer
        finally:
            writer.cancel()
            for own in list(self._sequences.values()):
                await self._engine.park(own.stream)

    async def _write(self) -> None:
        while (response := await self._out.get()) is not None:
            await self._context.write(response)
            self._unsent -= response.ByteSize()

    def _put(self, response: Any) -> None:
        self._unsent += response.ByteSize()
        if self._unsent > OUTPUT:
            self._engine.metrics.refused["slow_reader"] += 1
            self._context.cancel()
            return
        self._out.put_nowait(response)

    # ---- requests -------------------------------------------------------------------------------------------------------

    async def _request(self, request: Any) -> None:
        id = value(request.parameters, "sequence_id")
        if not id:
            raise Refused("protocol", "a request has the parameter sequence_id")
        if value(request.parameters, "sequence_start", False):
            await self._start(id, request)
        own = self._sequences.get(id)
        if own is None:
            raise Refused("unknown_stream", f"sequence {id} has not begun: sequence_start")
        own.ids.append(request.id)
        own.ending = bool(value(request.parameters, "sequence_end", False))
        stream = own.stream
        seq = _number(request.parameters, "seq", stream.next)  # later than the next one: frames were left out
        await self._engine.intake.put(stream, seq, self._frames(request), seq > stream.next)
        if own.ending:
            self._engine.finish(stream)

    async def _start(self, id: Any, request: Any) -> None:
        if (before := self._sequences.pop(id, None)) is not None:
            await self._engine.park(before.stream)
        token = value(request.parameters, "token")
        if token is None:
            [stream] = await self._engine.open(self)
        else:
            stream = await self._engine.resume(str(token), _number(request.parameters, "have", -1), self)
        self._sequences[id] = Requests(stream)

    def _frames(self, request: Any) -> list[Array]:
        """The inputs of a request. A request without inputs has no frames."""
        specs, count = self._engine.model.inputs.specs, len(request.inputs)
        if not count:
            return self._engine.model.nothing
        if count != len(specs) or len(request.raw_input_contents) != count:
            raise Refused("shape", f"takes {len(specs)} inputs as raw_input_contents, got {count}")
        found = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            found[tensor.name] = tensor, raw
        parts = []
        for i, spec in enumerate(specs):
            if (name := f"{INPUT}{i}") not in found:
                raise Refused("shape", f"takes an input {name!r}, got {', '.join(sorted(found))}")
            tensor, raw = found[name]
            shape = tuple(tensor.shape)
            if tensor.datatype != datatype(spec.dtype):
                raise Refused("dtype", f"{name} is {datatype(spec.dtype)}, got {tensor.datatype}")
            if shape[1:] != spec.shape or len(raw) != shape[0] * spec.nbytes:
                raise Refused(
                    "shape", f"{name} takes frames (n, {', '.join(map(str, spec.shape))}), got {shape} in {len(raw)} bytes"
                )
            parts.append(np.frombuffer(raw, spec.dtype).reshape(shape))
        if len({len(x) for x in parts}) > 1:
            raise Refused("shape", "all inputs have as many frames")
        return parts

    async def _wrong(self, request: Any, error: Refused) -> None:
        """Answer a refused request, and close its stream."""
        self._engine.metrics.refused[error.code] += 1
        own = self._sequences.pop(value(request.parameters, "sequence_id"), None)
        self._say(request.id, error)
        if own is not None:
            await self._engine.park(own.stream)

    # ---- responses ------------------------------------------------------------------------------------------------------

    def _of(self, stream: OpenStream | None) -> tuple[Any, Requests | None]:
        return next(((id, s) for id, s in self._sequences.items() if s.stream is stream), (None, None))

    def answer(self, stream: OpenStream, seq: int, outputs: Sequence[Array], count: int, flags: int, credit: int) -> None:
        """As :class:`~continual.serving.streams.Sink`. The last request is answered together with the outputs of the end."""
        _, own = self._of(stream)
        if own is None:
            return
        if flags & END or (own.ending and len(own.ids) == 1):
            own.last += [(seq, outputs)] if count else []
            return
        self._respond(own, seq, outputs, count)

    def _respond(self, own: Requests, seq: int, outputs: Sequence[Array], count: int) -> None:
        m = messages()
        found = m.ModelStreamInferResponse()
        response, model = found.infer_response, self._engine.model
        response.id, response.model_name = own.ids.popleft() if own.ids else "", model.facts["network"]
        for name, parameter in {**own.said, "seq": seq}.items():
            set_value(response.parameters, name, parameter)
        own.said = {}
        for i, spec in enumerate(model.outputs.specs):
            part = np.ascontiguousarray(outputs[i], spec.dtype) if count else np.zeros((0, *spec.shape), spec.dtype)
            response.outputs.add(name=f"{RESULT}{i}", datatype=datatype(spec.dtype), shape=part.shape)
            response.raw_output_contents.append(part.tobytes())
        self._put(found)

    def answers(self, rows: Array, seqs: Array, outputs: Sequence[Array], flags: int, credit: int) -> None:
        """As :class:`~continual.serving.streams.Sink`; no stream here is multiplexed."""

    def control(self, stream: OpenStream | None, message: dict[str, Any]) -> None:
        """As :class:`~continual.serving.streams.Sink`. Messages become parameters of the next response."""
        id, own = self._of(stream)
        if own is None:
            return
        if message["type"] == "checkpoint":
            own.said["checkpoint"] = message["next"]
        elif message["type"] == "dropped":
            own.said["dropped"] = f"{own.said.get('dropped', '')} {message['first']}:{message['next']}".strip()
        elif message["type"] == "ended":
            self._ended(id, own)
        elif message["type"] == "moved":
            self._sequences.pop(id)
            self._say(
                "", Refused("draining", f"stream {own.stream.token} goes on in another server from frame {message['next']}")
            )

    def _ended(self, id: Any, own: Requests) -> None:
        last, own.last = own.last, []
        self._sequences.pop(id)
        own.said["ended"] = True
        joined = [np.concatenate(parts) for parts in zip(*(outputs for _, outputs in last), strict=True)]
        self._respond(own, last[0][0] if last else own.stream.next, joined, len(joined[0]) if joined else 0)
        self._engine.checkpoints.forget([own.stream.token])

    def refused(self, stream: OpenStream | None, error: Refused) -> None:
        """As :class:`~continual.serving.streams.Sink`."""
        id, own = self._of(stream)
        if own is not None:
            self._sequences.pop(id)
            self._say(own.ids.popleft() if own.ids else "", error)

    def _say(self, id: str, error: Refused) -> None:
        found = messages().ModelStreamInferResponse(error_message=f"{error.code}: {error}")
        found.infer_response.id = id
        self._put(found)
