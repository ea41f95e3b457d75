"""Snapshots of rows as bytes, one piece for each stream."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import StateMismatch
from ..programs.snapshot import RowsSnapshot


def _tensors(snapshot: RowsSnapshot) -> list[Tensor]:
    return [snapshot.steps, *(snapshot.tensors[name] for name in sorted(snapshot.tensors)), *snapshot.chunks]


def packed(snapshot: RowsSnapshot) -> list[bytes]:
    """The bytes of each row, with a checksum."""
    rows = len(snapshot)
    parts = [t.contiguous().reshape(rows, -1).view(torch.uint8).cpu() for t in _tensors(snapshot) if t.numel()]
    joined = torch.cat(parts, 1).numpy()
    found = [row.tobytes() for row in joined]
    return [zlib.crc32(row).to_bytes(4, "little") + row for row in found]


def unpacked(blobs: Sequence[bytes], like: RowsSnapshot) -> RowsSnapshot:
    """A snapshot of as many rows as blobs.

    Args:
        blobs: from :func:`packed`.
        like: a snapshot of the batch that is to go on, of any number of rows.

    Raises:
        StateMismatch: a blob is damaged, or of another network.
    """
    specs = _tensors(like)
    sizes = [t.element_size() * (t[:1].numel() if len(t) else t.new_empty(1, *t.shape[1:]).numel()) for t in specs]
    for blob in blobs:
        if len(blob) != 4 + sum(sizes) or zlib.crc32(blob[4:]) != int.from_bytes(blob[:4], "little"):
            raise StateMismatch(
                f"a checkpoint of {len(blob)} bytes is damaged, or of another network (which has {4 + sum(sizes)})"
            )
    rows = torch.frombuffer(bytearray(b"".join(blob[4:] for blob in blobs)), dtype=torch.uint8).reshape(len(blobs), -1)
    found = []
    for t, part in zip(specs, rows.split(sizes, 1), strict=True):
        # Elements of 8 bytes may begin anywhere in the row, and a row is contiguous where it lies: so copy it.
        own = part.clone(memory_format=torch.contiguous_format)
        found.append(own.view(t.dtype).reshape(len(blobs), *t.shape[1:]).to(t.device))
    names = sorted(like.tensors)
    tensors = dict(zip(names, found[1 : 1 + len(names)], strict=True))
    return replace(like, steps=found[0], tensors=tensors, chunks=tuple(found[1 + len(names) :]))
