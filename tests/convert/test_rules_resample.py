"""Interpolation in graphs: of time by a factor or to the length of another stream, of space frame by frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

IMAGES: dict = {"shape": (2, 3, 6, 4)}
VIDEO: dict = {"shape": (2, 2, 5, 4, 3)}
ROWS = [
    fn("nearest", lambda x: F.interpolate(x, scale_factor=2)),
    fn("nearest-exact", lambda x: F.interpolate(x, scale_factor=3, mode="nearest-exact")),
    fn("linear", lambda x: F.interpolate(x, scale_factor=2, mode="linear")),
    fn("linear by 3, align_corners=False", lambda x: F.interpolate(x, scale_factor=3.0, mode="linear", align_corners=False)),
    row("Upsample", lambda: nn.Upsample(scale_factor=4)),
    row("Upsample linear", lambda: nn.Upsample(scale_factor=2, mode="linear")),
    row("UpsamplingNearest2d", lambda: nn.UpsamplingNearest2d(scale_factor=2), **IMAGES),
    row("Upsample of time and space", lambda: nn.Upsample(scale_factor=(2, 3), mode="bilinear"), **IMAGES),
    row("Upsample of time alone", lambda: nn.Upsample(scale_factor=(2, 1)), **IMAGES),
    row("Upsample of space alone", lambda: nn.Upsample(scale_factor=(1, 2), mode="bilinear"), **IMAGES, delay=0, field=1),
    row("Upsample of space alone, 3d", lambda: nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear"), **VIDEO, delay=0, field=1),
    row("Upsample 3d", lambda: nn.Upsample(scale_factor=2), **VIDEO),
    row("Upsample 3d trilinear", lambda: nn.Upsample(scale_factor=(2, 1, 2), mode="trilinear"), **VIDEO),
    row("time last", lambda: nn.Upsample(scale_factor=(1, 2), mode="bilinear"), shape=(2, 3, 4, 6), time=3),
    row("time last, space alone", lambda: nn.Upsample(scale_factor=(2, 1)), shape=(2, 3, 4, 6), time=3, delay=0),
    fn("to a size of space", lambda x: F.interpolate(x, size=(x.shape[2], 7), mode="bilinear"), **IMAGES, delay=0),
    fn("to a size of space, aligned corners", lambda x: F.interpolate(x.transpose(1, 2).flatten(0, 1), size=(7, 5), mode="bilinear",
       align_corners=True).unflatten(0, (x.shape[0], -1)), **VIDEO, delay=0),
    fn("images, bicubic", lambda x: F.interpolate(x.transpose(1, 2).flatten(0, 1), scale_factor=2, mode="bicubic").unflatten(0, (-1,
        x.shape[2])),
       **VIDEO, delay=0),
    fn("images to half, antialiased", lambda x: F.interpolate(x.transpose(1, 2).flatten(0, 1), size=(2, 2), mode="bilinear",
        antialias=True).unflatten(
       0, (-1, x.shape[2])), **VIDEO, delay=0, verify=False),
    fn("area of images", lambda x: F.interpolate(x.transpose(1, 2).flatten(0, 1), size=(2, 3), mode="area").unflatten(0, (-1,
        x.shape[2])), **VIDEO,
       delay=0),
    fn("area of space of video", lambda x: F.interpolate(x, size=(x.shape[2], 2, 3), mode="area"), **VIDEO, delay=0),
    fn("by one and a half", lambda x: F.interpolate(x, scale_factor=1.5, mode="linear"), shape=(2, 3, 12)),
    fn("bicubic", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), **IMAGES),
    fn("half the frames, nearest", lambda x: F.interpolate(x, scale_factor=0.5), shape=(2, 3, 12), other=4),
    fn("down and up to the length of a skip", lambda x: x + F.interpolate(F.avg_pool1d(x, 2), size=x.shape[2]), shape=(2, 3, 12),
        other=4),
    fn("down and up, linear", lambda m, x: F.interpolate(F.conv1d(x, m.w, stride=2, padding=1), size=x.shape[-1:], mode="linear"),
       params={"w": (4, 3, 4)}, shape=(2, 3, 12), other=4),
    fn("down by 4 and up to the skip, images", lambda x: x * F.interpolate(F.max_pool2d(x, (4, 2)), x.shape[2:]), shape=(2, 3, 12, 4),
        other=4),
    fn("repeated frames", lambda x: x.repeat_interleave(2, 2)),
    fn("repeated frames by stacking", lambda x: x.unsqueeze(3).expand(-1, -1, -1, 2).sum(3), delay=0),
    fn("grid sample of frames", lambda x: F.grid_sample(x.transpose(1, 2).flatten(0, 1), torch.linspace(-1, 1, 8, dtype=x.dtype).view(1,
        2, 2, 2)
       .expand(x.shape[0] * x.shape[2], -1, -1, -1), align_corners=False).unflatten(0, (x.shape[0], -1)), **VIDEO, delay=0, verify=False),
]  # fmt: skip


class UNet(nn.Module):
    """Two levels over time with skip connections, upsampled by interpolation to the length of the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(10, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.a(x).relu()
        low = self.b(F.max_pool1d(top, 2)).relu()
        return self.c(torch.cat((F.interpolate(low, size=top.shape[2], mode="nearest"), top), 1))


UNETS = [row("U-Net", UNet, shape=(2, 3, 16), other=4)]

REFUSED = [
    no("back to the clip, of an example with a rest",
       lambda x: F.interpolate(F.interpolate(F.max_pool1d(x, 4), scale_factor=4.0), size=x.shape[2], mode="linear"),
       "from 12 frames to 13: another factor", "an example of 12 frames, or of another multiple of 4"),
    no("to a fixed number of frames", lambda x: F.interpolate(x, size=20), "from 13 frames to 20: another factor", "scale_factor"),
    no("aligned corners", lambda: nn.Upsample(scale_factor=2, mode="linear", align_corners=True), "depend on the length of the clip",
       "align_corners=False"),
    no("aligned corners over time and space", lambda: nn.UpsamplingBilinear2d(scale_factor=2), "depend on the length",
        "align_corners=False",
       shape=(2, 3, 6, 4)),
    no("merged time", lambda x: F.interpolate(x.flatten(2), scale_factor=2), "merged with another", "dimension of its own", shape=(2, 3,
        4, 6), time=3),
    no("area over time", lambda x: F.interpolate(x, size=x.shape[2] // 2, mode="area"), "bins", "fixed kernel", shape=(2, 3, 12)),
    no("grid sample over time", lambda: Fn(lambda m, x: F.grid_sample(x, m.g.expand(x.shape[0], -1, -1, -1), align_corners=False), g=(1,
        2, 2, 2)),
       "takes samples between frames", "frame by frame", shape=(2, 3, 6, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS + UNETS)
def test_interpolation(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)
