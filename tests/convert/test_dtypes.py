"""Converted modules in other dtypes than their example's: what the module itself does there is what its twin does."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.rows import Fn

MOVES: dict[torch.dtype, Callable[[nn.Module], nn.Module]] = {
    torch.float16: nn.Module.half, torch.bfloat16: nn.Module.bfloat16, torch.float64: nn.Module.double,
}  # fmt: skip
SINGLE = 1e-6  # where a module computes in float32, whatever comes
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2, torch.float64: 1e-12}
CLIP = torch.randn(2, 3, 13, generator=torch.Generator().manual_seed(1))
WEIGHTS = {"w": (3, 1), "v": (3, 1)}

KINDS: dict[str, Callable[..., Tensor]] = {
    "constants": lambda m, x: (
        x * m.w
        + torch.ones(3, 1, dtype=x.dtype)
        + torch.zeros(3, 1, dtype=x.dtype)
        - torch.full((3, 1), 0.3, dtype=x.dtype)
        + torch.linspace(0.1, 1, 3, dtype=x.dtype)[:, None]
        + torch.arange(0.0, 3.0, dtype=x.dtype)[:, None]
        + x.new_ones(3, 1)
        + x.new_tensor([0.1, 0.2, 0.3])[:, None]
        + torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)[:, None]
    ),
    "one constant": lambda m, x: x * m.w + torch.ones(3, 1, dtype=x.dtype),
    "positions by arange": lambda m, x: x * m.w + torch.cos(0.3 * torch.arange(x.shape[2], dtype=x.dtype)),
    "an arange of the default dtype": lambda m, x: x * m.w + torch.arange(0.0, 3.0)[:, None],
    "new_zeros": lambda m, x: torch.cat((x * m.w, x.new_zeros(x.shape[0], 2, x.shape[2])), 1),
    "a tensor of the default dtype": lambda m, x: x * m.w + torch.tensor([0.1, 0.2, 0.3])[:, None],
    "a number as a tensor": lambda m, x: x * m.w * torch.tensor(0.1),
    "to x's dtype": lambda m, x: ((x * m.w).float() ** 2).to(x.dtype),
    "to a weight's dtype": lambda m, x: (x.float() ** 2).to(m.w.dtype) * m.w,
    "type_as": lambda m, x: (x.float() ** 2).type_as(m.w) * m.w,
    "float()": lambda m, x: (x * m.w).float(),
    "half()": lambda m, x: (x * m.w).half(),
    "masked by finfo.min": lambda m, x: (x * m.w).masked_fill(x < 0, torch.finfo(x.dtype).min),
    "eps by finfo": lambda m, x: x * m.w / (x.abs().amax(1, keepdim=True) + 1e3 * torch.finfo(x.dtype).eps),
    "padding by finfo.min": lambda m, x: F.max_pool1d(F.pad(x * m.w, (2, 0), value=torch.finfo(x.dtype).min), 3, 1),
    "zeros_like of a dtype": lambda m, x: x * m.w + torch.ones_like(x) + torch.zeros_like(x, dtype=torch.float32),
    "state in float32": lambda m, x: ((x * m.w).float() - F.pad((x * m.w).float(), (2, 0))[:, :, :-2]).to(x.dtype),
    "clamped in half": lambda m, x: (x * m.w).clamp(-0.5, 0.5) if x.dtype == torch.float16 else x * m.w,
    "a softmax and a sum of a dtype": lambda m, x: (
        F.softmax(x * m.w, 1, dtype=torch.float64).to(x.dtype) + (x * m.w).sum(1, keepdim=True, dtype=torch.float64)
    ),
    "another tensor in half": lambda m, x: (lambda a, b: x + (a if x.dtype == torch.float16 else b))(x * m.w, x * m.v),
    "a comparison": lambda m, x: (x > 0).to(m.w.dtype) * m.w + (x > 1),
    "where": lambda m, x: torch.where(x > 0, x * m.w, torch.zeros((), dtype=x.dtype)) + torch.where(x > 0, x, 0.1),
    "a shift by zeros": lambda m, x: x * m.w - torch.cat((torch.zeros(x.shape[0], 3, 1, dtype=x.dtype), x[:, :, :-1]), 2),
    "layer norm in float64": lambda m, x: F.layer_norm((x * m.w).mT.double(), (3,)).to(x.dtype).mT,
}


class RMSNorm(nn.Module):
    """As Llama's, written by hand."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(dtype)


class Block(nn.Module):
    """Causal attention with a mask by finfo between RMS norms, positions of x's dtype and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.bn = nn.Conv1d(3, 6, 3, padding=1), RMSNorm(6), nn.BatchNorm1d(6)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 4)
        self.bn.running_mean.normal_()
        self.bn.running_var.uniform_(0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x)).mT
        angles = torch.outer(torch.arange(y.shape[1], dtype=y.dtype), torch.tensor([0.3, 0.1, 0.7, 0.2, 0.9, 0.4], dtype=y.dtype))
        q, k, v = self.qkv(self.norm(y + angles.cos())).chunk(3, -1)
        mask = torch.full((y.shape[1], y.shape[1]), torch.finfo(y.dtype).min, dtype=y.dtype).triu(1)
        scores = q @ k.mT / math.sqrt(6) + mask
        y = y + F.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v
        return self.out(self.norm(y)).mT


class Encoder(nn.Module):
    """Torch makes a mask of the queries' dtype of one of truth values."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool).triu(1)
        return self.layer(self.project(x.mT), src_mask=mask).mT


class Recurrent(nn.Module):
    """Torch makes the first hidden state of the input's dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x.mT)[0].mT


class Fixed(nn.Module):
    """It runs in float32 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.float())


class Other(nn.Module):
    """In half precision it is another network, with more state."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y - F.pad(y, (1, 0))[:, :, :-1] if x.dtype == torch.float16 else y


IN_SINGLE = ("state in float32", "block")
MODULES = {"block": Block, "encoder": Encoder, "recurrent": Recurrent}


def module_of(name: str) -> nn.Module:
    return MODULES[name]().eval() if name in MODULES else Fn(KINDS[name], **WEIGHTS).eval()


def streamed(net: Any, x: Tensor) -> Tensor:
    """A stream from a cold start: a chunk, steps, and the rest."""
    net.clean_state()
    found = [net.forward_steps(x[:, :, :4])]
    for t in range(4, 7):
        y = net.forward_step(x[:, :, t])
        found.append(None if y is None else y.unsqueeze(2))
    found.append(net.forward_steps(x[:, :, 7:], pad_end=True))
    return torch.cat([y for y in found if y is not None], 2)


def assert_same(got: Tensor, want: Tensor, tolerance: float, what: str) -> None:
    """Of one dtype, infinite at the same places, and close."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype} instead of {want.dtype}"
    assert torch.equal(got.isinf(), want.isinf()), what
    small = want.abs() < 1e4
    assert torch.equal(got.abs() < 1e4, small), what
    a, b = got[small].double(), want[small].double()
    off = float((a - b).abs().max())
    assert off <= tolerance * max(1.0, float(b.abs().max())), f"{what}: off by {off}"


@pytest.mark.parametrize("name", [*KINDS, *MODULES])
@torch.no_grad()
def test_the_twin_does_in_each_dtype_what_the_module_does(name: str):
    module = module_of(name)
    net = co.continual(module, CLIP)
    net.forward_steps(CLIP[:, :, :5])
    for dtype, move in MOVES.items():
        x, there = CLIP.to(dtype), move(copy.deepcopy(module))
        want = there(x)
        twin = move(copy.deepcopy(net))
        assert {p.dtype for p in twin.parameters()} == {p.dtype for p in there.parameters()}
        rest = twin.forward_steps(x[:, :, 5:], pad_end=True)  # the stream goes on; what came before it came in float32
        last = want[:, :, -rest.shape[2] :]
        assert_same(rest, last, 2e-2, f"{name}, in mid-stream, {dtype}") if name != "padding by finfo.min" else None
        tolerance = max(TOLERANCE[dtype], SINGLE if name in IN_SINGLE or want.dtype == torch.float32 else 0.0)
        assert_same(twin(x), want, tolerance, f"{name}, forward, {dtype}")
        assert_same(streamed(twin, x), want, tolerance, f"{name}, steps, {dtype}")
    assert_same(streamed(net, CLIP), module(CLIP), SINGLE, f"{name}, as converted")


@torch.no_grad()
def test_state_that_the_module_keeps_in_float32_stays_so():
    net = co.continual(module_of("state in float32"), CLIP)
    net.forward_steps(CLIP[:, :, :5])
    before = net.get_state()
    inner = co.Sequential(net, co.Delay(2))
    inner.forward_steps(CLIP[:, :, :5])
    inner.half()
    dtypes = {name: t.dtype for name, t in inner.get_state().tensors.items()}
    assert dtypes.pop("1.frames") == torch.float16
    assert set(dtypes.values()) == {torch.float32}
    for name, t in net.get_state().tensors.items():
        assert torch.equal(t, before.tensors[name]), "float32 numbers that went through float16"


@torch.no_grad()
def test_one_conversion_for_all_copies_and_none_where_nothing_depends_on_dtypes():
    net = co.continual(Block().eval(), CLIP)
    for _ in range(2):
        copy.deepcopy(net).half()
        copy.deepcopy(net).half().double().float()
    assert len(net._dtypes.origin.programs) == 3
    plain = co.continual(
        nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3, padding=2)).eval(), CLIP
    )
    plain.half().double().to(torch.bfloat16)
    assert len(plain._dtypes.origin.programs) == 1
    assert plain.forward_steps(CLIP.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_the_module_is_moved_instead_of_its_twin():
    module = Block().eval()
    net = co.continual(module, CLIP)
    for dtype, move in MOVES.items():
        move(module)
        x = CLIP.to(dtype)
        assert_same(streamed(net, x), module(x), max(TOLERANCE[dtype], SINGLE), str(dtype))
        assert_same(net(x), module(x), max(TOLERANCE[dtype], SINGLE), str(dtype))


@torch.no_grad()
def test_a_module_without_weights_has_streams_of_several_dtypes():
    net = co.continual(Fn(lambda x: (x.double() - F.pad(x, (2, 0))[:, :, :-2]).to(x.dtype)).eval(), CLIP)
    states, found = (
        {d: net.init_state(CLIP[:, :, 0].to(d)) for d in (torch.float64, torch.float32, torch.float16)},
        dict[Any, Any](),
    )
    for t in range(7):
        for dtype in states:
            y, states[dtype] = net.step(CLIP[:, :, t].to(dtype), states[dtype])
            found.setdefault(dtype, []).append(y)
    for dtype, ys in found.items():
        assert_same(torch.stack(ys, 2), net(CLIP.to(dtype))[:, :, :7], SINGLE if dtype != torch.float16 else 1e-2, str(dtype))


class Named(nn.Module):
    """A module of a class that a file can name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=x.dtype)[:, None]


@torch.no_grad()
def test_pickled_twins_move_too():
    module = Named().eval()
    net = pickle.loads(pickle.dumps(co.continual(module, CLIP)))
    for dtype in (torch.float64, torch.float16, torch.float32, torch.bfloat16):
        net, module, x = pickle.loads(pickle.dumps(net.to(dtype))), module.to(dtype), CLIP.to(dtype)
        assert_same(net(x), module(x), 2e-2, str(dtype))
        assert_same(streamed(net, x), module(x), 2e-2, str(dtype))
    local = pickle.loads(pickle.dumps(co.continual(module_of("one constant"), CLIP)))
    with pytest.raises(co.NotStreamable, match="loaded from a file"):
        local.half()
    assert local(CLIP).dtype == torch.float32


@torch.no_grad()
def test_what_the_module_can_not_do_is_refused_and_nothing_has_moved():
    net = co.Sequential(co.Conv1d(3, 3, 3), co.continual(Fixed().eval(), CLIP), co.Delay(1))
    first = net.forward_steps(CLIP[:, :, :7])
    for move in MOVES.values():
        with pytest.raises(co.NotStreamable, match=r"Fixed can't run with steps in .*: the module itself raises"):
            move(net)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    rest = net.forward_steps(CLIP[:, :, 7:], pad_end=True)
    torch.testing.assert_close(torch.cat((first, rest), 2), net(CLIP))
    assert net[1].forward_steps(CLIP.double()).dtype == torch.float32  # it casts what comes
    with pytest.raises(co.ShapeMismatch, match="steps in float64 and weights in float32: the module itself raises"):
        co.continual(Named().eval(), CLIP).forward_steps(CLIP.double())


@torch.no_grad()
def test_a_module_that_is_another_network_there_is_refused_and_the_remedy_works():
    module = Other().eval()
    net = co.continual(module, CLIP)
    with pytest.raises(co.NotStreamable, match=r"another network.*co\.continual\(module\.to\(torch\.float16\)"):
        net.half()
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    torch.testing.assert_close(streamed(net, CLIP), module(CLIP))
    assert net.double()(CLIP.double()).dtype == torch.float64
    net = co.continual(module.to(torch.float16), CLIP.to(torch.float16))
    assert_same(streamed(net, CLIP.half()), module(CLIP.half()), 1e-2, "the remedy")


@torch.no_grad()
@pytest.mark.parametrize("before", [None, torch.float16, torch.float64])
def test_fused_twins(before: torch.dtype | None):
    module = Block().eval()
    net = co.continual(module, CLIP)
    if before is not None:
        net.to(before).float()
    net = co.fuse(net)
    assert "bn.weight" not in net.state_dict()
    want = module(CLIP) if before != torch.float16 else net(CLIP)
    net.double()
    torch.testing.assert_close(streamed(net, CLIP.double()), want.double(), atol=1e-5, rtol=1e-5)
    assert_same(streamed(net, CLIP.double()), net(CLIP.double()), SINGLE, "fused")
    torch.testing.assert_close(streamed(net.float(), CLIP), want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_programs_and_batches_of_a_moved_twin():
    module = nn.Sequential(
        nn.Conv1d(3, 4, 3), Fn(lambda x: (x.float() ** 2).to(x.dtype) + torch.ones(4, 1, dtype=x.dtype))
    ).eval()
    net = co.continual(module, CLIP).double()
    x = CLIP.double()
    program = co.compile(net, x[:, :, 0], backend="eager")
    found = [program.step(x[:, :, t]) for t in range(13)]
    assert_same(torch.stack([y for y in found if y is not None], 2), module(x), SINGLE, "a program")
    streams = co.StreamBatch(net, x[:1, :, 0], capacity=2, backend="eager")
    a, b = streams.open(), streams.open()
    answers = [streams.step({a: x[0, :, t], b: x[1, :, t]}) for t in range(13)]
    got = torch.stack([torch.stack((y[a], y[b])) for y in answers if y.get(a) is not None], 2)
    assert_same(got, module(x), SINGLE, "a batch of streams")


@torch.no_grad()
def test_a_program_of_one_dtype_while_the_network_runs_in_another():
    net = co.continual(Fn(lambda x: torch.full((3, 1), 0.1, dtype=x.dtype) * x.cumsum(1)).eval(), CLIP)
    program = co.compile(net, CLIP[:, :, 0], backend="eager")
    assert net(CLIP.double()).dtype == torch.float64
    assert_same(program.step(CLIP[:, :, 0]), net(CLIP)[:, :, 0], SINGLE, "a program")


@torch.no_grad()
def test_autocast_is_left_to_torch():
    module = Block().eval()
    net = co.continual(module, CLIP)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(CLIP).dtype == module(CLIP).dtype
    assert len(net._dtypes.origin.programs) == 1


class Spoken(nn.Module):
    """Token numbers and frames, beside an embedding that is not a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(7, 3), nn.Conv1d(3, 3, 3)

    def forward(self, tokens: Tensor, speaker: Tensor, x: Tensor) -> Tensor:
        y = self.conv(self.embed(tokens).mT + x)
        return (y.float() * speaker.float().unsqueeze(2)).to(speaker.dtype) + torch.ones(3, 1, dtype=y.dtype)


@torch.no_grad()
def test_several_inputs_of_several_dtypes():
    module = Spoken().eval()
    tokens, speaker = torch.randint(0, 7, (2, 13)), torch.randn(2, 3)
    net = co.continual(module, (tokens, speaker, CLIP), time_dim=(1, None, 2))
    for dtype, move in MOVES.items():
        move(net)
        for other in (dtype, torch.float32):  # the embedding may have a dtype of its own
            inputs = tokens, speaker.to(other), CLIP.to(dtype)
            want = module(*inputs)
            net.clean_state()
            steps = [net.forward_step(tokens[:, t], inputs[1], inputs[2][:, :, t]) for t in range(13)]
            assert_same(torch.stack([y for y in steps if y is not None], 2), want, max(SINGLE, TOLERANCE[dtype]), str(dtype))
            assert_same(net(*inputs), want, max(SINGLE, TOLERANCE[dtype]), str(dtype))
