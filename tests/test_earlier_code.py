"""What code written for continual-inference 1.2.4 does here: each row of the table of docs/migrating.md is held by a function of its name.

A row that is *same* or *corrected* runs; one that is *refused* raises an error that says what to write.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.torchvision_ops import torchvision

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"
HELD: dict[str, tuple[str, Callable[[], object]]] = {}
REFUSALS = (co.ContinualError, TypeError, ValueError, AttributeError, ImportError)


def row(call: str, verdict: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Register what holds a row of the table."""

    def register(fn: Callable[[], object]) -> Callable[[], object]:
        assert call not in HELD
        HELD[call] = verdict, fn
        return fn

    return register


def rows() -> dict[str, str]:
    """The verdict for each call of the table."""
    text = PAGE.read_text(encoding="utf-8")
    section = text[text.index("## Name by name") : text.index("## Before and after")]
    found = [re.split(r" \| ", line.strip("| ")) for line in section.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1].strip(" |") for cells in found[1:] if not cells[0].startswith("**")}


def test_each_row_is_held():
    table = rows()
    assert len(table) > 70
    assert {call: verdict for call, (verdict, _) in HELD.items()} == table


@pytest.mark.parametrize("call", HELD)
def test_row(call: str):
    verdict, run = HELD[call]
    torch.manual_seed(0)
    if verdict != "refused":
        run()
        return
    with pytest.raises(REFUSALS) as caught:
        run()
    assert len(str(caught.value)) > 30, "it says what to write"


# ---- how a row is run -------------------------------------------------------------------------------------------------------


def clip(*shape: int) -> Tensor:
    """A clip of negative and positive numbers, ``(2, 4, 23)`` unless said otherwise."""
    return torch.randn(*shape or (2, 4, 23))


def exact(net: Any, x: Tensor, reference: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """``forward`` is that of a reference, chunks and steps are as ``forward``."""
    net.eval()
    with torch.no_grad():
        y = net.forward(x)
        y = y[0] if isinstance(y, tuple) else y
        if reference is not None:
            assert_equal(y, reference(x))
        net.clean_state()
        assert_equal(net.forward_steps(x, pad_end=True, update_state=False), y)
        found = [net.forward_step(frame) for frame in x.unbind(2)]
        outs = [f if f.ndim == y.ndim else f.unsqueeze(2) for f in found if f is not None]
        found = torch.cat([*outs, *rest(net)], 2)
        assert_equal(found, y)
        net.clean_state()
    return y


def rest(net: Any) -> list[Tensor]:
    """What the end of the stream brings."""
    y = net.forward_steps(net.get_state().frame.zeros(0), pad_end=True)
    return [] if y is None else [y]


def twins(ours: type, theirs: type, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """A layer and that of torch, with the same weights."""
    net, module = ours(*args, **kwargs), theirs(*args, **kwargs)
    net.load_state_dict(module.state_dict())
    return net, module.eval()


def raising(fn: Callable[[], object], *errors: type[Exception]) -> None:
    """It raises all of these at once."""
    for error in errors:
        with pytest.raises(error):
            fn()


# ---- layers -----------------------------------------------------------------------------------------------------------------

SPACE = {1: (), 2: (5,), 3: (5, 4)}


@row("`Conv1d`, `Conv2d`, `Conv3d`", "same")
def _() -> None:
    for dims, space in SPACE.items():
        net, module = twins(getattr(co, f"Conv{dims}d"), getattr(nn, f"Conv{dims}d"), 4, 6, 3, 2, 1, 1, 2)
        exact(net, clip(2, 4, 11, *space), module)
        assert (net.delay, net.receptive_field, net.stride[0], net.padding[0]) == (1, 3, 2, 1)


@row('`Conv1d.build_from(conv, "zeros")`', "same")
def _() -> None:
    conv = nn.Conv1d(4, 3, 5, padding=2)
    exact(co.Conv1d.build_from(conv, "zeros"), clip(), conv)


@row('`Conv1d(…, dilation=2)`, `padding="same"`, `padding_mode="reflect"`', "corrected")
def _() -> None:
    for options in ({"dilation": 2}, {"padding": "same"}, {"padding": 2, "padding_mode": "reflect"}):
        exact(*(twins(co.Conv1d, nn.Conv1d, 4, 3, 5, **options)[0], clip()))
    with pytest.raises(co.NotStreamable, match="padding_mode"):
        co.Conv1d(4, 3, 3, padding=1, padding_mode="circular")


@row("`Conv1d(…, padding=4)` beyond the kernel", "corrected")
def _() -> None:
    assert exact(co.Conv1d(4, 4, 3, padding=4), clip()).shape[2] == 29
    assert co.Conv1d(4, 4, 3, padding=4).forward_step(clip()[:, :, 0]).shape == (2, 4, 3)


@row('`Conv1d(…, padding=1, padding_mode="circular")`', "refused")
def _() -> None:
    co.Conv1d(4, 3, 3, padding=1, padding_mode="circular")


@row("`AvgPool1d/2d/3d`, `MaxPool1d/2d/3d`", "same")
def _() -> None:
    for kind in ("Avg", "Max"):
        for dims, space in SPACE.items():
            net, module = (getattr(m, f"{kind}Pool{dims}d")(3, 2, 1) for m in (co, nn))
            exact(net, clip(2, 4, 11, *space) - 3, module)


@row("pools with `ceil_mode`, `count_include_pad`, `divisor_override`, `dilation`", "corrected")
def _() -> None:
    options: list[tuple[str, dict[str, Any]]] = [
        ("AvgPool2d", {"ceil_mode": True, "padding": 1}), ("AvgPool2d", {"count_include_pad": False, "padding": 1}),
        ("AvgPool2d", {"divisor_override": 2}), ("MaxPool2d", {"dilation": 2, "padding": 1}),
    ]  # fmt: skip
    for name, given in options:
        exact(getattr(co, name)(3, **given), clip(2, 4, 11, 7) - 3, getattr(nn, name)(3, **given))


ADAPTIVE = [(f"Adaptive{kind}Pool{dims}d", dims) for kind in ("Avg", "Max") for dims in (2, 3)]


@row("`AdaptiveAvgPool2d/3d`, `AdaptiveMaxPool2d/3d`", "same")
def _() -> None:
    for name, dims in ADAPTIVE:
        for frames in (6, 8):
            net = getattr(co, name)((1,) * dims, kernel_size=8)
            exact(net, clip(2, 4, frames, *SPACE[dims]) - 3, getattr(nn, name)(1))


@row("`AdaptiveAvgPool3d((1, 1, 1), kernel_size=4)` on a longer clip", "corrected")
def _() -> None:
    x = clip(2, 4, 9, 5, 4)
    y = exact(co.AdaptiveAvgPool3d((1, 1, 1), kernel_size=4), x)
    assert_equal(y, x.mean((3, 4), keepdim=True).unfold(2, 4, 1).mean(-1))


@row("`Linear(3, 2, channel_dim=1)`", "same")
def _() -> None:
    net, module = co.Linear(4, 3, channel_dim=1), nn.Linear(4, 3)
    net.load_state_dict(module.state_dict())
    exact(net, clip(), lambda x: module(x.transpose(1, 2)).transpose(1, 2))
    assert repr(co.Linear.build_from(module)) == "Linear(in_features=4, out_features=3, bias=True, channel_dim=-1)"


@row("`Linear(3, 2)` on `(B, C, T)`", "refused")
def _() -> None:
    with contextlib.suppress(co.ContinualError):
        co.Sequential(co.Conv1d(4, 3, 3), co.Linear(3, 2)).forward_step(clip()[:, :, 0])
        raise AssertionError("it runs")
    co.Linear(23, 2)(clip())


RNNS = [(co.RNN, nn.RNN), (co.GRU, nn.GRU), (co.LSTM, nn.LSTM)]


@row("`RNN`, `GRU`, `LSTM`", "same")
def _() -> None:
    for ours, theirs in RNNS:
        net, module = twins(ours, theirs, 4, 3, 2)
        exact(net, clip(), lambda x, module=module: module(x.permute(2, 0, 1))[0].permute(1, 2, 0))
    exact(co.Sequential(co.GRU(4, 3), co.Conv1d(3, 2, 3)), clip())


@row("`rnn(x, h)`, `rnn.set_state(h)`, `rnn.get_state()[0]`", "same")
def _() -> None:
    for ours, theirs in RNNS:
        net, module = twins(ours, theirs, 4, 3, 2)
        x = clip()
        _, h = module(x.permute(2, 0, 1))
        y = module(x.permute(2, 0, 1), h)[0].permute(1, 2, 0)
        assert_equal(net(x, h)[0], y)
        net.forward_steps(x)
        state = net.get_state()
        assert_equal(list(state), list(h) if isinstance(h, tuple) else [h])
        for given in (h, tuple(state)):
            net.set_state(given)
            assert_equal(net.forward_steps(x), y)


@row("`continual(nn.GRU(…, bidirectional=True))`", "refused")
def _() -> None:
    co.continual(nn.GRU(4, 4, bidirectional=True))


@row("`Delay(2)`", "same")
def _() -> None:
    exact(co.Delay(2), clip(), lambda x: x)
    assert repr(co.Delay(2)) == "Delay(2)"
    exact(co.Delay(0, temporal_fill="zeros"), clip(), lambda x: x)


@row('`Delay(2, auto_shrink=True)`, `auto_shrink="lagging"`', "corrected")
def _() -> None:
    exact(co.Delay(2, auto_shrink=True), clip(), lambda x: x[:, :, 2:-2])
    exact(co.Delay(2, auto_shrink="lagging"), clip(), lambda x: x[:, :, :-2])
    assert repr(co.Delay(2, auto_shrink=True)) == "Delay(2, auto_shrink=True)"


@row("`delay.state_buffer`, `delay.state_index`", "refused")
def _() -> None:
    delay: Any = co.Delay(2)
    x = clip()
    delay.forward_steps(x)
    assert_equal(delay.get_state().tensors["frames"].sum(1), x[:, :, -2:].sum(2))
    _ = delay.state_buffer


@row("`Skip`", "same")
def _() -> None:
    exact(co.Skip(2), clip(), lambda x: x[:, :, 2:])


@row("`Reshape((2, 20))`, `Reshape(2, 20)`", "same")
def _() -> None:
    for net in (co.Reshape((2, 20)), co.Reshape(2, 20), co.Reshape((2, 20), contiguous=True)):
        exact(net, clip(2, 4, 7, 5), lambda x: x.transpose(2, 3).flatten(1, 2))


@row("`RecyclingPositionalEncoding`", "same")
def _() -> None:
    net = co.RecyclingPositionalEncoding(4, 30, forward_update_index_steps=0)
    exact(net, clip())
    assert co.RecyclingPositionalEncoding(embed_dim=4, num_embeds=30, learned=True)(clip()).shape == clip().shape


@row("`RecyclingPositionalEncoding(…, learned=False)`", "corrected")
def _() -> None:
    net = co.RecyclingPositionalEncoding(4, 30, learned=False)
    assert (exact(net, torch.zeros(1, 4, 23)).abs().amax((0, 2)) > 0.1).all()


@row("`encoding(x)` twice", "corrected")
def _() -> None:
    net = co.RecyclingPositionalEncoding(4, 30).eval()
    x = clip()
    assert_equal(net(x), net(x))
    assert not torch.equal(net.train()(x), net(x))


# ---- functions as layers ----------------------------------------------------------------------------------------------------


@row("`Lambda(fn)`, `Lambda(fn, takes_time=True)`, `Lambda(nn.Sigmoid())`", "same")
def _() -> None:
    exact(co.Lambda(lambda x: x.softmax(1)), clip(), lambda x: x.softmax(1))
    exact(co.Lambda(lambda x: x.softmax(1), takes_time=True), clip(), lambda x: x.softmax(1))
    exact(co.Lambda(nn.Sigmoid()), clip(), torch.sigmoid)


@row("`Lambda(fn, forward_only_fn=…, forward_step_only_fn=…, forward_steps_only_fn=…)`", "same")
def _() -> None:
    net, x = co.Lambda(lambda x: x + 1, lambda x: x + 2, lambda x: x + 3, lambda x: x + 4), clip()
    assert_equal((net(x), net.forward_steps(x), net.forward_step(x[:, :, 0])), (x + 2, x + 4, x[:, :, 0] + 3))
    with pytest.raises(ValueError, match="or all three"):
        co.Lambda(forward_only_fn=torch.relu)


@row("`Lambda.build_from(fn, takes_time=True)`", "same")
def _() -> None:
    exact(co.Lambda.build_from(lambda x: 42 * torch.ones_like(x), takes_time=True), clip(), lambda x: 42 * torch.ones_like(x))


@row("`repr(Lambda(lambda x: x + 1))`", "same")
def _() -> None:
    net = co.Lambda(lambda x: torch.ones_like(x) * 42, takes_time=True)
    assert repr(net) == "Lambda(lambda x: torch.ones_like(x) * 42, takes_time=True)"
    assert repr(co.Lambda(clip)) == "Lambda(clip)"


@row("`Add(2)`, `Multiply(2)`", "same")
def _() -> None:
    exact(co.Add(3.14), clip(), lambda x: x + 3.14)
    exact(co.Multiply(-2), clip(), lambda x: x * -2)
    assert repr(co.Add(2)) == "Add(2)"


@row("`Add(tensor)`, `Multiply(tensor)`", "same")
def _() -> None:
    constant = torch.tensor([[[[2.0, 3.0]]]])
    exact(co.Add(constant), clip(2, 4, 7, 2), lambda x: x + constant)
    exact(co.Multiply(constant), clip(2, 4, 7, 2), lambda x: x * constant)


@row("`Add(tensor)` that differs between moments", "refused")
def _() -> None:
    co.Add(torch.randn(1, 1, 7)).forward_steps(clip(2, 4, 7))


@row("`Constant(3)`, `Zero()`, `One()`, `Identity(54, unused=1)`", "same")
def _() -> None:
    for net, value in ((co.Constant(3), 3), (co.Zero(), 0), (co.One(), 1)):
        exact(net, clip(), lambda x, value=value: torch.full_like(x, value))
    exact(co.Identity(54, unused=1), clip(), lambda x: x)


@row("`Constant(tensor)`", "refused")
def _() -> None:
    constant = torch.randn(1, 4, 1)
    exact(co.Sequential(co.Zero(), co.Add(constant)), clip(), lambda x: constant.expand_as(x))
    co.Constant(constant)  # type: ignore[arg-type]


# ---- containers -------------------------------------------------------------------------------------------------------------


def conv(kernel: int, padding: int | None = None, stride: int = 1) -> co.Conv1d:
    return co.Conv1d(4, 4, kernel, stride, kernel // 2 if padding is None else padding)


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
    raising(lambda: co.ParallelDispatch([1.0, "nah"]), AssertionError, ValueError)


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


@row("`attention.flops(include_muls=True, include_adds=False, include_exps=False)`", "same")
def _() -> None:
    for cls in (SINGLE, RETRO):
        net = attentions(cls)[0]
        assert net.flops() == net.flops(True, False, False) < net.flops(include_adds=True) < net.flops(True, True, True)


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


@row("`multihead_attention.mha_base`, functions such as `_scaled_dot_product_attention_step`", "refused")
def _() -> None:
    assert not hasattr(co.multihead_attention.retroactive_mha, "_scaled_dot_product_attention_step")
    importlib.import_module("continual.multihead_attention.mha_base")


# ---- every module -----------------------------------------------------------------------------------------------------------


@row("`net.receptive_field`, `net.delay`, `net.stride`, `net.padding`", "same")
def _() -> None:
    net = co.Sequential(co.Conv1d(1, 1, 3, stride=2, padding=2), co.Conv1d(1, 1, 3))
    assert (net.receptive_field, net.delay, net.stride, net.padding) == (7, 4, (2,), (2,))


@row("`forward`, `forward_step`, `forward_steps`, `update_state=False`, `pad_end=True`", "same")
def _() -> None:
    net, x = co.Sequential(conv(3), conv(3)), clip()
    y = net(x)
    firsts = net.forward_steps(x[:, :, :9], pad_end=True, update_state=False)
    assert_equal(net.forward_steps(x[:, :, :9], pad_end=True), firsts)
    assert_equal(net.forward_step(x[:, :, 9], update_state=False), y[:, :, 7])
    assert_equal(net.forward_step(x[:, :, 9]), y[:, :, 7])


@row("`CoModule`, `CoModule.is_valid`, `CoModule.build_from`", "same")
def _() -> None:
    assert isinstance(conv(3), co.CoModule)
    assert [co.CoModule.is_valid(m) for m in (conv(3), nn.ReLU(), 3)] == [True, False, False]
    exact(co.GRU.build_from(nn.GRU(4, 3, batch_first=True)), clip())


class OwnStep(co.CoModule):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * input

    def forward_step(self, input: Any, update_state: bool = True) -> Any:
        return 2 * input


@row("a subclass of `CoModule` with a `forward_step` of its own, in a container", "refused")
def _() -> None:
    assert_equal(OwnStep().forward_step(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    co.Sequential(OwnStep())


@row("`net.get_state()`, `net.set_state(state)`, `net.clean_state()`", "corrected")
def _() -> None:
    net, x = co.Sequential(co.Residual(conv(3)), co.AvgPool1d(2), co.GRU(4, 3)), clip()
    assert net.get_state() is None
    net.forward_steps(x[:, :, :7])
    state = net.get_state()
    assert all(isinstance(t, Tensor) for t in state)
    y = net.forward_steps(x[:, :, 7:])
    net.set_state(state)
    assert torch.equal(net.forward_steps(x[:, :, 7:]), y)
    net.clean_state()
    assert net.get_state() is None


@row("`net._forward_step(x, state)`", "same")
def _() -> None:
    net, x, state = co.Sequential(conv(3), conv(3)), clip(), None
    for t in range(4):
        with pytest.warns(DeprecationWarning, match="net.step under an earlier name"):
            y, state = net._forward_step(x[:, :, t], state)
    assert_equal(y, net(x)[:, :, 1])
    assert len(co.utils.flatten(state)) == 2


@row("`net._state_shape`, `net._dynamic_state_inds`", "refused")
def _() -> None:
    net: Any = conv(3)
    assert [t.shape[1:] for t in net.init_state(clip()[:, :, 0])] == [(2, 4)]
    _ = net._state_shape


@row("`net.warm_up(step_shape)`", "corrected")
def _() -> None:
    net = conv(5).double()
    net.warm_up((2, 4))
    assert net.forward_step(clip()[:, :, 0].double()) is not None


@row('`net.call_mode = "forward_step"`, `with call_mode("forward_step"):`', "same")
def _() -> None:
    net, x = co.Sequential(conv(1)), clip()
    net.call_mode = "forward_step"
    assert net(x[:, :, 0]).shape == (2, 4)
    with co.call_mode("forward_steps"):
        assert net(x, pad_end=True).shape == x.shape
        with co.module.call_mode("forward"):
            assert_equal(net(x), net.forward(x))
        assert net(x).shape == x.shape
    assert (net.call_mode, net[0].call_mode) == ("forward_step", "forward_step")


@row("`PaddingMode`", "same")
def _() -> None:
    assert {mode.name: mode.value for mode in co.PaddingMode} == {
        "REPLICATE": "replicate",
        "ZEROS": "zeros",
        "NEG_INF": "neg_inf",
    }
    exact(co.Conv1d(4, 4, 3, padding=1, temporal_fill=co.PaddingMode.REPLICATE), clip())


@row("`net.train()`, then steps of a norm", "corrected")
def _() -> None:
    net, x = co.Sequential(co.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.ReLU()).train(), clip(2, 3, 7, 5, 5)
    with pytest.warns(UserWarning, match="in training mode"):
        assert net.forward_steps(x, pad_end=True).shape == net(x).shape
    exact(net, x)


@row("another batch size in mid-stream", "refused")
def _() -> None:
    net = conv(3)
    net.forward_step(clip()[:, :, 0])
    net.forward_step(clip()[:1, :, 0])


@row("`torch.jit.script(net)`", "refused")
def _() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        torch.jit.script(conv(3))


# ---- conversion -------------------------------------------------------------------------------------------------------------


@row("`continual(module)`, `convert.register`", "same")
def _() -> None:
    module = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(2)).double().eval()
    net = co.continual(module)
    exact(net, clip().double(), module)
    assert net[1] is not module[1]
    assert next(net.parameters()) is not next(module.parameters())
    assert callable(co.convert.register)  # its effect lasts for the process: tests/convert/test_convert.py


@row('`continual("no module")`', "refused")
def _() -> None:
    co.continual("no module")  # type: ignore[arg-type]


@row("`continual(nn.GroupNorm(2, 4))`, `nn.Softmax(-1)` on `(B, C, T)`", "refused")
def _() -> None:
    with contextlib.suppress(co.NotStreamable):
        co.continual(nn.Sequential(nn.Softmax(-1))).forward_step(clip()[:, :, 0])
        raise AssertionError("it runs")
    co.continual(nn.GroupNorm(2, 4))


@row("`forward_stepping`", "corrected")
def _() -> None:
    module = nn.Conv3d(4, 2, 1)
    net = co.forward_stepping(module)
    exact(net, clip(2, 4, 5, 3, 3), module)
    assert net is not module
    assert type(module) is nn.Conv3d
    assert net.weight is module.weight


# ---- state dicts and tools --------------------------------------------------------------------------------------------------


def nested() -> co.BroadcastReduce:
    return co.BroadcastReduce(co.Sequential(nn.Conv1d(1, 1, 3)), co.Sequential(OrderedDict(c1=nn.Conv1d(1, 1, 3))))


FLAT = {"weight", "bias", "c1.weight", "c1.bias"}


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@row("`flat_state_dict`, `state_dict(net, flatten=True)`, `load_state_dict(net, saved, flatten=True)`", "same")
def _() -> None:
    a, b = nested(), nested()
    assert set(co.state_dict(a, flatten=True)) == FLAT
    co.load_state_dict(b, co.state_dict(a, flatten=True), flatten=True)
    assert same_weights(a, b)
    b = nested()
    with co.utils.flat_state_dict:
        assert set(a.state_dict()) == FLAT
        b.load_state_dict(a.state_dict())
    assert same_weights(a, b)


@row("`net.state_dict(flatten=True)`, `net.load_state_dict(saved, flatten=True)`", "same")
def _() -> None:
    a, b = nested(), nested()
    assert set(a.state_dict(flatten=True)) == FLAT
    b.load_state_dict(a.state_dict(flatten=True), flatten=True)
    assert same_weights(a, b)


@row("`onnx.export(net, step, path, input_names=…, output_names=…)`", "corrected")
def _() -> None:
    assert co.onnx.export.__name__ == "export"  # written and run in tests/export/test_files.py
    net, x = conv(3), clip()[:, :, 0]
    with pytest.raises(co.ExportError, match="does not take 2 inputs.*the step alone"):
        co.onnx.export(net.eval(), (x, *net.init_state(x)), "nowhere.onnx")


@row("`onnx.export(…, verbose=True)`", "refused")
def _() -> None:
    co.onnx.export(conv(3).eval(), clip()[:, :, 0], "nowhere.onnx", verbose=True)


@row("`onnx.OnnxWrapper(net)`", "corrected")
def _() -> None:
    net, x = co.Sequential(co.Residual(conv(3)), co.GRU(4, 3)).eval(), clip()
    step, state = co.onnx.OnnxWrapper(net), []
    for frame in x.unbind(2):
        y, *state = step(frame, *state)
    assert_equal(y, net(x)[:, :, -2])
    assert len(step.state_input_names) == len(step.state_output_names) == len(state)


@row("`ptflops.get_model_complexity_info(net, …)`", "corrected")
def _() -> None:
    torchvision()  # which ptflops imports
    ptflops = pytest.importorskip("ptflops", reason="needs ptflops, of the extra `dev`")
    net = co.Conv1d(4, 5, 3)
    co.counting.register_with_ptflops(net)
    assert ptflops.get_model_complexity_info(net, (4, 9), as_strings=False) == (7 * (4 * 5 * 3 + 5), 65)


@row("`logging.getLogger(name, log_once=True)`", "same")
def _() -> None:
    logger, seen = co.logging.getLogger("earlier code", log_once=True), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    for text in ("Hey", "There", "Hey"):
        logger.warning(text)
    assert seen == ["Hey", "There"]


@row("`utils.temporary_parameter`, `utils.flatten`", "same")
def _() -> None:
    net: Any = conv(3)
    with co.utils.temporary_parameter(net, "note", 42):
        assert net.note == 42
    assert not hasattr(net, "note")
    assert co.utils.flatten([1, [2, (3, None)]]) == [1, 2, 3]


@row("`utils.rsetattr`, `utils.rgetattr`, `utils.num_from`, `utils.function_repr`", "refused")
def _() -> None:
    utils: Any = co.utils
    names = ("rsetattr", "rgetattr", "num_from", "function_repr")
    assert not any(hasattr(utils, name) for name in names)
    _ = utils.rgetattr


@row(
    "`__about__`: `__version__`, `__author__`, `__author_email__`, `__license__`, `__copyright__`, `__homepage__`, `__docs__`",
    "same",
)
def _() -> None:
    about = importlib.import_module("continual.__about__")
    assert about.__version__ == co.__version__
    assert all(type(value) is str for name, value in vars(about).items() if name in about.__all__)


def test_a_refusal_that_does_not_come_fails():
    """A row that says *refused* of a call that runs is wrong."""
    HELD["made up"] = "refused", lambda: F.relu(torch.zeros(1))
    try:
        with pytest.raises(pytest.fail.Exception):
            test_row("made up")
    finally:
        del HELD["made up"]
