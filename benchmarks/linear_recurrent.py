"""Linear-recurrent layers: a chunk against its steps, and a step against the cached decoding step of the module of transformers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import continual as co
from gallery import packages

from . import report
from .measure import Effort, require_equal
from .timing import Local, alternate, conditions

CHUNK = 64  # frames
WIDTH = 64  # channels
WIDE = 256
HEADER = ("layer", "step, µs", f"chunk of {CHUNK}, µs", "steps / chunk", "step / cached step of transformers")
LEAST = {WIDTH: 5.0, WIDE: 1.0}  # times faster a frame in a chunk
MOST = 1.5  # times a cached decoding step
LAYERS: dict[str, Callable[[int], Any]] = {
    "minGRU": co.minGRU,
    "RGLRU": lambda width: co.RGLRU(width, num_blocks=4),
    "S4D": co.S4D,
    "Mamba": co.Mamba,
    "Mamba2": lambda width: co.Mamba2(width, num_heads=4, head_dim=width // 2, state_size=32),
    "GatedLinearAttention": co.GatedLinearAttention,
    "DeltaNet": co.DeltaNet,
    "RWKV": co.RWKV,
}
Decode = Callable[[Tensor], Tensor]  # a frame (1, C) to the output (1, C), from the states of the frames before


def _made(file: str, kind: str, name: str, options: dict[str, Any], *more: Any) -> tuple[Any, Any]:
    """A module of transformers, and its configuration."""
    config = packages.cls(f"transformers.{kind}Config")(hidden_size=WIDTH, **options)
    module = packages.cls(f"transformers.models.{file}.modeling_{file}.{name}")(config, *more).eval()
    for p in module.parameters():
        if name in ("RecurrentGemmaRglru", "RwkvSelfAttention"):  # whose models set the values
            p.normal_(0, 0.2)
    return module, config


def _with_cache(file: str, kind: str, name: str, options: dict[str, Any]) -> tuple[Any, Decode]:
    module, config = _made(file, kind, name, {**options, "num_hidden_layers": 1}, 0)
    cache = packages.cls("transformers.DynamicCache")(config=config)
    return module, lambda x: module(x.unsqueeze(1), cache=cache).squeeze(1)


def _rglru() -> tuple[Any, Decode]:
    module, _ = _made("recurrent_gemma", "RecurrentGemma", "RecurrentGemmaRglru", {"lru_width": WIDTH, "num_attention_heads": 4})
    place = [0]

    def decode(x: Tensor) -> Tensor:
        position = torch.tensor([[place[0]]])
        place[0] += 1
        y: Tensor = module(x.unsqueeze(1), position)
        return y.squeeze(1)

    return module, decode


def _rwkv() -> tuple[Any, Decode]:
    module, _ = _made("rwkv", "Rwkv", "RwkvSelfAttention", {"num_hidden_layers": 2})
    state = [torch.zeros(1, WIDTH, 1) for _ in range(5)]
    state[4] -= 1e30
    return module, lambda x: module(x.unsqueeze(1), state=state, use_cache=True)[0].squeeze(1)


CACHED: dict[str, Callable[[], tuple[Any, Decode]]] = {
    "RGLRU": _rglru,
    "Mamba": lambda: _with_cache("mamba", "Mamba", "MambaMixer", {}),
    "Mamba2": lambda: _with_cache(
        "mamba2", "Mamba2", "Mamba2Mixer", {"num_heads": 4, "head_dim": 32, "state_size": 32, "n_groups": 1}
    ),
    "RWKV": _rwkv,
}


class Row(NamedTuple):
    """What was measured: seconds, and ratios within rounds."""

    name: str
    width: int
    step: float
    chunk: float
    gain: float
    cached: float | None

    def cells(self) -> tuple[str, ...]:
        """For a table."""
        cached = "–" if self.cached is None else f"{self.cached:.2f}×"
        name = f"{self.name}, {self.width} channels"
        return name, report.number(1e6 * self.step), report.number(1e6 * self.chunk), f"{self.gain:.1f}×", cached

    @property
    def kept(self) -> bool:
        """Whether the bounds are kept."""
        return self.gain >= LEAST[self.width] and (self.cached or 0) <= MOST


def row(name: str, width: int, effort: Effort) -> Row:
    """Measure a layer at batch 1."""
    with torch.inference_mode(False), torch.no_grad():
        torch.manual_seed(0)
        net = LAYERS[name](width).eval()
    clip = torch.randn(1, width, CHUNK)
    require_equal(name, torch.stack([net.forward_step(x) for x in clip.unbind(2)], 2), net(clip))
    frame = clip[:, :, 0]

    def steps() -> None:
        for t in range(CHUNK):
            net.forward_step(clip[:, :, t])

    found = alternate(
        [Local("chunk", lambda: net.forward_steps(clip)), Local("steps", steps), Local("step", lambda: net.forward_step(frame))],
        effort.rounds, effort.min_block,
    )  # fmt: skip
    compared = width == WIDTH and name in CACHED and not packages.missing("transformers")
    cached = _against_cache(name, clip, effort) if compared else None
    return Row(name, width, found.stats("step").median, found.stats("chunk").median, found.ratio("steps", "chunk").median, cached)


def _against_cache(name: str, clip: Tensor, effort: Effort) -> float:
    """A step of the converted module over the cached decoding step of the module itself."""
    with torch.inference_mode(False), torch.no_grad():
        module, decode = CACHED[name]()
        net: Any = co.continual(module)
    frames = clip.unbind(2)
    want = torch.stack([decode(x) for x in frames], 1)
    require_equal(name, torch.stack([net.forward_step(x) for x in frames], 1), want)
    frame = frames[0]
    found = alternate(
        [Local("step", lambda: net.forward_step(frame)), Local("cached", lambda: decode(frame))], effort.rounds, effort.min_block
    )
    return found.ratio("step", "cached").median


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the numbers in Markdown; the status is 1 if a bound is not kept."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.linear_recurrent", description=__doc__)
    line.add_argument("--only", choices=list(LAYERS), metavar="LAYER", help=f"one of {', '.join(LAYERS)}")
    line.add_argument("--quick", action="store_true", help="short blocks")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'linear recurrences' of a page")
    args = line.parse_args(argv)
    effort = Effort(3, 0.002) if args.quick else Effort()
    with conditions(1):
        rows = [row(name, width, effort) for width in LEAST for name in ([args.only] if args.only else LAYERS)]
    said = (
        f"Measured: {report.Machine.here()}; 1 thread, batch 1, medians of alternating blocks. The last column is that "
        "of the modules of transformers, converted and by themselves."
    )
    text = f"{said}\n\n{report.markdown_table(HEADER, [r.cells() for r in rows])}"
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "linear recurrences", text)
    return int(not all(r.kept for r in rows))


if __name__ == "__main__":
    sys.exit(main())
