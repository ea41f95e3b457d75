"""Padding layers over time and space: every mode, sign and rank, against `torch.nn` and the contract."""

import pytest
import torch
from torch import nn

import continual as co
from tests.contract import check_contract, check_gradients, check_layer, outputs_due
from tests.long import by_turns

SPACE = {1: (), 2: (5,), 3: (5, 4)}
KINDS = ("ConstantPad", "ZeroPad", "ReplicationPad", "ReflectionPad")

# Time's pair is the last one.
PADDING = {
    "1d one number": (1, 2),
    "1d start": (1, (3, 0)),
    "1d end": (1, (0, 3)),
    "1d both": (1, (2, 4)),
    "1d nothing": (1, 0),
    "1d cut of the start": (1, (-2, 0)),
    "1d cut of the end": (1, (0, -2)),
    "1d cuts": (1, (-1, -3)),
    "1d shift later": (1, (3, -3)),
    "1d shift earlier": (1, (-3, 3)),
    "1d pad and cut more": (1, (1, -4)),
    "1d pad more than cut": (1, (5, -2)),
    "1d cut and pad more": (1, (-1, 5)),
    "2d one number": (2, 1),
    "2d all different": (2, (1, 2, 3, 0)),
    "2d time alone": (2, (0, 0, 2, 1)),
    "2d space alone": (2, (2, 1, 0, 0)),
    "2d cuts of space": (2, (-1, 2, 0, 3)),
    "2d cuts of both": (2, (-1, -2, -2, 1)),
    "3d one number": (3, 1),
    "3d all different": (3, (1, 2, 0, 3, 2, 1)),
    "3d space alone": (3, (1, 0, 2, 1, 0, 0)),
    "3d shift": (3, (0, -1, 1, 0, 2, -2)),
}


def made(library: object, kind: str, dims: int, padding: object) -> nn.Module:
    return getattr(library, f"{kind}{dims}d")(padding, *([-1.5] if kind == "ConstantPad" else []))


@pytest.mark.parametrize("name", PADDING)
@pytest.mark.parametrize("kind", KINDS)
def test_padding(kind: str, name: str):
    dims, padding = PADDING[name]
    net, reference = made(co, kind, dims, padding), made(nn, kind, dims, padding)
    check_layer(net, reference, (3, 2, 17, *SPACE[dims]))
    converted = co.continual(reference)
    assert type(converted) is type(net)
    assert repr(converted) == repr(net) == repr(reference)


@pytest.mark.parametrize("name", [n for n in PADDING if n.startswith("1d")])
@pytest.mark.parametrize("kind", KINDS)
def test_short_clips(kind: str, name: str):
    """Where torch refuses the clip or has no frames left, the flush gives None and the stream is unharmed."""
    _, padding = PADDING[name]
    net, reference = made(co, kind, 1, padding), made(nn, kind, 1, padding)
    for steps in range(1, 9):
        clip = torch.randn(2, 2, steps, dtype=torch.float64)
        try:
            wanted = reference(clip)
        except RuntimeError:
            wanted = clip[:, :, :0]
        if wanted.shape[2]:
            check_contract(net, clip, reference)
        else:
            check_contract(net, clip)
            with pytest.raises(co.ShapeMismatch, match=r"too short for padding \("):
                net(clip)
    assert net.forward_steps(clip[:, :, :0], pad_end=True) is None


@pytest.mark.parametrize("name", [n for n in PADDING if n.startswith("1d")])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_held_back(kind: str, name: str):
    net = made(co, kind, 1, PADDING[name][1])
    for n, due in enumerate(outputs_due(net, torch.randn(8, 2, 26, dtype=torch.float64))):
        assert net.timing.delivered(n) == due, f"after {n} inputs"


BURSTS = {
    "zeros": (co.ZeroPad1d((2, 1)), [3, 1, 1]),
    "replicate": (co.ReplicationPad1d((2, 0)), [3, 1, 1]),
    "reflect": (co.ReflectionPad1d((2, 0)), [0, 0, 5, 1]),
    "reflect at the end": (co.ReflectionPad1d((0, 2)), [0, 0, 3, 1]),
    "shift": (co.ReplicationPad1d((3, -3)), [3 - 2, 1, 1]),
    "cut": (co.ZeroPad1d((-1, -1)), [0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", BURSTS)
def test_bursts(name: str):
    """How many outputs each step brings; where it can be several, they always come stacked."""
    net, counts = BURSTS[name]
    net.clean_state()
    assert net.timing.bursts == (max(counts) > 1)
    for count in counts:
        y = net.forward_step(torch.randn(2, 3))
        assert (0 if y is None else y.shape[2] if net.timing.bursts else 1) == count


# ---- with windows behind them ---------------------------------------------------------------------------------------


def tcn(kind: str, channels: int = 3) -> nn.Sequential:
    """Causal dilated convolutions, padded by layers of their own."""
    blocks = [
        layer
        for d in (1, 2, 4)
        for layer in (made(nn, kind, 1, (2 * d, 0)), nn.Conv1d(channels, channels, 3, dilation=d), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.MaxPool1d(2, 1))


CAUSAL = {
    "constant": lambda: tcn("ConstantPad"),
    "zero": lambda: tcn("ZeroPad"),
    "replicate": lambda: tcn("ReplicationPad"),
    "wide convolution": lambda: nn.Sequential(nn.Conv1d(3, 3, 3, padding=4), nn.ReLU(), nn.Conv1d(3, 3, 5)),
    "reflect in the middle": lambda: nn.Sequential(nn.Conv1d(3, 3, 4), nn.ReflectionPad1d(2), nn.Conv1d(3, 3, 5)),
    "stride": lambda: nn.Sequential(
        nn.ZeroPad1d((2, 0)), nn.Conv1d(3, 3, 3, stride=2), nn.ConstantPad1d((1, 1), 3.0), nn.AvgPool1d(2)
    ),
    "even kernel": lambda: nn.Sequential(
        nn.ReplicationPad1d((1, 2)), nn.Conv1d(3, 3, 4), nn.ReflectionPad1d(1), nn.MaxPool1d(3, 1)
    ),
    "residual": lambda: co.Residual(tcn("ReplicationPad")[:3]),
    "branches": lambda: co.BroadcastReduce(tcn("ZeroPad")[:3], nn.Sequential(nn.ConstantPad1d((3, 0), 1.0), nn.Conv1d(3, 3, 4))),
    "pad, then branches": lambda: nn.Sequential(nn.ZeroPad1d((4, 0)), co.Residual(nn.Conv1d(3, 3, 5), residual_shrink="leading")),
}


@pytest.mark.parametrize("name", by_turns(CAUSAL, 2))
def test_swallowed_bursts(name: str):
    """Where windows behind the padding swallow its frames, a step has one output at most, and takes the fast path."""
    module = CAUSAL[name]().double()
    net = co.continual(module)
    assert not net.timing.bursts
    clip = torch.randn(2, 3, 41, dtype=torch.float64)
    check_contract(net, clip, None if isinstance(module, co.CoModule) else module)
    check_gradients(net, clip)
    state = net.init_state(clip[:, :, 0])
    assert state.fast_path
    assert 0 < state.fast_path_from <= net.receptive_field
    assert co.verify(net, clip).passed


def test_a_causal_convolution_has_no_delay():
    net = co.Sequential(co.ReplicationPad1d((2, 0)), co.Conv1d(3, 4, 3))
    assert (net.delay, net.receptive_field, net.timing.bursts) == (0, 3, False)
    with torch.no_grad():
        assert [net.forward_step(torch.zeros(2, 3)).shape for _ in range(12)] == [(2, 4)] * 12


def test_a_cut_behind_a_delay():
    """Found by a random network: padding that a cut holds back leaves by a step that knows more of the end than the layer has seen."""
    for kind in KINDS:
        net = co.Sequential(co.Delay(1), made(co, kind, 1, (1, -4)))
        check_contract(net, torch.randn(2, 2, 9, dtype=torch.float64))
        assert net.delay == 3


def test_bursts_that_nothing_swallows():
    """Padding in front of a stride, or beyond the window behind it."""
    for net in (
        co.Sequential(co.ZeroPad1d((4, 0)), co.Conv1d(3, 3, 3)),
        co.Sequential(co.ZeroPad1d((3, 0)), co.AvgPool1d(2)),
        co.Sequential(co.Conv1d(3, 3, 5), co.ReflectionPad1d((2, 3)), co.Conv1d(3, 3, 5)),  # the end wants a longer clip
    ):
        net, clip = net.double(), torch.randn(2, 3, 19, dtype=torch.float64)
        assert net.timing.bursts
        state = net.init_state(clip[:, :, 0])
        assert not state.fast_path or state.fast_path_from > 0  # single steps are fast once the bursts are over
        check_contract(net, clip)


def test_single_steps_are_fast_once_the_bursts_are_over():
    """As of a stream without bursts: the general path is asked for the first steps alone, and outputs stay stacked."""
    net = co.Sequential(co.Conv1d(3, 3, 1), co.ReflectionPad1d((1, 0)), co.Conv1d(3, 3, 2)).double()
    clip = torch.randn(2, 3, 9, dtype=torch.float64)
    with torch.no_grad():
        first = net.forward_steps(clip[:, :, :4])
        general = []
        net.__dict__["advance"] = lambda *args: general.append(args)
        steps = [net.forward_step(clip[:, :, t]) for t in range(4, 9)]
        assert not general
        torch.testing.assert_close(torch.cat((first, *steps), 2), net(clip))


# ---- values, dtypes, ranks, refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.5, -3, float("inf"), float("nan"), 1e30])
def test_any_value(value: float):
    net, reference = co.ConstantPad1d((2, 1), value), nn.ConstantPad1d((2, 1), value)
    check_contract(net, torch.randn(2, 3, 7), reference)
    assert net.forward_step(torch.zeros(1, 1))[0, 0, 0] == value or value != value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.bfloat16])
def test_other_dtypes(kind: str, dtype: torch.dtype):
    pads = (1, 0, 2, 1)
    net, reference = (getattr(library, f"{kind}2d")(pads, *([2.7] if kind == "ConstantPad" else [])) for library in (co, nn))
    clip = torch.randint(0, 100, (2, 3, 9, 4)).to(dtype)
    with torch.no_grad():
        chunks = [net.forward_step(clip[:, :, t]) for t in range(6)]
        outs = [c for c in chunks if c is not None] + [net.forward_steps(clip[:, :, 6:], pad_end=True)]
    assert torch.equal(torch.cat(outs, 2), reference(clip))
    assert co.verify(net, clip, reference).passed


CIRCULAR = {
    "2d": (nn.CircularPad2d, (2, 1, 0, 0), (2, 3, 9, 4)),
    "2d cut": (nn.CircularPad2d, (-1, 1, 0, 0), (2, 3, 9, 4)),
    "3d": (nn.CircularPad3d, (1, 2, 3, 0, 0, 0), (2, 3, 9, 4, 5)),
    "1d": (nn.CircularPad1d, 0, (2, 3, 9)),
}


@pytest.mark.parametrize("name", CIRCULAR)
def test_circular_over_space(name: str):
    cls, padding, shape = CIRCULAR[name]
    net, clip = co.continual(cls(padding)), torch.randn(shape, dtype=torch.float64)
    check_contract(net, clip, cls(padding))
    check_gradients(net, clip)
    assert (net.delay, net.receptive_field) == (0, 1)


@pytest.mark.parametrize(
    "module", [nn.CircularPad1d(1), nn.CircularPad2d((0, 0, 0, 2)), nn.CircularPad3d(1)], ids=lambda m: type(m).__name__
)
def test_circular_over_time_is_refused(module: nn.Module):
    name = type(module).__name__
    with pytest.raises(co.NotStreamable, match=f"(?s)0.1 \\({name}\\): {name}.*other end of the clip.*Remedies.*time's"):
        co.continual(nn.Sequential(nn.Sequential(nn.ReLU(), module)))
    assert co.continual(nn.Sequential(nn.CircularPad2d((1, 1, 0, 0)), nn.Conv2d(2, 2, 3, padding=(1, 0)))).delay == 1


def test_fewer_pairs_than_dimensions():
    """torch.nn then pads the last dimensions: not time."""
    net = co.continual(reference := nn.ConstantPad2d((1, 2), 4.0))
    check_contract(net, torch.randn(2, 3, 7, 5), reference)
    assert net.timing == co.Identity().timing


@pytest.mark.parametrize(
    "make", [lambda: co.ZeroPad1d((1, 2, 3)), lambda: co.ReflectionPad2d((1, 1)), lambda: co.ZeroPad1d((1, 1, 2, 2))]
)
def test_wrong_number_of_numbers(make):
    with pytest.raises(ValueError, match="the last dimension first and time last"):
        make()


def test_arguments_are_those_of_torch():
    assert co.ConstantPad1d(padding=(1, 2), value=3).value == 3
    for make in (lambda: co.ConstantPad1d(1), lambda: co.ZeroPad1d(1, 2), lambda: co.ReflectionPad1d(1, mode="x")):
        with pytest.raises(TypeError):
            make()
    assert co.ZeroPad1d.build_from(nn.ZeroPad1d(2), padding=(1, 0)).timing.ended(4) == 5


RANKS = {
    "zeros": (nn.ZeroPad2d((1, 2, 3, 4)), (2, 3, 5, 6), r"Write that as ZeroPad3d\(\(1, 2, 3, 4, 0, 0\)\)"),
    "value": (nn.ConstantPad1d(1, 7.0), (2, 3, 5), r"Write that as ConstantPad2d\(\(1, 1, 0, 0\), 7.0\)"),
    "reflect": (nn.ReflectionPad2d(1), (2, 3, 5, 6), r"expects steps \(B, C, W\), got \(2, 3, 5, 6\)"),
    "too few": (nn.ZeroPad3d(1), (2, 3, 5), r"expects steps \(B, C, H, W\), got \(2, 3, 5\)"),
    "small frame": (nn.ReflectionPad2d((5, 0, 0, 0)), (2, 3, 5), r"can't pad steps \(2, 3, 5\)"),
    "cut away": (nn.ReplicationPad2d((-3, -3, 0, 0)), (2, 3, 5), r"can't pad steps \(2, 3, 5\)"),
}


@pytest.mark.parametrize("name", RANKS)
def test_steps_of_another_rank_or_size(name: str):
    """Padding of the last two of five dimensions is padding of space, which the timing of this layer does not say."""
    module, step, message = RANKS[name]
    net = co.continual(nn.Sequential(module))
    with pytest.raises(co.ShapeMismatch, match=rf"0 \({type(module).__name__}\): .*{message}"):
        net.forward_step(torch.zeros(step))
    assert net.get_state() is None


def test_what_the_message_says_is_the_same_function():
    clip = torch.randn(2, 3, 7, 5, 6)
    assert torch.equal(co.ZeroPad3d((1, 2, 3, 4, 0, 0))(clip), nn.ZeroPad2d((1, 2, 3, 4))(clip))
