"""How much `co.verify` tries, how it says how far it is, and what an interrupt leaves behind."""

import io
import re
import signal
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.tools.checks.runner import _uninterrupted
from tests.test_progress import Terminal, waiting_at
from tests.tools.broken import HeldBack, LiveSnapshot, NoGradient, RunningSum
from tests.tools.test_verify_broken import BROKEN


def network() -> co.Sequential:
    torch.manual_seed(1)
    return co.Sequential(
        co.Conv1d(2, 4, 3, padding=1), nn.Dropout(0.5), nn.BatchNorm1d(4).eval(), nn.ReLU(), co.Conv1d(4, 2, 3, stride=2)
    )


def steps_taken(net: nn.Module, clip: Tensor, **options: Any) -> int:
    taken = 0

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal taken
        taken += inputs[0].shape[2] if inputs[0].ndim > 2 else 1

    handle = net[0].register_forward_pre_hook(count)
    co.verify(net, clip, **options)
    handle.remove()
    return taken


def test_work_is_some_tens_of_clips() -> None:
    """On five layers and a clip of 250 steps, forward, chunks and steps took 375 lengths of the clip at c80071a, and 75 since."""
    clip = torch.randn(2, 2, 200)
    full = steps_taken(network(), clip)
    assert full < 90 * 200
    assert steps_taken(network(), clip, effort="quick") < 0.6 * full


@pytest.mark.parametrize("make", [HeldBack, NoGradient, LiveSnapshot], ids=lambda m: m.__name__)
def test_a_quick_look_catches_what_is_broken_everywhere(make: Any) -> None:
    assert not co.verify(make(2, 3, 3, padding=1), torch.randn(2, 2, 40), effort="quick", raise_on_fail=False).passed
    assert not co.verify(RunningSum(4, stride=1), torch.randn(2, 2, 40), effort="quick", raise_on_fail=False).passed


def test_long_clips_are_no_hiding_place() -> None:
    """What is broken at every moment is caught on a clip that is looked at in places, too."""
    for name, (make, point, _, _) in BROKEN.items():
        if name in (
            "held back",
            "output queued",
            "no flush",
            "flush touches the state",
            "too early",
            "exception inside",
            "copies share",
        ):
            report = co.verify(make(), torch.randn(2, 2, 90), raise_on_fail=False)
            assert point in {c.point for c in report.failures}, name


def test_effort_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="effort is one of 'full', 'quick', got 'some'"):
        co.verify(network(), torch.randn(2, 2, 20), effort="some")  # type: ignore[arg-type]


# ---- progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_told_before_each_check() -> None:
    told: list[tuple[int, int, str]] = []
    report = co.verify(network(), torch.randn(2, 2, 20), progress=lambda *args: told.append(args))
    assert told[0] == (0, len(report.checks), "the clip")
    assert told[1:-1] == [(i, len(report.checks), c.name) for i, c in enumerate(report.checks)]
    assert told[-1] == (len(report.checks), len(report.checks), "done")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_standard_error(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = waiting_at(Terminal() if terminal else io.StringIO(), monkeypatch)
    net, clip = network(), torch.randn(2, 2, 20)
    co.verify(net, clip, progress=True)
    said = found.getvalue()
    bars = re.findall(r"continual: verifying Sequential: \d s, \[(#*)( *)\] (\d+)/28 \w", said)
    assert bars, said
    assert all((len(full), len(left)) == (24 * int(n) // 28, 24 - 24 * int(n) // 28) for full, left, n in bars)
    assert ("\n" not in said) is terminal
    before = len(said)
    co.verify(net, clip)
    assert len(found.getvalue()) == before


# ---- interrupts --------------------------------------------------------------------------------------------------------


class Everything:
    """All that a verification may not change of a network."""

    def __init__(self, net: nn.Module) -> None:
        state = net.get_state()
        self.clock, self.state = state.clock, {k: v.clone() for k, v in state.tensors.items()}
        self.flags = [m.training for m in net.modules()]
        self.weights = {k: v.clone() for k, v in net.state_dict().items()}
        self.grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
        self.hooks = [len(m._forward_pre_hooks) for m in net.modules()]
        self.random = torch.get_rng_state()
        self.mode = net.call_mode

    def __eq__(self, other: Any) -> bool:
        def same(a: Any, b: Any) -> bool:
            if isinstance(a, dict):
                return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
            if isinstance(a, list):
                return len(a) == len(b) and all(map(same, a, b))
            return torch.equal(a, b) if isinstance(a, Tensor) else a == b

        return same(self.__dict__, other.__dict__)


def in_mid_stream() -> co.Sequential:
    net = network().train()
    net[2].eval()
    net.call_mode = "forward_steps"
    net.forward_steps(torch.randn(3, 2, 7))
    net[0].weight.grad = torch.ones_like(net[0].weight)
    return net


def test_an_interrupt_leaves_the_network_as_it_was() -> None:
    """At calls of a layer from the first to the last, in forward and in steps, with gradients and in copies."""
    net = in_mid_stream()
    before = Everything(net)
    for at in [0, 1, 2, 3, *range(5, 500, 97)]:
        left = at

        def interrupt(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        handle = net[4].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            co.verify(net, torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(0)))
        handle.remove()
        assert Everything(net) == before, at


def test_an_interrupt_between_checks() -> None:
    net = in_mid_stream()
    before = Everything(net)

    def interrupt(done: int, total: int, name: str) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        co.verify(net, torch.randn(3, 2, 20, generator=torch.Generator().manual_seed(0)), progress=interrupt)
    assert Everything(net) == before


def test_a_second_interrupt_waits_until_the_network_is_as_it_was() -> None:
    done = []

    def put_back() -> None:
        with _uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            put_back()
        assert done
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
