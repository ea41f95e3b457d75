"""Modules whose operations can't be seen: compiled, packed, or without values. Each has a form before, which can be converted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def opaque(module: nn.Module) -> str:
    """Why a module's operations can't be seen, and what to convert instead; empty if they can."""
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "it was compiled by torch.jit, whose code can't be followed. Remedy: convert the nn.Module that it was made of, with its "
            "weights: module.load_state_dict(scripted.state_dict())"
        )
    if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
        return (
            "it was quantised by torch.ao.quantization, and only its own kernels read the packed weights. Remedy: convert the module as it "
            "was before, and quantise that: torchao.quantization.quantize_(net, Int8WeightOnlyConfig()) for the weights, or "
            'co.export(net, step, "net.onnx", int8="dynamic") for what is shipped'
        )
    return ""


def compiled(module: nn.Module) -> str:
    """Why a module that `torch.compile` returned is not known by its class; empty for other modules."""
    if "_orig_mod" not in module._modules:
        return ""
    return "it was compiled by torch.compile. Remedy: convert the module in it, module._orig_mod, and compile the result by co.compile"


def valueless(module: nn.Module) -> str:
    """Which tensor of a module has no values, and what to do; empty if all have."""
    tensors = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    if name := next((name for name, tensor in tensors if tensor.is_meta), ""):
        return (
            f"'{name}' is on the meta device and has no values, with which the conversion is checked. Remedy: load the weights before, "
            'module.load_state_dict(weights, assign=True), or module.to_empty(device="cpu") and initialise them'
        )
    return ""


def of_inference_mode(module: nn.Module) -> str:
    """Which parameter of a module can't be exported, since it was made in inference mode; empty if there is none."""
    if torch.is_inference_mode_enabled():
        return ""
    if name := next((name for name, p in module.named_parameters(recurse=False) if p.is_inference()), ""):
        return (
            f"'{name}' was made under torch.inference_mode(), and torch.export takes it there alone. Remedy: make or load the module "
            "outside, under torch.no_grad() for instance; or give it ordinary parameters: "
            "module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True)"
        )
    return ""


def meta_input(inputs: tuple[object, ...]) -> str:
    """Which input of a clip has no values; empty if all have."""
    number = next((i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.is_meta), None)
    return (
        "" if number is None else f"input {number} of the clip is on the meta device and has no values: give torch.randn(shape)"
    )
