"""`continual inspect` for state files: a table or JSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import continual as co

from ..core.file_digest import Seal, seal_of
from ..core.state import State
from ..core.weights_digest import SHORT

KINDS = {"State": "a network's stream", "StreamSnapshot": "a stream of a StreamBatch", "RunnerState": "an exported file's stream"}


def is_state(path: Path) -> bool:
    """Whether a file looks like safetensors, the format of `save_state`: the length of its header, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def data_of(path: Path) -> dict[str, Any]:
    """The content of a state file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for the table
        found: Any = co.load_state(path, "cpu")
    clocked = isinstance(found, co.StreamState)
    state = found.network if clocked else found
    tensors = [(name, str(t.dtype).removeprefix("torch."), list(t.shape), t.nbytes) for name, t in state.tensors.items()]
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "kind": KINDS[type(state).__name__] + " and its clock" * clocked,
        "steps": state.clock,
        "waiting": 0 if isinstance(state, State) else sum(t.nbytes for t in state.pending),
        "tensors": [{"name": n, "dtype": dtype, "shape": shape, "bytes": size} for n, dtype, shape, size in tensors],
        "state_bytes": sum(size for *_, size in tensors),
        "signature": state.signature,
        "weights": state.weights or None,
        **digest_of(seal_of(path)),
    }


def lines_of(data: dict[str, Any], shown: int) -> Iterator[tuple[str, str]]:
    """The rows of a table."""
    yield "format", f"state of {data['kind']} (safetensors)"
    yield "size", f"{data['bytes']:,} bytes"
    yield "steps so far", f"{data['steps']:,}"
    tensors = data["tensors"]
    listed = [f"{t['name']} {t['dtype']} ({', '.join(map(str, t['shape']))}): {t['bytes']:,} bytes" for t in tensors[:shown]]
    more = [f"… and {len(tensors) - shown} more (--json lists all)"] if len(tensors) > shown else []
    yield "states", "\n".join([f"{len(tensors)} tensors, {data['state_bytes']:,} bytes", *listed, *more])
    if data["waiting"]:
        yield "waiting", f"{data['waiting']:,} bytes of steps"
    yield "signature", short(data["signature"])
    yield from digests(data)


def digest_of(found: Seal | None) -> dict[str, Any]:
    """The digest in a file, and whether it still matches the content, for JSON."""
    return {"digest": None, "changed": None} if found is None else {"digest": min(found.written), "changed": not found.intact}


def digests(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of the two digests of a file."""
    yield "weights", "not known" if data["weights"] is None else short(data["weights"])
    changed = ", but the file was changed since" if data["changed"] else ""
    yield "digest", "none (a file of version 1)" if data["digest"] is None else short(data["digest"]) + changed


def short(digest: str) -> str:
    """The first digits of a digest."""
    return f"{digest[:SHORT]}…" if digest else "none"
