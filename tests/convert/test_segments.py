"""A temporal shift that takes the number of frames from its code: within segments, or along the stream."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.convert.graph.capture import capture
from continual.convert.graph.segments import across_segments


class Shifted(nn.Module):
    """Channels of frames ``(B, T, C, H, W)`` moved to their neighbours, in segments of a fixed number of frames (Lin 2019)."""

    def __init__(self, n_segment: int):
        super().__init__()
        self.conv, self.out, self.n_segment = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3), n_segment

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.flatten(0, 1)).relu()
        frames = y.view(y.shape[0] // self.n_segment, self.n_segment, *y.shape[1:])
        shifted = torch.zeros_like(frames)
        shifted[:, :-1, :2] = frames[:, 1:, :2]
        shifted[:, 1:, 2:4] = frames[:, :-1, 2:4]
        shifted[:, :, 4:] = frames[:, :, 4:]
        return self.out(shifted.view(y.shape)).mean((2, 3)).view(*x.shape[:2], -1)


def test_segments_of_the_example() -> None:
    module, clip = Shifted(4).double().eval(), torch.randn(2, 4, 3, 5, 6).double()
    with pytest.raises(co.NotStreamable, match=r"in segments of 4 frames, .* windows='stream', .* an example of 8 frames"):
        co.continual(module, clip, time_dim=1)


def test_along_the_stream() -> None:
    module, clip = Shifted(4).double().eval(), torch.randn(2, 4, 3, 5, 6).double()
    net = co.continual(module, clip, time_dim=1, windows="stream")
    assert net.delay == 1
    assert "across segments of 4, which the module takes by themselves: it differs by" in " ".join(net.notes)
    longer = torch.randn(2, 12, 3, 5, 6).double()
    whole = Shifted(12).double().eval()  # the same shift over all frames
    whole.load_state_dict(module.state_dict())
    co.verify(net, longer, reference=whole, effort="quick")


def test_segment_by_segment() -> None:
    module = Shifted(4).double().eval()
    net = co.continual(module, torch.randn(2, 8, 3, 5, 6).double(), time_dim=1)
    clip = torch.randn(2, 16, 3, 5, 6).double()
    with torch.no_grad():
        torch.testing.assert_close(net.forward_steps(clip), module(clip))
    assert net.delay == 3


def test_what_goes_on_across_segments_is_not_in_segments() -> None:
    captured = capture(nn.Conv1d(3, 3, 1).eval(), torch.randn(2, 3, 4), 2)

    def apart(clip: Sequence[Tensor]) -> Tensor:
        return clip[0].unflatten(2, (-1, 4)).cumsum(3).flatten(2)

    assert across_segments(lambda x: x.cumsum(2), apart, captured)
    assert across_segments(lambda x: 2 * x, lambda clip: clip[0].cumsum(2), captured) is None
