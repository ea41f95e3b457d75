"""What a refusal without a clip says to give to `co.continual` is taken, for the module that it was refused for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import continual as co
from tests.convert.remedies import FREEZE, in_calls

REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "group norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 9)),
    "instance norm 1d": (lambda: nn.InstanceNorm1d(4), (2, 4, 9)),
    "instance norm 2d": (lambda: nn.InstanceNorm2d(4, affine=True), (2, 4, 9, 3)),
    "instance norm 3d": (lambda: nn.InstanceNorm3d(4), (2, 4, 9, 3, 3)),
    "layer norm of a clip": (lambda: nn.LayerNorm((4, 9, 2, 2), elementwise_affine=False), (2, 4, 9, 2, 2)),
    "layer norm with a weight for each step": (lambda: nn.LayerNorm((4, 9, 2, 2)), (2, 4, 9, 2, 2)),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), ()),
    "encoder layer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), ()),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2), ()),
    "backward": (lambda: nn.GRU(4, 4, bidirectional=True), ()),
    "decoder": (lambda: nn.TransformerDecoderLayer(4, 2), ()),
    "a list": (lambda: nn.ModuleList([nn.ReLU()]), ()),
}
OFFERED = {"group norm": 3, "instance norm 1d": 3, "layer norm of a clip": 3, "attention": 1, "encoder": 1, "backward": 0}


@pytest.mark.parametrize("name", REFUSED)
def test_no_remedy_is_refused_in_turn(name: str):
    make, shape = REFUSED[name]
    net = nn.Sequential(nn.Sequential(make())).eval()
    with pytest.raises(co.NotStreamable, match=r"0\.0") as caught:
        co.continual(net)
    message, tried = str(caught.value), 0
    for options in in_calls(message):
        assert isinstance(co.continual(net, **options), co.CoModule), options
        tried += 1
    if FREEZE in message:
        assert isinstance(co.continual(co.calibrate(net, torch.randn(shape))), co.CoModule)
        tried += 1
    assert tried >= OFFERED.get(name, 0), "the remedies are no longer read"
