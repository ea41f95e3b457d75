"""Random modules of ordinary operations are converted and stream exactly, or are refused where they can't be streamed."""

from __future__ import annotations

import copy
import random
import re
import warnings
from typing import Any

import pytest
import torch
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export

import continual as co
from tests.contract import assert_equal, random_split
from tests.convert import joints
from tests.convert.confirm import faults, unstreamable
from tests.convert.drafts import BEYOND, Draft
from tests.convert.programs import Op, Program
from tests.convert.random_modules import RandomModule, inputs_like, random_modules
from tests.convert.streaming import as_windows, listed, stream
from tests.pasting import of_module

EXAMPLES = settings().max_examples
PARTS = 4  # one test each, so that workers share them


def check_stream(m: RandomModule, net: Any, seed: int) -> None:
    """The clip, some splits into chunks and steps, and clips of other lengths."""
    rng = random.Random(seed)
    inputs, frames = m.inputs, m.frames
    with torch.no_grad():
        want = as_windows(m.module(*inputs), m.out_times)
        assert_equal(as_windows(net(*inputs), m.out_times), want, "forward")
        for sizes in ([1] * frames + [0], [frames], random_split(frames, rng), random_split(frames, rng)):
            got, _ = stream(net, inputs, m.time_dims, m.out_times, sizes, lambda: rng.random() < 0.7)
            assert_equal(got, want, f"chunks {sizes}")
        for other in (frames + rng.randint(1, 7), 2 * frames, frames - 1) if m.any_length else ():
            clips = m.clips(other, rng.randint(1, 3))
            try:
                want = listed(m.module(*clips))
            except RuntimeError:
                continue  # lengths that the module refuses
            assert_equal(listed(net(*clips)), want, f"forward on {other} frames")
            sizes = random_split(other, rng)
            got, _ = stream(net, clips, m.time_dims, m.out_times, sizes, lambda: rng.random() < 0.7)
            assert_equal(got, want, f"{other} frames in chunks {sizes}")
    assert list(net.state_dict()) == list(m.module.state_dict())


def check_refusal(m: RandomModule, error: co.NotStreamable) -> None:
    """Each line that is named can't be streamed, and each in which this begins is named."""
    reasons = named_lines(str(error))
    bad = unstreamable(m)
    more = f"{error}\nlines that can't be streamed: {bad}"
    assert reasons, f"no line is named: {more}"
    for line, reason in reasons.items():
        spoilt = line in bad or any(i - m.module.inputs in bad for i in m.module.lines[line].inputs)
        spoilt |= "rolls the clip in time" in reason  # also where zeros, which are known, are what comes in at the other end
        assert spoilt or ("one length" in reason and fixed_length(m)), f"refused, and nothing is wrong with line {line}: {more}"
    assert not [i for i in faults(m, bad) if i not in reasons], f"a fault is not named: {more}"


def named_lines(message: str) -> dict[int, str]:
    """The lines that a refusal names, and what it says of them."""
    parts = re.split(r"\bops\.(\d+)\b", message)
    found: dict[int, str] = {}
    for line, text in zip(parts[1::2], parts[2::2]):
        found[int(line)] = found.get(int(line), "") + text
    return found


def fixed_length(m: RandomModule) -> bool:
    """Whether `torch.export` can't but take the length for a constant. Positions are then constants of one clip length, too."""
    shapes = tuple(None if d is None else {d: Dim.AUTO} for d in m.time_dims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of recurrent layers, whose weights it sets
        program = export(copy.deepcopy(m.module), tuple(x.clone() for x in m.inputs), dynamic_shapes=shapes)
    node = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs)
    length = node.meta["val"].shape[m.time_dims[0] or 0]
    return isinstance(length, int) or bool(length.node.expr.is_number)


def converted(m: RandomModule) -> Any:
    """The streaming network, or ``None`` if it is refused for a reason that holds. Windows have random tests of their own."""
    try:
        return co.continual(m.module, m.clip, windows="stream", **m.options)
    except co.NotStreamable as error:
        check_refusal(m, error)
        return None


@pytest.mark.parametrize("part", range(PARTS))
@given(data=st.data())
@settings(max_examples=EXAMPLES // PARTS)
def test_converted_or_refused(part: int, data: st.DataObject):
    m = data.draw(random_modules(most=3 + 2 * part))
    note(of_module(m, f"check_stream(m, net, seed={part})"))
    net = converted(m)
    event("refused" if net is None else "converted")
    if net is not None:
        check_stream(m, net, seed=part)


@given(m=random_modules(faults=0))
@settings(max_examples=EXAMPLES // 10)
def test_contract(m: RandomModule):
    note(of_module(m, "co.verify(net, m.clip, reference=m.module)"))
    net = converted(m)
    if net is not None and not net.unbounded_memory:  # a recurrent layer behind saturated values does not show its memory
        report = co.verify(net, m.clip, reference=m.module, splits=3, raise_on_fail=False)
        assert report.passed, str(report)


@pytest.mark.parametrize(
    "line, dims",
    [("F.max_pool1d(x, 2, 1)", "BCT"), ("F.adaptive_max_pool2d(x, (None, 2))", "BCTS"), ("self.rnn(x)[0]", "BTC")],
    ids=["max_pool1d", "adaptive_max_pool2d", "rnn"],
)
def test_positions_where_torch_fixes_the_length(line: str, dims: str):
    """Some operations make `torch.export` take the length for a constant. What depends on it is then no less a position."""
    d = draft(dims)
    parts = {"rnn": nn.GRU(3, 3, batch_first=True)} if "rnn" in line else {}
    y = d.add(line, dims, d.values[0], **parts)
    t = y.at("T")
    shape = [1] * len(dims)
    shape[t] = -1
    d.add(f"x * torch.cos(torch.arange(x.shape[{t}]).view({shape}))", dims, y)
    m = RandomModule(Program(d.ops, 1, [2]).eval(), (d.values[0].example,), (dims,) * 3, True)
    assert fixed_length(m)
    check_stream(m, co.continual(m.module, m.clip, **m.options), 0)


class Mixed(nn.Module):
    """A matrix that is as large as the example has rows, and perhaps a vector for each row."""

    def forward(self, x: Tensor, mix: Tensor, speaker: Tensor | None = None) -> Tensor:
        y = torch.einsum("btc,kc->btk", x, mix).softmax(2)
        return y if speaker is None else y * speaker.unsqueeze(1)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_matrix_as_large_as_the_batch_has_no_rows(rows: int):
    """Found by the random modules: its dimension of channels was taken for that of rows, and softmax over it was refused."""
    x, mix, speaker = torch.randn(rows, 9, 4), torch.randn(rows, 4), torch.randn(rows, rows)
    for inputs in ((x, mix), (x, mix, speaker)):
        module = Mixed().eval()
        net = co.continual(module, inputs, time_dim=(1, *(None,) * (len(inputs) - 1)))
        other = (torch.randn(5, 11, 4), mix, torch.randn(5, rows))[: len(inputs)]
        assert_equal(net(*other), module(*other), "a batch of another size")
        co.verify(net, other, reference=module)


class Strided(nn.Module):
    """Two windows behind a stride, of which one waits for the end of the clip."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.unfold(2, 2, 2)[..., 0]
        return torch.maximum(y.unfold(2, 2, 1).prod(-1), y[:, :, :-1])


def test_chunks_of_one_know_the_end_behind_a_stride():
    """Found by random modules: a layer that ran a chunk of one as a step told the next layer of an end that was its own input's."""
    clip = torch.randn(2, 3, 8)
    net = co.continual(Strided().eval(), clip)
    with torch.no_grad():
        found = [net.forward_step(clip[:, :, 0]), *(net.forward_steps(x) for x in clip[:, :, 1:].split(1, 2))]
    assert_equal(torch.cat([y for y in found if y is not None], 2), Strided()(clip), "steps and chunks of one")


# ---- the tests, tested --------------------------------------------------------------------------------------------------


@given(m=random_modules(faults=0, most=9))
@settings(max_examples=EXAMPLES)
def test_what_has_no_fault_is_not_said_to_have_one(m: RandomModule):
    assume("inplace=True" not in str(m))  # it would change the inputs that are compared
    assert not unstreamable(m)


def draft(dims: str) -> Draft:
    """A stream of 12 frames to add lines to; nothing is drawn at random."""
    shape = {"B": 2, "T": 12, "C": 3, "S": 2}
    x = torch.zeros([shape[letter] for letter in dims], dtype=torch.float64)
    d = Draft(lambda strategy: 0, [(dims, [inputs_like(dims, x, 12 + n, 2, 1) for n in BEYOND])])
    return d


def faulty(code: str, dims: str, **parts: nn.Module) -> RandomModule:
    """A line between two others that can be streamed."""
    d = draft(dims)
    first = d.add("torch.tanh(x) + 0.1 * x", dims, d.values[0])
    d.add("F.leaky_relu(x) + 1", dims, d.add(code, dims, first, **parts))
    return RandomModule(Program(d.ops, 1, [3]).eval(), (d.values[0].example,), (dims,) * 4, True)


FAULTS = [
    *((code.format(t=2, b=0, c=1), "BCT") for code in joints.ANYWHERE),
    *((code.format(t=1, b=0, c=2), "BTC") for code in joints.ANYWHERE),
    *((code.format(pad=(2, 1)), "BCT") for code in joints.BEFORE_TIME),
    *((code.format(pad=(0, 0, 2, 1)), "BCTS") for code in joints.BEFORE_TIME),
    *((code, "BTC") for code in joints.TOKENS if "self" not in code),
]


@pytest.mark.parametrize("code, dims", FAULTS)
def test_each_fault_is_refused(code: str, dims: str):
    m = faulty(code, dims)
    assert list(faults(m, unstreamable(m))) == [1]
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(m.module, m.clip, **m.options)
    check_refusal(m, caught.value)
    assert "ops.0" not in str(caught.value)
    assert "ops.2" not in str(caught.value)


@pytest.mark.parametrize("frames", [8, 12])
def test_the_largest_of_all_frames_is_seen_to_be_a_fault(frames: int):
    """Found by the random modules: where it is among the first, longer clips have the same."""
    lines = ["F.relu(x)", "x + self.table[:, :, : x.shape[2]]", "x * x.amax(2, keepdim=True)"]
    table = torch.sin(torch.arange(1024.0)).view(1, 512, 2).mT
    ops = [Op(code, [i], **({"table": table} if "table" in code else {})) for i, code in enumerate(lines)]
    x = inputs_like("BCT", torch.zeros(2, 2, frames), frames, 2, 1)
    m = RandomModule(Program(ops, 1, [3]).double().eval(), (x,), ("BCT",) * 4, True)
    assert list(faults(m, unstreamable(m))) == [2]


def test_a_wrong_twin_is_found():
    """Streams of other weights, of a delayed module and of one that forgets differ from the module."""
    x = inputs_like("BCT", torch.zeros(2, 3, 12), 12, 2, 1)
    lines = ["self.conv(x)", "torch.tanh(x)"]
    make = [lambda line: Op(line, [0], conv=nn.Conv1d(3, 3, 3, padding=1)), lambda line: Op(line, [1])]
    module = Program([one(line) for one, line in zip(make, lines)], 1, [2]).double().eval()
    m = RandomModule(module, (x,), ("BCT",) * 3, True)
    net = co.continual(module, x)
    check_stream(m, net, 0)
    other = Program([one(line) for one, line in zip(make, lines)], 1, [2]).double().eval()
    with pytest.raises(AssertionError, match="forward"):
        check_stream(m, co.continual(other, x), 0)
    net.forward_steps = lambda *chunk, pad_end=False: type(net).forward_steps(net, *chunk, pad_end=False)
    with pytest.raises(AssertionError, match="chunks"):
        check_stream(m, net, 0)


def test_programs_print_as_the_code_that_they_are():
    conv = Op("self.conv(x)", [0], conv=nn.Conv1d(3, 2, 3))
    cut = Op("x[:, :, 1:-1] * torch.exp(y)", [0, 1])
    assert repr(Program([conv, cut], 1, [2])).splitlines() == [
        "def forward(x0):",
        "x1 = self.conv(x0)    # conv: Conv1d(3, 2, kernel_size=(3,), stride=(1,))",
        "x2 = x0[:, :, 1:-1] * torch.exp(x1)",
        "return x2",
    ]
