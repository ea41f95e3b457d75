"""Random chains of reshapes and permutations that take frames together, and back: others with each commit."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import F64, splits, streamed
from tests.long import SEED

Undo = Callable[[Tensor], Tensor]


class Chain(nn.Module):
    """Dimensions of ``(B, C, T, V)`` are split, merged, moved and scaled, and then all of it is undone, before a running sum.

    Args:
        seed: of the random choices, which are the same for every clip.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed, self.weights = seed, nn.ParameterList(torch.randn(60, dtype=F64) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        rng, names, undo = random.Random(self.seed), ["b", "c", "t", "v"], list[Undo]()
        y, sizes = x, [2, 3, 4]  # each once: their product divides the length
        for weight in self.weights:
            before = y.shape
            what = rng.choice(["split", "permute", "merge", "scale"])
            if what == "split" and "t" in names and sizes:
                at, size = names.index("t"), sizes.pop(rng.randrange(len(sizes)))
                y = y.reshape(*before[:at], before[at] // size, size, *before[at + 1 :])
                names[at : at + 1] = ["t", "k"]
            elif what == "permute":
                order = rng.sample(range(y.ndim), y.ndim)
                y, names = y.permute(order), [names[i] for i in order]
                undo.append(lambda z, order=order: z.permute([order.index(i) for i in range(len(order))]))  # type: ignore[misc]
                continue
            elif what == "merge" and y.ndim > 1:
                at = rng.randrange(y.ndim - 1)
                y = y.reshape(*before[:at], -1, *before[at + 2 :])
                names[at : at + 2] = [names[at] + names[at + 1]]
            elif what == "scale" and (own := next((i for i, n in enumerate(names) if not set(n) & {"b", "t"}), None)) is not None:
                y = y * weight[: before[own]].view([-1 if i == own else 1 for i in range(y.ndim)]) + 0.1
            undo.append(lambda z, shape=before: z.reshape(shape))  # type: ignore[misc]
        y = y.tanh()
        for back in reversed(undo):
            y = back(y)
        return x + y.cumsum(2) if rng.random() < 0.5 else y


@pytest.mark.parametrize("number", range(8))
@torch.no_grad()
def test_random_reshapes_and_back(number: int) -> None:
    seed = SEED + number
    torch.manual_seed(seed)
    module, clip = Chain(seed).eval(), torch.randn(2, 3, 24, random.Random(seed).choice([2, 5, 12]), dtype=F64)
    net = co.continual(module, clip)
    for frames in (24, 48):
        longer = torch.randn(2, 3, frames, clip.shape[3], dtype=F64)
        want = module(longer)
        assert_equal(net(longer), want, f"forward of {frames} frames, seed {seed}")
        for sizes in splits(frames, seed):
            y = streamed(net, longer, sizes, 2)
            assert y is not None
            assert_equal(y, want, f"a stream of {frames} frames in chunks {sizes}, seed {seed}")
