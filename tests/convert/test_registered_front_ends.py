"""Front ends of other packages that stay one call, by the names of their classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import F64
from tests.layers.signals.test_normalisers import sliding


class SlidingWindowCmn(nn.Module):
    """As torchaudio's: ``(…, T, F)``."""

    def __init__(self, cmn_window: int, min_cmn_window: int, center: bool = False, norm_vars: bool = False) -> None:
        super().__init__()
        self.cmn_window, self.min_cmn_window, self.center, self.norm_vars = cmn_window, min_cmn_window, center, norm_vars

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, *x.shape[-2:]).transpose(1, 2)
        y = sliding(flat, self.cmn_window, self.min_cmn_window, self.center, self.norm_vars)
        return y.transpose(1, 2).reshape(x.shape)


SlidingWindowCmn.__module__ = "torchaudio.transforms._transforms"


@pytest.mark.parametrize("options", [(9, 4), (7, 1, False, True), (6, 2, True)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_sliding_means(options: tuple[int, ...], channels: tuple[int, ...]) -> None:
    module = nn.Sequential(nn.Linear(5, 4), SlidingWindowCmn(*options), nn.Linear(4, 2)).to(F64).eval()
    clip = torch.randn(2, *channels, 31, 5, dtype=F64)
    net = co.continual(module, clip[..., :13, :], time_dim=-2)
    assert net.notes == ("1: streams as SlidingWindowCmn",)
    assert_equal(net(clip), module(clip), "a clip")
    parts = [net.forward_steps(p, pad_end=last) for p, last in zip(clip.split([1, 4, 7, 19], -2), (0, 0, 0, 1))]
    assert_equal(torch.cat([p for p in parts if p is not None], -2), module(clip), "chunks")


def test_alone_its_clips_have_time_where_the_module_has_it() -> None:
    module, clip = SlidingWindowCmn(6, 1, norm_vars=True).eval(), torch.randn(2, 17, 5, dtype=F64)
    co.verify(co.continual(module), clip, reference=module)


def test_first_frames_over_more_than_a_window() -> None:
    with pytest.raises(co.NotStreamable, match="first 9 frames .* window of 4 .* Remedy: min_cmn_window=4"):
        co.continual(SlidingWindowCmn(4, 9).eval())
