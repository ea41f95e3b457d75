"""Weights that are computed: by `torch.nn.utils.parametrize`, which conversion keeps, and by hooks, which it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients
from tests.long import by_turns

C1, C2, C3 = (2, 4, 13), (2, 4, 13, 5), (2, 4, 11, 3, 5)


class Scaled(nn.Module):
    """A parametrisation of one's own, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / self.scale


def scaled(module: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", Scaled())


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(4, 4, 3, padding=1), C1),
    "Conv1d depthwise": (lambda: nn.Conv1d(4, 4, 3, groups=4), C1),
    "Conv2d": (lambda: nn.Conv2d(4, 3, (3, 2), padding=1), C2),
    "Conv3d": (lambda: nn.Conv3d(4, 3, (3, 1, 2)), C3),
    "Linear": (lambda: nn.Linear(5, 3), C2),
    "Embedding": (lambda: nn.Embedding(12, 4), (2, 1, 13)),
}
VECTORS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {  # whose weight is a vector
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), C1),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), C2),
    "LayerNorm": (lambda: nn.LayerNorm(5), C2),
    "RMSNorm": (lambda: nn.RMSNorm((3, 5)), C3),
    "PReLU": (lambda: nn.PReLU(4), C1),
}
WAYS = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "custom": scaled,
}
CASES = [(layer, way) for layer in LAYERS for way in WAYS if (layer, way) != ("Conv1d depthwise", "orthogonal")]
CASES += [(layer, "custom") for layer in VECTORS]


def made(layer: str, way: str) -> tuple[nn.Module, Tensor]:
    make, shape = (LAYERS | VECTORS)[layer]
    module = WAYS[way](make().double()).double().eval()
    return module, torch.randint(12, shape) if layer == "Embedding" else torch.randn(shape, dtype=torch.float64)


def reference(module: nn.Module, clip: Tensor) -> Tensor:
    return module(clip[:, 0]).movedim(-1, 1) if isinstance(module, nn.Embedding) else module(clip)


def streamed(net: co.CoModule, clip: Tensor) -> Tensor:
    net.clean_state()
    outs = [net.forward_step(clip[:, :, t]) for t in range(7)]
    chunks = [y.unsqueeze(2) for y in outs if y is not None] + [net.forward_steps(clip[:, :, 7:], pad_end=True)]
    net.clean_state()
    return torch.cat(chunks, 2)


@pytest.mark.parametrize("layer, way", by_turns(CASES, 2))
def test_parametrisations_are_kept(layer: str, way: str):
    module, clip = made(layer, way)
    net = co.continual(module)
    assert parametrize.is_parametrized(net, "weight")
    assert list(net.state_dict()) == list(module.state_dict())
    assert isinstance(net, type(module).__bases__[0])
    assert_equal(net(clip), reference(module, clip))
    if layer == "Embedding":
        assert_equal(streamed(net, clip), net(clip))
    else:
        check_contract(net, clip, module)
        check_gradients(net, clip)
    assert co.verify(net, clip).passed


@pytest.mark.parametrize("layer, way", CASES)
def test_training_through_steps(layer: str, way: str):
    """Steps give the originals their gradients, and see what an optimiser makes of them, with gradients and without."""
    module, clip = made(layer, way)
    net = co.continual(module)
    originals = [p for n, p in net.named_parameters() if "parametrizations" in n]
    before = [p.detach().clone() for p in originals]
    optimiser = torch.optim.SGD(originals, lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        streamed(net, clip).pow(2).sum().backward()
        optimiser.step()
    assert all(p.grad is not None for p in originals)
    assert any(not torch.equal(a, b) for a, b in zip(before, originals))
    with torch.no_grad():
        assert_equal(streamed(net, clip), net(clip))


@pytest.mark.parametrize("layer, way", CASES)
def test_parametrisations_can_be_removed(layer: str, way: str):
    """From one twin; another and the original keep theirs."""
    module, clip = made(layer, way)
    net, other = co.continual(module), co.continual(module)
    wanted = net(clip)
    parametrize.remove_parametrizations(net, "weight")
    assert type(net) is type(co.continual((LAYERS | VECTORS)[layer][0]()))
    assert "weight" in dict(net.named_parameters())
    assert_equal(net(clip), wanted)
    assert_equal(streamed(net, clip), wanted)
    assert parametrize.is_parametrized(other)
    assert parametrize.is_parametrized(module)
    assert_equal(streamed(other, clip), wanted)
    assert_equal(reference(module, clip), wanted)


@pytest.mark.parametrize("way", WAYS)
def test_in_a_network(way: str):
    """A step reads the weight again: a change of an original in mid-stream counts from then on."""
    module = nn.Sequential(WAYS[way](nn.Conv1d(4, 4, 3, padding=1)), nn.ReLU(), WAYS[way](nn.Conv1d(4, 3, 2))).double().eval()
    net, clip = co.continual(module), torch.randn(2, 4, 17, dtype=torch.float64)
    twin = copy.deepcopy(net)
    check_contract(net, clip, module)
    for each in (net, twin):
        with torch.no_grad():
            for t in range(9):
                each.forward_step(clip[:, :, t])
            before = each.forward_step(clip[:, :, 9], update_state=False)
            for p in each.parameters():
                p.mul_(torch.rand_like(p) + 0.5)
            assert not torch.allclose(each.forward_step(clip[:, :, 9]), before)
            assert not torch.allclose(each(clip), module(clip))
            assert_equal(streamed(each, clip), each(clip))


# ---- hooks ----------------------------------------------------------------------------------------------------------


def pruned(module: nn.Module) -> nn.Module:
    return prune.l1_unstructured(module, "weight", 0.5)


HOOKS = {
    "weight_norm": (torch.nn.utils.weight_norm, "Use torch.nn.utils.parametrizations.weight_norm instead"),
    "spectral_norm": (torch.nn.utils.spectral_norm, "Use torch.nn.utils.parametrizations.spectral_norm instead"),
    "pruning": (pruned, r"torch.nn.utils.prune.remove\(module, name\) first, which keeps the zeros"),
    "pruning twice": (lambda m: pruned(pruned(m)), r"torch.nn.utils.prune.remove"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(
    "kind", [lambda: nn.Conv1d(4, 4, 3), lambda: nn.Linear(4, 4), lambda: nn.LayerNorm(4)], ids=["conv", "linear", "norm"]
)
@pytest.mark.parametrize("name", HOOKS)
def test_weights_computed_by_hooks_are_refused(name: str, kind: Callable[[], nn.Module], used: bool):
    """Also where torch could copy the module: the twin's steps would not see its weight change."""
    wrap, message = HOOKS[name]
    if name == "spectral_norm" and isinstance(kind(), nn.LayerNorm):
        pytest.skip("it takes matrices")
    with torch.set_grad_enabled(used):
        module = wrap(kind())
        if used:
            module(torch.randn(2, 4, 4))
    with pytest.raises(co.NotStreamable, match=rf"(?s)1.0 \({type(module).__name__}\): a hook of torch.nn.utils.*{message}"):
        co.continual(nn.Sequential(nn.ReLU(), nn.Sequential(module)))
    if isinstance(module, nn.Conv1d):
        with pytest.raises(co.NotStreamable, match=message):
            co.Conv1d.build_from(module)


def test_pruning_made_permanent():
    module = nn.Sequential(pruned(nn.Conv1d(4, 4, 3, padding=1)), nn.ReLU()).double()
    clip = torch.randn(2, 4, 13, dtype=torch.float64)
    wanted = module(clip)
    prune.remove(module[0], "weight")
    net = co.continual(module)
    assert (net[0].weight == 0).sum() == 24
    check_contract(net, clip, module)
    assert_equal(net(clip), wanted)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_converted_network_can_be_pruned(groups: int):
    """Its steps run the hook before the layer, so that they see the mask, and the weight behind it when it is trained."""
    net = co.continual(nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, groups=groups), nn.ReLU())).double()
    clip = torch.randn(2, 4, 13, dtype=torch.float64)
    pruned(net[0])
    assert_equal(streamed(net, clip), net(clip))
    streamed(net, clip).sum().backward()
    assert net[0].weight_orig.grad.any()
    assert not net[0].weight_orig.grad[net[0].weight_mask == 0].any()
    with torch.no_grad():
        net[0].weight_orig.mul_(-2)
        found, wanted = streamed(net, clip), net(clip)
    assert_equal(found, wanted)
    assert (net[0].weight == 0).sum() >= net[0].weight.numel() // 2
    prune.remove(net[0], "weight")
    check_contract(net, clip)
