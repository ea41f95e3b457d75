"""What the suite measures: our network, what it is compared with, and what all of them must give."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from tests.convert.networks import made

from . import bursts, conversion, workloads, zoo
from .measure import BEYOND, Rival, check, require_equal
from .other_library import CantRun
from .workloads import Workload

ZOO = ("cox3d_s", "cox3d_m", "coslow", "cost_gcn", "cost_gcn_star", "cooadtr_b1", "cooadtr_b2", "kws_ds_cnn")
CONVERTED = ("r3d_18",)


@dataclass
class Subject:
    """A row of the suite, built and checked.

    Attributes:
        name: what the row is called.
        net: ours, in eval mode.
        frame: one step.
        period: steps after which the pattern of outputs repeats.
        windows: the plain network, ways to bring the outputs of a period.
        clip: ``(B, C, T, *S)``; the last output of a stream of it is ``expected``.
        expected: by our steps, which were checked against the plain network.
        conversion: seconds that it took to make ours.
        clip_operations: multiply-adds of the plain network for the outputs of a period, if they can be counted.
        theirs: how the other library is asked to build it: the layers, and the weights in their order; or why it can't.
    """

    name: str
    net: Any
    frame: Tensor
    period: int
    windows: dict[str, Callable[[], Any]]
    clip: Tensor
    expected: Tensor
    conversion: float = 0.0
    clip_operations: float = 0.0
    theirs: tuple[Any, Any] | str = ""
    kind: str = "network"
    notes: list[str] = field(default_factory=list)


def last(y: Any) -> Tensor:
    """The last output of what a step or a chunk gave."""
    return y[0] if isinstance(y, list) else y


def stepped(net: Any, clip: Tensor) -> Tensor:
    """The last output of a stream from a cold start."""
    net.clean_state()
    outputs = [last(y) for f in clip.unbind(2) if (y := net.forward_step(f)) is not None]
    net.clean_state()
    return outputs[-1]


def operations_of(call: Callable[[], Any]) -> float:
    """Multiply-adds of a call, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with (
        torch.inference_mode(False),
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=co.counting.flop_formulas()) as counter,
    ):
        call()
    return counter.get_total_flops() / 2


def of_workload(workload: Workload) -> Subject:
    """A layer or a network of the table of layers."""
    with torch.inference_mode(False):  # ordinary parameters, as in a network that was loaded before
        plain = workload.constant_rate()
        start = time.perf_counter()
        net = co.continual(plain, **workload.options)
        took = time.perf_counter() - start
    window, period = net.receptive_field, workload.period
    if period > 1:
        clip = workload.clip(bursts.Burst.of(net, period).stop + period)
        bursts.check(net, plain, clip, period, require_equal)
        _, theirs = bursts.calls(net, plain, clip, period)
        ways, other = {"cat": theirs}, "it has no transposed convolution"
    else:
        clip, rival = workload.clip(window + BEYOND), Rival.of(workload, window)
        check(net, plain, clip, rival)
        first, frame = clip[:, :, :window].clone(), clip[:, :, 0].clone()
        ways, other = {name: partial(way(plain, first), frame) for name, way in rival.ways.items()}, ""
    return Subject(
        workload.name, net, clip[:, :, 0].clone(), period, ways, clip, stepped(net, clip), took, operations_of(next(iter(ways.values()))),
        other or (workload, plain), workload.kind,
    )  # fmt: skip


def of_zoo(name: str, **options: Any) -> Subject:
    """A network of the model zoo; the clip is the published one, of the network that the papers compare with.

    Args:
        name: of the network.
        options: of ``co.models.create``.
    """
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        start = time.perf_counter()
        net = zoo.alive(co.models.create(name, **options))
        took = time.perf_counter() - start
        whole = zoo.alive(co.models.create(net.card.clip_network, **options)) if net.card.clip_network else copy.deepcopy(net)
        stride = net.stride[0]
        published = torch.randn(1, net.step_shape[0], whole.card.frames, *net.step_shape[1:])
        clip = torch.randn(1, net.step_shape[0], net.delay + 2 * stride, *net.step_shape[1:])
        expected, want = stepped(net, clip), net(clip)
        given = net.forward_steps(clip).shape[2]
        net.clean_state()
        require_equal("forward_step", expected.unsqueeze(2), want[:, :, given - 1 : given])
    call = partial(whole, published)
    theirs: tuple[Any, Any] | str
    try:
        described = zoo.Described(net)
        theirs = described, zoo.Weights(described.weights)
    except CantRun as error:
        theirs = str(error)
    return Subject(
        name, net, clip[:, :, 0].clone(), stride, {"clip": call}, clip, expected, took, operations_of(call), theirs
    )  # fmt: skip


def of_conversion(name: str) -> Subject:
    """A network that is converted by its graph."""
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        case = made(name, batch=1, **conversion.SIZES[name])
        zoo.alive(case.module)
        start = time.perf_counter()
        net = case.convert()
        took = time.perf_counter() - start
        period = math.lcm(net.timing.period, 1)
        frames = conversion.window_of(case, net)
        window = case.clips(frames)
        clip = case.clips(net.delay + 2 * period)[0]
        expected = stepped(net, clip)
        require_equal("forward_step", expected, last(net.forward_steps(clip))[:, :, -1])
        net.clean_state()
    call = partial(case.module, *window)
    return Subject(
        f"{name}, converted", net, clip[:, :, 0].clone(), period, {"window": call}, clip, expected, took, operations_of(call),
        "it converts registered classes alone",
    )  # fmt: skip


def streaming(
    name: str, net: Any, whole: Callable[[Tensor], Tensor], clip: Tensor, call: Callable[[], Any], took: float, theirs: str
) -> Subject:
    """A network in hops of the steps that bring an output, checked against a module on whole clips.

    Args:
        name: of the row.
        net: ours.
        whole: all outputs of a clip.
        clip: ``(B, C, T, *S)``.
        call: what people do without us for the output of a hop.
        took: seconds that it took to make the network.
        theirs: why the other library has no number.
    """
    expected, chunk = stepped(net, clip), last(net.forward_steps(clip))
    require_equal(name, chunk, whole(clip)[:, :, : chunk.shape[2]])
    require_equal("forward_step", expected, chunk[:, :, -1])
    net.clean_state()
    return Subject(
        name, net, clip[:, :, 0].clone(), int(net.step_size), {"window": call}, clip, expected, took, operations_of(call), theirs
    )  # fmt: skip


def recompute(module: Callable[[Tensor], Tensor], first: Tensor, hop: Tensor) -> Callable[[], Tensor]:
    """The caller keeps the window, appends a hop, and computes an output."""
    window, new = first.clone(), hop.shape[2]

    def call() -> Tensor:
        nonlocal window
        window = torch.cat((window[:, :, new:], hop), 2)
        return module(window)

    return call


def subjects() -> dict[str, Callable[[], Subject]]:
    """All rows by name; building one takes up to some seconds."""
    rows: dict[str, Callable[[], Subject]] = {w.name: partial(of_workload, w) for w in workloads.WORKLOADS}
    rows |= {name: partial(of_zoo, name) for name in ZOO}
    return rows | {f"{name}, converted": partial(of_conversion, name) for name in CONVERTED}


def norms_of(net: nn.Module) -> int:
    """How many norms there are that could be folded."""
    return sum(
        isinstance(m, nn.modules.batchnorm._BatchNorm) or getattr(m, "kind", "").startswith("BatchNorm") for m in net.modules()
    )
