"""Delivery of the outputs of a step, and of ends of streams, to their streams."""

from __future__ import annotations

import numpy as np

from .inbox import Taken
from .protocol import END, Array
from .streams import Group, OpenStream
from .table import Table


def deliver(table: Table, taken: Taken, y: list[Array], valid: Array) -> None:
    """Give the outputs ``(n, m, C', *S')`` that exist to their streams, except those that the client has."""
    rows, seq = taken.rows, taken.seq
    table.done[rows] = seq
    late = seq <= table.have[rows]
    if late.any():
        valid = valid & ~late[:, None]
    groups = table.group[rows]
    counts, moments = valid.sum(1).tolist(), valid.shape[1]
    for i, row in enumerate(rows.tolist()):
        stream = table.by_row.get(row)
        if stream is None or stream.group is not None:
            continue
        found = None
        if counts[i]:
            found = [t[i] for t in y] if counts[i] == moments else [t[i][valid[i]] for t in y]
        stream.took(int(seq[i]), found)
    if groups.any():
        for number in np.unique(groups[groups > 0]).tolist():
            if (group := table.groups.get(number)) is not None:
                _deliver_group(group, groups == number, rows, seq, y, valid)
                table.answer_markers(group)


def _deliver_group(group: Group, own: Array, rows: Array, seq: Array, y: list[Array], valid: Array) -> None:
    exists = valid & own[:, None]
    places, moments = np.nonzero(exists)
    group.sink.answers(rows[places], seq[places], [t[places, moments] for t in y], 0, int(own.sum()))


def deliver_end(table: Table, stream: OpenStream, outputs: list[Array], done: bool) -> None:
    """Give outputs of the end of a stream, which follow its last frame in number."""
    total = int(table.next[stream.row])
    count = len(outputs[0]) if outputs else 0
    first = total + (stream.ended or 0)
    skip = min(count, max(0, int(table.have[stream.row]) + 1 - first))
    stream.ended = (stream.ended or 0) + count
    if count > skip:
        rest = [x[skip:] for x in outputs]
        if stream.group is None:
            stream.sink.answer(stream, first + skip, rest, count - skip, END, 0)
        else:
            stream.group.sink.answers(np.full(count - skip, stream.row), first + skip + np.arange(count - skip), rest, END, 0)
    if done:
        table.remove(stream)
        stream.sink.control(stream, {"type": "ended"})
