"""Parameters, timing, state and operations of the model zoo's networks, beside the published figures.

python -m benchmarks.zoo_counts [--markdown docs/models.md]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import continual as co

from . import report
from .published import CLIPS, PER_PREDICTION, STEPS

OTHER = {  # published per step, in G: CoI3D's mean of steps that emit and steps that do not, and the transformers
    ("coi3d", 224): 0.5 * (5.67787 + 1.52053),
    ("cooadtr_b1", 3072): 0.009598998,
    ("cooadtr_b1", 4096): 0.010647574,
    ("cooadtr_b2", 3072): 0.410939416,
    ("cooadtr_b2", 4096): 0.411987992,
    ("gtzan_b1", 128): 0.000295882,
    ("gtzan_b2", 128): 0.013884108,
    ("movinet_a0_stream", 172): 0.054,
}
HEADER = [
    "network", "input", "parameters (M)", "receptive field", "delay", "stride", "state (M floats)", "per step", "per prediction",
    "executed", "published", "clip", "published",
]  # fmt: skip


def rows() -> Iterator[list[str]]:
    """A row for each network and each published input size."""
    for name in co.models.list():
        card = co.models.describe(name)
        for size in (card.input_size, *dict(card.also)):
            yield row(name, size)


def row(name: str, size: int) -> list[str]:
    """One network."""
    net = co.models.create(name, input_size=size)
    step = torch.zeros(1, *net.step_shape)
    counts = co.operations(net, step, clip_length=net.card.frames)
    state = net.init_state(step)
    floats = sum(t.numel() for node in state.node.walk() for t in node.tensors)
    published = STEPS.get((name, size)) or PER_PREDICTION.get((name, size)) or OTHER.get((name, size))
    executed = counts.mean_executed
    assert executed is not None
    return [
        name,
        str(size),
        f"{counts.trainable / 1e6:.3f}",
        f"{net.receptive_field:,}",
        f"{net.delay}",
        f"{net.stride[0]}",
        f"{floats / 1e6:.3f}",
        mega(counts.mean.published),
        mega(counts.per_output.published),
        mega(executed * counts.stride),
        mega(1e9 * published) if published else "–",
        mega(counts.clip.published),
        mega(1e9 * CLIPS[name, size]) if (name, size) in CLIPS else "–",
    ]


def mega(number: object) -> str:
    """Operations in millions, with as many digits as say something."""
    value = float(number) / 1e6  # type: ignore[arg-type]
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table in Markdown."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.zoo_counts", description="Operations of the model zoo's networks.")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'counts' of a page")
    args = line.parse_args(argv)
    text = report.markdown_table(HEADER, list(rows()))
    print(text)
    if args.markdown:
        report.write_markdown(args.markdown, "counts", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
