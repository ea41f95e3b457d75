"""Step programs of converted modules: rows out of step are as if each ran alone."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import continual as co
import tests.convert
from tests.convert.networks import NETWORKS, Case
from tests.convert.rows import Row
from tests.convert.test_against_containers import Foreign, own_code
from tests.convert.test_rules_recurrent import PerJoint
from tests.long import by_turns, in_full
from tests.programs.refusals import BURST, GIVEN, MIRROR, POSITIONS, documented
from tests.programs.rows import check_rows
from tests.strategies import networks_and_clips

EXAMPLES = settings().max_examples // 4
BIG = ("r3d_18", "r2plus1d_18", "resnet18_per_frame", "letters")  # seconds for a clip


@cache
def twin(name: str) -> tuple[Any, Case]:
    """A converted network in double precision."""
    case = NETWORKS[name]().to(torch.float64)
    return case.convert(), case


@pytest.mark.parametrize("name", by_turns([n for n in NETWORKS if n not in (*BIG, "causal_transformer")], 2, of="program"))
def test_networks(name: str):
    net, case = twin(name)
    inputs = case.clips(case.frames + 3 * case.multiple, 3)
    program = check_rows(net, inputs, forward=not case._clip_level, fused=True)
    check_rows(net, inputs, 3 * program.chunk, seed=1, forward=False)


class Block(nn.Module):
    """A block of a residual network for video, and the mean of the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.norm = nn.BatchNorm3d(4)
        self.a, self.b = nn.Conv3d(4, 6, 3, 2, 1), nn.Conv3d(6, 6, 3, 1, 1)
        self.short = nn.Conv3d(4, 6, 1, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (self.b(self.a(x).relu()) + self.short(x)).relu()
        return self.head(x.mean((2, 3, 4)))


def test_video_with_an_output_for_the_clip():
    net = co.continual(Block().double().eval(), torch.randn(1, 3, 8, 9, 9, dtype=torch.float64))
    clip = torch.randn(2, 3, 27, 9, 9, dtype=torch.float64)
    program = check_rows(net, clip, forward=False)
    assert program.chunk == 2
    check_rows(net, clip, 4, seed=1, fused=True, forward=False)


def test_positions_are_refused():
    """All rows would have the same, and each is at another place."""
    net, case = twin("causal_transformer")
    with pytest.raises(co.NotStreamable, match=f"positions.*{POSITIONS}.*SinusoidalPositionalEncoding"):
        co.compile(net, case.inputs[0][:, 0], backend="eager")


class Attending(nn.Module):
    """A causal transformer layer without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.layer(x, src_mask=mask)


def test_causal_transformer():
    net = co.continual(Attending().double().eval(), torch.randn(1, 7, 6, dtype=torch.float64), time_dim=1)
    clip = torch.randn(3, 25, 6, dtype=torch.float64)
    for chunk, fused in ((1, False), (1, True), (4, True)):
        check_rows(net, clip, chunk, fused=fused, forward=False)


# ---- every rule -------------------------------------------------------------------------------------------------------------

FILES = sorted(i.name for i in pkgutil.iter_modules([*tests.convert.__path__]) if i.name.startswith("test_rules_"))
# A space of images is interpolated together with time as if that were space too, and 0 times NaN is NaN: in a chunk of several frames
# those that are not the stream's own have to be numbers.
SINGLE = {"bicubic"}
REFUSED: dict[str, dict[str, set[str]]] = {
    "test_rules_fixed_lengths": {
        POSITIONS: {"a table", "an embedding of positions"},
        BURST: {"zeros before", "a shift with zeros like the first frames"},
    },
    "test_rules_frame_index": {
        MIRROR: {
            "an earlier frame by index_select",
            "another shift for each channel",
            "the frame before",
            "windows, repeated at the ends",
        },
        BURST: {"an earlier frame by take_along_dim", "windows, mirrored at the start"},
    },
    "test_rules_recurrent": {POSITIONS: {"positions, a recurrent layer and a head"}},
    "test_rules_padding": {
        BURST: {
            "zeros before",
            "a value on both sides",
            "ConstantPad1d",
            "ZeroPad1d",
            "replicated",
            "mirrored",
            "padded twice",
            "channels and time",
            "time and space",
            "time and space, a value",
            "time and space, replicated",
            "time and space, mirrored",
            "ReplicationPad2d, time last",
            "ReflectionPad2d, time last",
            "ZeroPad2d, time last",
            "ConstantPad3d",
            "ReplicationPad3d",
            "time of (B, T, C)",
            "time of (T, B, C)",
            "sound",
            "sound, mirrored",
            "booleans",
            "padding by a size of space",
            "of frames of several values",
        },
    },
    "test_rules_positions": {
        POSITIONS: {
            "a buffer of sinusoids",
            "a buffer of sinusoids, time first",
            "learned, arange",
            "learned, expanded",
            "learned, ids",
            "learned, offset",
            "learned, rows",
            "learned, narrow",
            "a learned table of channels first",
            "a learned table, added in the middle",
        }
    },
    "test_rules_slices": {
        BURST: {
            "zeros before",
            "ones before",
            "torch.zeros before",
            "a constant before and behind",
            "a learned first token",
            "a learned first token by repeat",
            "zeros before (T, B, C)",
        }
    },
    "test_rules_writes": {BURST: {"into neighbouring frames", "into the middle of a clip"}},
}


in_turn = partial(in_full, share=8)


def rows(file: str) -> Iterator[Row]:
    """The rows of a file's tables: small modules of one operation each."""
    for table in vars(importlib.import_module(f"tests.convert.{file}")).values():
        if isinstance(table, list):
            for entry in table:
                found = getattr(entry, "values", (None,))[0]
                if isinstance(found, Row):
                    yield found


@pytest.mark.parametrize("file", FILES)
def test_rules(file: str):
    refused: dict[str, set[str]] = {}
    for i, row in enumerate(rows(file)):
        if not in_turn(row.name):
            continue
        torch.manual_seed(i)
        net = co.continual(row.module(), row.clip(), time_dim=row.time, time_pooling=row.pooling, windows="stream")
        try:
            program = check_rows(net, row.clip(row.other), fused=i % 2 == 0, seed=i, forward=False)
            if i % 3 == 0 and row.name not in SINGLE:
                check_rows(net, row.clip(row.other), 3 * program.chunk, seed=i, forward=False)
        except co.NotStreamable as error:
            reason = next(r for r in (BURST, MIRROR, POSITIONS) if r in str(error))
            refused.setdefault(reason, set()).add(row.name)
        except Exception as error:
            raise AssertionError(f"{row.name}: {error}") from error
    wanted = {reason: set(filter(in_turn, names)) for reason, names in REFUSED.get(file, {}).items()}
    assert refused == {reason: names for reason, names in wanted.items() if names}


# ---- random networks ----------------------------------------------------------------------------------------------------------


@given(case=networks_and_clips(depth=2), chunks=st.integers(1, 3), fused=st.booleans())
@settings(max_examples=EXAMPLES)
def test_random_networks(case: tuple[Any, Tensor], chunks: int, fused: bool):
    """Networks of containers, taken apart by their exported graphs."""
    net, clip = case
    assume(not own_code(net))
    note(f"{net}\nclip {tuple(clip.shape)}")
    try:
        made = co.continual(Foreign(net).eval(), clip, time_dim=2)
    except co.ContinualError:
        assume(False)
        raise
    try:
        program = check_rows(made, clip, forward=False, fused=fused)
        if chunks > 1:
            check_rows(made, clip, chunks * program.chunk, forward=False, fused=fused)
    except co.NotStreamable as error:
        if not documented(error):
            raise


# ---- found by the above -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merged", ["conv", "rnn", "queue"])
def test_joints_merged_with_the_batch(merged: str):
    """Found by the tables of rules: a row of the program has several of such a layer's, each with a state."""
    conv, rnn = nn.Conv1d(3, 3, 3, padding=1), nn.GRU(3, 3, batch_first=True)

    class Joints(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rnn = conv, rnn

        def forward(self, x: Tensor) -> Tensor:  # (B, C, T, V)
            b, c, t, v = x.shape
            y = x.permute(0, 3, 1, 2).reshape(b * v, c, t)
            if merged == "conv":
                y = self.conv(y)
            elif merged == "rnn":
                y = self.rnn(y.transpose(1, 2))[0].transpose(1, 2)
            else:
                y = self.conv(y).relu() * y
            return y.reshape(b, v, c, t).permute(0, 2, 3, 1)

    net = co.continual(Joints().double().eval(), torch.randn(2, 3, 9, 4, dtype=torch.float64))
    for chunk, fused in ((1, True), (3, False)):
        program = check_rows(net, torch.randn(2, 3, 19, 4, dtype=torch.float64), chunk, fused=fused)
        held = [tuple(t.shape[:2]) for name, t in program.init_state().items() if name not in ("clock", "end")]
        assert held == [(4, 4)] * len(held)
        assert held


class Edges(nn.Module):
    """Padding by a layer of its own, edges that are given, and windows."""

    def __init__(self, value: float):
        super().__init__()
        self.pad, self.conv = nn.ConstantPad1d((2, 0), value), nn.Conv1d(3, 3, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.conv(torch.einsum("bct,kcd->bdt", self.pad(x), edges).tanh())


def test_what_is_given_is_not_known_when_rows_are_made():
    """Padded frames went through edges of zeros: wrong outputs."""
    clip, edges = torch.randn(2, 3, 9, dtype=torch.float64), torch.randn(5, 3, 3, dtype=torch.float64)
    net = co.continual(Edges(0.5).double().eval(), (clip, edges), time_dim=(2, None))
    with pytest.raises(co.NotStreamable, match=GIVEN):
        co.compile(net, (clip[:, :, 0], edges), backend="eager")


def test_each_place_starts_with_its_own_state() -> None:
    """A row of the program is a row for each joint: all of them started with the state of the first."""
    torch.manual_seed(0)
    clip = torch.randn(2, 3, 7, 5)
    check_rows(co.continual(PerJoint(learned=True).eval(), clip), clip)
