"""Where checkpoints of streams are kept: in memory, in a folder (SQLite), or in Redis for several machines."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..core.optional_packages import package

KEPT = 3  # checkpoints of a stream: the newest may be of outputs that the client has not received


class Checkpoint(NamedTuple):
    """The state of a stream after ``next`` frames; an empty blob: of a stream that starts."""

    token: str
    epoch: int
    next: int
    model: str
    blob: bytes


class Store(Protocol):
    """Checkpoints by tokens. A stream belongs to the engine that claimed it last.

    Attributes:
        waits: whether methods wait for a disk or a network. Then they run in a thread, one at a time.
    """

    waits: bool

    def create(self, tokens: Sequence[str], model: str) -> None:
        """Streams that start, with epoch 0."""

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        """Keep checkpoints of streams, beside the newest earlier ones. Returns the tokens that another engine has claimed."""

    def get(self, token: str) -> list[Checkpoint]:
        """The checkpoints of a stream, the newest first; empty if it is unknown."""

    def claim(self, token: str, next: int) -> int:
        """Take a stream over from a checkpoint: later ones, of frames that may be dropped now, are forgotten. Returns its new epoch."""

    def drop(self, tokens: Sequence[str]) -> None:
        """Forget streams."""

    def expire(self, seconds: float, open: Sequence[str]) -> int:
        """Forget streams that were written longer ago, except those that are open here. Returns the number of those that are left."""

    def close(self) -> None:
        """Release what it holds."""


class MemoryStore:
    """Checkpoints in this process: for clients that lose their connection, not for processes that end."""

    waits = False

    def __init__(self) -> None:
        self._streams: dict[str, tuple[int, float, list[Checkpoint]]] = {}

    def create(self, tokens: Sequence[str], model: str) -> None:
        for token in tokens:
            self._streams[token] = 0, time.time(), [Checkpoint(token, 0, 0, model, b"")]

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        lost = set()
        for c in checkpoints:
            epoch, _, kept = self._streams.get(c.token, (-1, 0.0, []))
            if epoch != c.epoch:
                lost.add(c.token)
                continue
            self._streams[c.token] = epoch, time.time(), [c, *(k for k in kept if k.next < c.next)][:KEPT]
        return lost

    def get(self, token: str) -> list[Checkpoint]:
        epoch, _, kept = self._streams.get(token, (0, 0.0, []))
        return [c._replace(epoch=epoch) for c in kept]

    def claim(self, token: str, next: int) -> int:
        epoch, _, kept = self._streams[token]
        self._streams[token] = epoch + 1, time.time(), [k for k in kept if k.next <= next]
        return epoch + 1

    def drop(self, tokens: Sequence[str]) -> None:
        for token in tokens:
            self._streams.pop(token, None)

    def expire(self, seconds: float, open: Sequence[str]) -> int:
        now = time.time()
        for token in set(open) & self._streams.keys():
            epoch, _, kept = self._streams[token]
            self._streams[token] = epoch, now, kept
        self.drop([token for token, (_, when, _) in self._streams.items() if when < now - seconds])
        return len(self._streams)

    def close(self) -> None:
        self._streams.clear()


class FolderStore:
    """Checkpoints in a folder: an SQLite database in WAL mode. Several processes may share it.

    Args:
        folder: it is made if it is missing.
    """

    waits = True

    def __init__(self, folder: str | Path):
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path / "streams.sqlite", timeout=30, check_same_thread=False, isolation_level=None)
        with self._lock:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS streams (token TEXT PRIMARY KEY, epoch INTEGER, time REAL)")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS checkpoints (token TEXT, next INTEGER, model TEXT, blob BLOB, PRIMARY KEY (token, next))"
            )

    def _all(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Several changes, all or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in calls:
                self._db.executemany(sql, rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def create(self, tokens: Sequence[str], model: str) -> None:
        now = time.time()
        with self._lock:
            self._all(
                [
                    ("INSERT INTO streams VALUES (?, 0, ?)", [(t, now) for t in tokens]),
                    ("INSERT INTO checkpoints VALUES (?, 0, ?, x'')", [(t, model) for t in tokens]),
                ]
            )

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        now = time.time()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                lost = {c.token for c in checkpoints if self._epoch(c.token) != c.epoch}
                own = [c for c in checkpoints if c.token not in lost]
                self._db.executemany(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)", [(c.token, c.next, c.model, c.blob) for c in own]
                )
                self._db.executemany(
                    "DELETE FROM checkpoints WHERE token = ? AND next NOT IN "
                    "(SELECT next FROM checkpoints WHERE token = ? AND next <= ? ORDER BY next DESC LIMIT ?)",
                    [(c.token, c.token, c.next, KEPT) for c in own],
                )
                self._db.executemany("UPDATE streams SET time = ? WHERE token = ?", [(now, c.token) for c in own])
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        return lost

    def _epoch(self, token: str) -> int:
        found = self._db.execute("SELECT epoch FROM streams WHERE token = ?", (token,)).fetchone()
        return -1 if found is None else int(found[0])

    def get(self, token: str) -> list[Checkpoint]:
        with self._lock:
            epoch = self._epoch(token)
            rows = self._db.execute("SELECT next, model, blob FROM checkpoints WHERE token = ? ORDER BY next DESC", (token,))
            return [Checkpoint(token, epoch, n, model, bytes(blob)) for n, model, blob in rows]

    def claim(self, token: str, next: int) -> int:
        with self._lock:
            self._all(
                [
                    ("UPDATE streams SET epoch = epoch + 1, time = ? WHERE token = ?", [(time.time(), token)]),
                    ("DELETE FROM checkpoints WHERE token = ? AND next > ?", [(token, next)]),
                ]
            )
            return self._epoch(token)

    def drop(self, tokens: Sequence[str]) -> None:
        with self._lock:
            self._all([(f"DELETE FROM {table} WHERE token = ?", [(t,) for t in tokens]) for table in ("streams", "checkpoints")])

    def expire(self, seconds: float, open: Sequence[str]) -> int:
        now = time.time()
        with self._lock:
            self._all([("UPDATE streams SET time = ? WHERE token = ?", [(now, token) for token in open])])
            old = self._db.execute("SELECT token FROM streams WHERE time < ?", (now - seconds,)).fetchall()
        self.drop([token for (token,) in old])
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM streams").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._db.close()


class RedisStore:
    """Checkpoints in Redis: an engine on another machine goes on.

    Args:
        url: ``redis://host:port/number``.
        keep: seconds after which Redis forgets a stream that is not written.
    """

    waits = True

    def __init__(self, url: str, keep: float):
        redis = package("redis", "serve", "continual serve --store redis://…")
        self._db, self._keep = redis.Redis.from_url(url), max(1, int(keep))
        self._db.ping()
        self._put, self._claim = self._db.register_script(PUT), self._db.register_script(CLAIM)

    def _key(self, token: str) -> str:
        return f"continual:{token}"

    def create(self, tokens: Sequence[str], model: str) -> None:
        with self._db.pipeline(transaction=True) as pipe:
            for token in tokens:
                pipe.hset(self._key(token), mapping={"epoch": 0, "model": model, "0": b""})
                pipe.expire(self._key(token), self._keep)
            pipe.execute()

    def put(self, checkpoints: Sequence[Checkpoint]) -> set[str]:
        lost = set()
        for c in checkpoints:
            if not self._put(keys=[self._key(c.token)], args=[c.epoch, c.next, c.blob, KEPT, self._keep]):
                lost.add(c.token)
        return lost

    def get(self, token: str) -> list[Checkpoint]:
        found = self._db.hgetall(self._key(token))
        if not found:
            return []
        epoch, model = int(found.pop(b"epoch")), found.pop(b"model").decode()
        return [Checkpoint(token, epoch, n, model, found[str(n).encode()]) for n in sorted(map(int, found), reverse=True)]

    def claim(self, token: str, next: int) -> int:
        return int(self._claim(keys=[self._key(token)], args=[next]))

    def drop(self, tokens: Sequence[str]) -> None:
        if tokens:
            self._db.delete(*map(self._key, tokens))

    def expire(self, seconds: float, open: Sequence[str]) -> int:
        for token in open:
            self._db.expire(self._key(token), self._keep)
        return sum(1 for _ in self._db.scan_iter("continual:*"))  # Redis forgets the others by itself

    def close(self) -> None:
        self._db.close()


PUT = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
local names, kept = redis.call('HKEYS', KEYS[1]), {}
for _, n in ipairs(names) do if tonumber(n) then table.insert(kept, tonumber(n)) end end
table.sort(kept, function(a, b) return a > b end)
local left = 0
for _, n in ipairs(kept) do
  if n > tonumber(ARGV[2]) or left >= tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], string.format('%.0f', n))
  else left = left + 1 end
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""

CLAIM = """
for _, n in ipairs(redis.call('HKEYS', KEYS[1])) do
  if tonumber(n) and tonumber(n) > tonumber(ARGV[1]) then redis.call('HDEL', KEYS[1], n) end
end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
"""


def store_of(where: str | Path | None, keep: float) -> Store:
    """The store of ``--store``: a folder, ``redis://…``, or the memory of this process."""
    if where is None:
        return MemoryStore()
    return RedisStore(str(where), keep) if str(where).startswith(("redis://", "rediss://", "unix://")) else FolderStore(where)
