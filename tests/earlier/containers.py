"""Rows of the table: containers and attention. No tests are in this file."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.earlier.table import clip, conv, exact, raising, row

# ---- containers -------------------------------------------------------------------------------------------------------------


@row("`Sequential`, `Sequential.append`, `Sequential.build_from`", "same")
def _() -> None:
    module = nn.Sequential(nn.Conv1d(4, 4, 3, 2, 1), nn.MaxPool1d(2), nn.Conv1d(4, 2, 3, padding=1)).eval()
    net = co.Sequential.build_from(module)
    exact(net, clip(), module)
    assert (net.stride, net.padding, net.receptive_field, net.delay) == ((4,), (5,), 13, 7)
    assert net.append(co.Conv1d(2, 2, 3)) is net
    assert len(co.Sequential(OrderedDict(a=conv(3), b=nn.ReLU()))) == 2


@row("`Broadcast`, `ParallelDispatch`, `Reduce`", "same")
def _() -> None:
    a, b = conv(3), conv(5)
    net = co.Sequential(co.Broadcast(), co.Parallel(a, b), co.ParallelDispatch([1, 0, 1]), co.Reduce("sum"))
    exact(net, clip(), lambda x: a(x) + 2 * b(x))
    dispatch, numbers = co.ParallelDispatch([2, 0, [0, 2], 2]), [10, 11, 12]
    for run in (dispatch, dispatch.forward, dispatch.forward_step, dispatch.forward_steps):
        assert run(numbers) == [12, 10, [10, 12], 12]
    assert co.Broadcast(2).forward_step(42) == [42, 42]
    assert torch.equal(co.Reduce("max")([torch.tensor([1]), torch.tensor([2])]), torch.tensor([2]))


@row('`ParallelDispatch([1.0, "nah"])`', "same")
def _() -> None:
    for wrong in ([1.0, "nah"], [], [0, []], "nah", 3):
        raising(lambda wrong=wrong: co.ParallelDispatch(wrong), AssertionError, ValueError)


@row("`Reduce(fn)`, `BroadcastReduce(…, reduce=fn)`", "same")
def _() -> None:
    a, b = conv(3), conv(5)
    exact(co.BroadcastReduce(a, b, reduce=lambda streams: streams[0] - streams[1]), clip(), lambda x: a(x) - b(x))
    exact(co.Sequential(co.Broadcast(2), co.Reduce(lambda streams: streams[0] - 2 * streams[1])), clip(), lambda x: -x)


@row("`container.reduce_sum`, `container.reduce_concat`, `container.reduce_mul`, `container.reduce_max`", "same")
def _() -> None:
    a, b = conv(3), conv(5)
    of = {"sum": lambda x, y: x + y, "concat": lambda x, y: torch.cat((x, y), 1), "mul": lambda x, y: x * y, "max": torch.maximum}
    for name, fn in of.items():
        reduce = getattr(co.container, f"reduce_{name}")
        assert_equal(reduce([a(x := clip()), b(x)]), fn(a(x), b(x)))
        exact(co.BroadcastReduce(a, b, reduce=name), x, lambda x, fn=fn: fn(a(x), b(x)))


@row("`Parallel`, `BroadcastReduce`", "same")
def _() -> None:
    net = co.BroadcastReduce(OrderedDict(c5=conv(5), c3=nn.Conv1d(4, 4, 3, padding=1), c1=conv(1)))
    exact(net, clip(), lambda x: net[0](x) + net[1](x) + net[2](x))
    assert (net.delay, net.receptive_field, net.padding) == (2, 5, (2,))
    assert "reduce=" in repr(net)
    par, x = co.Parallel(conv(3), conv(1)), clip()
    assert_equal(par.forward_steps([x, x], pad_end=True), [par[0](x), par[1](x)])


@row("`par.forward_step(…)`, then a branch by itself", "corrected")
def _() -> None:
    par, x = co.Parallel(conv(3), conv(1)), clip()
    par.forward_step([x[:, :, 0]] * 2)
    assert par[0].get_state() is None
    par[0].forward_step(-x[:, :, 0])
    assert_equal(par.forward_step([x[:, :, 1]] * 2), [par[0](x)[:, :, 0], par[1](x)[:, :, 0]])


@row("`BroadcastReduce(…, auto_delay=False)` of different delays", "refused")
def _() -> None:
    co.BroadcastReduce(conv(3), conv(1), auto_delay=False)


@row("branches of lengths 21 and 1", "refused")
def _() -> None:
    co.BroadcastReduce(conv(3, 0), conv(23, 0))(clip())


@row("`Residual(conv)`", "same")
def _() -> None:
    c = conv(3)
    net = co.Residual(c)
    exact(net, clip(), lambda x: x + c(x))
    exact(co.Residual(c, reduce="mul"), clip(), lambda x: x * c(x))
    assert list(net.state_dict()) == ["1.weight", "1.bias"]


@row('`Residual(conv, residual_shrink="leading")`', "same")
def _() -> None:
    c = conv(3, 0)
    net = co.Residual(c, residual_shrink="leading")
    exact(net, clip(), lambda x: x[:, :, 2:] + c(x))
    assert "Skip(2)" in repr(net)


@row('`Residual(conv, residual_shrink=True)`, `"centered"`, `"lagging"`', "corrected")
def _() -> None:
    c, odd = conv(3, 0), conv(4, 0)
    for shrink in (True, "centered"):
        exact(co.Residual(c, residual_shrink=shrink), clip(), lambda x: x[:, :, 1:-1] + c(x))
    exact(co.Residual(c, residual_shrink="lagging"), clip(), lambda x: x[:, :, :-2] + c(x))
    exact(co.Residual(odd, residual_shrink="centered"), clip(), lambda x: x[:, :, 1:-2] + odd(x))


@row('`Residual(squeeze_and_excitation, reduce="mul")`', "corrected")
def _() -> None:
    gate = co.Sequential(
        OrderedDict(pool=co.AdaptiveAvgPool3d((1, 1, 1), kernel_size=7), up=co.Conv3d(4, 4, 1), act=nn.Sigmoid())
    )
    net, x = co.Residual(gate, reduce="mul"), clip(2, 4, 12, 3, 3)
    y = exact(net, x)
    assert (y.shape, net.delay) == (x.shape, 0)
    assert_equal(y[:, :, 9], x[:, :, 9] * gate(x[:, :, 3:10])[:, :, 0])


@row("`Conditional(predicate, a, b)`", "corrected")
def _() -> None:
    a, b = conv(3), conv(5)
    net = co.Conditional(lambda module, x: module.on, a, b)
    for net.on, chosen in ((True, a), (False, b)):
        exact(net, clip(), chosen)
    exact(co.Conditional(lambda module, *args: module.training, co.Multiply(2)), clip(), lambda x: x)


@row("`repr(Conditional(predicate, a, b))`", "same")
def _() -> None:
    net = co.Conditional(lambda a, b: True, nn.Sigmoid(), nn.Tanh())
    assert repr(net) == "Conditional(\n  predicate=lambda a, b: True\n  (0): Sigmoid()\n  (1): Tanh()\n)"


@row("`Conditional(predicate, nn.Softmax())`", "corrected")
def _() -> None:
    with pytest.warns(UserWarning, match="over the channels"):
        net = co.Conditional(lambda a, b: True, nn.Softmax())
    exact(net, clip(), lambda x: x.softmax(1))


@row("`conditional[0].delay` of branches with different delays", "corrected")
def _() -> None:
    net = co.Conditional(lambda a, b: True, co.Delay(2), co.Delay(3))
    assert (net.delay, net[0].delay, net[1].delay) == (3, 2, 3)


# ---- attention --------------------------------------------------------------------------------------------------------------

SINGLE, RETRO = co.SingleOutputMultiheadAttention, co.RetroactiveMultiheadAttention


def attentions(cls: Any, **options: Any) -> tuple[Any, nn.MultiheadAttention, tuple[Tensor, Tensor, Tensor]]:
    module = nn.MultiheadAttention(8, 2).eval()
    q, k, v = clip(10, 3, 8), clip(10, 3, 8), clip(10, 3, 8)
    return cls.build_from(module, sequence_len=10, **options).eval(), module, (q, k, v)


@row("`SingleOutputMultiheadAttention`", "same")
def _() -> None:
    for index in (-1, 2):
        net, module, x = attentions(SINGLE, query_index=index)
        y, weights = module(*x)
        found, found_weights = net(*x)
        assert_equal((found[0], found_weights[:, 0]), (y[index], weights[:, index]))
        assert net.forward_steps(*(t[:-1] for t in x)) is None
        assert_equal(net.forward_step(*(t[-1] for t in x)), y[index])


@row("`SingleOutputMultiheadAttention.delay`", "corrected")
def _() -> None:
    assert attentions(SINGLE)[0].delay == 9


@row("`RetroactiveMultiheadAttention`", "same")
def _() -> None:
    net, module, x = attentions(RETRO)
    y, weights = module(*x)
    assert_equal(net(*x), (y, weights))
    assert net.forward_steps(*(t[:-1] for t in x)) is None
    assert_equal(net.forward_step(*(t[-1] for t in x)), y)


@row("`attention.flops(include_muls=True, include_adds=False, include_exps=False)`", "corrected")
def _() -> None:
    for cls in (SINGLE, RETRO):
        net = attentions(cls)[0]
        muls, adds, exps = (net.flops(*(i == j for j in range(3))) for i in range(3))
        assert net.flops() == muls
        assert net.flops(True, True, True) == muls + adds + exps
        assert min(muls, adds, exps) > 0
        net.call_mode = "forward_step"
        assert net.flops() == muls


@row("`torch.equal(attention(x), nn_attention(x))`", "corrected")
def _() -> None:
    net, module, x = attentions(RETRO)
    assert all(torch.equal(a, b) for a, b in zip(net(*x), module(*x), strict=True))
    net, module, x = attentions(SINGLE)
    torch.testing.assert_close(net(*x)[0], module(*x)[0][-1:], rtol=1e-5, atol=1e-6)


OPTIONS: dict[str, Any] = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, "sequence_len": 6}


@row("`SingleOutputTransformerEncoderLayer`, `RetroactiveTransformerEncoderLayer`", "same")
def _() -> None:
    x = clip(2, 8, 6)
    module = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True).eval()
    y = module(x.transpose(1, 2)).transpose(1, 2)
    for cls, expected in ((co.SingleOutputTransformerEncoderLayer, y[:, :, -1]), (co.RetroactiveTransformerEncoderLayer, y)):
        net = cls(**OPTIONS).eval()
        net.load_state_dict(module.state_dict())
        assert net.forward_steps(x[:, :, :5]) is None
        assert_equal(net.forward_step(x[:, :, 5]), expected)


@row("`TransformerEncoderLayerFactory`, `MhaType`", "same")
def _() -> None:
    factory = co.TransformerEncoderLayerFactory(**OPTIONS, activation="relu")
    kind = co.transformer.MhaType("retroactive")
    assert isinstance(factory(kind), co.RetroactiveTransformerEncoderLayer)
    assert isinstance(factory("single_output"), co.SingleOutputTransformerEncoderLayer)


def encoder(layers: int) -> tuple[co.TransformerEncoder, Tensor, Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    module = nn.TransformerEncoder(layer, layers, nn.LayerNorm(8), enable_nested_tensor=False).eval()
    x = clip(2, 8, 6)
    return co.TransformerEncoder.build_from(module, 6).eval(), x, module(x.transpose(1, 2)).transpose(1, 2)


@row("`TransformerEncoder`, `TransformerEncoder.build_from`", "same")
def _() -> None:
    for layers in (1, 2, 3):
        net, x, y = encoder(layers)
        assert net.forward_steps(x[:, :, :5]) is None
        assert_equal(net.forward_step(x[:, :, 5], update_state=False), y[:, :, -1])
        assert_equal(net(x)[:, :, -1], y[:, :, -1])
    exact(co.TransformerEncoder(co.TransformerEncoderLayerFactory(**OPTIONS), 2, nn.LayerNorm(8)), clip(2, 8, 9))


@row("`TransformerEncoder` of one layer: `forward`", "corrected")
def _() -> None:
    net, x, y = encoder(1)
    assert_equal(net(x), y[:, :, -1:])


@row("`retroactive_mha._scaled_dot_product_attention_default_state`, `…_step`", "same")
def _() -> None:
    functions = importlib.import_module("continual.multihead_attention.retroactive_mha")
    q, k, v = (clip(4, 20, 6) for _ in range(3))  # two heads of two rows
    state = functions._scaled_dot_product_attention_default_state(2, 9, 12, 2, dtype=q.dtype)
    for t in range(20):
        y, state = functions._scaled_dot_product_attention_step(state, q[:, t], k[:, t], v[:, t])
        if t >= 8:  # the window is full
            window = slice(t - 8, t + 1)
            assert_equal(y, nn.functional.scaled_dot_product_attention(q[:, window], k[:, window], v[:, window]))


@row("`multihead_attention.mha_base`, other functions such as `single_output_mha._scaled_dot_product_attention_step`", "refused")
def _() -> None:
    functions = importlib.import_module("continual.multihead_attention.single_output_mha")
    assert not hasattr(functions, "_scaled_dot_product_attention_step")
    importlib.import_module("continual.multihead_attention.mha_base")
