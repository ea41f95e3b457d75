"""Rows of the table: layers, and functions as layers. No tests are in this file."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import assert_equal
from tests.earlier.table import clip, exact, row, twins

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
    module, x = nn.Linear(3, 2), clip(2, 7, 3)
    net = co.forward_stepping(module, dim=1)
    assert_equal((net(x), net.forward_steps(x), net.forward_step(x[:, 0])), (module(x), module(x), module(x)[:, 0]))
    co.Linear(23, 2)(clip())


RNNS = [(co.RNN, nn.RNN), (co.GRU, nn.GRU), (co.LSTM, nn.LSTM)]


@row("`RNN`, `GRU`, `LSTM`", "same")
def _() -> None:
    for ours, theirs in RNNS:
        net, module = twins(ours, theirs, 4, 3, 2)
        exact(net, clip(), lambda x, module=module: module(x.permute(2, 0, 1))[0].permute(1, 2, 0))
    exact(co.Sequential(co.GRU(4, 3, bidirectional=False), co.Conv1d(3, 2, 3)), clip())


@row("`GRU(…, batch_first=True)`", "refused")
def _() -> None:
    for ours, _ in RNNS[1:]:
        with pytest.raises(TypeError, match="leave it out"):
            ours(4, 3, batch_first=True)  # type: ignore[call-arg]
    co.RNN(4, 3, batch_first=True)


@row("`rnn(x, h)`, `rnn.set_state(h)`, `rnn.get_state()[0]`", "same")  # in files: tests/tools/test_storage.py
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
