"""Mistakes in the library's own code come out as they are; what torch or a module raises becomes a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph import conversion
from continual.convert.graph.rule_context import RULES
from tests.convert.cases import noise

CLIP = noise(2, 4, 20)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.conv(x), 1)


def written_in(place: str, line: str) -> Callable[..., Any]:
    """A function of one line, in the code of some module."""
    names: dict[str, Any] = {"__name__": place, "torch": torch}
    exec(f"def broken(*given):\n    b = given[0]\n    {line}\n    later = 1", names)
    found: Callable[..., Any] = names["broken"]
    return found


MISTAKES = {
    "a name that there is not": ("continual.convert.graph.rules.anew", "no_such_name", NameError),
    "a name that is not set yet": ("continual.convert.graph.rules.anew", "later", UnboundLocalError),
    "an attribute of the library's own object": ("continual.convert.graph.rules.anew", "b.no_such_attribute", AttributeError),
}
OTHERS = {
    "a name in a rule of a user": ("mine.rules", "no_such_name", NameError),
    "an attribute of a tensor": ("continual.convert.graph.rules.anew", "torch.zeros(1).no_such_attribute", AttributeError),
    "an attribute of nothing": ("continual.convert.graph.rules.anew", "None.no_such_attribute", AttributeError),
    "a value that is no list": ("continual.convert.graph.rules.anew", "b[0]", TypeError),
    "what torch refuses": ("continual.convert.graph.rules.anew", "torch.zeros(2).view(3)", RuntimeError),
}


def spoil(step: str, name: str, monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """Put a mistake into a step of conversion; returns what it raises."""
    place, line, kind = (MISTAKES | OTHERS)[name]
    if step == "rule":
        monkeypatch.setitem(RULES, "aten.glu.default", written_in(place, line))
    else:
        monkeypatch.setattr(conversion, step, written_in(place, line))
    return kind


@pytest.mark.parametrize("step", ["rule", "assemble", "check_clip"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_comes_out_as_it_is(name: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = spoil(step, name, monkeypatch)
    with pytest.raises(kind) as caught:
        co.continual(Gated().eval(), CLIP)
    assert type(caught.value) is kind


@pytest.mark.parametrize("step", ["rule", "assemble", "check_clip"])
@pytest.mark.parametrize("name", OTHERS)
def test_what_others_may_raise_is_a_refusal(name: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = spoil(step, name, monkeypatch)
    with pytest.raises(co.NotStreamable, match="does not know this use of `glu`|it is a gap of the library") as caught:
        co.continual(Gated().eval(), CLIP)
    assert isinstance(caught.value.__cause__, kind)


class Doubled(nn.Module):
    """Another function in other dtypes, so that it is converted again."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x if x.dtype == torch.float32 else x * 2


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_converting_for_other_dtypes_comes_out_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = co.continual(nn.Sequential(nn.Conv1d(4, 4, 3), Doubled()).eval(), CLIP)
    kind = spoil("assemble", name, monkeypatch)
    with pytest.raises(kind) as caught:
        net.half()
    assert type(caught.value) is kind


def test_a_value_that_a_rule_was_not_made_for_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten.glu.default", lambda b, call: call["self"].no_such_attribute)
    with pytest.raises(co.NotStreamable, match="does not know this use of `glu`") as caught:
        co.continual(Gated().eval(), CLIP)
    assert isinstance(caught.value.__cause__, AttributeError)
