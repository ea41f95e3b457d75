"""The other library's side. It runs as a script in that library's environment, and answers one JSON line for each request.

It knows the library by its public names only: ``co.<Layer>(…)``, ``co.Sequential(…)``, ``forward_step``. Run beside our own
package it steps ours, which is how the tests run it.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import time
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import nn

import continual as co


def made(layer: dict[str, Any]) -> nn.Module:
    """A layer of the library, or of torch where the library has none by that name."""
    if layer["name"] == "TransformerEncoder":
        channels, heads, hidden, layers = layer["args"]
        inner = nn.TransformerEncoderLayer(channels, heads, hidden, batch_first=True)
        return nn.TransformerEncoder(inner, layers, enable_nested_tensor=False)
    blocks = runpy.run_path(str(Path(__file__).with_name("plain_blocks.py")))
    if layer["name"] == "Lambda":
        return co.Lambda(blocks[layer["args"][0]], takes_time=True)
    if layer["name"] in blocks and isinstance(blocks[layer["name"]], type) and layer["name"] not in dir(nn):
        return co.forward_stepping(blocks[layer["name"]](*layer["args"]).eval())
    if layer["name"] == "Encoder":
        width, heads, hidden, window, depth = layer["args"]
        factory = co.TransformerEncoderLayerFactory(width, heads, hidden, 0.1, nn.GELU(), sequence_len=window)
        return co.TransformerEncoder(factory, depth)
    args = [made(a) if isinstance(a, dict) else tuple(a) if isinstance(a, list) else a for a in layer["args"]]
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in layer["kwargs"].items()}
    found: nn.Module = (getattr(co, layer["name"], None) or getattr(nn, layer["name"]))(*args, **kwargs)
    return found


class Worker:
    """One network at a time."""

    def threads(self, count: int) -> None:
        """The conditions of ``benchmarks.timing.conditions``."""
        torch.set_num_threads(count)
        torch.set_flush_denormal(True)
        gc.disable()

    def version(self) -> str:
        """What is compared with, by the name of its distribution."""
        for name in ("continual-inference", "continual"):
            try:
                return f"{name} {metadata.version(name)}"
            except metadata.PackageNotFoundError:
                continue
        return "unknown"

    def build(self, layers: list[dict[str, Any]], weights: str, clip: str) -> None:
        """Make a network with the given weights, and run it on a clip: the outputs go to the file of the clip."""
        with torch.inference_mode(False):  # ordinary parameters, as in a network that was loaded before
            modules = [made(layer) for layer in layers]
            net: Any = (modules[0] if len(modules) == 1 else co.Sequential(*modules)).eval()
            state = torch.load(weights, weights_only=True)
            if state:  # in the same order, if not under the same names
                net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
            if isinstance(net, nn.TransformerEncoder):
                if layers[0]["kwargs"].get("causal"):
                    raise TypeError("it has no causal encoder")
                net = co.TransformerEncoder.build_from(net, layers[0]["kwargs"]["sequence_len"]).eval()
        self.step = net.forward_step
        frames = torch.load(clip, weights_only=True)
        outputs = [y for y in (self.step(frames[:, :, t]) for t in range(frames.shape[2])) if y is not None]
        torch.save(torch.stack(outputs, 2), clip)
        self.frame = frames[:, :, 0].clone()
        gc.collect()

    def block(self, count: int) -> float:
        """Seconds for so many steps, after one that is not counted."""
        step, frame = self.step, self.frame
        step(frame)
        start = time.perf_counter()
        for _ in repeat(None, count):
            step(frame)
        return time.perf_counter() - start


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the library prints goes elsewhere
    worker = Worker()
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"value": getattr(worker, request.pop("do"))(**request)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
