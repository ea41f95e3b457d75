"""Modules of registered classes, and streaming modules, inside a module that is converted by a clip."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.convert.cases import noise, seeded

CLIP = noise(2, 4, 12)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class TwiceAgain(Twice):
    """Of the same computation."""


class Thrice(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


class Backwards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


class CoTwice(co.Multiply):
    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> co.CoModule:
        return CoTwice(2)


class CoBackwards(co.Multiply):
    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> co.CoModule:
        return CoBackwards(-1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.core import registry

    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    monkeypatch.setattr(registry, "_chosen", {})
    co.convert.register(Twice, CoTwice)
    co.convert.register(Backwards, CoBackwards)


def test_the_notes_name_what_streams_as_a_registered_class():
    module = seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), TwiceAgain(), Thrice()))
    net = co.continual(module, CLIP)
    assert net.notes == ("1: streams as CoTwice",)
    assert "CoTwice" in str(co.explain(net))
    with torch.no_grad():
        assert torch.allclose(net(CLIP), module(CLIP))
    assert co.continual(Twice().eval(), CLIP).notes == ("Twice: streams as CoTwice",)


class CoUnfit(co.Recurrence):
    """Lacks `recur`."""

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"h": torch.zeros_like(x)}

    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> co.CoModule:
        return CoUnfit()


class CoHalf(co.AvgPool1d):
    @staticmethod
    def build_from(module: nn.Module, *args: Any, **kwargs: Any) -> co.CoModule:
        return CoHalf(2)


@pytest.mark.parametrize(
    ("cls", "why"), [(CoUnfit, "defines no `recur`"), (CoHalf, r"it gives \(2, 4, 5\) where the module gives \(2, 4, 10\)")]
)
def test_a_class_that_can_not_be_used_is_named(cls: type, why: str):
    """Of a module whose code streams, in the notes; of another, in the refusal."""
    co.convert.register(Twice, cls)
    co.convert.register(Backwards, cls)
    net = co.continual(seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), Twice())), CLIP)
    (note,) = net.notes
    assert re.search(f"^1: {cls.__name__} is not used for it, and its code is converted instead: .*{why}", note)
    with pytest.raises(co.NotStreamable, match=f"(?s)flips the clip.*\n1: {cls.__name__} is not used for it.*{why}"):
        co.continual(seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), Backwards())), CLIP)


def test_a_class_that_computes_something_else_is_found_by_the_check():
    module = seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), Backwards()))
    with pytest.raises(co.NotStreamable):
        co.continual(module, CLIP)


def test_classes_of_the_library_are_no_matter_of_notes():
    assert co.continual(seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU())), CLIP).notes == ()


class Echo(nn.Module):
    """A loop over frames, whose weights lie in a module inside and in a buffer."""

    def __init__(self, channels: int):
        super().__init__()
        self.map = nn.Linear(channels, channels)
        self.register_buffer("scale", torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        h, outs = torch.zeros_like(x[:, :, 0]), []
        for t in range(x.shape[2]):
            h = self.scale * torch.tanh(self.map(h)) + x[:, :, t]
            outs.append(h)
        return torch.stack(outs, 2)


class CoEcho(co.Recurrence):
    def __init__(self, channels: int):
        super().__init__()
        self.map = nn.Linear(channels, channels)
        self.register_buffer("scale", torch.full((channels,), 0.5))

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"h": torch.zeros_like(x)}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.scale * torch.tanh(self.map(state["h"])) + x
        return h, {"h": h}

    @staticmethod
    def build_from(module: Echo) -> CoEcho:  # type: ignore[override]
        made = CoEcho(len(module.scale))
        made.load_state_dict(module.state_dict())  # copies
        return made


class Net(nn.Module):
    """A loop, a norm of the library, a residual, on clips ``(B, C, T)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.echo = Echo(6)
        self.norm = co.CumulativeGroupNorm(2, 6)
        self.down = co.Conv1d(6, 6, 2, stride=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y + self.norm(self.echo(y))
        return self.head(self.down(y).transpose(1, 2))


LONG = noise(2, 4, 30)


def test_loops_and_layers_of_the_library_stay_one_call():
    co.convert.register(Echo, CoEcho)
    module = seeded(Net)
    net = co.continual(module, LONG)
    assert net.notes == ("echo: streams as CoEcho", "norm: streams as CumulativeGroupNorm", "down: streams as Conv1d")
    report = co.verify(net, LONG, reference=module)
    assert report, str(report)
    program = co.compile(net, LONG[:, :, 0], backend="eager")
    assert any(program.step(LONG[:, :, t]) is not None for t in range(6))


def test_weights_that_are_loaded_or_moved_reach_the_layer():
    co.convert.register(Echo, CoEcho)
    module, other = seeded(Net), seeded(Net, 7)
    net = co.continual(module, LONG, copy=True)
    assert net.state_dict().keys() == module.state_dict().keys()
    net.load_state_dict(other.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(LONG), other(LONG))
        net.double()
        torch.testing.assert_close(net(LONG.double()), other.double()(LONG.double()))
        steps = [y for t in range(30) if (y := net.forward_step(LONG[:, :, t].double())) is not None]
        torch.testing.assert_close(torch.stack(steps, 1), other(LONG.double())[:, : len(steps)])


def test_a_stream_of_its_own_and_a_copy():
    co.convert.register(Echo, CoEcho)
    module = seeded(Net)
    net = co.continual(module, LONG)
    with torch.no_grad():
        net.forward_steps(LONG[:, :, :7])
        fresh = net.new_stream()
        torch.testing.assert_close(fresh.forward_steps(LONG, pad_end=True), module(LONG))
    assert not any("state" in name for name, _ in module.named_buffers())
    assert module.norm.get_state() is None


def test_a_parameter_that_is_no_copy_is_refused():
    class Scaled(CoEcho):
        @staticmethod
        def build_from(module: Echo) -> CoEcho:  # type: ignore[override]
            made = CoEcho.build_from(module)
            made.scale = 2 * made.scale
            return made

    co.convert.register(Echo, Scaled)
    with pytest.raises(
        co.NotStreamable, match="echo \\(Echo\\): 'scale' of CoEcho is neither a parameter of the module nor a copy"
    ):
        co.continual(seeded(Net), LONG)


class Rows(nn.Module):
    """Time in dim 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(1)


class CoRows(co.Recurrence):
    time_dim = 1

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return x, {}

    @staticmethod
    def build_from(module: Rows) -> CoRows:  # type: ignore[override]
        return CoRows()


def test_a_layer_whose_clips_have_time_first():
    co.convert.register(Rows, CoRows)
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 5), Rows(), nn.Linear(5, 2)))
    clip = noise(2, 12, 4)
    net = co.continual(module, clip, time_dim=1)
    assert net.notes == ("1: streams as CoRows",)
    report = co.verify(net, clip, reference=module)
    assert report, str(report)


class Smooth(nn.Module):
    """A loop over frames, with an option."""

    def forward(self, x: Tensor, scale: float = 1.0, **more: Any) -> Tensor:
        h, outs = torch.zeros_like(x[:, :, 0]), []
        for t in range(x.shape[2]):
            h = 0.5 * h + scale * x[:, :, t]
            outs.append(h)
        return torch.stack(outs, 2)


class CoSmooth(co.Recurrence):
    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"h": torch.zeros_like(x)}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = 0.5 * state["h"] + x
        return h, {"h": h}


@pytest.mark.parametrize(
    ("options", "notes"),
    [({"scale": 1.0, "x": ...}, ("part: streams as CoSmooth",)), ({"scale": 3.0}, ()), ({"other": None}, ())],
)
def test_a_class_known_by_name_where_arguments_have_their_defaults(
    options: dict[str, Any], notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    """Otherwise its code is converted, a loop in it too."""
    from continual.core import registry

    monkeypatch.setattr(registry, "_named", {})
    registry.register_by_name(f"{__name__}.Smooth", lambda module, memo, path: CoSmooth(), lambda module: True)

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.part = nn.Conv1d(4, 4, 3), Smooth()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.part(**{**options, "x": y}) if "x" in options else self.part(y, **options)

    module = seeded(Around)
    net = co.continual(module, CLIP)
    assert net.notes == notes
    report = co.verify(net, CLIP, reference=module, effort="quick")
    assert report, str(report)


class Unreadable(nn.Module):
    """A unit on clips ``(B, T, C)`` whose code no export follows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_z, self.linear_h = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = torch.zeros_like(x[:, 0]), []
        for frame in x.unbind(1):
            z = torch.sigmoid(self.linear_z(frame))
            h = (1 - z) * h + z * self.linear_h(frame)
            outs.append(h if h.sum().item() < 1e9 else -h)
        return torch.stack(outs, 1)


class CoUnreadable(co.minGRU):
    @staticmethod
    def build_from(module: Unreadable) -> CoUnreadable:  # type: ignore[override]
        made = CoUnreadable(5)
        made.load_state_dict(module.state_dict())
        made._set_time_dim(1)
        return made


class Scored(nn.Module):
    def __init__(self, whole: bool):
        super().__init__()
        self.take, self.unit, self.give, self.whole = nn.Linear(4, 5), Unreadable(), nn.Linear(5, 3), whole

    def forward(self, x: Tensor) -> Tensor:
        y = self.unit(self.take(x))
        return self.give(y.mean(1) if self.whole else y)


@pytest.mark.parametrize("whole", [True, False])
def test_a_layer_of_another_layout_in_a_stream_and_in_windows(whole: bool):
    co.convert.register(Unreadable, CoUnreadable)
    module, clip = seeded(lambda: Scored(whole)), noise(2, 9, 4)
    net = co.continual(module, clip, time_dim=1)
    assert (net.windows is not None) == whole
    longer = noise(2, 14, 4)
    with torch.no_grad():
        got = [y for x in longer.unbind(1) if (y := net.forward_step(x)) is not None]
        want = [module(longer[:, i : i + 9]) for i in range(6)] if whole else list(module(longer).unbind(1))
    torch.testing.assert_close(torch.stack(got), torch.stack(want))
