"""Long recordings of a Ray dataset through a network: many at once, and each from block to block with its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from ..core.optional_packages import package
from ..errors import ShapeMismatch
from .protocol import Array


@dataclass(frozen=True)
class Columns:
    """Names of the columns: of the recording, of a frame's number in it, and of the frames of each input."""

    recording: str
    time: str
    frames: tuple[str, ...]


def ray_map(
    net: Any,
    dataset: Any,
    *,
    recording: str = "recording",
    time: str = "time",
    frames: str | Sequence[str] = "frames",
    workers: int = 2,
    chunk: int = 64,
    time_dim: int = 2,
    actor_options: dict[str, Any] | None = None,
) -> Any:
    """The outputs of long recordings, each equal to that of the network on the whole recording.

    A row of the dataset is a frame, and a recording may lie in many blocks, in any order. Its blocks take their turns: what the network
    remembers goes from one to the next, with the frames. Recordings in different blocks run at the same time. The dataset is computed
    first, and Ray keeps it, on disk if it is large.

    Args:
        net: a streaming network in eval mode.
        dataset: a dataset of Ray.
        recording, time: columns that name the recording of a frame, and number its frames one by one.
        frames: the column of the frames ``(C, *S)``; several inputs as a list of columns.
        workers: actors that compute.
        chunk: frames that are computed at once.
        time_dim: the dimension of time in the network's clips, which have the batch first.
        actor_options: ``options`` of Ray for the actors, such as ``{"num_gpus": 1}``.

    Returns:
        A dataset with a row for each output: its recording, its number ``index`` in the outputs of the recording, and ``y``
        ``(C', *S')``, or ``y0``, ``y1`` … of several outputs.

    Raises:
        ExportError: Ray is not installed.
        ValueError: frames of a recording are missing or occur twice; or its blocks overlap in time; or ``time_dim`` is 0.

    Example:
        ``co.ray_map(net, ray.data.read_parquet("recordings/"), workers=8).write_parquet("outputs/")``

    Source:
        Tasks that wait for each other's results: Ray's documentation, "Ray Core".
    """
    if time_dim < 1:
        raise ValueError("ray_map: the clips have the batch first: time_dim is from 1 up")
    ray, data = package("ray", "ray", "co.ray_map"), package("ray.data", "ray", "co.ray_map")
    columns = Columns(recording, time, (frames,) if isinstance(frames, str) else tuple(frames))
    kept = dataset.materialize()
    blocks = [block for bundle in kept.iter_internal_ref_bundles() for block in bundle.block_refs]
    look = ray.remote(looked)
    plans = chains(ray.get([look.remote(block, columns) for block in blocks]))
    made = ray.remote(Worker).options(max_restarts=-1, max_task_retries=-1, **(actor_options or {}))
    shared = ray.put(net)
    own = [made.remote(columns, chunk, time_dim) for _ in range(min(workers, len(plans)))]
    found = []
    for number, (names, places) in enumerate(plans):
        worker, states = own[number % len(own)], None
        for place in places:
            run = worker.run.options(num_returns=3)
            table, count, states = run.remote([shared], blocks[place], names, states, place == places[-1])
            found.append((table, count))
    counts = ray.get([count for _, count in found])
    return data.from_arrow_refs([table for (table, _), count in zip(found, counts, strict=True) if count])


# ---- which recordings are where -----------------------------------------------------------------------------------------

# Of a recording in a block: its name, its first and last frame, and how many; 0 if one occurs twice.
Part = tuple[Any, int, int, int]


def looked(block: Any, columns: Columns) -> list[Part]:
    """The parts of recordings in a block."""
    if not _accessor().for_block(block).num_rows():  # then it has no columns either
        return []
    names, times = _arrays(block, (columns.recording, columns.time))
    found = []
    for name, rows in rows_of(names).items():
        own = np.sort(times[rows])
        once = len(own) == len(np.unique(own))
        found.append((name, int(own[0]), int(own[-1]), len(own) if once else 0))
    return found


def chains(parts: Sequence[Sequence[Part]]) -> list[tuple[list[Any], list[int]]]:
    """Recordings that lie in the same blocks, and these blocks in the order of time.

    Args:
        parts: of each block.

    Raises:
        ValueError: frames of a recording are missing or occur twice, or its blocks overlap.
    """
    where: dict[Any, list[tuple[int, int, int, int]]] = {}
    for place, block in enumerate(parts):
        for name, first, last, count in block:
            where.setdefault(name, []).append((first, last, count, place))
    found: dict[tuple[int, ...], list[Any]] = {}
    for name, own in where.items():
        own.sort()
        after = own[0][0]
        for first, last, count, _ in own:
            if first != after or count != last + 1 - first:
                raise ValueError(
                    f"ray_map: recording {name!r}: frame {after} is next, and a block has {count or 'some twice'} from {first} to {last}. "
                    "Each frame occurs once, and no blocks of a recording overlap: dataset.sort([recording, time])"
                )
            after = last + 1
        found.setdefault(tuple(place for *_, place in own), []).append(name)
    return [(names, list(places)) for places, names in found.items()]


def rows_of(names: Array) -> dict[Any, Array]:
    """The rows of each recording."""
    found, which = np.unique(names, return_inverse=True)
    order = np.argsort(which, kind="stable")
    return dict(zip(found.tolist(), np.split(order, np.flatnonzero(np.diff(which[order])) + 1), strict=True))


def _accessor() -> Any:
    return package("ray.data.block", "ray", "co.ray_map").BlockAccessor


def _arrays(block: Any, names: Sequence[str]) -> list[Array]:
    found = _accessor().for_block(block).to_numpy(list(names))
    return [np.asarray(found[name]) for name in names]


# ---- the network --------------------------------------------------------------------------------------------------------

States = dict[Any, tuple[int, Any]]  # of each recording: its outputs so far, and the state of the network


class Worker:
    """An actor with the network, which it gets with its first call: an actor that starts again gets it again.

    Args:
        columns, chunk, time_dim: as of :func:`ray_map`.
    """

    def __init__(self, columns: Columns, chunk: int, time_dim: int):
        self._columns, self._chunk, self._time = columns, chunk, time_dim
        self._net: Any = None
        self._device = torch.device("cpu")

    def _begin(self, shared: Any) -> None:
        if self._net is None:
            self._net = package("ray", "ray", "co.ray_map").get(shared)
            self._device = next((t.device for t in self._net.parameters()), self._device)

    def run(
        self, net: Sequence[Any], block: Any, names: Sequence[Any], states: States | None, last: bool
    ) -> tuple[Any, int, States]:
        """The outputs of some recordings in a block, as a table; their number; and the states after it."""
        self._begin(net[0])  # in a list, so that Ray does not bring it with each call
        own, times, *frames = _arrays(block, (self._columns.recording, self._columns.time, *self._columns.frames))
        found: list[dict[str, Array]] = []
        later, where = States(), rows_of(own)
        for name in names:
            rows = where[name][np.argsort(times[where[name]])]
            index, state = (states or {}).get(name, (0, None))
            self._net.set_state(state)
            for at in range(0, len(rows), self._chunk):
                piece = rows[at : at + self._chunk]
                leaves = self._steps([x[piece] for x in frames], last and at + self._chunk >= len(rows), name)
                if leaves:
                    count = len(leaves[0])
                    outs = {"y" if len(leaves) == 1 else f"y{i}": y for i, y in enumerate(leaves)}
                    numbers = np.arange(index, index + count)
                    found.append({self._columns.recording: np.full(count, name), "index": numbers, **outs})
                    index += count
            later[name] = index, None if last else self._net.get_state()
        self._net.clean_state()
        return _table(found), sum(len(f["index"]) for f in found), later

    def _steps(self, frames: list[Array], end: bool, name: Any) -> list[Array]:
        """The outputs ``(m, C', *S')`` of frames ``(n, C, *S)``; an empty list for none."""
        chunk = [torch.from_numpy(np.ascontiguousarray(x)).movedim(0, self._time - 1).unsqueeze(0) for x in frames]
        chunk = [x.to(self._device) for x in chunk]
        try:
            with torch.no_grad():
                y = self._net.forward_steps(chunk[0] if len(chunk) == 1 else chunk, pad_end=end)
        except ShapeMismatch as error:
            raise ShapeMismatch(f"ray_map: recording {name!r}: {error}") from error
        if y is None:
            return []
        leaves = [t.movedim(self._time, 1)[0].cpu().numpy() for t in tree_leaves(y)]
        return leaves if len(leaves[0]) else []


def _table(found: list[dict[str, Array]]) -> Any:
    joined = {name: np.concatenate([f[name] for f in found]) for name in found[0]} if found else {}
    return _accessor().batch_to_arrow_block(joined)
