"""The zoo's networks are those of their papers: against plain networks with the same weights, and pytorchvideo's own."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.long import by_turns
from tests.models import zoo
from tests.models.references import Encoder, Skeleton
from tests.models.zoo import alive, assert_same, clip_for, made

SKELETONS = {"cost_gcn": "st", "coa_gcn": "a", "cos_tr": "tr"}
SIZES = [(name, joints, star) for name, joints in (("cost_gcn", 25), ("coa_gcn", 18), ("cos_tr", 18)) for star in (False, True)]
OAD = {"width": 1024, "heads": 8, "hidden": 1024, "positions": 127, "bare": True}
ENCODERS: dict[str, dict[str, Any]] = {
    "cooadtr_b1": {**OAD, "depth": 1},
    "cooadtr_b2": {**OAD, "depth": 2},
    "gtzan_b1": {"width": 192, "heads": 16, "hidden": 192, "positions": 192, "depth": 1},
    "gtzan_b2": {"width": 192, "heads": 16, "hidden": 192, "positions": 192, "depth": 2},
}


@pytest.mark.parametrize("name, joints, star", by_turns(SIZES, 12))
@torch.no_grad()
def test_skeletons_against_plain_networks(name: str, joints: int, star: bool):
    net = made(f"{name}_star" if star else name, input_size=joints)
    plain = Skeleton(SKELETONS[name], star, net.fc.out_features, joints).eval().double()
    plain.load_state_dict(net.state_dict())
    clip = clip_for(net, 303, batch=2)
    want = plain(clip)
    assert want.shape[1:] == ((400 if joints == 18 else 60), 4 if star else 40)
    assert_same(net(clip), want)


@pytest.mark.parametrize("name", by_turns(ENCODERS, 2))
@torch.no_grad()
def test_transformers_against_plain_ones(name: str):
    net = made(name)
    plain = Encoder(net.card.classes, net.card.input_size, **ENCODERS[name]).eval().double()
    plain.load_state_dict(net.state_dict())
    window = net.card.frames
    clip = clip_for(net, window + 8)
    want = torch.stack([plain(clip[:, :, t : t + window], first=t)[:, :, -1] for t in range(9)], 2)
    assert_same(net(clip), want)


@torch.no_grad()
def test_the_deep_transformer_against_a_plain_one_with_a_band():
    net = made("deepcot", input_size=40, classes=5)
    plain = Encoder(5, 40, width=512, heads=8, hidden=2048, positions=127, depth=6).eval().double()
    plain.load_state_dict(net.state_dict())
    clip = clip_for(net, 200)
    t = torch.arange(200)
    seen = (t[None] <= t[:, None]) & (t[None] > t[:, None] - 64)
    assert_same(net(clip), plain(clip, mask=~seen))


# ---- pytorchvideo ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> Any:
    package = zoo.pytorchvideo()
    if package is None:
        pytest.skip("pytorchvideo is not installed")
    return package.models


def per_frame(net: nn.Module) -> nn.Module:
    """X3D whose squeeze-and-excitation sees single frames, as CoX3D's does."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return x * self.block(x.mean((3, 4), keepdim=True))

    for module in net.modules():
        if type(module).__name__ == "SqueezeExcitation":
            module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize("name, frames, depth", by_turns([("cox3d_xs", 4, 2.2), ("cox3d_s", 13, 2.2), ("cox3d_l", 16, 5.0)], 3))
@torch.no_grad()
def test_x3d_against_pytorchvideo(theirs: Any, name: str, frames: int, depth: float):
    torch.manual_seed(1)
    options = {"input_clip_length": frames, "input_crop_size": 64, "depth_factor": depth, "head_activation": None}
    plain = alive(per_frame(theirs.x3d.create_x3d(**options)), torch.randn(4, 3, frames, 64, 64), seed=3).double()
    net = co.models.load_weights(made(name, input_size=64), plain.state_dict())
    clip = clip_for(net, frames)
    want = plain(clip)
    assert_same(net(clip), want.unsqueeze(2))


@pytest.mark.parametrize("name, theirs_name", by_turns([("coslow", "slow_r50"), ("coi3d", "i3d_r50")], 2))
@torch.no_grad()
def test_resnets_against_pytorchvideo(theirs: Any, name: str, theirs_name: str):
    torch.manual_seed(1)
    plain = getattr(theirs.hub.resnet, theirs_name)(pretrained=False)
    plain.blocks[-1].pool.kernel_size = (*plain.blocks[-1].pool.kernel_size[:1], 2, 2)  # it is for frames of 224 × 224
    alive(plain, torch.randn(2, 3, 8, 64, 64), seed=3).double()
    net = co.models.load_weights(made(name, input_size=64), plain.state_dict())
    clip = clip_for(net, 8)
    assert_same(net(clip), plain(clip).unsqueeze(2))
