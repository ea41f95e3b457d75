"""Video networks of torchvision, pytorchvideo, timm, monai and segmentation-models, in small sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..network import Network
from ..packages import cls


def of(name: str, *args: Any, then: Callable[[nn.Module], nn.Module] | None = None, **more: Any) -> Callable[[], nn.Module]:
    """A builder: a class or function by its full name, with arguments."""

    def build() -> nn.Module:
        module: nn.Module = cls(name)(*args, **more)
        return module if then is None else then(module)

    return build


class EachFrame(nn.Module):
    """An image network on each frame of ``(B, T, C, H, W)``: its scores or features, frame by frame."""

    def __init__(self, image: nn.Module):
        super().__init__()
        self.image = image

    def forward(self, x: Tensor) -> Tensor:
        return self.image(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class FramesThenConv(nn.Module):
    """A segmentation network on each frame, and a convolution over time on its maps."""

    def __init__(self, image: nn.Module):
        super().__init__()
        self.image, self.time = image, nn.Conv3d(2, 2, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T, H, W)
        b, c, t, h, w = x.shape
        y = self.image(x.transpose(1, 2).reshape(b * t, c, h, w))
        return self.time(y.view(b, t, -1, h, w).transpose(1, 2))


class CnnThenGru(nn.Module):
    """Features of each frame, and a recurrent layer over them."""

    def __init__(self, image: nn.Module, features: int):
        super().__init__()
        self.image, self.rnn, self.head = image, nn.GRU(features, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C, H, W)
        y = self.image(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head(self.rnn(y)[0])


class Slowed(nn.Module):
    """SlowFast with one input: the slow path takes every fourth frame, by a slice or by constant indices."""

    def __init__(self, network: nn.Module, by: str):
        super().__init__()
        self.network, self.by = network, by

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "slice":
            return self.network([x[:, :, ::4], x])
        at = torch.linspace(0, x.shape[2] - 1, x.shape[2] // 4).long()
        return self.network([torch.index_select(x, 2, at), x])


class TwoPaths(nn.Module):
    """SlowFast with two inputs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return self.network([slow, fast])


def slowfast(then: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    """A SlowFast of the smallest depth that the package has, on 8 frames of 32×32."""
    return of(
        "pytorchvideo.models.slowfast.create_slowfast",
        model_depth=50,
        model_num_class=5,
        slowfast_fusion_conv_stride=(4, 1, 1),
        stem_dim_outs=(16, 2),
        head_pool_kernel_sizes=((2, 1, 1), (8, 1, 1)),
        then=then,
    )


def _small_head(module: nn.Module) -> nn.Module:
    """For frames of 64×64: the published pool is for 224×224."""
    module.avgpool = nn.AvgPool3d((2, 2, 2), stride=1)
    return module


def mvit(second: bool) -> Callable[[], nn.Module]:
    """A multiscale transformer of two blocks, which halves the maps once; of the second version with positions relative to each other."""

    def build() -> nn.Module:
        block = cls("torchvision.models.video.mvit.MSBlockConfig")
        blocks = [
            block(1, 16, 16, [3, 3, 3], [3, 3, 3], [], [1, 2, 2]),
            block(2, 16, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        ]
        module: nn.Module = cls("torchvision.models.video.mvit.MViT")(
            (32, 32),
            8,
            blocks,
            residual_pool=second,
            residual_with_cls_embed=not second,
            rel_pos_embed=second,
            proj_after_attn=second,
            num_classes=5,
        )
        return module

    return build


def tv(name: str, source: str, clip: tuple[int, ...], expected: Any = "windows", **more: Any) -> Network:
    """A video network of torchvision."""
    build = of(f"torchvision.models.video.{name}", num_classes=5, **more)
    return Network(f"torchvision/{name}", build, clip, expected, source, package="torchvision")


def ptv(name: str, function: str, source: str, clip: tuple[int, ...], **more: Any) -> Network:
    """A network of pytorchvideo."""
    build = of(f"pytorchvideo.models.{function}", model_num_class=5, **more)
    return Network(f"pytorchvideo/{name}", build, clip, "windows", source, package="pytorchvideo")


def per_frame(name: str, source: str, size: int, **more: Any) -> Network:
    """An image network of timm on each frame."""
    build = of("timm.create_model", name, then=EachFrame, **{"num_classes": 5} | more)
    return Network(f"timm/{name}", build, (2, 5, 3, size, size), "stream", source, package="timm", time_dim=1)


NETWORKS = [
    tv("r3d_18", "Tran 2018, CVPR", (2, 3, 8, 32, 32)),
    tv("mc3_18", "Tran 2018, CVPR", (2, 3, 8, 32, 32)),
    tv("r2plus1d_18", "Tran 2018, CVPR", (2, 3, 8, 32, 32)),
    Network(
        "torchvision/s3d",
        of("torchvision.models.video.s3d", num_classes=5, then=_small_head),
        (2, 3, 16, 64, 64),
        "windows",
        "Xie 2018, ECCV",
        package="torchvision",
    ),
    tv("swin3d_t", "Liu 2022, CVPR", (2, 3, 8, 32, 32)),
    Network("torchvision/MViT v1", mvit(second=False), (2, 3, 8, 32, 32), "windows", "Fan 2021, ICCV", package="torchvision"),
    Network("torchvision/MViT v2", mvit(second=True), (2, 3, 8, 32, 32), "windows", "Li 2022, CVPR", package="torchvision"),
    ptv("x3d", "x3d.create_x3d", "Feichtenhofer 2020, CVPR", (2, 3, 4, 64, 64), input_clip_length=4, input_crop_size=64),
    ptv("slow_r50", "resnet.create_resnet", "Feichtenhofer 2019, ICCV", (2, 3, 4, 32, 32), head_pool_kernel_size=(4, 1, 1)),
    ptv(
        "c2d",
        "resnet.create_resnet",
        "Wang 2018, CVPR",
        (2, 3, 8, 32, 32),
        head_pool_kernel_size=(4, 1, 1),
        stem_conv_kernel_size=(1, 7, 7),
        stage1_pool=nn.MaxPool3d,
    ),
    ptv("csn", "csn.create_csn", "Tran 2019, ICCV", (2, 3, 8, 32, 32), head_pool_kernel_size=(1, 1, 1)),
    ptv("r2plus1d", "r2plus1d.create_r2plus1d", "Tran 2018, CVPR", (2, 3, 8, 32, 32), head_pool_kernel_size=(2, 1, 1)),
    Network(
        "pytorchvideo/slowfast, by slices",
        slowfast(lambda m: Slowed(m, "slice")),
        (2, 3, 8, 32, 32),
        "windows",
        "Feichtenhofer 2019, ICCV",
        package="pytorchvideo",
    ),
    Network(
        "pytorchvideo/slowfast, by linspace",
        slowfast(lambda m: Slowed(m, "linspace")),
        (2, 3, 8, 32, 32),
        "windows",
        "Feichtenhofer 2019, ICCV",
        package="pytorchvideo",
    ),
    Network(
        "pytorchvideo/slowfast, two inputs",
        slowfast(TwoPaths),
        [(2, 3, 2, 32, 32), (2, 3, 8, 32, 32)],
        "windows",
        "Feichtenhofer 2019, ICCV",
        package="pytorchvideo",
    ),
    Network(
        "pytorchvideo/mvit",
        of(
            "pytorchvideo.models.vision_transformers.create_multiscale_vision_transformers",
            spatial_size=32,
            temporal_size=8,
            depth=2,
            head_num_classes=5,
            patch_embed_dim=16,
            embed_dim_mul=[[1, 2.0]],
            atten_head_mul=[[1, 2.0]],
            pool_q_stride_size=[[1, 1, 2, 2]],
            pool_kv_stride_adaptive=[1, 4, 4],
            pool_kvq_kernel=[3, 3, 3],
        ),
        (2, 3, 8, 32, 32),
        "windows",
        "Fan 2021, ICCV",
        package="pytorchvideo",
    ),
    per_frame("efficientnet_lite0", "Tan 2019, ICML", 32),
    per_frame("mobilenetv3_small_050", "Howard 2019, ICCV", 32),
    per_frame("mobilenetv4_conv_small_050", "Qin 2024, ECCV", 32),
    per_frame("convnext_atto", "Liu 2022, CVPR", 32),
    per_frame("resnet10t", "He 2016, CVPR", 32),
    per_frame("regnetx_002", "Radosavovic 2020, CVPR", 32),
    per_frame("ghostnet_050", "Han 2020, CVPR", 32),
    per_frame("fastvit_t8", "Vasu 2023, ICCV", 64),
    per_frame("edgenext_xx_small", "Maaz 2022, ECCVW", 64),
    per_frame("mobilevit_xxs", "Mehta 2022, ICLR", 64),
    per_frame("levit_128s", "Graham 2021, ICCV", 224),
    per_frame("vit_tiny_patch16_224", "Dosovitskiy 2021, ICLR", 32, img_size=32, depth=2),
    per_frame("deit_tiny_patch16_224", "Touvron 2021, ICML", 32, img_size=32, depth=2),
    per_frame("swin_tiny_patch4_window7_224", "Liu 2021, ICCV", 56, img_size=56, depths=(1, 1, 1, 1)),
    per_frame("poolformer_s12", "Yu 2022, CVPR", 32),
    per_frame("mixer_s32_224", "Tolstikhin 2021, NeurIPS", 64, img_size=64, num_classes=0),
    per_frame("repvit_m0_9", "Wang 2024, CVPR", 32),
    per_frame("coat_lite_tiny", "Xu 2021, ICCV", 32, img_size=32),
    Network(
        "timm/resnet10t and GRU",
        of("timm.create_model", "resnet10t", num_classes=12, then=lambda m: CnnThenGru(m, 12)),
        (2, 6, 3, 32, 32),
        "stream",
        "Donahue 2015, CVPR (LRCN)",
        package="timm",
        time_dim=1,
    ),
    Network(
        "timm/ViT and GRU",
        of("timm.create_model", "vit_tiny_patch16_224", num_classes=12, img_size=32, depth=2, then=lambda m: CnnThenGru(m, 12)),
        (2, 6, 3, 32, 32),
        "stream",
        "Donahue 2015, CVPR (LRCN)",
        package="timm",
        time_dim=1,
    ),
    Network(
        "smp/Unet and Conv3d",
        of(
            "segmentation_models_pytorch.Unet",
            "resnet18",
            encoder_weights=None,
            classes=2,
            decoder_channels=(32, 16, 16, 8, 8),
            then=FramesThenConv,
        ),
        (2, 3, 4, 32, 32),
        "stream",
        "Ronneberger 2015, MICCAI",
        package="segmentation_models_pytorch",
    ),
    Network(
        "monai/UNet over time",
        of(
            "monai.networks.nets.UNet",
            spatial_dims=3,
            in_channels=1,
            out_channels=2,
            channels=(4, 8, 16),
            strides=(2, 2),
            norm="batch",
        ),
        (2, 1, 16, 16, 16),
        "stream",
        "Kerfoot 2018, STACOM",
        package="monai",
    ),
    Network(
        "monai/UNet over time, instance norm",
        of("monai.networks.nets.UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2)),
        (2, 1, 16, 16, 16),
        "refused",
        "Kerfoot 2018, STACOM",
        package="monai",
        why="Instance normalisation of the maps takes mean and variance over all frames of the clip, so every frame of the output "
        "depends on the last one.",
    ),
    Network(
        "monai/SegResNet over time",
        of(
            "monai.networks.nets.SegResNet",
            spatial_dims=3,
            init_filters=4,
            in_channels=1,
            out_channels=2,
            norm=("BATCH", {}),
            blocks_down=(1, 1, 1),
            blocks_up=(1, 1),
        ),
        (2, 1, 16, 16, 16),
        "stream",
        "Myronenko 2018, BrainLes",
        package="monai",
    ),
    Network(
        "monai/DenseNet over time",
        of(
            "monai.networks.nets.DenseNet121",
            spatial_dims=3,
            in_channels=1,
            out_channels=3,
            init_features=8,
            growth_rate=4,
            block_config=(2, 2),
        ),
        (2, 1, 16, 16, 16),
        "windows",
        "Huang 2017, CVPR",
        package="monai",
    ),
]
