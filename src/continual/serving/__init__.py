"""Serving streams over a network: ``co.serve``."""

from __future__ import annotations

from .asgi import Asgi
from .client import ServedStream, ServeError, connect
from .engine import Engine
from .grpc_server import GrpcServer
from .protocol import Refused
from .ray_app import ray_app
from .server import Server
from .store import FolderStore, MemoryStore, RedisStore
from .sync_client import Stream

__all__ = [
    "Asgi",
    "Engine",
    "FolderStore",
    "GrpcServer",
    "MemoryStore",
    "RedisStore",
    "Refused",
    "ServeError",
    "ServedStream",
    "Server",
    "Stream",
    "connect",
    "ray_app",
]
