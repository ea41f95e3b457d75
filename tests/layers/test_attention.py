"""Attention on streams, against `nn.MultiheadAttention` with a band for a mask or on the window alone."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.attention import EMBED, HEADS, Banded, LastOfWindow, randomised
from tests.contract import assert_equal, check_contract, check_gradients, check_layer, random_split
from tests.long import by_turns

STEPS = 23


#  sequence_len, ahead, options
BANDS: list[tuple[int, int, dict[str, Any]]] = [
    (1, 0, {}),
    (2, 1, {}),
    (5, 0, {}),
    (5, 2, {}),
    (5, 4, {"bias": False}),
    (5, 0, {"add_bias_kv": True}),
    (5, 1, {"add_zero_attn": True}),
    (4, 1, {"add_bias_kv": True, "add_zero_attn": True, "bias": False}),
    (5, 0, {"alibi": True}),
    (6, 2, {"alibi": True, "add_bias_kv": True}),
    (40, 3, {}),
]


@pytest.mark.parametrize(("length", "ahead", "options"), BANDS, ids=str)
def test_band(length: int, ahead: int, options: dict[str, Any]):
    options = dict(options)
    alibi = {"positions": "alibi"} if options.get("alibi") else {}
    reference = Banded(length, ahead, **options)
    options.pop("alibi", None)
    net = co.MultiheadAttention(EMBED, HEADS, sequence_len=length, look_ahead=ahead, embed_dim_second=True, **alibi, **options)
    assert (net.delay, net.receptive_field, net.timing.ended(9)) == (ahead, length, 9)
    check_layer(net, reference, (2, EMBED, STEPS))


@pytest.mark.parametrize(("length", "ahead", "options"), BANDS[:8], ids=str)
def test_one_output_of_a_window(length: int, ahead: int, options: dict[str, Any]):
    net = co.SingleOutputMultiheadAttention(
        EMBED,
        HEADS,
        sequence_len=length,
        query_index=-1 - ahead,
        embed_dim_second=True,
        forward_returns_attn_mask=False,
        **options,
    )
    assert (net.delay, net.receptive_field, net.timing.ended(9)) == (length - 1, length, 10 - length)
    check_layer(net, LastOfWindow(length, ahead, **options), (2, EMBED, STEPS))


@pytest.mark.parametrize("kind", ["band", "single"])
@pytest.mark.parametrize(
    "sizes", [{}, {"kdim": 3, "vdim": 5}, {"kdim": 3, "vdim": 5, "add_bias_kv": True, "bias": False}], ids=str
)
def test_queries_keys_and_values_of_their_own(kind: str, sizes: dict[str, Any]):
    made: dict[str, Any] = {"sequence_len": 5, "embed_dim_second": True, **sizes}
    if kind == "band":
        net, reference = co.MultiheadAttention(EMBED, HEADS, look_ahead=1, **made), Banded(5, 1, **sizes)
    else:
        net = co.SingleOutputMultiheadAttention(EMBED, HEADS, query_index=2, **made)
        reference = LastOfWindow(5, 2, **sizes)
    net.load_state_dict(reference.state_dict())
    widths = (EMBED, sizes.get("kdim", EMBED), sizes.get("vdim", EMBED))
    clip = [torch.randn(2, width, STEPS).double() for width in widths]
    net, reference = net.double().eval(), reference.double()
    outputs = net(*clip)
    expected = reference(clip)
    assert_equal(outputs[0] if kind == "single" else outputs, expected)
    for sizes_ in ([1] * STEPS, [3, 0, 1, STEPS - 4]):
        net.clean_state()
        parts, at = [], 0
        for i, size in enumerate(sizes_):
            piece = [t[:, :, at : at + size] for t in clip]
            parts.append(net.forward_steps(*piece, pad_end=i == len(sizes_) - 1))
            at += size
        assert_equal(torch.cat([p for p in parts if p is not None], 2), expected)
    net.clean_state()
    steps = [net.forward_step(*(t[:, :, i] for t in clip)) for i in range(STEPS)]
    steps = [s for s in steps if s is not None]
    assert_equal(torch.stack(steps, 2), expected[:, :, : len(steps)])


@pytest.mark.parametrize("layout", [{"batch_first": False}, {"batch_first": True}, {"embed_dim_second": True}], ids=str)
@pytest.mark.parametrize("kind", ["MultiheadAttention", "SingleOutputMultiheadAttention", "RetroactiveMultiheadAttention"])
def test_layouts_of_clips(kind: str, layout: dict[str, bool]):
    net = randomised(getattr(co, kind)(EMBED, HEADS, sequence_len=5, **layout)).double()
    clip = torch.randn(2, EMBED, 17, dtype=torch.float64).movedim(2, net.time_dim)
    clip = clip if net.time_dim != 0 else torch.randn(17, 2, EMBED, dtype=torch.float64)
    clip = clip if net.time_dim != 1 else torch.randn(2, 17, EMBED, dtype=torch.float64)
    assert co.verify(net, clip).passed


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True, "add_bias_kv": True},
        {"embed_dim_second": True, "bias": False, "add_zero_attn": True},
        {"sequence_len": 1},
    ],
    ids=str,
)
def test_retroactive_windows(options: dict[str, Any]):
    """Each window that leaves is what ``nn.MultiheadAttention`` makes of the newest tokens, weights and all."""
    options = {"sequence_len": 5, **options}
    length, second = options["sequence_len"], options.get("embed_dim_second", False)
    net = randomised(co.RetroactiveMultiheadAttention(EMBED, HEADS, **options)).double()
    like = nn.MultiheadAttention(
        EMBED, HEADS, **{k: v for k, v in options.items() if k in ("batch_first", "bias", "add_bias_kv", "add_zero_attn")}
    ).double()
    like.load_state_dict(net.state_dict())
    tokens = torch.randn(2, 12, EMBED, dtype=torch.float64)
    lay: Any = {0: lambda t: t.transpose(0, 1), 1: lambda t: t, 2: lambda t: t.transpose(1, 2)}[net.time_dim]
    unlay = (lambda t: t.permute(2, 0, 1)) if second else (lambda t: t)
    for t in range(12):
        y = net.forward_step(tokens[:, t])
        assert (y is None) == (t < length - 1)
        if y is not None:
            window = lay(tokens[:, t - length + 1 : t + 1])
            expected, weights = like(*[unlay(window)] * 3)
            assert_equal(y, expected.permute(1, 2, 0) if second else expected)
            own, own_weights = net.forward(window)
            assert_equal(own, y)
            assert_equal(own_weights, weights)


@pytest.mark.parametrize("name", ["SingleOutputMultiheadAttention", "RetroactiveMultiheadAttention", "MultiheadAttention"])
def test_gradients_of_windows(name: str):
    net = randomised(getattr(co, name)(EMBED, HEADS, sequence_len=4, embed_dim_second=True)).double()
    if name == "MultiheadAttention":
        return check_gradients(net, torch.randn(2, EMBED, 15, dtype=torch.float64))
    clip = torch.randn(2, EMBED, 11, dtype=torch.float64, requires_grad=True)
    steps = [net.forward_step(clip[:, :, t]) for t in range(11)]
    outs = torch.stack([s for s in steps if s is not None], 2)
    query = slice(None) if name.startswith("Retro") else slice(3, 4)
    windows = [
        net.forward(clip[:, :, j : j + 4])[0][:, :, (query if name.startswith("Retro") else slice(None))] for j in range(8)
    ]
    expected = torch.stack(windows, 2).view_as(outs)
    weight = torch.randn_like(outs)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), [clip, *net.parameters()]) for y in (outs, expected)), strict=True):
        assert_equal(a, b, "gradients")


def test_weights_of_a_single_output():
    net = randomised(co.SingleOutputMultiheadAttention(EMBED, HEADS, sequence_len=4, query_index=1, add_zero_attn=True)).double()
    like = nn.MultiheadAttention(EMBED, HEADS, batch_first=True, add_zero_attn=True).double()
    like.load_state_dict(net.state_dict())
    clip = torch.randn(2, 6, EMBED, dtype=torch.float64)
    outs, weights = net(clip)
    for j in range(3):
        window = clip[:, j : j + 4]
        expected, expected_weights = like(window, window, window)
        assert_equal(outs[:, j], expected[:, 1])
        assert_equal(weights[:, j], expected_weights[:, 1])
    full = co.SingleOutputMultiheadAttention.build_from(like, 4, single_output_forward=False)
    for a, b in zip(full(clip), like(clip, clip, clip), strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_positions(interleaved: bool):
    """Queries and keys turned by hand, by angles of float64, and then plain attention in the band."""
    rotary = co.RotaryPositionalEncoding(EMBED // HEADS, interleaved=interleaved)
    net = randomised(co.MultiheadAttention(EMBED, HEADS, sequence_len=5, embed_dim_second=True, positions=rotary)).double()
    clip = torch.randn(2, EMBED, STEPS, dtype=torch.float64)
    packed = clip.transpose(1, 2) @ net.in_proj_weight.T + net.in_proj_bias
    q, k, v = (t.unflatten(2, (HEADS, -1)).transpose(1, 2) for t in packed.chunk(3, -1))
    angle = torch.arange(STEPS, dtype=torch.float64).unsqueeze(1) * torch.tensor([1.0, 0.01], dtype=torch.float64)

    def turned(x: Tensor) -> Tensor:
        a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :2], x[..., 2:])
        whole = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((whole.real, whole.imag), -1)  # any order will do, as long as q and k have the same

    later = torch.arange(STEPS) - torch.arange(STEPS).unsqueeze(1)
    hidden = (later > 0) | (later <= -5)
    weights = (turned(q) @ turned(k).transpose(2, 3) / 2).masked_fill(hidden, -torch.inf).softmax(-1)
    expected = (weights @ v).transpose(1, 2).flatten(2) @ net.out_proj.weight.T + net.out_proj.bias
    assert_equal(net(clip), expected.transpose(1, 2))
    check_contract(net, clip)


def test_rotary_scores_do_not_drift():
    """The same tokens give the same outputs wherever the clock stands: nothing depends on absolute positions."""
    net = randomised(co.MultiheadAttention(EMBED, HEADS, sequence_len=5, embed_dim_second=True, positions="rotary"))
    clip = torch.randn(2, EMBED, 12)
    start = net.steps(clip, net.init_state(clip[:, :, 0]))[0]
    for clock in (10**7, 2**40, 2**63 - 40):
        state = net.init_state(clip[:, :, 0])
        state.clock = state.node.n_in = state.node.n_out = clock
        later, _ = net.steps(torch.cat((torch.zeros(2, EMBED, 5), clip), 2), state)
        assert_equal(later[:, :, 9:], start[:, :, 4:])


KINDS = ("SingleOutputMultiheadAttention", "RetroactiveMultiheadAttention", "MultiheadAttention")


@pytest.mark.parametrize("name, scale", by_turns(itertools.product(KINDS, [1, 5, 10, 30]), 3))
def test_is_as_stable_as_torch(name: str, scale: int):
    """The float32 error against float64 is at most twice that of ``nn.MultiheadAttention`` itself, also late in a stream."""
    like = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    exact = nn.MultiheadAttention(32, 4, batch_first=True, dtype=torch.float64).eval()
    exact.load_state_dict(like.state_dict())
    net = getattr(co, name).build_from(like, sequence_len=16)
    steps = 10_000
    clip = torch.randn(1, steps, 32) * scale
    worst = {"ours": 0.0, "torch": 0.0}
    with torch.inference_mode():
        for t in range(0, steps, 1000):
            for step in clip[:, t : t + 999].unbind(1):
                net.forward_step(step)
            y = net.forward_step(clip[:, t + 999])
            window = clip[:, t + 984 : t + 1000]
            expected = exact(*[window.double()] * 3)[0]
            torchs = like(*[window] * 3)[0]
            if name == "RetroactiveMultiheadAttention":
                y = y if net.batch_first else y.transpose(0, 1)
            else:
                expected, torchs = expected[:, -1], torchs[:, -1]
            worst["ours"] = max(worst["ours"], float((y - expected).abs().max()))
            worst["torch"] = max(worst["torch"], float((torchs - expected).abs().max()))
    assert worst["ours"] <= 2 * worst["torch"], worst


def test_a_long_chunk_is_one_computation():
    """Chunks far longer than the window: work and memory grow with the chunk alone, and the values are right."""
    reference = Banded(4, 1)
    net = co.MultiheadAttention(EMBED, HEADS, sequence_len=4, look_ahead=1, embed_dim_second=True).double().eval()
    net.load_state_dict(reference.state_dict())
    clip = torch.randn(3, EMBED, 301, dtype=torch.float64)
    expected = reference.double()(clip)
    for sizes in ([301], [7, 200, 94], random_split(301, random.Random(1))):
        net.clean_state()
        chunks = [net.forward_steps(c, pad_end=i == len(sizes) - 1) for i, c in enumerate(clip.split(sizes, 2))]
        assert_equal(torch.cat([c for c in chunks if c is not None], 2), expected)


def test_what_is_hidden_may_be_nan():
    """A broken token shows in the windows that hold it, and nowhere else, chunk or step."""
    net = randomised(co.MultiheadAttention(EMBED, HEADS, sequence_len=4, look_ahead=1, embed_dim_second=True))
    clip = torch.randn(1, EMBED, 80)
    clip[:, :, 40] = float("nan")
    seen = {t for t in range(80) if t - 2 <= 40 <= t + 1}
    for y in (net(clip), net.forward_steps(clip, pad_end=True)):
        assert {t for t in range(80) if y[:, :, t].isnan().any()} == seen


def test_state_holds_what_the_window_needs():
    net = co.MultiheadAttention(EMBED, HEADS, sequence_len=6, look_ahead=2)
    state = net.init_state(torch.zeros(3, EMBED))
    assert {n: tuple(t.shape) for n, t in state.tensors.items()} == {"keys_values": (3, 5, 16), "queries": (3, 2, 8)}


def test_in_containers():
    net = co.Sequential(
        co.Conv1d(EMBED, EMBED, 3, padding=1),
        co.Residual(co.MultiheadAttention(EMBED, HEADS, sequence_len=5, look_ahead=1, embed_dim_second=True)),
        co.SingleOutputMultiheadAttention(EMBED, HEADS, sequence_len=3, embed_dim_second=True),
    )
    assert net.delay == 1 + 1 + 2
    assert co.verify(randomised(net).double(), torch.randn(2, EMBED, 20, dtype=torch.float64)).passed


def test_dropout_in_training_mode():
    """As torch has it: on the attention weights, and only then."""
    net = co.MultiheadAttention(EMBED, HEADS, dropout=0.5, sequence_len=5, embed_dim_second=True)
    clip = torch.randn(2, EMBED, 20)
    assert not torch.equal(net.train()(clip), net(clip))
    assert torch.equal(net.eval()(clip), net(clip))


def test_conversion():
    like = randomised(nn.MultiheadAttention(EMBED, HEADS, batch_first=True, add_bias_kv=True))
    single = co.continual(like, sequence_len=5)
    causal = co.continual(nn.Sequential(like), sequence_len=5, causal=True, look_ahead=1)[0]
    assert isinstance(single, co.SingleOutputMultiheadAttention)
    assert isinstance(causal, co.MultiheadAttention)
    assert causal.look_ahead == 1
    assert list(single.state_dict()) == list(like.state_dict())
    clip = torch.randn(2, 5, EMBED)
    assert_equal(single(clip.transpose(1, 2))[:, :, 0], like(clip, clip, clip)[0][:, -1])


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: co.MultiheadAttention(8, 2), ValueError, "give its length as sequence_len"),
    (lambda: co.MultiheadAttention(8, 2, sequence_len=0), ValueError, "at least 1 (got 0)"),
    (lambda: co.MultiheadAttention(8, 2, sequence_len=4, look_ahead=4), ValueError, "does not fit into a window of 4 tokens"),
    (lambda: co.MultiheadAttention(8, 2, sequence_len=4, positions="learned"), ValueError, "not 'learned'"),
    (
        lambda: co.MultiheadAttention(8, 2, sequence_len=4, positions=co.RotaryPositionalEncoding(8)),
        ValueError,
        "positions turn 8 channels, a head has 4",
    ),
    (lambda: co.MultiheadAttention(8, 2, sequence_len=4, causal=True), TypeError, "causal"),
    (lambda: co.SingleOutputMultiheadAttention(8, 2, sequence_len=4, query_index=4), ValueError, "outside of a window of 4"),
    (lambda: co.SingleOutputMultiheadAttention(8, 2, sequence_len=4, query_index=-5), ValueError, "query_index=-5"),
    (lambda: co.RetroactiveMultiheadAttention(8, 2, sequence_len=4, query_index=1), TypeError, "query_index"),
    (lambda: co.continual(nn.MultiheadAttention(8, 2)), co.NotStreamable, "co.continual(…, sequence_len=…)"),
    (
        lambda: co.continual(nn.Sequential(nn.MultiheadAttention(8, 2))),
        co.NotStreamable,
        "0 (MultiheadAttention) attends to all tokens of a clip",
    ),
    (lambda: co.continual(nn.Conv1d(1, 1, 1), sequence_len=4), TypeError, "no module in it takes sequence_len=4"),
    (
        lambda: co.Sequential(co.MultiheadAttention(8, 2, sequence_len=4)),
        co.NotStreamable,
        "the time of '0' is dim 1 of its clips",
    ),
    (
        lambda: co.MultiheadAttention(8, 2, sequence_len=4).forward_step(torch.zeros(2, 9)),
        co.ShapeMismatch,
        "expects query steps (N, 8), got (2, 9)",
    ),
    (
        lambda: co.MultiheadAttention(8, 2, kdim=3, sequence_len=4).forward_step(torch.zeros(2, 8)),
        co.ShapeMismatch,
        "Its kdim and vdim need streams of their own",
    ),
    (
        lambda: co.MultiheadAttention(8, 2, sequence_len=4).forward_steps(torch.zeros(2, 3, 8), True),
        TypeError,
        "give pad_end and update_state by name",
    ),
    (lambda: co.MultiheadAttention(8, 2, sequence_len=4)(torch.zeros(3, 8)), co.ShapeMismatch, "takes batched clips (N, L, E)"),
    (
        lambda: co.SingleOutputMultiheadAttention(8, 2, sequence_len=4)(torch.zeros(2, 3, 8)),
        co.ShapeMismatch,
        "a clip of 3 tokens is shorter than its window of 4",
    ),
    (
        lambda: co.MultiheadAttention(8, 2, sequence_len=4)(torch.zeros(2, 3, 8), torch.zeros(2, 4, 8)),
        co.ShapeMismatch,
        "queries, keys and values come together, got [3, 4, 4]",
    ),
    (
        lambda: co.MultiheadAttention(8, 2, sequence_len=4).forward_steps(torch.zeros(2, 3, 8), torch.zeros(2, 4, 8)),
        co.ShapeMismatch,
        "equal lengths",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(make: Any, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


def test_operations_of_a_step():
    """By hand, for 4 tokens of 8 channels: 4 projections of 64, scores and values of 4 * 8 each."""
    single = co.SingleOutputMultiheadAttention(8, 2, sequence_len=4)
    products, exps = 4 * 64 + 2 * 4 * 8, 4 * 2
    assert single.flops() == products + 8 + exps
    assert single.flops(False, True) == products + 3 * exps
    assert single.flops(False, False, True) == exps
    retro = co.RetroactiveMultiheadAttention(8, 2, sequence_len=4)
    assert retro.flops(False, False, True) == 4 * exps
    assert co.summary(single, torch.zeros(1, 8)).rows[0].macs_step == products


@pytest.mark.parametrize("layout", ["batch first", "batch second", "channels second"])
@pytest.mark.parametrize("cls", [co.RetroactiveMultiheadAttention, co.SingleOutputMultiheadAttention])
def test_forward_on_one_window_is_torchs_own(cls: Any, layout: str):
    """With bias tokens, a zero token and sizes of their own: to the last bit; of a single output that of its query."""
    module = nn.MultiheadAttention(
        8, 2, add_bias_kv=True, add_zero_attn=True, kdim=6, vdim=4, batch_first=layout == "batch first"
    ).eval()
    net = cls.build_from(module, sequence_len=5, embed_dim_second=layout == "channels second").eval()
    turn = {"batch first": (0, 1, 2), "batch second": (1, 0, 2), "channels second": (0, 2, 1)}[layout]
    x = [torch.randn(3, 5, size) for size in (8, 6, 4)]
    nn_turn = turn if layout != "channels second" else (1, 0, 2)
    asking = x[0] if cls is co.RetroactiveMultiheadAttention else x[0][:, -1:]
    y, weights = module(*(t.permute(nn_turn) for t in (asking, *x[1:])))
    y = y if layout == "batch first" else y.transpose(0, 1)
    found, found_weights = net(*(t.permute(turn) for t in x))
    found = found.permute(torch.tensor(turn).argsort().tolist())
    assert torch.equal(found, y)
    assert torch.equal(found_weights, weights)
