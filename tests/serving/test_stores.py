"""Where checkpoints are kept: in memory, in a folder, in a real Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from continual.serving.blobs import packed, unpacked
from continual.serving.store import KEPT, Checkpoint, FolderStore, MemoryStore, RedisStore, Store
from tests.serving.servers import STEP, Proxy, clip, close_to, network, run, server, wanted
from tests.serving.test_resuming import free_port, streamed


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis, from the distribution's packages."""
    pytest.importorskip("redis", reason="needs redis, of the extra `serve`")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server, of the distribution's packages")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
            break
        except OSError:
            time.sleep(0.02)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(params=["memory", "folder", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "redis":
        made = RedisStore(request.getfixturevalue("redis"), 60)
    else:
        made = MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "states")
    yield made
    made.close()


def test_stores(store: Store):
    store.create(["a", "b"], "m")
    assert store.get("a") == [Checkpoint("a", 0, 0, "m", b"")]
    assert store.get("c") == []
    for n in range(1, 6):
        blob = os.urandom(2000)
        assert store.put([Checkpoint("a", 0, 10 * n, "m", blob), Checkpoint("b", 0, n, "m", b"b")]) == set()
        assert store.get("a")[0] == Checkpoint("a", 0, 10 * n, "m", blob)
    assert [c.next for c in store.get("a")] == [50, 40, 30]
    assert len(store.get("b")) == KEPT
    assert store.claim("a", 50) == 1
    assert store.put([Checkpoint("a", 0, 60, "m", b"late"), Checkpoint("b", 0, 9, "m", b"b")]) == {"a"}, "another has claimed it"
    assert [c.next for c in store.get("a")] == [50, 40, 30]
    assert store.claim("a", 40) == 2
    assert [c.next for c in store.get("a")] == [40, 30], "those of a future that was given up are gone"
    assert store.put([Checkpoint("a", 2, 45, "m", b"again")]) == set()
    assert [(c.next, c.epoch) for c in store.get("a")] == [(45, 2), (40, 2), (30, 2)]
    assert store.put([Checkpoint("nobody", 0, 1, "m", b"")]) == {"nobody"}
    store.drop(["a"])
    assert store.get("a") == []
    assert store.expire(60, ["b"]) == 1
    if not isinstance(store, RedisStore):
        time.sleep(0.02)
        assert store.expire(0.01, ["b"]) == 1
        time.sleep(0.02)
        assert store.expire(0.01, []) == 0


def test_a_folder_outlives_its_process(tmp_path: Path):
    one = FolderStore(tmp_path)
    one.create(["a"], "m")
    one.put([Checkpoint("a", 0, 7, "m", b"state")])
    two = FolderStore(tmp_path)
    assert two.get("a")[0].blob == b"state"
    assert two.claim("a", 7) == 1
    assert one.put([Checkpoint("a", 0, 8, "m", b"old")]) == {"a"}
    one.close()
    two.close()


def test_streams_go_on_by_redis(redis: str):
    async def main() -> Any:
        async with server(store=redis, credit=4, checkpoint_every=4) as one, server(store=redis) as two, Proxy(one.port) as proxy:

            async def change() -> None:
                proxy._port = two.port
                proxy.cut()

            return await streamed(proxy.url, clip(50), {25: change})

    found, resumed = run(main())
    assert resumed == 1
    close_to(np.stack([y for _, y in found]), wanted(network(), clip(50)))


def test_blobs_are_checked():
    streams = co.StreamBatch(network(), STEP, 4, backend="eager")
    rows = streams.rows([streams.open() for _ in range(3)])
    streams.step_rows(rows, torch.randn(3, 3, 9, dtype=torch.float64))
    snapshot = streams.snapshot_rows(rows)
    blobs = packed(snapshot)
    again = unpacked(blobs, streams.snapshot_rows(rows[:1]))
    assert torch.equal(again.steps, snapshot.steps)
    assert all(torch.equal(again.tensors[n], t) for n, t in snapshot.tensors.items())
    for bad in (blobs[0][:-1], blobs[0][:40] + b"x" + blobs[0][41:], b""):
        with pytest.raises(co.StateMismatch, match="is damaged, or of another network"):
            unpacked([blobs[1], bad], streams.snapshot_rows(rows[:1]))
