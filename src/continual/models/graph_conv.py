"""Convolutions across the joints of a frame. A frame holds the joints of all skeletons side by side: ``(B, C, M * V)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ..convert.fuse import Uses, fold, frozen, scale
from ..core.naming import named
from ..core.state import InitContext, StateNode, StateUpdates, StepSpec
from ..errors import NotStreamable, ShapeMismatch
from ..layers import norm_refusals
from ..layers.folds_norms import scaled
from ..layers.local import LocalInTime
from ..layers.native import product
from ..layers.weight_cache import PackedWeight
from .skeleton_graphs import adjacency


class _AcrossJoints(PackedWeight, LocalInTime):
    """Base class: maps clips ``(B, in, T, M * V)`` to ``(B, out, T, M * V)``, each frame and each skeleton on its own."""

    def __init__(self, in_channels: int, out_channels: int, joints: int):
        super().__init__()
        self.in_channels, self.out_channels, self.num_joints = in_channels, out_channels, joints
        self.bn = nn.BatchNorm2d(out_channels)

    def check(self, frame: StepSpec, path: str) -> None:
        if len(frame.shape) != 3 or frame.shape[1] != self.in_channels or frame.shape[2] % self.num_joints:
            raise ShapeMismatch(
                f"{path}: expects steps (B, {self.in_channels}, joints), the joints a multiple of {self.num_joints}, got "
                f"{tuple(frame.shape)}"
            )
        if self.training:
            raise NotStreamable(f"{path} {norm_refusals.TRAINING}")

    def open(self, frame: StepSpec, init: InitContext) -> StateNode:
        self._forget_layouts()
        return super().open(frame, init)

    def out(self, frame: StepSpec) -> StepSpec:
        return frame.resized(frame.shape[0], self.out_channels, frame.shape[2])

    def advance(self, x: Tensor | None, node: StateNode, n_if_ended: int, updates: StateUpdates) -> tuple[Tensor | None, int]:
        self._refuse_training(node)
        return super().advance(x, node, n_if_ended, updates)

    def advance_step(self, x: Tensor, node: StateNode, updates: StateUpdates) -> Tensor:
        self._refuse_training(node)
        return self.local_step(x)

    def _refuse_training(self, node: StateNode) -> None:
        if self.training:  # changed after the stream was opened
            raise NotStreamable(f"{named(node.path, self)} {norm_refusals.TRAINING}")

    def macs_per_output(self, node: StateNode, frame: StepSpec) -> int:
        weights = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Conv2d))
        return weights * frame.shape[2]

    def extra_ops(self, node: StateNode, frame: StepSpec) -> int:
        per_joint = self.out_channels  # the ReLU
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                per_joint += part.out_channels
            elif isinstance(part, nn.BatchNorm2d):
                per_joint += 2 * part.num_features
            elif isinstance(part, nn.BatchNorm1d):
                per_joint += 2 * self.in_channels
        return per_joint * frame.shape[2]

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, joints={self.num_joints}"


def mapped(x: Tensor, conv: Any) -> Tensor:
    """A convolution with a kernel of 1, as a matrix product over channels."""
    return product.multiply(conv.weight.flatten(1), x.flatten(2), conv.bias).unflatten(2, x.shape[2:])


def _joined(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weights and biases in alternation, to one weight and one bias."""
    return torch.cat([w.flatten(1) for w in weights[::2]], 1), torch.stack(list(weights[1::2])).sum(0)


class GraphConv(_AcrossJoints):
    """The sum of three convolutions, over the joint itself, inward and outward neighbours; batch norm, shortcut, ReLU.

    ``graph_attn`` weighs the links of the skeleton and is learned; ``A`` is the skeleton and is not.

    Args:
        in_channels, out_channels: of a joint.
        joints: of a skeleton.

    Source: Yan et al., Spatial temporal graph convolutional networks (2018).
    """

    def __init__(self, in_channels: int, out_channels: int, joints: int):
        super().__init__(in_channels, out_channels, joints)
        self.graph_attn = nn.Parameter(torch.ones(3, joints, joints))
        self.A = nn.Parameter(adjacency(joints), requires_grad=False)
        self.g_conv = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(3))
        if in_channels != out_channels:
            self.gcn_residual = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, input: Tensor) -> Tensor:
        """Clips ``(B, in, T, M * V)``."""
        gathered = self.gathered(input)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
            total = mapped(gathered[0], self.g_conv[0])
            for x, conv in zip(gathered[1:], self.g_conv[1:], strict=True):
                total = total + mapped(x, conv)
        else:  # one product instead of three and two sums
            weight, bias = self._side_by_side()
            groups = torch.cat(list(gathered), 1).flatten(2)
            total = product.multiply(weight, groups, bias).unflatten(2, input.shape[2:])
        around = input
        if self.in_channels != self.out_channels:
            conv, bn = self.gcn_residual
            around = bn(mapped(input, conv))
        return torch.relu(self.bn(total) + around)

    def _side_by_side(self) -> tuple[Tensor, Tensor]:
        """The groups' weights ``(out, 3 * in)`` as one, made once per version, and their biases ``(out)`` added."""
        weights = [p for conv in self.g_conv for p in conv._parameters.values() if p is not None]
        return self._laid_out_together("groups", weights, _joined)

    def gathered(self, x: Tensor) -> Sequence[Tensor]:
        """The inputs from the three groups of neighbours of each joint: three tensors like ``x``."""
        links = self.A * self.graph_attn
        return product.multiply(x.reshape(-1, self.num_joints), links).unflatten(1, (*x.shape[:-1], -1)).flatten(-2)


@fold.register
def _fold_graph_conv(module: GraphConv, uses: Uses) -> None:
    """Fold the norm after the sum into the weight of each group, and the norm of the shortcut into its weight."""
    if isinstance(module.bn, nn.Identity):  # it is in two places
        return
    sums: list[tuple[list[Any], Any]] = [(list(module.g_conv), module.bn)]
    if module.in_channels != module.out_channels:
        sums.append(([module.gcn_residual[0]], module.gcn_residual[1]))
        module.gcn_residual[1] = nn.Identity()
    for convs, norm in sums:
        factor, offset = scale(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
        for i, conv in enumerate(convs):
            bias = conv.bias.double() * factor + (offset if i == 0 else 0)
            dtype = conv.weight.dtype
            conv.weight, conv.bias = frozen(scaled(conv.weight.detach().double(), factor), dtype), frozen(bias, dtype)
    module._modules["bn"] = nn.Identity()


class AdaptiveGraphConv(GraphConv):
    """A :class:`GraphConv` with the links of the skeleton, learned links, and links computed from each frame.

    The last are a softmax over products of two embeddings of the joints: for each frame alone. AGCN takes their mean over a whole
    clip, which can't be streamed.

    Args:
        in_channels, out_channels: of a joint.
        joints: of a skeleton.

    Source: Shi et al., Two-stream adaptive graph convolutional networks (2019); per frame: Hedegaard et al. (2022).
    """

    def __init__(self, in_channels: int, out_channels: int, joints: int):
        super().__init__(in_channels, out_channels, joints)
        self.a_conv = nn.ModuleList(nn.Conv2d(in_channels, out_channels // 4, 1) for _ in range(3))
        self.b_conv = nn.ModuleList(nn.Conv2d(in_channels, out_channels // 4, 1) for _ in range(3))

    def gathered(self, x: Tensor) -> Sequence[Tensor]:
        by_skeleton = self._by_skeleton(x)
        return [self._of_skeletons(by_skeleton @ links) for links in self._links(x)]

    def _links(self, x: Tensor) -> Iterator[Tensor]:
        """The links ``(B, T, M, V, V)`` of each group of neighbours."""
        fixed = self.A + self.graph_attn
        for i, (a_conv, b_conv) in enumerate(zip(self.a_conv, self.b_conv, strict=True)):
            a, b = self._by_skeleton(mapped(x, a_conv)), self._by_skeleton(mapped(x, b_conv))
            yield fixed[i] + torch.softmax(a.transpose(-1, -2) @ b / a.shape[-2], -2)

    def _by_skeleton(self, x: Tensor) -> Tensor:
        """``(B, C, T, M * V)`` to ``(B, T, M, C, V)``."""
        return x.unflatten(3, (-1, self.num_joints)).permute(0, 2, 3, 1, 4)

    def _of_skeletons(self, x: Tensor) -> Tensor:
        """``(B, T, M, C, V)`` to ``(B, C, T, M * V)``."""
        return x.permute(0, 3, 1, 2, 4).flatten(3)


class JointAttention(nn.Module):
    """Self-attention across the joints ``(N, C, V)`` of a skeleton, with 8 heads.

    In training, each head drops half of the joints.
    """

    heads = 8

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.key_channels = out_channels // 4
        self.qkv_conv = nn.Conv2d(in_channels, 2 * self.key_channels + out_channels, 1)
        self.attn_out = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, V)`` to ``(N, out, V)``."""
        sizes = [self.key_channels, self.key_channels, self.attn_out.in_channels]
        q, k, v = (t.unflatten(1, (self.heads, -1)) for t in mapped(x, self.qkv_conv).split(sizes, 1))
        scores = (q * q.shape[2] ** -0.5).transpose(2, 3) @ k
        weights = torch.softmax(scores, -1)
        if self.training:
            kept = torch.rand_like(weights[:, :, :1]) < 0.5
            weights = weights * kept
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-8)
        return mapped((v @ weights.transpose(2, 3)).flatten(1, 2), self.attn_out)


class GraphAttention(_AcrossJoints):
    """Attention across the joints of a frame instead of a graph convolution: batch norm, attention, shortcut, batch norm, ReLU.

    ``A`` has no effect; the published weights contain and count it.

    Args:
        in_channels, out_channels: of a joint.
        joints: of a skeleton.

    Source: Plizzari et al., Skeleton-based action recognition via spatial and temporal transformer networks (2021).
    """

    def __init__(self, in_channels: int, out_channels: int, joints: int):
        super().__init__(in_channels, out_channels, joints)
        self.A = nn.Parameter(adjacency(joints))
        self.data_bn = nn.BatchNorm1d(in_channels * joints)
        self.attention_conv = JointAttention(in_channels, out_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Clips ``(B, in, T, M * V)``."""
        batch, channels, steps, _ = input.shape
        single = input.unflatten(3, (-1, self.num_joints)).permute(0, 2, 3, 1, 4).reshape(-1, channels, self.num_joints)
        y = self.attention_conv(self.data_bn(single.flatten(1)).view_as(single))
        y = y.unflatten(0, (batch, steps, -1)).permute(0, 3, 1, 2, 4).flatten(3)
        if self.in_channels == self.out_channels:
            y = y + input
        return torch.relu(self.bn(y))
