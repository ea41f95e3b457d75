"""Streams on several machines: an application of Ray Serve, with an engine in each replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.optional_packages import package
from ..core.step_spec import Inputs
from .asgi import Asgi
from .engine import Engine
from .ray_keeper import KeeperStore

SPARE = 16  # requests beside the streams of a replica: health, metrics, and streams that are refused when it is full


def ray_app(
    make_net: Callable[[], Any],
    step: Inputs | None = None,
    *,
    capacity: int = 64,
    replicas: int | Mapping[str, Any] = 1,
    checkpoint_every: int = 256,
    max_age: float = 60.0,
    name: str = "continual",
    tokens: Sequence[str] = (),
    origins: Sequence[str] = (),
    actor_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """An application for ``ray.serve.run``: replicas that serve streams, which outlive the replicas.

    A WebSocket stays with its replica. Checkpoints go by value to an actor that keeps them for all replicas. When a replica is killed, its
    clients come to another one, send again at most the frames since their last checkpoint, and get each output once. Ray Serve does
    not tell a replica that it is going to be removed, but waits: all its streams are moved within ``max_age`` seconds.

    Args:
        make_net: makes the streaming network in each replica, or opens an exported file by :func:`continual.load`.
        step: an example step ``(B, C, *S)``; not for a file.
        capacity: streams of a replica.
        replicas: their number, or ``autoscaling_config`` of Ray Serve.
        checkpoint_every: frames between checkpoints of a stream.
        max_age: seconds after which a stream is moved.
        name: of the deployment and, with ``-keeper``, of the actor that keeps the states, which outlives the application.
        tokens, origins: as of :class:`~continual.serving.server.Server`.
        actor_options: ``ray_actor_options`` of the replicas.
        options: further ones of :class:`~continual.serving.engine.Engine`. ``overload`` is ``"refuse"`` by default: Ray Serve reads all
            that a client sends, so that a client can't be made to wait.

    Raises:
        ExportError: Ray Serve is not installed.

    Example:
        ``serve.run(co.serve.ray_app(make_net, torch.zeros(1, 8), capacity=64, replicas=4))``, then
        ``co.serve.connect("ws://127.0.0.1:8000/v1/stream")``.

    Source:
        Deployments of ASGI applications: Ray's documentation, "Set Up FastAPI and HTTP".
    """
    serve = package("ray.serve", "ray", "co.serve.ray_app")
    chosen: dict[str, Any] = {"overload": "refuse", **options}

    def build() -> Asgi:
        store = KeeperStore(f"{name}-keeper")
        engine = Engine(
            make_net(), step, capacity=capacity, checkpoint_every=checkpoint_every, max_age=max_age, store=store, **chosen
        )
        return Asgi(engine, tokens=tokens, origins=origins)

    scale = {"num_replicas": replicas} if isinstance(replicas, int) else {"autoscaling_config": dict(replicas)}
    made = serve.deployment(
        serve.ingress(build)(),
        name=name,
        max_ongoing_requests=capacity + SPARE,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=max_age + 30.0,  # until all streams have been moved
        ray_actor_options=dict(actor_options or {}),
        **scale,
    )
    return made.bind()
