"""Which nodes of an exported graph matter for its outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from continual.convert.graph.needed_nodes import needed_nodes
from tests.convert.rows import Fn


def dropped(body: Callable[[Tensor], Tensor]) -> set[str]:
    """The operations that are not needed."""
    graph = torch.export.export(Fn(body).eval(), (torch.randn(2, 3),)).graph
    return {str(n.target).split(".")[1] for n in set(graph.nodes) - needed_nodes(graph) if str(n.target).startswith("aten.")}


def checked(x: Tensor) -> Tensor:
    torch._check(x.sum().item() > -1e9)
    return x * 2


def written(x: Tensor, used: bool) -> Tensor:
    y = x.exp()
    y.select(1, 0).add_(1)
    return y * 2 if used else x * 2


def through_a_view(x: Tensor) -> Tensor:
    y = x.exp()
    first = y.select(1, 0)
    y.mul_(2)
    return first


def of_a_list(x: Tensor) -> Tensor:
    first, second = x.exp().chunk(2, 0)
    second.mul_(3)
    return first * 2


def kept_state(x: Tensor) -> Tensor:
    """A state of zeros, written behind its last use: nothing reads what was written."""
    state = torch.zeros_like(x[:, :1])
    y = torch.cat((state, x), 1)
    state.copy_(y[:, -1:].sin())
    return y.cos()


def kept_state_of_an_input(x: Tensor) -> Tensor:
    y = x.cos()
    x.copy_(y.sin())
    return y


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x: (x.exp(), x.sin())[1], {"exp"}),
        (lambda x: (torch.randn_like(x), x.cos())[1], {"randn_like"}),
        (lambda x: written(x, True), set()),
        (lambda x: written(x, False), {"exp", "select", "add_"}),
        (through_a_view, set()),
        (of_a_list, set()),
        (kept_state, {"slice", "sin", "copy_"}),
        (kept_state_of_an_input, set()),
        (checked, {"sum", "item", "_assert_scalar"}),
    ],
    ids=[
        "unused",
        "unused random numbers",
        "a write that is read",
        "a write that is not",
        "a write behind a view",
        "parts of one memory",
        "a write behind the last use",
        "a write into an input",
        "a condition on the example",
    ],
)
def test_needed_nodes(body: Callable[[Tensor], Tensor], expected: set[str]) -> None:
    assert dropped(body) == expected
