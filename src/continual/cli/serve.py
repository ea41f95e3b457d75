"""`continual serve`: a network's streams over a network."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import continual as co

from .errors import one_line
from .network import Options, check_rate, step_of, streaming, subject
from .network_options import takes_network
from .target import BadInput, check_file


@takes_network
def serve(
    network: Options,
    capacity: Annotated[int, typer.Option(min=1, metavar="N", help="The largest number of streams.")] = 256,
    shards: Annotated[int, typer.Option(min=1, metavar="N", help="Programs that the streams are divided among.")] = 1,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="Of the program: aot, inductor, onnxruntime, openvino, eager.")
    ] = "aot",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Another one than this machine needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8800,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve gRPC too: the streams of the open inference protocol (KServe).")
    ] = None,
    credit: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Frames that a stream may have in the server.")] = 32,
    overload: Annotated[
        str, typer.Option(metavar="block|drop-oldest|refuse", help="What happens to frames beyond the credit.")
    ] = "block",
    finite: Annotated[str, typer.Option(metavar="refuse|pass", help="What happens to frames with NaN or infinities.")] = "refuse",
    idle: Annotated[float, typer.Option(metavar="S", help="Seconds of silence after which a stream is closed.")] = 60.0,
    keep: Annotated[float, typer.Option(metavar="S", help="Seconds for which a closed stream can be resumed.")] = 300.0,
    store: Annotated[
        str | None, typer.Option(metavar="DIR|redis://…", help="Where states are kept. Default: the memory of this process.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Frames between checkpoints of a stream, at least --credit.")
    ] = 256,
    grace: Annotated[float, typer.Option(metavar="S", help="Seconds for streams to move when the server stops.")] = 20.0,
    max_age: Annotated[float | None, typer.Option(metavar="S", help="Seconds after which a stream is moved.")] = None,
    rate: Annotated[float | None, typer.Option(metavar="FPS", help="Steps per second, for clients.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer tokens, one per line: clients need one of them.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A site whose pages may open streams, as https://example.com. May be repeated."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="A certificate (PEM), with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of PyTorch.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON with the addresses once it is ready.")] = False,
) -> None:
    """Serve the streams of a network by WebSocket. `/` is a page that shows it; Ctrl-C and SIGTERM move the streams and end it.

    Example: `continual serve kws_ds_cnn --capacity 256`
    """
    with one_line("serve"):
        check_rate(rate)
        tokens, tls = _tokens(token_file), _tls(tls_cert, tls_key)
        if threads is not None:
            torch.set_num_threads(threads)
        net, step, own_rate = _network(network)
        options: dict[str, Any] = {"overload": overload, "finite": finite, "credit": credit, "checkpoint_every": checkpoint_every}
        options |= {"idle": idle, "keep": keep, "max_age": max_age, "store": store, "rate": own_rate if rate is None else rate}
        if step is not None:
            options["backend"] = backend
        pair = None if tls_cert is None or tls_key is None else (tls_key.read_bytes(), tls_cert.read_bytes())

        def made() -> co.serve.Server:
            engine = co.serve.Engine(net, step, capacity=capacity, shards=shards, **options)
            grpc = None if grpc_port is None else co.serve.GrpcServer(engine, host, grpc_port, tokens=tokens, tls=pair)
            return co.serve.Server(engine, host, port, tokens=tokens, origins=origin or [], tls=tls, grpc=grpc, grace=grace)

        _run(made, as_json)


def _network(options: Options) -> tuple[Any, Any, Any]:
    """The network, an example step, and its rate; of a file the opened file, which knows both."""
    made = subject(options, "serve")
    if made.runner is not None:
        return made.net, None, None
    net = streaming(made, options)
    return net, step_of(net, made.clips)[0], made.rate


def _tokens(path: Path | None) -> list[str]:
    if path is None:
        return []
    check_file(path)
    found = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not found:
        raise BadInput(f"'{path}' has no token: one per line")
    return found


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise BadInput("--tls-cert and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise BadInput(f"can't read the certificate '{cert}' with the key '{key}' ({error})") from error
    return context


def _run(made: Callable[[], co.serve.Server], as_json: bool) -> None:
    def ready(server: co.serve.Server) -> None:
        if as_json:
            typer.echo(json.dumps({"ready": True, "url": server.url}))
        typer.echo(f"continual serve: ready on {server.url}", err=True)

    async def main() -> None:
        await made().run(ready)

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
