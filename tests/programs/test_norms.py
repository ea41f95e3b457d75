"""Batch norms behind convolutions, and convolutions of images, in the graphs of compiled programs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from continual.layers.native import convolution
from continual.programs.backends.images import use_images
from continual.programs.backends.native_code import join_relus
from continual.programs.backends.norms import fold_norms


class Normed(nn.Module):
    """Convolutions before norms, of which one is read twice, and a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.plain = nn.Conv2d(5, 7, 3), nn.Conv2d(7, 7, 1, bias=False)
        self.clip, self.twice = nn.Conv3d(7, 3, (1, 2, 2)), nn.Conv2d(7, 7, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(7), nn.BatchNorm2d(7, affine=False), nn.BatchNorm3d(3), nn.BatchNorm2d(7)])
        for norm in self.norms:
            for _, tensor in (*norm.named_parameters(), *norm.named_buffers()):
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.plain(self.norms[0](self.images(x))))
        twice = self.twice(y)
        return self.norms[2](self.clip((self.norms[3](twice) + twice).unsqueeze(2)))


def rewritten(module: nn.Module, x: Tensor, *passes: object) -> list[str]:
    program = torch.export.export(module.eval(), (x,))
    with torch.no_grad():
        expected = program.module()(x)
        for change in passes:
            change(program)  # type: ignore[operator]
        program.graph_module.recompile()
        program.graph.lint()
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-5, atol=1e-5)
    return [str(n.target) for n in program.graph.nodes]


def test_norms_become_part_of_the_convolution_before_them() -> None:
    assert rewritten(Normed(), torch.randn(2, 5, 9, 8), fold_norms).count("aten.batch_norm.default") == 1


class Images(nn.Module):
    """Convolutions for the kernels, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Conv2d(35, 35, 3, padding=(1, 0), groups=35)
        self.strided = nn.Conv2d(35, 35, 3, 2, padding=1, groups=35, bias=False)
        self.dense = nn.Conv2d(35, 21, (3, 2), (1, 2), padding=(0, 1), dilation=(2, 1))
        self.others = nn.ModuleList([
            nn.Conv2d(21, 21, (3, 1), padding=(1, 0), groups=21),
            nn.Conv2d(21, 21, 3, padding=2, dilation=2, groups=21),
            nn.Conv2d(21, 42, 3, padding=1, groups=21),
            nn.Conv2d(42, 3, 3, padding=1, groups=3),
            nn.Conv2d(3, 5, 3, padding=1),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(self.strided(self.images(x).relu()))
        for other in self.others:
            y = other(y)
        return y.relu() + y


@pytest.mark.skipif(convolution.library() is None, reason="no kernel: no compiler, or a processor without AVX")
def test_convolutions_of_images_are_the_kernels() -> None:
    used = rewritten(Images(), torch.randn(2, 35, 17, 21), use_images, join_relus)
    assert used.count("continual.image_depthwise.default") == 2
    assert used.count("continual.image_convolution.default") == 2
    assert used.count("aten.conv2d.default") == 4
    assert used.count("aten.relu.default") == 1
    assert rewritten(Images().double(), torch.randn(1, 35, 9, 9).double(), use_images).count("aten.conv2d.default") == 8
