"""Networks that are exported: those that the documentation's table lists. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import continual as co

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "executorch": ".pte", "openvino": ".xml"}


@dataclass(frozen=True)
class Exported:
    """A network, and what its steps look like.

    Attributes:
        make: makes it.
        shape: of a step, without rows.
        reference: makes the network that runs the whole clip; ``None``: ``forward`` does.
    """

    make: Callable[[], Any]
    shape: tuple[int, ...]

    def net(self) -> Any:
        """With weights that are always the same, and norms that tell channels apart."""
        torch.manual_seed(7)
        net = self.make()
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    for value, low in (
                        (module.running_mean, -0.3),
                        (module.running_var, 0.6),
                        (module.weight, 0.6),
                        (module.bias, -0.3),
                    ):
                        nn.init.uniform_(value, low, low + 0.7)
        return net.eval()

    def step(self, batch: int = 1) -> Tensor:
        """A step of zeros."""
        return torch.zeros(batch, *self.shape)

    def clip(self, steps: int, batch: int = 1, seed: int = 1) -> Tensor:
        """A random clip."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.shape[0], steps, *self.shape[1:], generator=generator)


def demo() -> Any:
    """The network that ``continual demo`` trains and streams."""
    from continual.cli.denoise import denoiser

    return co.continual(denoiser().eval())


def resnet_stage() -> co.Sequential:
    """Two residual blocks of 3D convolutions, the first with a stride in time and space."""

    def conv(before: int, width: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        return [co.Conv3d(before, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm3d(width)]

    first = co.Sequential(*conv(16, 32, 3, 2), nn.ReLU(), *conv(32, 32, 3))
    second = co.Sequential(*conv(32, 32, 3), nn.ReLU(), *conv(32, 32, 3))
    down = co.BroadcastReduce(first, co.Sequential(*conv(16, 32, 1, 2)), auto_delay=True)
    return co.Sequential(down, nn.ReLU(), co.Residual(second), nn.ReLU())


def causal_transformer() -> co.Sequential:
    """Two layers that see the last 32 tokens each."""
    layers = [co.CausalTransformerEncoderLayer(32, 4, 64, sequence_len=32) for _ in range(2)]
    return co.Sequential(co.Linear(8, 32, channel_dim=1), *layers, co.Linear(32, 4, channel_dim=1))


def gru() -> co.Sequential:
    """Two layers of gated units."""
    return co.Sequential(co.GRU(8, 32, 2), co.Linear(32, 4, channel_dim=1))


def unet() -> co.Sequential:
    """Down by two twice and up again, with skip connections."""

    def conv(before: int, width: int) -> list[nn.Module]:
        return [co.Conv1d(before, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU()]

    def level(width: int, inner: co.Sequential) -> co.BroadcastReduce:
        down = co.Conv1d(width, 2 * width, 2, stride=2)
        up = co.ConvTranspose1d(2 * width, width, 2, stride=2)
        return co.BroadcastReduce(co.Sequential(down, nn.ReLU(), inner, up), co.Sequential(nn.Identity()), reduce="concat")

    inner = level(32, co.Sequential(*conv(64, 64)))
    middle = co.Sequential(*conv(32, 32), inner, *conv(64, 32))
    return co.Sequential(*conv(4, 16), level(16, middle), *conv(32, 16), co.Conv1d(16, 2, 1))


def r3d_18() -> Any:
    """torchvision's network, converted by its graph."""
    from tests.convert.vision import r3d_18 as case

    found = case(batch=2)
    return co.continual(found.module.eval(), found.clip)


NETWORKS: dict[str, Exported] = {
    "demo": Exported(demo, (1,)),
    "resnet stage": Exported(resnet_stage, (16, 12, 12)),
    "causal transformer": Exported(causal_transformer, (8,)),
    "gru": Exported(gru, (8,)),
    "unet": Exported(unet, (4,)),
    "r3d_18": Exported(r3d_18, (3, 16, 16)),
}
