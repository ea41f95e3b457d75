"""Damaged copies of a file. No tests are in this file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

FEWEST = 16  # bytes of a block


def _bit(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _head(content: bytes, draw: random.Random) -> bytes:
    return _bit(content[:64], draw) + content[64:]


def _byte(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + draw.randbytes(1) + content[at + 1 :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def _cut_front(content: bytes, draw: random.Random) -> bytes:
    return content[draw.randrange(1, len(content)) :]


def _added(content: bytes, draw: random.Random) -> bytes:
    return content + draw.choice((draw.randbytes(draw.randint(1, 99)), bytes(draw.randint(1, 99)), content))


def _inserted(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + draw.randbytes(draw.randint(1, 9)) + content[at:]


def _removed(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + content[at + draw.randint(1, 9) :]


def _swapped(content: bytes, draw: random.Random) -> bytes:
    size = draw.randint(FEWEST, max(FEWEST, len(content) // 4))
    a, b = sorted(draw.randrange(len(content)) for _ in range(2))
    b = max(b, a + size)
    return content[:a] + content[b : b + size] + content[a + size : b] + content[a : a + size] + content[b + size :]


def _overwritten(content: bytes, draw: random.Random) -> bytes:
    at, size = draw.randrange(len(content)), draw.randint(FEWEST, 512)
    block = draw.choice((bytes(size), draw.randbytes(size), b"\xff" * size))
    return content[:at] + block[: len(content) - at] + content[at + size :]


def _text(content: bytes, draw: random.Random) -> bytes:
    """A number or a letter in a text for another."""
    places = [at for at in range(min(len(content), 4096)) if content[at : at + 1].isalnum()]
    at = draw.choice(places)
    return content[:at] + draw.choice("0123456789abcdef").encode() + content[at + 1 :]


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    f.__name__.strip("_"): f
    for f in (_bit, _head, _byte, _cut, _cut_front, _added, _inserted, _removed, _swapped, _overwritten, _text)
}


def damaged(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many copies, all other than the content, with how they were damaged."""
    draw, ways = random.Random(seed), list(WAYS)
    while count:
        how = draw.choice(ways)
        found = WAYS[how](content, draw)
        if found != content:
            count -= 1
            yield how, found
