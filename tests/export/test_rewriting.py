"""Operations that runtimes read otherwise than torch, or have not, in other operations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.export.api import format_of
from continual.export.flat_call import FlatCall
from continual.programs.rewrites import volumes
from continual.programs.rewrites.average_pools import averages
from continual.programs.rewrites.passes import rewritten
from tests.contract import assert_equal
from tests.export.artefacts import needs
from tests.long import by_turns


@pytest.mark.parametrize("kernel, stride", list(product([(3, 3), (2, 4), (1, 3)], [(1, 1), (2, 2), (3, 2)])))
def test_averages_as_torch_computes_them(kernel: tuple[int, int], stride: tuple[int, int]):
    """Also where the last window reaches beyond the padding, and where torch leaves it out."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    for size, ceil, include_pad, divisor in product([(5, 4), (7, 9), (3, 6)], [False, True], [False, True], [None, 5]):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        got = averages(2, x, kernel, stride, padding, ceil, include_pad, divisor)
        want = F.avg_pool2d(x, kernel, stride, padding, ceil, include_pad, divisor)
        assert got.shape == want.shape
        assert_equal(got, want)


@pytest.mark.parametrize("dims, kernel, padding", [(1, (3,), (1,)), (1, 4, 2), (3, 3, 1), (3, (2, 3, 4), (1, 0, 2))])
@pytest.mark.parametrize("stride", [(), 2])
def test_averages_of_signals_and_volumes(dims: int, kernel: Any, padding: Any, stride: Any):
    """Options as the operations take them: one number for all dimensions, one in a list, no stride for the kernel's."""
    pool = (F.avg_pool1d, F.avg_pool3d)[dims // 2]
    x = torch.randn(2, 3, *(9, 8, 7)[:dims], dtype=torch.float64)
    given = [kernel] if isinstance(kernel, int) else list(kernel)
    for include_pad in (False, True):
        want = pool(x, kernel, stride or None, padding, True, include_pad)
        assert_equal(averages(dims, x, given, [stride] if stride else (), padding, True, include_pad), want)


V = functools.partial(torch.randn, dtype=torch.float64)
VOLUMES: dict[str, tuple[Callable[..., Tensor], Callable[..., Any], tuple[Any, ...]]] = {
    "convolution": (F.conv3d, volumes.convolution, (V(4, 2, 3, 2, 3), V(4))),
    "convolution, strides": (F.conv3d, volumes.convolution, (V(4, 2, 2, 3, 1), None, (3, 2, 1), (1, 0, 2))),
    "convolution, dilated groups": (F.conv3d, volumes.convolution, (V(6, 1, 2, 2, 2), V(6), (2, 1, 3), 2, (3, 1, 2), 2)),
    "convolution, same": (F.conv3d, volumes.convolution, (V(3, 2, 2, 3, 4), V(3), 1, "same", (2, 1, 1))),
    "convolution, valid": (F.conv3d, volumes.convolution, (V(3, 2, 2, 3, 4), V(3), 2, "valid")),
    "transposed": (F.conv_transpose3d, volumes.transposed_convolution, (V(2, 3, 3, 2, 3), V(3))),
    "transposed, strides": (
        F.conv_transpose3d, volumes.transposed_convolution, (V(2, 3, 3, 3, 2), None, (2, 3, 1), (1, 0, 1), (1, 2, 0)),
    ),
    "transposed, dilated groups": (
        F.conv_transpose3d, volumes.transposed_convolution, (V(2, 2, 2, 2, 2), V(4), (2, 1, 1), 1, 0, 2, (3, 2, 1)),
    ),
    "transposed, gaps": (F.conv_transpose3d, volumes.transposed_convolution, (V(2, 3, 2, 1, 1), V(3), (5, 1, 1), 0, (3, 0, 0))),
    "average": (F.avg_pool3d, volumes.average_pool, ((2, 3, 2), (1, 2, 3), (1, 1, 0))),
    "average of what there is": (F.avg_pool3d, volumes.average_pool, ((2, 3, 2), (1, 2, 3), (1, 1, 0), False, False)),
    "average, more windows": (F.avg_pool3d, volumes.average_pool, ((3, 3, 2), 2, 1, True)),
    "average, divisor": (F.avg_pool3d, volumes.average_pool, ((3, 3, 2), 2, 0, False, True, 7)),
    "maximum": (F.max_pool3d, volumes.maximum_pool, ((2, 3, 2), (1, 2, 3), (1, 1, 0))),
    "maximum, more windows": (F.max_pool3d, volumes.maximum_pool, ((3, 2, 2), 2, 1, (2, 1, 3), True)),
    "adaptive average": (F.adaptive_avg_pool3d, volumes.adaptive_average_pool, ((3, 6, 2),)),
    "adaptive maximum": (F.adaptive_max_pool3d, volumes.adaptive_maximum_pool, ((1, 4, 9),)),
}  # fmt: skip


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_by_images(name: str):
    """Every operation as torch's, also of one volume without a batch."""
    theirs, ours, args = VOLUMES[name]
    for x in (V(3, 2, 7, 6, 9), V(2, 5, 8, 7)):
        want, got = theirs(x, *args), ours(x, *args)
        assert_equal(got[0] if isinstance(got, tuple) else got, want)


class Pools(nn.Module):
    """On images, frame by frame, and on their rows."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2).flatten(0, 1)
        y = F.avg_pool2d(y, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        y = F.avg_pool2d(F.pad(y, (0, 0, 1, 0)), (2, 1), stride=1, divisor_override=-3)
        rows = F.avg_pool1d(y.flatten(1, 2), 3, 2, 1, ceil_mode=True).unflatten(1, y.shape[1:3])
        volumes = F.avg_pool3d(y, 2, 1, 1, True, False)
        plain = F.avg_pool2d(y, 2, 1)
        return (
            torch.cat((rows.flatten(1), volumes.flatten(1), plain.flatten(1)), 1).unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        )


class Volumes(nn.Module):
    """Of volumes as frames: ``(B, C, T, D, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv3d(3, 4, 3, 2, padding=1), nn.ConvTranspose3d(4, 2, (2, 3, 3), 2, output_padding=1)
        self.same = nn.Conv3d(2, 2, (2, 3, 1), padding="same")

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2).flatten(0, 1)
        y = self.same(self.up(F.gelu(self.down(y))))
        z = F.adaptive_max_pool3d(y, (2, 3, 2)) + F.adaptive_avg_pool3d(y, (2, 3, 2)) - F.max_pool3d(y, 3, 1)[..., :2, :3, :2]
        z = z - F.adaptive_max_pool2d(y.mean(2), (3, 2)).unsqueeze(2)
        return (z - z.var(1, keepdim=True)).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


REWRITTEN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "images": (Pools, (2, 3, 7, 8, 9)),
    "volumes": (Volumes, (1, 3, 5, 4, 5, 4)),
    "layer of signals": (lambda: co.AvgPool2d((2, 3), (1, 2), (0, 1), True), (2, 3, 9, 5)),
    "layer of images": (lambda: co.AvgPool3d(3, 2, 1, True, divisor_override=5), (2, 3, 9, 5, 4)),
}


def network(name: str) -> tuple[co.CoModule, Tensor]:
    """And a clip."""
    make, shape = REWRITTEN[name]
    clip = torch.randn(shape)
    return co.continual(make().eval(), clip), clip


def assert_clip(name: str, path: Path) -> None:
    """A stream of a file gives what the clip gives."""
    net, clip = network(name)
    runner = co.load(co.export(net, clip[:, :, 0], path))
    with torch.no_grad():
        torch.testing.assert_close(runner.forward_steps(clip, pad_end=True), net(clip), rtol=1e-5, atol=1e-5)


def options_of(program: torch.export.ExportedProgram) -> list[tuple[Any, ...]]:
    """From the fifth on, of its average pools."""
    return [n.args[4:] for n in program.graph.nodes if "avg_pool" in str(n.target)]


@pytest.mark.parametrize("name", [n for n in REWRITTEN if n != "volumes"])
def test_programs_without_these_options(name: str):
    """The same function, and the same names of modules."""
    net, clip = network(name)
    program = FlatCall(net, clip[:, :, 0], None, None, True).exported()
    assert any(True in o or len(o) > 2 for o in options_of(program))
    found = rewritten(program, "openvino")
    assert options_of(found)
    assert not any(True in o[:1] or o[2:] for o in options_of(found))
    modules = [{n.meta["custom"]["module"] for n in p.graph.nodes if "avg_pool" in str(n.target)} for p in (program, found)]
    assert modules[0] == modules[1]
    given = program.example_inputs[0]
    for a, b in zip(found.module()(*given), program.module()(*given), strict=True):
        torch.testing.assert_close(a, b)
    assert rewritten(found, "openvino") is found


@pytest.mark.parametrize("name, file", by_turns(product(REWRITTEN, ["net.onnx", "net.pte"]), 4))
def test_files(name: str, file: str, tmp_path: Path):
    """OpenVINO's are in openvino_checks.py."""
    needs(str(format_of(Path(file))))
    assert_clip(name, tmp_path / file)


def places(images: Tensor) -> Tensor:
    """Where the maxima are."""
    return F.adaptive_max_pool2d(images, (2, 2), return_indices=True)[1].float()


def test_places_of_maxima_are_left_as_they_are():
    """They are not computed in other operations, so nothing else may stand for them."""
    program = FlatCall(co.Sequential(co.Lambda(places)).eval(), torch.randn(2, 3, 5, 6), None, None, True).exported()
    assert any("adaptive_max_pool2d" in str(n.target) for n in program.graph.nodes)
    assert rewritten(program, "executorch") is program
