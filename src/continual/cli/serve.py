"""`continual serve`: a network's streams over a network."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import continual as co

from ..export.api import format_of
from . import networks, zoo
from .bench import alive
from .networks import Subject, check_rate, one_line, step_of, streaming, subject
from .target import BadInput, check_file


def serve(
    target: Annotated[
        str,
        typer.Argument(
            show_default=False,
            help="A network of the zoo by its name in `continual models list`, your own as package.module:factory or "
            "path/to/file.py:factory, with --clip, or an exported file (.onnx, .pt2).",
        ),
    ],
    clip: Annotated[
        list[str] | None,
        typer.Option(
            "--clip", metavar="SIZES", help="Sizes of a random example clip, such as 1,3,16,112,112. Repeat for each input."
        ),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="An argument for the factory. May be repeated.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option("--dtype", metavar="TYPE", help="Dtype of the clip.")] = None,
    time_dim: Annotated[int | None, typer.Option(metavar="N", min=0, help="The dim of time in the clips. Default: 2.")] = None,
    pretrained: Annotated[
        Path | None, typer.Option("--pretrained", metavar="FILE", help="Published weights, for the zoo.")
    ] = None,
    classes: zoo.Classes = None,
    input_size: zoo.InputSize = None,
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
) -> None:
    """Serve the streams of a network by WebSocket. `/` is a page that shows it; Ctrl-C and SIGTERM move the streams and end it.

    Example: `continual serve kws_ds_cnn --capacity 256`
    """
    own = networks.Options(target, clip or [], arg or [], dtype or [], None, 0, time_dim, None)
    with one_line("serve"):
        check_rate(rate)
        tokens, tls = _tokens(token_file), _tls(tls_cert, tls_key)
        if threads is not None:
            torch.set_num_threads(threads)
        net, step, own_rate = _network(own, classes, input_size, pretrained)
        options: dict[str, Any] = {"overload": overload, "finite": finite, "credit": credit, "checkpoint_every": checkpoint_every}
        options |= {"idle": idle, "keep": keep, "max_age": max_age, "store": store, "rate": own_rate if rate is None else rate}
        if step is not None:
            options["backend"] = backend
        pair = None if tls_cert is None or tls_key is None else (tls_key.read_bytes(), tls_cert.read_bytes())

        def made() -> co.serve.Server:
            engine = co.serve.Engine(net, step, capacity=capacity, shards=shards, **options)
            grpc = None if grpc_port is None else co.serve.GrpcServer(engine, host, grpc_port, tokens=tokens, tls=pair)
            return co.serve.Server(engine, host, port, tokens=tokens, origins=origin or [], tls=tls, grpc=grpc, grace=grace)

        _run(made)


def _network(own: networks.Options, classes: int | None, input_size: int | None, pretrained: Path | None) -> tuple[Any, Any, Any]:
    """The network, an example step, and its rate; of a file the opened file and no step."""
    path = Path(own.target)
    if path.suffix and format_of(path) is not None and ":" not in own.target:
        check_file(path)
        return co.load(path), None, None
    if ":" in own.target:
        if not own.clips:
            raise BadInput(f"{own.target} needs an example: --clip with its sizes, such as 1,3,16,112,112")
        made = subject(own, "serve")
    else:
        net = zoo.built(own.target, classes, input_size, None if pretrained is None else str(pretrained))
        if pretrained is None:
            alive(net)
            zoo.say_random("serve")
        made = Subject(net, [torch.zeros(1, net.step_shape[0], 1, *net.step_shape[1:])])
    net = streaming(made, own)
    return net, step_of(net, made.clips)[0], getattr(getattr(net, "card", None), "rate", None)


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


def _run(made: Callable[[], co.serve.Server]) -> None:
    async def main() -> None:
        await made().run(lambda server: typer.echo(f"continual serve: ready on {server.url}", err=True))

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
