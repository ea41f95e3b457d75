"""Makes what the page streams: the network of `continual demo`, trained and exported, and its noisy recording.

python examples/web/make_assets.py
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

import continual as co
from continual.cli.demo import SEEN, scaled
from continual.cli.denoise import denoiser, noise, train
from continual.cli.recording import ecg

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Assets:
    """What was written.

    Attributes:
        net: the network.
        noisy: the recording ``(T,)``: an electrocardiogram with mains hum and white noise.
    """

    net: co.CoModule
    noisy: Tensor


def make(folder: Path, steps: int, seed: int = 0) -> Assets:
    """Train for so many steps, export, and write to a folder.

    The files are ``denoiser.onnx``, ``denoiser.json`` (its metadata, which browsers can't read out of it) and ``recording.json``.
    """
    recording = ecg()
    clean = scaled(recording)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        plain = denoiser()
    train(plain, clean[: int(SEEN * clean.numel())], recording.rate, steps, generator, lambda loss: None)
    noisy = clean + noise((1, clean.numel()), recording.rate, generator)[0]

    folder.mkdir(parents=True, exist_ok=True)
    net = co.continual(plain)
    path = co.export(net, torch.zeros(1, 1), folder / "denoiser.onnx", rate=recording.rate)
    (metadata,) = (prop.value for prop in onnx.load(path).metadata_props if prop.key == "continual")
    (folder / "denoiser.json").write_text(metadata, encoding="utf-8")
    written = {"name": recording.name, "rate": recording.rate, "samples": noisy.tolist()}
    (folder / "recording.json").write_text(json.dumps(written), encoding="utf-8")
    return Assets(net, noisy)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Train the network of `continual demo` and write it and its recording for the page."
    )
    parser.add_argument("--out", type=Path, default=HERE / "assets", help="folder (default: assets/ beside the page)")
    parser.add_argument("--steps", type=int, default=500, help="of training (default: 500, as the demo)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so small a network is fastest so
    make(options.out, options.steps)
    print(*(f"{path} ({path.stat().st_size / 1000:.0f} kB)" for path in sorted(options.out.iterdir())), sep="\n")


if __name__ == "__main__":
    main()
