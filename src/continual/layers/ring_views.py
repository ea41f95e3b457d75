"""Views of a ring of frames, made once: views cost as much as small operations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..core.ring_buffer import ring_frames

CHUNKS = 64  # places of a ring at which chunks lie, of which views are kept
STEPS = 256  # slots of a ring, up to which views of each are kept: views cost memory of their own


class RingViews:
    """The slot that a frame overwrites, the older taps of the window that it completes, and the same for chunks.

    Args:
        ring: ``(B, L, C, *S)``.
        taps: of a window.
        dilation: frames from tap to tap.
        arrange: what the layer makes of views of the older taps, ``(B, n, C, *S)`` each, in order.
    """

    __slots__ = ("_arrange", "_chunks", "_dilation", "_keep", "_parts", "_ring", "_slots", "_taps")

    def __init__(self, ring: Tensor, taps: int, dilation: int, arrange: Callable[[list[Tensor]], tuple[Tensor, ...]]):
        self._ring, self._taps, self._dilation, self._arrange = ring, taps, dilation, arrange
        size = ring.shape[1]
        self._slots: list[Tensor | None] = [None] * size
        self._parts: list[tuple[Tensor, ...] | None] = [None] * size
        self._keep = size <= STEPS
        self._chunks: dict[tuple[int, int, int, int], tuple[list[Tensor], list[Tensor], int]] = {}

    def slot(self, position: int) -> Tensor:
        """The place of one frame."""
        view = self._slots[position]
        if view is None:
            view = self._ring.select(1, position)
            if self._keep:
                self._slots[position] = view
        return view

    def parts(self, position: int) -> tuple[Tensor, ...]:
        """The older taps of the window that the frame at a place completes."""
        views = self._parts[position]
        if views is None:
            views = self._arrange(self._older_taps(position))
            if self._keep:
                self._parts[position] = views
        return views

    def chunk(self, first: int, count: int, n_in: int, older: int) -> tuple[list[Tensor], list[Tensor], int]:
        """For a chunk: the places that it overwrites, in order, the older frames that its windows see, and how many frames fit before
        the ring begins again.

        Args:
            first, count: the frames that are written.
            n_in: how many frames came before the chunk.
            older: how many of these its windows see.
        """
        size = self._ring.shape[1]
        key = first % size, count, n_in % size, older
        found = self._chunks.get(key)
        if found is None:
            if len(self._chunks) >= CHUNKS:
                self._chunks.clear()
            fit = min(count, size - key[0])
            slots = [self._ring.narrow(1, key[0], fit)] + ([self._ring.narrow(1, 0, count - fit)] if fit < count else [])
            found = self._chunks[key] = slots, ring_frames(self._ring, n_in - older, n_in), fit
        return found

    def _older_taps(self, position: int) -> list[Tensor]:
        ring, size = self._ring, self._ring.shape[1]
        older, step = self._taps - 1, self._dilation
        oldest = (position - older * step) % size
        count = min(older, -(-(size - oldest) // step))
        pieces = [ring[:, oldest : oldest + step * (count - 1) + 1 : step]] if count else []
        left = older - count
        if left:
            wrapped = oldest + count * step - size
            pieces.append(ring[:, wrapped : wrapped + step * (left - 1) + 1 : step])
        return pieces
