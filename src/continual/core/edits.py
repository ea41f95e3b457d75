"""Tools of torch that change streaming modules: changes take effect or are refused at once."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ExportError, NotStreamable
from .ptflops import SetByPtflops, enter_network, warn_if_left_out

# Modules with hooks that compute a weight before each forward, and what to use instead where that can't be followed.
WEIGHT_HOOKS = {
    "torch.nn.utils.weight_norm": "Use torch.nn.utils.parametrizations.weight_norm instead",
    "torch.nn.utils.spectral_norm": "Use torch.nn.utils.parametrizations.spectral_norm instead",
    "torch.nn.utils.prune": "Remedies: torch.nn.utils.prune.remove(module, name) first, which keeps the zeros; or prune the layers of the "
    "converted network",
}


def weight_hook(hook: Any) -> str:
    """The module of torch that defines a hook which computes a weight; empty for other hooks."""
    return next((kind.__module__ for kind in type(hook).__mro__ if kind.__module__ in WEIGHT_HOOKS), "")


def compute_weights(module: nn.Module) -> None:
    """Run the hooks that compute weights, on a module whose methods are called rather than itself."""
    for hook in module._forward_pre_hooks.values():
        if weight_hook(hook):
            hook(module, ())


class NoQuantisation:
    """The attribute ``qconfig``, by which ``torch.ao.quantization`` marks the modules that it is about to exchange."""

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        raise AttributeError("qconfig")

    def __set__(self, instance: Any, value: Any) -> None:
        raise NotStreamable(
            f"{type(instance).__name__}: torch.ao.quantization exchanges modules of torch.nn for others, which have no streaming version, "
            "and would leave a streaming network as it is. Quantise its weights by torchao.quantization.quantize_(net, "
            'Int8WeightOnlyConfig()), or the file that you ship by co.export(net, step, "net.onnx", int8="dynamic"). In a larger model '
            "quantise the other parts one by one"
        )


class Guarded(nn.Module):
    """Base class of streaming modules: refuses tools of torch that do not support them, and answers ptflops."""

    qconfig = NoQuantisation()
    start_flops_count = SetByPtflops(enter_network)  # on the network that it is about to count
    accumulate_flops = SetByPtflops(warn_if_left_out)  # on every module, after the run

    def __prepare_scriptable__(self) -> Any:
        """Refuse ``torch.jit.script``, which asks for this first."""
        raise ExportError(
            f"{type(self).__name__}: torch.jit.script can't compile a streaming network. Write a program with explicit state by "
            'co.export(net, step, "net.pt2") (or ".onnx", ".xml", ".pte"), or compile one by co.compile(net, step); for clips there is '
            "torch.jit.trace(net, clip)"
        )
