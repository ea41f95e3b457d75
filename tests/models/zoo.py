"""Networks of the zoo for tests: small, alive, and with weights of all kinds. No tests are in this file."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import continual as co
from continual.models import encoders, movinet, resnet3d, skeleton, x3d
from continual.models.graph_conv import AdaptiveGraphConv, GraphConv
from continual.models.zoo import Model
from tests.torchvision_ops import torchvision

VIDEO = ("cox3d_xs", "cox3d_s", "cox3d_m", "cox3d_l", "coslow", "coi3d", "movinet_a0_stream")
SKELETONS = ("cost_gcn", "cost_gcn_star", "coa_gcn", "coa_gcn_star", "cos_tr", "cos_tr_star")
TRANSFORMERS = ("cooadtr_b1", "cooadtr_b2", "gtzan_b1", "gtzan_b2", "deepcot")


def alive(net: nn.Module, clip: Tensor | None = None, seed: int = 0) -> Any:
    """Random affine parameters and statistics of norms, so that no branch is dead and outputs depend on the input.

    Statistics are near those of a clip: with quite random ones, what depends on the input fades or explodes from layer to layer, and
    logits that hardly change could not tell right from wrong.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(t: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(t.shape).uniform_(low, high, generator=generator).to(t.dtype)

    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
                module.weight.copy_(drawn(module.weight, 0.5, 1.5))
                module.bias.copy_(drawn(module.bias, -0.3, 0.3))
            elif isinstance(module, GraphConv):  # learned links beside the skeleton's are many
                adaptive = isinstance(module, AdaptiveGraphConv)
                module.graph_attn.copy_(drawn(module.graph_attn, *((-0.1, 0.12) if adaptive else (-0.2, 1.0))))
        if clip is not None and norms:
            for norm in norms:
                norm.train().momentum = 1.0
            net(clip)
            for norm in norms:
                norm.eval().momentum = 0.1
                norm.running_mean.add_(norm.running_var.sqrt() * drawn(norm.running_mean, -0.2, 0.2))
                norm.running_var.mul_(drawn(norm.running_var, 0.8, 1.25))
    return net.eval()


def random_statistics(net: nn.Module) -> Any:
    """Random norms, whatever goes through them: values stay of one size, and float32 is exact to 1e-5."""
    with torch.no_grad():
        for module in alive(net).modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.3, 1.0)
    return net


def depends(y: Tensor) -> bool:
    """Whether outputs ``(B, C, T)`` differ from step to step and from row to row."""
    scale = y.abs().max()
    over_time = (y - y.roll(1, 2)).abs().amax((0, 1)).min() if y.shape[2] > 1 else scale
    over_rows = (y - y.roll(1, 0)).abs().max() if y.shape[0] > 1 else scale
    return bool(over_time > 1e-5 * scale and over_rows > 1e-4 * scale)


def assert_same(got: Tensor, want: Tensor) -> None:
    """Equal in float64: what deep networks with norms make of the last digits stays far below what their input makes of the output."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype == torch.float64
    assert depends(want)
    difference, scale = (got - want).abs().max().item(), want.abs().max().item()
    assert difference <= 1e-9 * scale, f"off by {difference / scale:.2g} of the largest"


def made(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Model:
    """A network of the zoo, seeded and alive. In float64, where streaming is exact to the last digits."""
    torch.manual_seed(len(name))
    net = co.models.create(name, **options)
    if name in SKELETONS:
        alive(
            net[: list(net._modules).index("pool")], clip_for(net, 100, seed=5)
        )  # all norms; the pool's window would take 300 steps
    else:
        alive(net, clip_for(net, max(16, net.card.frames) if net.card.of_video else net.card.frames, seed=5))
    return net.eval().to(dtype)


def thin(name: str) -> Model:
    """The network's relative with fewer blocks, for what has to run often: same parts, same builder."""
    layers = {
        "x3d": (lambda: x3d.x3d(5, 32, frames=3, depths=(2, 1, 1, 1)), "cox3d_xs", 32),
        "resnet": (
            lambda: resnet3d.resnet(5, 32, frames=4, first=3, kernels=((3, 1), (1,), (3,), (1,)), halve=True),
            "coi3d",
            32,
        ),
        "single": (
            lambda: encoders.encoder(4, 6, width=16, heads=4, hidden=24, window=5, positions=7, depth=1, bare=True),
            "gtzan_b1",
            6,
        ),
        "retro": (lambda: encoders.encoder(4, 6, width=16, heads=4, hidden=24, window=5, positions=9, depth=3), "gtzan_b2", 6),
        "deep": (
            lambda: encoders.encoder(4, 6, width=16, heads=4, hidden=24, window=5, positions=9, depth=3, causal=True),
            "deepcot",
            6,
        ),
        "movinet": (movinet_of_two_stages, "movinet_a0_stream", 16),
        **{
            f"skeleton {kind}{'*' * star}": (lambda kind=kind, star=star: skeleton_of(kind, star), "cost_gcn", 25)
            for kind in ("st", "a", "tr")
            for star in (False, True)
        },
    }
    torch.manual_seed(len(name))
    build, card, size = layers[name]
    net = Model(build(), co.models.describe(card), size)
    return alive(net, clip_for(net, 30, seed=5))


THIN = (
    "x3d",
    "resnet",
    "single",
    "retro",
    "deep",
    "movinet",
    *(f"skeleton {k}{s}" for k in ("st", "a", "tr") for s in ("", "*")),
)


def movinet_of_two_stages() -> dict[str, nn.Module]:
    """Three blocks, down to frames of one value."""
    layers = movinet.movinet(5, 16)
    first, second = movinet.block(8, 24, 8, 1, 5, 2), movinet.block(8, 16, 16, 5, 3, 2)
    layers = {"stem": layers["stem"], "stage1": first, "stage2": co.Sequential(second, movinet.block(16, 24, 16, 3, 3, 1))}
    layers["halve"] = movinet.block(16, 24, 16, 5, 3, 2)
    layers["mean"] = co.Sequential(movinet.mean_up_to_now(), co.Reshape(-1, 16))
    layers["fc"] = co.Linear(16, 5, channel_dim=1)
    return layers


def skeleton_of(kind: str, star: bool) -> dict[str, nn.Module]:
    """Two blocks and a short pool instead of ten and a long one."""
    layers = skeleton.skeleton(6, 25, kind=kind, star=star)
    blocks: Any = layers["layers"]
    before = skeleton.WIDTHS[0]
    gcn = skeleton.graph_conv(kind, before, 128, 25)
    layers["layers"] = co.Sequential({"layer1": blocks.layer1, "layer5": skeleton.block(gcn, before, 128, 5, star)})
    layers["pool"] = co.AvgPool1d(6, stride=1, padding=0 if star else 2)
    layers["fc"] = co.Linear(128, 6, channel_dim=1)
    return layers


def clip_for(net: Model, steps: int, batch: int = 2, seed: int = 1) -> Tensor:
    """A random clip."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(net.parameters()).dtype
    return torch.randn(batch, net.step_shape[0], steps, *net.step_shape[1:], generator=generator, dtype=dtype)


def pytorchvideo() -> Any:
    """The package, or ``None`` where it is not installed. It imports what is deprecated by now."""
    if torchvision() is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pytorchvideo.models.hub
            import pytorchvideo.models.x3d
        except ModuleNotFoundError:
            return None
    return pytorchvideo
