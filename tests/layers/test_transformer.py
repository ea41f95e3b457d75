"""Encoders on streams, against `nn.TransformerEncoder` on the window, or with a band for a mask."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import continual as co
from tests.contract import assert_equal, check_gradients, check_layer
from tests.core.test_weights import CHANGES
from tests.encoders import EMBED, HEADS, EncoderReference, banded, encoder, of_windows, plain
from tests.long import by_turns

LENGTH, STEPS = 5, 17


@pytest.fixture(autouse=True)
def _plain_torch():
    """Without torch's fused encoder layer, which makes NaN of a float mask with -inf."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def described(value: Any) -> str:
    """A name of a case that is the same in every process."""
    if not isinstance(value, dict):
        return str(value)
    return ",".join(f"{k}={getattr(v, '__name__', v)}" for k, v in value.items()) or "default"


#  options of nn.TransformerEncoderLayer, with a norm at the end
OPTIONS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"batch_first": False}, False),
    ({"norm_first": True, "activation": "gelu"}, True),
    ({"norm_first": True, "bias": False, "activation": F.silu}, True),
    ({"bias": False, "activation": nn.Tanh()}, False),
    ({"layer_norm_eps": 0.1}, True),
]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize(("options", "norm"), OPTIONS, ids=described)
def test_over_a_window(options: dict[str, Any], norm: bool, layers: int):
    if layers > 2 and options not in ({}, OPTIONS[3][0]):
        pytest.skip("depth is tested with two sets of options")
    inner = encoder(layers, norm, **options)
    net = co.TransformerEncoder.build_from(inner, LENGTH)
    assert (net.delay, net.receptive_field, net.timing.ended(9)) == (LENGTH - 1, LENGTH, 10 - LENGTH)
    check_layer(net, EncoderReference(inner, of_windows(LENGTH)), (2, EMBED, STEPS))


@pytest.mark.parametrize("layers", [1, 2, 8])
@pytest.mark.parametrize(("options", "norm"), OPTIONS, ids=described)
def test_causal(options: dict[str, Any], norm: bool, layers: int):
    if layers > 1 and options not in ({}, OPTIONS[3][0]):
        pytest.skip("depth is tested with two sets of options")
    inner = encoder(layers, norm, **options)
    net = co.continual(inner, sequence_len=3, causal=True)
    assert (net.delay, net.receptive_field, net.timing.ended(9)) == (0, 1 + 2 * layers, 9)
    check_layer(net, EncoderReference(inner, banded(3)), (2, EMBED, STEPS))


def test_causal_with_a_look_ahead():
    """Every layer waits for the tokens after its own."""
    inner = encoder(3)
    net = co.continual(inner, sequence_len=4, causal=True, look_ahead=1)
    assert (net.delay, net.receptive_field) == (3, 10)
    check_layer(net, EncoderReference(inner, banded(4, 1)), (2, EMBED, STEPS))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("query", [0, 2])
def test_another_query(layers: int, query: int):
    inner = encoder(layers)
    net = co.TransformerEncoder.build_from(inner, LENGTH, query_index=query)
    check_layer(net, EncoderReference(inner, of_windows(LENGTH, query)), (2, EMBED, STEPS))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_within_the_window(layers: int, kind: str):
    """Any mask of a window is representable, causal within it or not."""
    hidden = torch.ones(LENGTH, LENGTH).triu(1).bool()
    mask = hidden if kind == "bool" else torch.randn(LENGTH, LENGTH).masked_fill(hidden, -torch.inf)
    inner = encoder(layers)
    net = co.continual(inner, sequence_len=LENGTH, mask=mask)

    def run(plain_encoder: Any, x: Tensor) -> Tensor:
        own = mask if kind == "bool" else mask.to(x)
        return of_windows(LENGTH, -1, own)(plain_encoder, x)

    check_layer(net, EncoderReference(inner, run), (2, EMBED, STEPS))


def test_a_causal_mask_tells_its_band():
    inner = encoder(2)
    later = torch.arange(9) - torch.arange(9).unsqueeze(1)
    hidden = (later > 1) | (later <= -3)
    as_float = torch.zeros(9, 9).masked_fill(hidden, -torch.inf)
    for mask in (hidden, as_float):
        net = co.TransformerEncoder.build_from(inner, causal=True, mask=mask)
        assert (net[0][0].sequence_len, net.delay) == (4, 2)
    triangle = nn.Transformer.generate_square_subsequent_mask(9)
    net = co.TransformerEncoder.build_from(inner, 4, causal=True, mask=triangle)
    assert (net[0][0].sequence_len, net.delay) == (4, 0)


LAYERS: list[tuple[str, dict[str, Any], Any]] = [
    ("SingleOutputTransformerEncoderLayer", {"single_output_forward": True}, of_windows(LENGTH)),
    ("SingleOutputTransformerEncoderLayer", {"single_output_forward": True, "query_index": 1}, of_windows(LENGTH, 1)),
    ("CausalTransformerEncoderLayer", {}, banded(LENGTH)),
    ("CausalTransformerEncoderLayer", {"look_ahead": 2}, banded(LENGTH, 2)),
]


@pytest.mark.parametrize(("name", "own", "run"), LAYERS, ids=lambda value: value if isinstance(value, str) else None)
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "bias": False, "activation": "gelu"}], ids=str)
def test_layers(name: str, own: dict[str, Any], run: Any, options: dict[str, Any]):
    inner = encoder(1, **options).layers[0]
    net = getattr(co, name)(EMBED, HEADS, 16, sequence_len=LENGTH, **own, **options)
    check_layer(net, EncoderReference(inner, run), (2, EMBED, STEPS))


@pytest.mark.parametrize("name", ["SingleOutputTransformerEncoderLayer", "RetroactiveTransformerEncoderLayer"])
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "bias": False}], ids=str)
def test_layers_whose_forward_is_that_of_torch(name: str, options: dict[str, Any]):
    """Their streams give tokens, or all, of ``forward`` on every window; `co.verify` knows."""
    inner = encoder(1, **options).layers[0].double()
    net = getattr(co, name).build_from(inner, sequence_len=LENGTH)
    clip = torch.randn(2, EMBED, STEPS, dtype=torch.float64)
    assert_equal(net(clip), plain(inner, clip))
    assert co.verify(net, clip, EncoderReference(inner, plain)).passed


def test_retroactive_windows_have_gradients():
    net = co.RetroactiveTransformerEncoderLayer(EMBED, HEADS, 16, sequence_len=4).double().eval()
    clip = torch.randn(2, EMBED, 9, dtype=torch.float64, requires_grad=True)
    steps = [y for t in range(9) if (y := net.forward_step(clip[:, :, t])) is not None]
    expected = [net(clip[:, :, j : j + 4]) for j in range(6)]
    weight = torch.randn(6, 2, EMBED, 4, dtype=torch.float64)
    found, wanted = (torch.autograd.grad((torch.stack(y) * weight).sum(), [clip, *net.parameters()]) for y in (steps, expected))
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b, "gradients")


@pytest.mark.parametrize("norm, causal", by_turns(itertools.product([None, nn.LayerNorm, nn.RMSNorm], [False, True]), 2))
def test_built_by_a_factory(norm: type[nn.Module] | None, causal: bool):
    factory = co.TransformerEncoderLayerFactory(EMBED, HEADS, 16, sequence_len=LENGTH, causal=causal, norm_first=True)
    net = co.TransformerEncoder(factory, num_layers=3, norm=norm and norm(EMBED)).double().eval()
    clip = torch.randn(2, EMBED, STEPS, dtype=torch.float64)
    assert co.verify(net, clip).passed
    check_gradients(net, clip)
    again = pickle.loads(pickle.dumps(net))
    assert_equal(again(clip), net(clip))


def test_kinds_of_a_factory():
    factory = co.TransformerEncoderLayerFactory(EMBED, HEADS, sequence_len=LENGTH)
    for kind in co.transformer.MhaType:
        assert factory(kind).sequence_len == LENGTH
        assert type(factory(kind)) is type(factory(kind.value))
    with pytest.raises(ValueError, match="'fancy' is not a valid MhaType"):
        factory("fancy")


def test_checkpoints_of_torch():
    """Every key of an ``nn`` checkpoint loads, strictly."""
    inner = encoder(3, norm_first=True)
    for causal in (False, True):
        factory = co.TransformerEncoderLayerFactory(EMBED, HEADS, 16, sequence_len=LENGTH, causal=causal, norm_first=True)
        net = co.TransformerEncoder(factory, 3, nn.LayerNorm(EMBED)).eval()
        net.load_state_dict(inner.state_dict(), strict=True)
        clip = torch.randn(2, EMBED, LENGTH)
        expected = (banded(LENGTH) if causal else of_windows(LENGTH))(inner, clip)
        assert_equal(net(clip), expected)


def test_in_a_network():
    net = co.Sequential(
        nn.Conv1d(3, EMBED, 3, stride=2, padding=1),
        co.RecyclingPositionalEncoding(EMBED, LENGTH),
        co.TransformerEncoder.build_from(encoder(2), LENGTH),
        co.Linear(EMBED, 4, channel_dim=1),
    )
    assert (net.stride, net.delay) == ((2,), 1 + 2 * (LENGTH - 1))
    assert co.verify(net.double().eval(), torch.randn(2, 3, 40, dtype=torch.float64)).passed


def test_hooks_see_what_streams():
    """Hooks on a layer see windows in clips and in streams."""
    net = co.TransformerEncoder.build_from(encoder(2), LENGTH)
    shapes: list[Any] = []
    net[0][0].register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    clip = torch.randn(2, EMBED, 6)
    net(clip)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :5])
        net.forward_step(clip[:, :, 5])
    assert shapes == [(2, EMBED, 2, LENGTH), (2, EMBED, 1, LENGTH), (2, EMBED, LENGTH)]


def test_training_mode():
    """Dropout is torch's, in clips and in streams; in eval mode there is none."""
    net = co.continual(encoder(2, dropout=0.5), sequence_len=LENGTH)
    clip = torch.randn(2, EMBED, LENGTH)
    net.train()
    assert not torch.equal(net(clip), net(clip))
    assert not torch.equal(net.forward_steps(clip), net.eval()(clip))
    assert_equal(net(clip), net(clip))


def test_state_is_one_ring_of_projections_and_one_of_tokens():
    window = co.continual(encoder(3), sequence_len=LENGTH).init_state(torch.zeros(2, EMBED))
    assert {n: tuple(t.shape) for n, t in window.tensors.items()} == {
        "layers.0.tokens": (2, 4, 8),
        "layers.0.self_attn.projected": (2, 4, 24),
    }
    causal = co.continual(encoder(2), sequence_len=LENGTH, causal=True).init_state(torch.zeros(2, EMBED))
    assert {n: tuple(t.shape) for n, t in causal.tensors.items()} == {
        "layers.0.self_attn.keys_values": (2, 4, 16),
        "layers.1.self_attn.keys_values": (2, 4, 16),
    }


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_while_a_stream_runs(layers: int, change: str):
    """Once all that is held was made with the new weights, outputs are those of `forward` with them."""
    net = co.continual(encoder(layers), sequence_len=LENGTH).double()
    clip = torch.randn(2, EMBED, 2 * LENGTH + 3, dtype=torch.float64)
    with torch.no_grad():
        for t in range(LENGTH + 2):
            net.forward_step(clip[:, :, t])
        before = net(clip[:, :, -LENGTH:])
        CHANGES[change](net)
        outs = [net.forward_step(clip[:, :, t]) for t in range(LENGTH + 2, clip.shape[2])]
        after = net(clip[:, :, -LENGTH:])
        assert not torch.allclose(before, after)
        assert_equal(outs[-1], after[:, :, 0])


def test_writing_to_data_is_noticed_when_a_stream_starts():
    net = co.continual(encoder(2), sequence_len=LENGTH).double()
    clip = torch.randn(2, EMBED, LENGTH, dtype=torch.float64)
    with torch.no_grad():
        for t in range(LENGTH):
            net.forward_step(clip[:, :, t])
        for parameter in net.parameters():
            parameter.data.mul_(2)
        net.clean_state()
        outs = [net.forward_step(clip[:, :, t]) for t in range(LENGTH)]
        assert_equal(outs[-1], net(clip)[:, :, 0])


def test_multiply_adds_of_a_step():
    """By hand, for 8 channels, a window of 5 and 16 hidden features; the last layer projects no keys and values."""
    feed_forward, projections, scores = 2 * 8 * 16, 3 * 64, 2 * 5 * 8
    first = projections + 5 * (scores + 64) + 5 * feed_forward
    middle = 5 * (projections + scores + 64 + feed_forward)
    last = 4 * 64 + 2 * scores + feed_forward
    causal = projections + scores + 64 + feed_forward
    step = torch.zeros(1, EMBED)
    for layers, expected in ((2, first + last), (3, first + middle + last)):
        assert co.summary(co.continual(encoder(layers, norm=False), sequence_len=5), step).rows[0].macs_step == expected
    assert co.summary(co.continual(encoder(3, norm=False), sequence_len=5, causal=True), step).rows[0].macs_step == 3 * causal


class OwnLayer(nn.TransformerEncoderLayer):
    def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(src, *args, **kwargs) * 2


class OwnEncoder(nn.TransformerEncoder):
    def forward(self, src: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return super().forward(src, *args, **kwargs) * 2


def _shared() -> nn.TransformerEncoder:
    made = encoder(2)
    made.layers[1] = made.layers[0]
    return made


_wide = torch.ones(6, 6).bool()
_wide.fill_diagonal_(False)
REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: co.continual(encoder(2)), co.NotStreamable, "TransformerEncoder attends to all tokens of a clip"),
    (lambda: co.continual(nn.Sequential(encoder(1).layers[0])), co.NotStreamable, "0 (TransformerEncoderLayer) attends to all"),
    (lambda: co.TransformerEncoder.build_from(encoder(2)), ValueError, "give its length as sequence_len"),
    (lambda: co.TransformerEncoder.build_from(nn.Linear(1, 1), 4), TypeError, "takes a TransformerEncoder, not Linear"),
    (lambda: co.TransformerEncoder.build_from(encoder(2), 4, look_ahead=1), ValueError, "give causal=True"),
    (lambda: co.TransformerEncoderLayerFactory(8, 2, sequence_len=4, positions="alibi"), ValueError, "give causal=True"),
    (lambda: co.TransformerEncoder(co.TransformerEncoderLayerFactory(8, 2, sequence_len=4), 0), ValueError, "num_layers=0"),
    (lambda: co.RetroactiveTransformerEncoderLayer(8, 2), ValueError, "give its length as sequence_len"),
    (lambda: co.continual(encoder(2), sequence_len=4, look_ahead=1), TypeError, "no module in it takes look_ahead=1"),
    (
        lambda: co.continual(nn.TransformerEncoder(OwnLayer(8, 2), 2, enable_nested_tensor=False), sequence_len=4),
        co.NotStreamable,
        "layers.0 (OwnLayer) is not an nn.TransformerEncoderLayer as torch has it",
    ),
    (
        lambda: co.continual(OwnEncoder(nn.TransformerEncoderLayer(8, 2), 1, enable_nested_tensor=False), sequence_len=4),
        co.NotStreamable,
        "overrides the forward of TransformerEncoder",
    ),
    (lambda: co.continual(_shared(), sequence_len=4), co.NotStreamable, "uses one layer object several times"),
    (
        lambda: co.continual(nn.Transformer(8, 2, 1, 1, 16, batch_first=True), sequence_len=4),
        co.NotStreamable,
        "a decoder attends to a memory",
    ),
    (
        lambda: co.continual(nn.TransformerDecoderLayer(8, 2), sequence_len=4),
        co.NotStreamable,
        "converted with sequence_len=…, causal=True",
    ),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), 4, mask=torch.zeros(6, 6)),
        co.ShapeMismatch,
        "a mask for windows of 4 tokens is (4, 4), got (6, 6)",
    ),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), 4, mask=torch.ones(4, 4).bool()),
        ValueError,
        "hides every key from some query",
    ),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), 4, causal=True, mask=torch.zeros(6, 6)),
        co.NotStreamable,
        "the mask is not a causal band",
    ),
    (lambda: co.TransformerEncoder.build_from(encoder(2), causal=True, mask=_wide.tril()), co.NotStreamable, "not a causal band"),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), causal=True, mask=torch.ones(6, 6).triu(1).bool()),
        ValueError,
        "lets its last token see all 6 tokens",
    ),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), 3, causal=True, mask=_wide),
        ValueError,
        "the mask is a band of 1 tokens, sequence_len says 3",
    ),
    (
        lambda: co.TransformerEncoder.build_from(encoder(2), causal=True, mask=torch.zeros(2, 6, 6)),
        co.NotStreamable,
        "masks for each row or head can't be streamed",
    ),
    (
        lambda: co.continual(encoder(2), sequence_len=4).forward_step(torch.zeros(2, 9)),
        co.ShapeMismatch,
        "layers.0.self_attn (RetroactiveMultiheadAttention): expects query steps (N, 8), got (2, 9)",
    ),
    (
        lambda: co.continual(encoder(2), sequence_len=4)(torch.zeros(2, 8, 3)),
        co.ShapeMismatch,
        "a clip of 3 tokens is shorter than its window of 4",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(make: Any, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
