"""Norms in graphs: those of one frame, those of learned statistics; those of the clip are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert.rows import Fn, No, Row, check_refused, check_row, fn, no, row

VIDEO = (2, 4, 7, 3, 5)
ROWS = [
    row("batch norm 1d", lambda: nn.BatchNorm1d(3), delay=0, field=1),
    row("batch norm 2d", lambda: nn.BatchNorm2d(3, affine=False), shape=(2, 3, 7, 5), delay=0),
    row("batch norm 3d", lambda: nn.BatchNorm3d(4), shape=VIDEO, delay=0),
    fn("batch norm per frame", lambda m, x: F.batch_norm(x.transpose(1, 2).flatten(0, 1), m.mean, m.var, m.w).unflatten(
        0, (-1, x.shape[2])), params={"w": (4,)}, buffers=lambda: {"mean": torch.randn(4), "var": torch.rand(4) + 0.5}, shape=VIDEO,
        delay=0),
    row("instance norm with running statistics", lambda: nn.InstanceNorm1d(3, track_running_stats=True, affine=True), delay=0),
    row("instance norm over space, time in the batch", lambda: Fn(lambda x: F.instance_norm(x.transpose(1, 2).flatten(0, 1)).unflatten(
        0, (x.shape[0], x.shape[2]))), shape=VIDEO, delay=0),
    row("layer norm, channels last", lambda: nn.LayerNorm(5), shape=(2, 8, 5), time=1, delay=0),
    row("layer norm without weights", lambda: nn.LayerNorm(5, elementwise_affine=False), shape=(2, 8, 5), time=1, delay=0),
    row("layer norm over space", lambda: nn.LayerNorm((3, 5)), shape=VIDEO, delay=0),
    fn("layer norm over channels, transposed", lambda m, x: F.layer_norm(x.transpose(1, 2), (3,), m.w, m.b).transpose(1, 2),
       params={"w": (3,), "b": (3,)}, delay=0),
    fn("layer norm over channels, permuted", lambda m, x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), m.w).permute(0, 3, 1, 2),
       params={"w": (4,)}, shape=(2, 4, 7, 3), delay=0),
    fn("layer norm by hand", lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt(), delay=0),
    row("rms norm", lambda: nn.RMSNorm(5), shape=(2, 8, 5), time=1, delay=0),
    row("rms norm by hand", lambda: Fn(lambda m, x: m.w * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), w=(5,)), shape=(2, 8,
        5),
        time=1, delay=0),
    row("group norm, time in the batch", lambda: Fn(lambda m, x: F.group_norm(x.transpose(1, 2).flatten(0, 1), 2, m.w, m.b).unflatten(
        0, (x.shape[0], x.shape[2])), w=(4,), b=(4,)), shape=VIDEO, delay=0),
    row("group norm of vectors", lambda: Fn(lambda m, x: F.group_norm(x.reshape(-1, 4), 2, m.w).reshape(x.shape), w=(4,)), shape=(2, 8,
        4),
        time=1, delay=0),
    row("local response norm of frames", lambda: nn.LocalResponseNorm(3), shape=(2, 5, 7), delay=0),
    row("local response norm of video", lambda: nn.LocalResponseNorm(2, alpha=0.1), shape=VIDEO, delay=0),
    fn("local response norm over frames", lambda x: F.local_response_norm(x, 3), shape=(2, 8, 4), time=1, delay=1, field=3),
    fn("normalize", lambda x: F.normalize(x, dim=1), delay=0),
    fn("normalize, norm 1, channels last", lambda x: F.normalize(x, p=1.0, dim=-1), shape=(2, 8, 5), time=1, delay=0),
    fn("cosine similarity with a constant", lambda m, x: F.cosine_similarity(x, m.w, dim=1), params={"w": (1, 3, 1)}, delay=0),
    fn("cosine similarity of halves", lambda x: F.cosine_similarity(x[:, :2], x[:, 2:], dim=1), shape=(2, 4, 8), delay=0),
    fn("cosine similarity of a frame with the one before", lambda x: F.cosine_similarity(x[:, :, 1:], x[:, :, :-1], dim=1), delay=1),
    fn("distance of a frame from the one before", lambda x: F.pairwise_distance(x[:, 1:], x[:, :-1]), shape=(2, 8, 5), time=1, delay=1),
    fn("norm of frames", lambda x: x.norm(dim=1), delay=0),
    fn("norm of frames, order 1", lambda x: torch.linalg.vector_norm(x, 1, dim=(1, 3), keepdim=True), shape=(2, 3, 8, 4), delay=0),
    fn("standardised by learned statistics", lambda m, x: (x - m.mean) / m.scale.exp(), params={"mean": (3, 1), "scale": (3, 1)},
        delay=0),
    fn("weights of a softmax", lambda m, x: x * m.w.softmax(0), params={"w": (3, 1)}, delay=0),
]  # fmt: skip

CLIP = "of which a stream has seen a part|which a stream has not seen|has seen"
REMEDY = "co.calibrate.*BatchNorm"
REFUSED = [
    no("group norm", lambda: nn.GroupNorm(2, 4), CLIP, REMEDY, shape=VIDEO, op="group_norm"),
    no("group norm of one group", lambda: nn.GroupNorm(1, 3), CLIP, REMEDY),
    no("instance norm", lambda: nn.InstanceNorm1d(3), CLIP, REMEDY, op="instance_norm"),
    no("instance norm 3d", lambda: nn.InstanceNorm3d(4, affine=True), CLIP, REMEDY, shape=VIDEO),
    no("batch norm without statistics", lambda: nn.BatchNorm1d(3, track_running_stats=False), "the batch and the clip",
        "track_running_stats=True"),
    no("batch norm over frames as channels", lambda x: F.batch_norm(x, x[0, :, 0] * 0, x[0, :, 0] * 0 + 1),
        "channels are time|mixes|rows",
       "channels in dim 1|batch", shape=(2, 9, 4), time=1),
    no("layer norm over time", lambda: nn.LayerNorm(13, elementwise_affine=False), "normalises over time", REMEDY),
    no("layer norm over channels and time", lambda: nn.LayerNorm((3, 13)), "normalises over time", "^norms over channels.*BatchNorm"),
    no("x - mean over time", lambda x: x - x.mean(2, keepdim=True), "whole clip meets the clip's frames", "time_pooling"),
    no("normalize over time", lambda x: F.normalize(x, dim=2), "whole clip", "over the last n frames|over channels"),
    no("cosine similarity over time", lambda x: F.cosine_similarity(x, x.flip(1), dim=2), "over time", "over channels|window"),
]  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_norms(case: Row) -> None:
    check_row(case)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: No) -> None:
    check_refused(case)


class Net(nn.Module):
    """A network with a norm over time, and steps that no registry knows."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv1d(3, 4, 3, padding=1), norm, nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.head(F.silu(self.norm(self.conv(x))))


@pytest.mark.parametrize("norm", [
    nn.GroupNorm(2, 4), nn.GroupNorm(1, 4), nn.InstanceNorm1d(4, affine=True), nn.LayerNorm((4, 13), elementwise_affine=False)],
    ids=["group", "one group", "instance", "layer"])  # fmt: skip
def test_calibrated_networks_convert(norm: nn.Module) -> None:
    """The remedy that refusals name works: frozen statistics stream, also in a network of which only the graph is known."""
    net = Net(norm).double().eval()
    clip = torch.randn(2, 3, 13, dtype=torch.float64)
    with pytest.raises(co.NotStreamable, match="co.calibrate"):
        co.continual(net, clip)
    frozen = co.calibrate(net, clip[:1])
    with torch.no_grad():
        assert_equal(frozen(clip[:1]), net(clip[:1]), "on the clip that it is calibrated on")
    twin = co.continual(frozen, clip)
    co.verify(twin, clip, reference=frozen)
    assert twin.delay == 1
