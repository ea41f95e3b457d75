"""A streaming class that a user has registered is for conversion without a clip; with one, it is not left out without a word."""

from __future__ import annotations

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


def test_the_notes_say_that_it_is_not_used():
    module = seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), TwiceAgain(), Thrice()))
    net = co.continual(module, CLIP)
    assert net.notes == ("1: CoTwice, registered for TwiceAgain, is not used: with a clip the module's own forward is followed",)
    with torch.no_grad():
        assert torch.allclose(net(CLIP), module(CLIP))
    assert "CoTwice" in co.continual(Twice().eval(), CLIP).notes[0]


def test_a_refusal_says_how_it_is_used():
    module = seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), Backwards(), nn.GroupNorm(2, 4)))
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(module, CLIP)
    flip, norm = caught.value.refusals
    assert "co.continual(module) without a clip, which takes CoBackwards for Backwards" in flip.remedy
    assert "CoBackwards" not in norm.remedy
    assert type(co.continual(module[:2])[1]) is CoBackwards


def test_classes_of_the_library_are_no_matter_of_notes():
    assert co.continual(seeded(lambda: nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU())), CLIP).notes == ()
