"""Tables of small modules: one row for an operation and its options, and what is checked of every row. No tests are in this file."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert import remedies
from tests.long import LONG, in_full, whose_turn

F64 = torch.float64


class Fn(nn.Module):
    """A function as a module, with parameters (and buffers) of its own: ``body(x)``, or ``body(self, x)`` if there are some."""

    def __init__(self, body: Callable[..., Any], buffers: dict[str, Tensor] | None = None, **shapes: Sequence[int]):
        super().__init__()
        self.body, self.own = body, bool(shapes or buffers)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(tuple(shape))))
        for name, value in (buffers or {}).items():
            self.register_buffer(name, value)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs) if self.own else self.body(*inputs)


@dataclass(frozen=True)
class Row:
    """A small module, and what is known of it.

    Attributes:
        name: of the row.
        build: makes the module.
        shape: of the example, which has two rows.
        time: the dimension of time.
        delay: of the stream; ``None`` where it is not worth saying.
        field: its receptive field.
        windows: the module gives something for the whole clip: the twin gives it for every window of that length.
        other: how many frames more the longer clips have; 0 for a function of the example's length.
        classes: inputs are whole numbers below this.
        verify: run the whole contract.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 13)
    time: int = 2
    delay: int | None = None
    field: int | None = None
    windows: bool = False
    other: int = 5
    classes: int = 0
    verify: bool = True
    pooling: str | None = None

    def module(self) -> nn.Module:
        """The module in eval mode and double precision, with parameters that are all different."""
        made = self.build().eval().to(F64)
        with torch.no_grad():
            for p in made.parameters():
                p.add_(0.1 * torch.randn_like(p))
            for name, b in made.named_buffers():
                if name.rpartition(".")[2] in ("running_mean", "running_var"):
                    b.add_(torch.rand_like(b))
        return made

    def clip(self, more: int = 0) -> Tensor:
        """A clip, some frames longer than the example."""
        shape = [s + more if i == self.time else s for i, s in enumerate(self.shape)]
        return torch.randint(0, self.classes, shape) if self.classes else torch.randn(shape, dtype=F64)


def row(name: str, build: Any, **known: Any) -> Any:
    """A row as a parameter of a test. ``build`` is a module's maker, or a function ``x ↦ y`` with no parameters."""
    return pytest.param(Row(name, build, **known), id=name)


def fn(name: str, body: Callable[..., Any], *, params: dict[str, Sequence[int]] | None = None,
       buffers: Callable[[], dict[str, Tensor]] | None = None, **known: Any) -> Any:  # fmt: skip
    """A row of a function."""
    return row(name, lambda: Fn(body, buffers() if buffers else None, **(params or {})), **known)


def in_turns(rows: Sequence[Any], share: int) -> list[Any]:
    """Rows of a table of which one in ``share`` runs, whose turn it is."""
    now = whose_turn([r.id for r in rows], share)
    return [r if r.id in now else pytest.param(*r.values, marks=[*r.marks, LONG], id=r.id) for r in rows]


def streamed(net: Any, clip: Tensor, sizes: Sequence[int], time: int) -> Tensor | None:
    """All outputs of a clip that comes in chunks, 0 for a single step, the last with ``pad_end=True``; joined along time."""
    net.clean_state()
    found, start, at = [], 0, net.output_time_dims[0]
    for i, size in enumerate(sizes):
        last = i == len(sizes) - 1
        if size == 0 and not last:
            y = net.forward_step(clip.select(time, start))
            if y is not None:  # several at once are stacked already
                y = y.unsqueeze(at) if y.ndim == _rank(net) - 1 else y
        else:
            size = size or 1
            y = net.forward_steps(clip.narrow(time, start, size), pad_end=last)
        start += size or 1
        if y is not None:
            found.append(y)
    return torch.cat(found, at) if found else None


def _rank(net: Any) -> int:
    return net._output_rank


def splits(frames: int, seed: int) -> list[list[int]]:
    """Steps, one chunk, and two random splits, in which 0 stands for a step."""
    rng = random.Random(seed)
    found = [[0] * frames, [frames]]
    for _ in range(2):
        left, sizes = frames, list[int]()
        while left:
            size = rng.randint(1, min(5, left))
            sizes.append(0 if size == 1 and rng.random() < 0.5 else size)
            left -= size
        found.append(sizes)
    return found


def check_row(r: Row) -> None:
    """Everything that is checked of a row."""
    module, clip = r.module(), r.clip()
    net = co.continual(module, clip, time_dim=r.time, time_pooling=r.pooling, windows="stream")
    with torch.no_grad():
        want = module(clip) if r.pooling is None else net(clip)
        got = net(clip)
        assert_equal(got, want, "forward on the example")
        assert not bool(want.isnan().any()), "the row's module gives NaN"
        assert r.windows or want.numel() < 2 or want.unique().numel() > 1, "the row's module gives a constant"
        for more in {0, r.other}:
            x = clip if not more else r.clip(more)
            _streams_as(net, x, _wanted(r, module, net, x), r.time)
    if r.delay is not None:
        assert net.delay == r.delay
    if r.field is not None:
        assert net.receptive_field == r.field
    if r.verify and in_full(r.name, 6):
        co.verify(net, clip, reference=module if r.pooling is None else None)


def _wanted(r: Row, module: nn.Module, net: Any, x: Tensor) -> Tensor:
    """What a stream of the clip has to give: what the module gives, for each window where it gives something for the clip."""
    if r.pooling is not None:
        return net(x)
    if not r.windows:
        want = module(x)
        assert_equal(net(x), want, f"forward on {x.shape[r.time]} frames")
        return want
    size = r.shape[r.time]
    found = [module(x.narrow(r.time, i, size)) for i in range(x.shape[r.time] - size + 1)]
    want = torch.stack(found, net.output_time_dims[0])
    assert_equal(net(x), want if len(found) > 1 else found[0], f"forward on {x.shape[r.time]} frames")
    return want


def _streams_as(net: Any, x: Tensor, want: Tensor, time: int) -> None:
    for sizes in splits(x.shape[time], x.shape[time]):
        y = streamed(net, x, sizes, time)
        if y is None:
            assert want.numel() == 0, f"a stream in chunks {sizes} gives nothing"
        else:
            assert_equal(y, want, f"a stream in chunks {sizes} of {x.shape[time]} frames")


@dataclass(frozen=True)
class No:
    """A module that can't be streamed: why, and what the user is told to do, as regular expressions."""

    name: str
    build: Callable[[], nn.Module]
    reason: str
    remedy: str
    shape: tuple[int, ...] = (2, 3, 13)
    time: int = 2
    classes: int = 0
    op: str = ""


def no(name: str, build: Any, reason: str, remedy: str, **known: Any) -> Any:
    """A refused row."""
    made = build if isinstance(build, type) or not _takes(build) else (lambda: Fn(build))
    return pytest.param(No(name, made, reason, remedy, **known), id=name)


def _takes(build: Any) -> bool:
    """Whether it is a function of a clip rather than the maker of a module."""
    return bool(build.__code__.co_argcount)


def check_refused(r: No) -> None:
    """It is refused, for this reason and with this remedy."""
    module = r.build().eval().to(F64)
    clip = torch.randint(0, r.classes, r.shape) if r.classes else torch.randn(r.shape, dtype=F64)
    module(clip)  # the module itself can take it
    with pytest.raises(co.NotStreamable) as error:
        co.continual(module, clip, time_dim=r.time, windows="stream")
    refusals: Any = error.value.refusals
    found = [x for x in refusals if re.search(r.reason, x.reason)]
    assert found, f"other reasons: {[x.reason for x in refusals] or str(error.value)}"
    assert re.search(r.remedy, found[0].remedy), f"another remedy: {found[0].remedy}"
    assert found[0].source or found[0].op == "output", "no line of code"
    assert not r.op or found[0].op == r.op, f"another operation: {found[0].op}"
    remedies.check(
        error.value, lambda **options: co.continual(module, clip, **{"time_dim": r.time, "windows": "stream"} | options)
    )
