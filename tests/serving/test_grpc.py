"""The gRPC transport: streams as sequences of the open inference protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import continual as co
from tests.serving.servers import clip, close_to, engine, network, run, wanted

grpc = pytest.importorskip("grpc", reason="needs grpcio, of the extra `grpc`")
pytest.importorskip("google.protobuf", reason="needs protobuf, of the extra `grpc`")

from continual.serving.kserve import FIELDS, messages, set_value, value  # noqa: E402


class Client:
    """A call of ``ModelStreamInfer`` by hand."""

    def __init__(self, served: Any, token: str | None = None):
        self._address, self._token = f"127.0.0.1:{served.port}", token

    async def __aenter__(self) -> Client:
        self._channel = grpc.aio.insecure_channel(self._address)
        m = messages()
        self._open = self._channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            lambda r: r.SerializeToString(),
            m.ModelStreamInferResponse.FromString,
        )
        self.call = self._open(metadata=[("authorization", f"Bearer {self._token}")] if self._token else None)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.call.cancel()
        await self._channel.close()

    async def ask(self, method: str, request: Any, response: Any) -> Any:
        made = self._channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}", lambda r: r.SerializeToString(), response.FromString
        )
        return await made(request)

    async def send(self, id: str, frames: Any = None, datatype: str = "FP64", name: str = "x0", **parameters: Any) -> None:
        request = messages().ModelInferRequest(model_name="net", id=id)
        for key, given in parameters.items():
            set_value(request.parameters, key, given)
        if frames is not None:
            request.inputs.add(name=name, datatype=datatype, shape=frames.shape)
            request.raw_input_contents.append(frames.tobytes())
        await self.call.write(request)

    async def receive(self) -> Any:
        """The id, the parameters and the outputs of the next response; or its error."""
        found = await self.call.read()
        response = found.infer_response
        if found.error_message:
            return response.id, found.error_message, None
        y = np.frombuffer(response.raw_output_contents[0]).reshape(tuple(response.outputs[0].shape))
        return response.id, {k: value(response.parameters, k) for k in response.parameters}, y


def served(**options: Any) -> Any:
    class Both:
        async def __aenter__(self) -> Any:
            own = {"tokens": options.pop("tokens", ())}
            self.engine = engine(**options)
            await self.engine.start()
            self.server = co.serve.GrpcServer(self.engine, port=0, **own)
            await self.server.start()
            return self.server

        async def __aexit__(self, *_: Any) -> None:
            await self.server.stop(0.1)
            await self.engine.stop()

    return Both()


def test_sequences_equal_streams_alone():
    async def main() -> Any:
        async with served() as server, Client(server) as client:
            found: dict[int, list[Any]] = {1: [], 2: []}
            for t in range(0, 30, 3):
                for n in found:
                    flags = {"sequence_start": t == 0, "sequence_end": t == 27}
                    await client.send(f"{n}/{t}", clip(30, n)[t : t + 3], sequence_id=n, **flags)
            said: dict[str, Any] = {}
            for _ in range(20):
                id, parameters, y = await client.receive()
                said[id] = parameters
                found[int(id[0])].append(y)
            assert server.engine.gauges()["open"] == 0
            return found, said

    found, said = run(main())
    for n, outs in found.items():
        close_to(np.concatenate(outs), wanted(network(), clip(30, n)))
    assert said["1/3"]["seq"] == 3
    assert len(said["1/0"]["token"]) == 32
    assert said["1/27"]["ended"] is True


def test_a_sequence_is_resumed():
    async def main() -> Any:
        async with served(credit=4, checkpoint_every=4) as server:
            async with Client(server) as client:
                first, token = [], None
                for t in range(10):
                    await client.send(str(t), clip(20)[t : t + 1], sequence_id="s", sequence_start=t == 0)
                    _, parameters, y = await client.receive()
                    first.append(y)
                    token = parameters.get("token", token)
            for _ in range(100):
                if not server.engine.gauges()["open"]:
                    break
                await asyncio.sleep(0.01)
            async with Client(server) as client:
                await client.send("begin", sequence_id="s", sequence_start=True, token=token, have=9)
                _, parameters, _ = await client.receive()
                next = parameters["next"]
                await client.send("rest", clip(20)[next:], sequence_id="s", sequence_end=True)
                _, parameters, y = await client.receive()
            return np.concatenate([*first, y]), next

    y, next = run(main())
    assert 0 < next <= 10
    close_to(y, wanted(network(), clip(20)))


def test_what_is_refused_leaves_other_sequences():
    async def main() -> Any:
        async with served() as server, Client(server) as client:
            await client.send("good", clip(9)[:5], sequence_id=7, sequence_start=True)
            outs = [(await client.receive())[2]]
            errors = []
            nan = np.full((1, 3), np.nan)
            for n, (bad, options) in enumerate(
                (
                    (nan, {}),
                    (clip(1)[:, :2], {}),
                    (clip(1).astype(np.float32), {"datatype": "FP32"}),
                    (clip(1), {"name": "image"}),
                ),
                1,
            ):
                await client.send(f"bad {n}", bad, sequence_id=n, sequence_start=True, **options)
                errors.append(await client.receive())
            await client.send("no id", clip(1))
            await client.send("no start", clip(1), sequence_id=99)
            await client.send("no number", clip(1), sequence_id=5, sequence_start=True, seq="one")
            errors += [await client.receive() for _ in range(3)]
            await client.send("end", clip(9)[5:], sequence_id=7, sequence_end=True)
            outs.append((await client.receive())[2])
            return errors, np.concatenate(outs)

    errors, y = run(main())
    close_to(y, wanted(network(), clip(9)))
    texts = {id: text for id, text, _ in errors}
    for id, words in (
        ("bad 1", "not_finite: frame 0"),
        ("bad 2", "shape: x0 takes frames (n, 3), got (1, 2)"),
        ("bad 3", "dtype: x0 is FP64, got FP32"),
        ("bad 4", "shape: takes an input 'x0', got image"),
        ("no id", "protocol: a request has the parameter sequence_id"),
        ("no start", "unknown_stream: sequence 99 has not begun"),
        ("no number", "protocol: the parameter seq is a number, got 'one'"),
    ):
        assert words in texts[id]


def test_frames_that_were_dropped_are_said_and_left_out():
    async def main() -> Any:
        async with served(credit=4, overload="drop-oldest") as server, Client(server) as client:
            await client.send("much", clip(12), sequence_id=1, sequence_start=True)
            _, said, y = await client.receive()
            token = said["token"]
            await client.send("again", clip(12)[8:], sequence_id=2, sequence_start=True, token=token, have=-1, seq=8)
            _, lost, _ = await client.receive()
            _, _, z = await client.receive()
            return said["dropped"], y, lost, z

    dropped, y, lost, z = run(main())
    assert dropped == "0:8"
    assert lost == "unknown_stream: another connection has resumed this stream"
    close_to(y, wanted(network(), clip(12)[8:], ended=False))
    close_to(z, y)


def test_health_the_model_and_tokens():
    async def main() -> None:
        m = messages()
        async with served(tokens=["secret"]) as server, Client(server) as client:
            assert (await client.ask("ServerLive", m.ServerLiveRequest(), m.ServerLiveResponse)).live
            assert (await client.ask("ServerReady", m.ServerReadyRequest(), m.ServerReadyResponse)).ready
            assert (await client.ask("ModelReady", m.ModelReadyRequest(name="net"), m.ModelReadyResponse)).ready
            with pytest.raises(grpc.aio.AioRpcError, match="a bearer token is needed"):
                await client.ask("ModelMetadata", m.ModelMetadataRequest(), m.ModelMetadataResponse)
            with pytest.raises(grpc.aio.AioRpcError, match="a bearer token is needed"):
                await client.call.read()
            async with Client(server, "secret") as own:
                await own.send("1", clip(9), sequence_id=1, sequence_start=True, sequence_end=True)
                close_to((await own.receive())[2], wanted(network(), clip(9)))
        async with served() as server, Client(server) as client:
            found = await client.ask("ModelMetadata", m.ModelMetadataRequest(), m.ModelMetadataResponse)
            assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [("x0", "FP64", [-1, 3])]
            assert [(t.name, t.datatype, list(t.shape)) for t in found.outputs] == [("y0", "FP64", [-1, 2])]
        with pytest.raises(ValueError, match="lets everyone in"):
            co.serve.GrpcServer(engine(), "0.0.0.0")

    run(main())


def test_messages_are_those_of_the_protocol():
    """Against the messages of Triton's client."""
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="needs tritonclient", exc_type=Exception)
    for name in FIELDS:
        theirs, own = service.DESCRIPTOR.message_types_by_name[name], getattr(messages(), name).DESCRIPTOR
        for field in own.fields:
            other = theirs.fields_by_name[field.name]
            assert (field.number, field.type) == (other.number, other.type)
            assert field.is_repeated == other.is_repeated


def test_the_command_serves_both():
    """On SIGTERM a sequence hears that another server goes on."""
    typer = pytest.importorskip("typer", reason="needs typer, of the extra `cli`")
    assert typer
    from tests.serving.test_resuming import Process, free_port

    port, beside = free_port(), free_port()

    async def main() -> Any:
        process = await Process(port, "--grpc-port", str(beside), "--grace", "1").ready()

        class Address:
            port = beside

        async with Client(Address) as client:
            await client.send("1", clip(9), sequence_id=1, sequence_start=True)
            id, _, y = await client.receive()
            process.kill(15)
            told = (await client.receive())[1]
        return id, y, told, await process.ended()

    id, y, told, code = run(main(), 120)
    assert (id, code) == ("1", 0)
    close_to(y, wanted(network(), clip(9), ended=False))
    assert told.startswith("draining: stream")
    assert told.endswith("goes on in another server from frame 9")
