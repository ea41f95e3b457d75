"""Modules that name their outputs, or nest them: a converted module gives them in the same form, also of a step."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

import continual as co
from tests.contract import assert_equal

Pair = namedtuple("Pair", "first second")


@dataclass
class Inner:
    """Outputs by name; torch does not know the class before the conversion."""

    logits: Tensor
    features: Tensor


@dataclass
class Outer:
    """An output of this form among others."""

    inner: Inner
    more: list[Tensor]


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "a dictionary": lambda x, y, z: {"logits": z, "features": y},
    "an ordered dictionary": lambda x, y, z: OrderedDict(b=y, a=z),
    "a dictionary of lists": lambda x, y, z: {"all": [y, (z, x * 2)], "last": z},
    "nested tuples": lambda x, y, z: (z, (y, x + 1)),
    "a named tuple": lambda x, y, z: Pair(z, y),
    "a dataclass": lambda x, y, z: Inner(z, y),
    "nested dataclasses": lambda x, y, z: Outer(Inner(z, y), [x]),
    "with nothing in between": lambda x, y, z: (z, None, {"y": y, "state": None}),
}


class Formed(nn.Module):
    """Two layers, whose results leave in some form."""

    def __init__(self, form: Callable[[Tensor, Tensor, Tensor], Any]):
        super().__init__()
        self.first, self.second, self.form = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 5, 3, padding=1), form

    def forward(self, x: Tensor) -> Any:
        y = self.first(x).tanh()
        return self.form(x, y, self.second(y))


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    module = Formed(FORMS[name]).eval()
    net: Any = co.continual(module, torch.randn(2, 3, 9))
    clip = torch.randn(2, 3, 14)
    with torch.no_grad():
        want = module(clip)
        assert tree_structure(net(clip)) == tree_structure(want)
        assert_equal(tensors(net(clip)), tensors(want))
        chunk = net.forward_steps(clip[:, :, :5])
        step = net.forward_step(clip[:, :, 5])
        rest = net.forward_steps(clip[:, :, 6:], pad_end=True)
    assert tree_structure(step) == tree_structure(want)
    parts = zip(tensors(chunk), tensors(step), tensors(rest), strict=True)
    assert_equal([torch.cat((a, b.unsqueeze(2), c), 2) for a, b, c in parts], tensors(want))
    co.verify(net, clip, reference=module)


def tensors(y: Any) -> list[Tensor]:
    return [t for t in tree_leaves(y) if isinstance(t, Tensor)]


def test_forms_in_programs() -> None:
    net: Any = co.continual(Formed(FORMS["a dictionary of lists"]).eval(), torch.randn(2, 3, 9))
    program = co.compile(net, torch.randn(2, 3), backend="eager")
    clip = torch.randn(2, 3, 12)
    with torch.no_grad():
        for t in range(12):
            a, b = net.forward_step(clip[:, :, t]), program.step(clip[:, :, t])
            assert (a is None) == (b is None)
            if a is not None:
                assert_equal(tensors(b), tensors(a))
    assert tree_map(lambda t: 0, a) == {"all": [0, (0, 0)], "last": 0}


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(co.NotStreamable, match="output 1 is 'text'|output 1 is"):
        co.continual(Formed(lambda x, y, z: (z, "text")).eval(), torch.randn(2, 3, 9))
