"""Whole networks from containers, against the same computation written in plain torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import check_contract, check_gradients


class Reference(nn.Module):
    """A function of a clip that uses the layers of a network."""

    def __init__(self, fn: Callable[[Tensor], Tensor]):
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


def conv(i: int, o: int, k: int = 3, s: int = 1, p: int | None = None, **options: object) -> co.Conv1d:
    return co.Conv1d(i, o, k, s, k // 2 if p is None else p, **options)


def resnet_block():
    """k3 s2, k3, and a shortcut of 1×1 s2."""
    a, b, short, norm = conv(2, 4, s=2), conv(4, 4), conv(2, 4, 1, 2), nn.BatchNorm1d(4).eval()
    main = co.Sequential(a, norm, nn.ReLU(), b)
    net = co.Sequential(co.BroadcastReduce(main, short), nn.ReLU())
    return net, lambda x: (b(main[1](a(x)).relu()) + short(x)).relu()


def two_resnet_blocks():
    first, one = resnet_block()
    inner = co.Sequential(conv(4, 4), nn.ReLU(), conv(4, 4))
    net = co.Sequential(first, co.Residual(inner), nn.ReLU(), conv(4, 2, 1))
    return net, lambda x: net[3]((inner(one(x)) + one(x)).relu())


def inception():
    branches = (
        conv(2, 3, 1),
        co.Sequential(conv(2, 2, 1), nn.ReLU(), conv(2, 3)),
        co.Sequential(conv(2, 2, 1), conv(2, 3, 5)),
        co.Sequential(co.MaxPool1d(3, 1, 1), conv(2, 1, 1)),
    )
    return co.BroadcastReduce(*branches, reduce="concat"), lambda x: torch.cat([b(x) for b in branches], 1)


def wavenet():
    """Dilated causal convolutions with a gate, residual and skip connections."""
    cells, outs = [], []
    for d in (1, 2, 4):
        both = co.Sequential(conv(4, 8, 2, p=d, dilation=d), co.Trim(0, d), nn.GLU(1))
        cells.append(co.Residual(co.Sequential(both, conv(4, 4, 1))))
        outs.append(conv(4, 2, 1))
    nested: nn.Module = outs[-1]
    for cell, out in zip(reversed(cells[1:]), reversed(outs[:-1])):
        nested = co.BroadcastReduce(out, co.Sequential(cell, nested))
    net = co.Sequential(conv(2, 4, 1), cells[0], nested, nn.ReLU(), conv(2, 1, 1))

    def reference(x: Tensor) -> Tensor:
        x, total = net[0](x), 0
        for cell, out in zip(cells, outs):
            x = cell(x)
            total = total + out(x)
        return net[4](total.relu())

    return net, reference


def squeeze_over_space():
    """A gate from a pool over space: (B, C, T, H, W) with branches of different spatial size."""
    gate = co.Sequential(nn.AdaptiveAvgPool3d((None, 1, 1)), co.Conv3d(3, 3, 1), nn.Sigmoid())
    stem = co.Conv3d(2, 3, 3, padding=1)
    net = co.Sequential(stem, co.BroadcastReduce(co.Identity(), gate, reduce="mul"), co.AvgPool3d((2, 1, 1), 1))

    def reference(x: Tensor) -> Tensor:
        y = stem(x)
        return nn.functional.avg_pool3d(y * gate[1](y.mean((3, 4), keepdim=True)).sigmoid(), (2, 1, 1), 1)

    return net, reference


def used_twice():
    shared = conv(2, 2)
    return co.Sequential(shared, nn.Tanh(), shared), lambda x: shared(shared(x).tanh())


def used_in_branches():
    shared = conv(2, 2)
    net = co.BroadcastReduce(shared, co.Sequential(shared, shared), reduce="mul")
    return net, lambda x: shared(x) * shared(shared(x))


def streams():
    """Broadcast, branches, a dispatch with a group, a nested reduction."""
    a, b = conv(2, 3), conv(2, 3, 5)
    net = co.Sequential(
        co.Broadcast(2),
        co.Parallel(a, b),
        co.ParallelDispatch([1, [0, 1]]),
        co.Parallel(co.Delay(1), co.Sequential(co.Reduce("concat"), conv(6, 3, 1))),
        co.Reduce("max"),
    )
    return net, lambda x: torch.maximum(b(x), net[3][1][1](torch.cat((a(x), b(x)), 1)))


def broadcast_without_a_number():
    a, b = conv(2, 3), conv(2, 3, 1)
    return co.Sequential(co.Broadcast(), co.Parallel(a, b), co.Reduce()), lambda x: a(x) + b(x)


def four_nested_levels():
    inner = co.Residual(co.Residual(conv(2, 2), reduce="mul"))
    net = co.Sequential(co.Sequential(co.BroadcastReduce(co.Sequential(inner), conv(2, 2, 5), reduce="max")))

    def residual(x: Tensor) -> Tensor:
        return x + x * inner[1][1](x)

    return net, lambda x: torch.maximum(residual(x), net[0][0][1](x))


def strided_branches_after_a_stride():
    """Queues at half rate behind another stride."""
    stem, a, b, c = conv(2, 2, s=3), conv(2, 3, 3, 2), conv(2, 3, 1, 2), conv(3, 3, 5)
    net = co.Sequential(stem, co.BroadcastReduce(co.Sequential(a, c), b))
    return net, lambda x: c(a(stem(x))) + b(stem(x))


NETWORKS = {
    make.__name__: make
    for make in (
        resnet_block, two_resnet_blocks, inception, wavenet, squeeze_over_space, used_twice, used_in_branches, streams,
        broadcast_without_a_number, four_nested_levels, strided_branches_after_a_stride,
    )
}  # fmt: skip


@pytest.mark.parametrize("total", [1, 2, 37])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, total: int):
    net, reference = NETWORKS[name]()
    shape = (2, 2, total, 4, 5) if name == "squeeze_over_space" else (3, 2, total)
    for dtype in (torch.float64, torch.float32):
        check_contract(net.to(dtype).eval(), torch.randn(shape).to(dtype), Reference(reference))
    if total > 30:
        check_gradients(net.double(), torch.randn(shape, dtype=torch.float64))


REPORTED = {
    "resnet_block": (7, 3, (2,), (3,)),
    "inception": (5, 2, (1,), (2,)),
    "wavenet": (8, 0, (1,), (7,)),
    "used_twice": (5, 2, (1,), (2,)),
    "strided_branches_after_a_stride": (33, 16, (6,), (16,)),
}


@pytest.mark.parametrize("name", REPORTED)
def test_what_a_network_reports(name: str):
    net, _ = NETWORKS[name]()
    assert (net.receptive_field, net.delay, net.stride, net.padding) == REPORTED[name]


def test_a_module_used_twice_has_a_state_for_each_use():
    net, _ = used_twice()
    assert sorted(net.init_state(torch.zeros(1, 2)).tensors) == ["0.window", "2.window"]
    assert sum(1 for _ in net.parameters()) == 2


def test_streams_in_and_out_as_lists():
    net = co.Parallel(conv(2, 3), conv(1, 2, 5)).double()
    clips = [torch.randn(2, 2, 15, dtype=torch.float64), torch.randn(2, 1, 15, dtype=torch.float64)]
    check_contract(net, clips)


BRANCHES_THAT_DISAGREE = {
    "lengths": (lambda: co.BroadcastReduce(conv(2, 2), conv(2, 2, p=0)), "output steps for this clip"),
    "residual without padding": (lambda: co.Residual(conv(2, 2, p=0)), "residual_shrink"),
}


@pytest.mark.parametrize("name", BRANCHES_THAT_DISAGREE)
def test_branches_of_different_lengths(name: str):
    """They are built (a stream may never end), and refused in `forward` and at the end. Torch would broadcast a length of 1."""
    make, message = BRANCHES_THAT_DISAGREE[name]
    net = make()
    for total in (3, 9):
        clip = torch.randn(2, 2, total)
        with pytest.raises(co.ShapeMismatch, match=message):
            net(clip)
        net.clean_state()
        ongoing = net.forward_steps(clip)
        with pytest.raises(co.ShapeMismatch, match="the stream ends here"):
            net.forward_steps(clip[:, :, :0], pad_end=True)
        assert ongoing is not None
        assert net.get_state().clock == total


def test_branches_of_different_strides_are_refused():
    with pytest.raises(co.ShapeMismatch, match=r"strides \[1, 2\]"):
        co.BroadcastReduce(conv(2, 2), conv(2, 2, s=2))


def test_too_short_for_one_branch():
    """Found by a random network: a branch with reflection needs more frames than the other, so `forward` raises."""
    net = co.BroadcastReduce(conv(2, 2, 1), conv(2, 2, 5, temporal_fill="reflect")).double()
    for total in (1, 2, 3):
        check_contract(net, torch.randn(2, 2, total, dtype=torch.float64))


REDUCTIONS = {
    "sum": sum,
    "concat": lambda s: torch.cat(s, 1),
    "mul": lambda s: s[0] * s[1] * s[2],
    "max": lambda s: torch.stack(s).max(0).values,
}


@pytest.mark.parametrize("name", [*REDUCTIONS, "callable"])
def test_reduce(name: str):
    reduce = (lambda s: s[0] - 2 * s[1] / (s[2].abs() + 1)) if name == "callable" else name
    kinds = REDUCTIONS | {"callable": reduce}
    branches = conv(2, 3), conv(2, 3, 1), conv(2, 3, 5)
    net = co.BroadcastReduce(*branches, reduce=reduce).double()
    clip = torch.randn(2, 2, 17, dtype=torch.float64)
    reference = Reference(lambda x: kinds[name]([b(x) for b in branches]))
    check_contract(net, clip, reference)
    check_contract(co.Sequential(co.Broadcast(3), co.Parallel(*branches), co.Reduce(reduce)), clip, reference)
    check_gradients(net, clip)


BAD = {
    "unknown reduction": (lambda: co.BroadcastReduce(conv(2, 2), reduce="mean"), ValueError, "reduce is one of 'sum'.*not 'mean'"),
    "unknown reduce": (lambda: co.Reduce("avg"), ValueError, "reduce is one of"),
    "no branch": (lambda: co.Parallel(), ValueError, "at least one branch"),
    "dispatch of names": (lambda: co.ParallelDispatch(["a"]), ValueError, "takes a list of indices and of lists of indices"),
    "dispatch of names, as an assertion": (lambda: co.ParallelDispatch([1.0, "nah"]), AssertionError, r"got 1\.0"),
    "unequal delays": (lambda: co.Parallel(conv(2, 2), conv(2, 2, 5), auto_delay=False), co.NotStreamable, "delays are"),
    "broadcast to nowhere": (lambda: co.Broadcast()(torch.zeros(1, 1, 2)), co.NotStreamable, "does not know its number"),
    "too few streams": (lambda: co.ParallelDispatch([2]).forward_steps([torch.zeros(1, 1, 2)] * 2), co.ShapeMismatch, "at least 3"),
    "one stream reduced": (lambda: co.Reduce().forward_steps(torch.zeros(1, 1, 2)), co.ShapeMismatch, "list of streams"),
    "one stream for two": (lambda: co.Parallel(conv(2, 2), conv(2, 2)).forward_steps(torch.zeros(1, 2, 2)), co.ShapeMismatch, "2 bra"),
    "channels": (lambda: co.Residual(conv(2, 3)).forward_step(torch.zeros(1, 2)), co.ShapeMismatch, "can't be reduced by sum"),
    "lengths of streams": (
        lambda: co.Parallel(conv(2, 2), conv(2, 2)).forward_steps([torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)]),
        co.ShapeMismatch,
        "equal lengths",
    ),
}  # fmt: skip


ROUTES: dict[str, tuple[Any, Any, Any]] = {  # what a module makes of values that are not streams
    "numbers to branches": (co.Broadcast(2), 42, [42, 42]),
    "numbers in another order": (co.ParallelDispatch([2, 0, [0, 2], 2]), [10, 11, 12], [12, 10, [10, 12], 12]),
    "nested lists": (co.ParallelDispatch([1, [1, 0]]), [[1, 2], "b"], ["b", ["b", [1, 2]]]),
    "numbers reduced": (co.Reduce(sum), [1, 2, 4], 7),
    "vectors of different lengths": (co.ParallelDispatch([1]), [torch.tensor([1, 2]), torch.tensor([3])], [torch.tensor([3])]),
    "vectors reduced": (co.Reduce("max"), [torch.tensor([1, 5]), torch.tensor([2, -3])], torch.tensor([2, 5])),
}


@pytest.mark.parametrize("name", ROUTES)
def test_values_without_time_are_routed(name: str):
    net, given, expected = ROUTES[name]
    for run in (net, net.forward, net.forward_step, net.forward_steps):
        assert str(run(given)) == str(expected)
    assert net.forward_steps(given, pad_end=True, update_state=False) is not None
    assert net.get_state() is None
    assert net.delay == 0


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name: str):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()


def test_equal_delays_need_no_alignment():
    net = co.BroadcastReduce(conv(2, 2), co.Sequential(conv(2, 2, 1), co.Delay(1)), auto_delay=False).double()
    check_contract(net, torch.randn(2, 2, 9, dtype=torch.float64))
