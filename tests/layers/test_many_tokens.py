"""Windows of many tokens: linear maps on weights that oneDNN has packed, in streams alone."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

import continual as co
from continual.layers import onednn
from continual.layers.transformer import base

TOKENS = 70


@pytest.mark.skipif(not onednn.HAS_PACKED, reason="torch without oneDNN")
@pytest.mark.parametrize("norm_first, bias", [(False, True), (True, False)])
def test_steps_of_many_tokens_are_those_of_the_encoder(norm_first: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=norm_first, bias=bias)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    net: Any = co.continual(encoder, sequence_len=TOKENS)
    clip = torch.randn(2, 16, TOKENS + 2)
    calls = []
    monkeypatch.setattr(base.product, "library", lambda: None)  # as without a compiler
    monkeypatch.setattr(base, "is_wide", lambda x, weight: x.shape[1] == TOKENS and onednn.packs(x, weight))  # not measured
    with torch.no_grad(), patch.object(onednn, "linear", lambda *given, run=onednn.linear: calls.append(1) or run(*given)):
        steps = [y for y in map(net.forward_step, clip.unbind(2)) if y is not None]
        wide = len(calls)
        for i, y in enumerate(steps):
            torch.testing.assert_close(y, encoder(clip[:, :, i : i + TOKENS].transpose(1, 2))[:, -1], atol=2e-5, rtol=1e-4)
        for layer in net.modules():  # a weight that changes is laid out again
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(0.5)
        changed = net.forward_step(clip[:, :, 0])
        net.forward(clip[:, :, :TOKENS])
    assert not torch.allclose(changed, steps[-1])
    assert wide > 0
    assert len(calls) == wide + wide // len(steps), "forward runs torch's own linear maps"


def test_what_is_faster_is_measured_once() -> None:
    assert onednn.packed_is_faster() is onednn.packed_is_faster()
    assert onednn.packed_is_faster.cache_info().misses == 1
