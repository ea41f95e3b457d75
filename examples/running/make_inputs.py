"""Writes a sound, an ECG, the values of a sensor and a film for the commands in docs/running.md."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pywt
import soundfile
from nets import tone


def sound(folder: Path) -> None:
    """``tone.wav``: four seconds at 8 kHz."""
    soundfile.write(folder / "tone.wav", tone(4).numpy(), 8000)


def recording(folder: Path) -> None:
    """``ecg.edf``: a real ECG, 1024 samples at 360 Hz (of PyWavelets), two times one after the other."""
    import pyedflib

    samples = np.tile(np.asarray(pywt.data.ecg(), dtype=np.float64), 2)[: 360 * 5] / 1000
    with pyedflib.EdfWriter(str(folder / "ecg.edf"), 1) as file:
        header = {"label": "ECG II", "dimension": "mV", "sample_frequency": 360, "transducer": "", "prefilter": ""}
        limits = {"physical_max": 2.0, "physical_min": -2.0, "digital_max": 32767, "digital_min": -32768}
        file.setSignalHeader(0, {**header, **limits})
        file.writeSamples([samples])


def sensor(folder: Path) -> None:
    """``room.csv``: a week of temperatures, one in a quarter of an hour; a heating fails on the fifth day."""
    hours = np.arange(0, 7 * 24, 0.25)
    noise = np.random.default_rng(0).standard_normal(hours.size)
    values = 20 + 1.5 * np.sin(2 * np.pi * (hours - 9) / 24) + 0.4 * noise - 0.08 * np.clip(hours - 100, 0, 40)
    rows = [f"{3600 * hour:.0f},{value:.2f}" for hour, value in zip(hours, values, strict=True)]
    (folder / "room.csv").write_text("\n".join(["time,temperature", *rows]) + "\n")


def film(folder: Path) -> None:
    """``ball.mp4``: a ball that rolls from the left to the right and back, six seconds at 30 frames a second; and ``thirds.txt``."""
    y, x = np.mgrid[:144, :256]
    with av.open(str(folder / "ball.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 256, 144, "yuv420p"
        for i in range(180):
            at = 128 - 105 * np.cos(2 * np.pi * i / 120)
            picture = np.stack([60 + y // 2, 70 + y // 2, 90 + y // 3], 2).astype(np.uint8)
            picture[(x - at) ** 2 + (y - 95) ** 2 < 20**2] = (235, 110, 60)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    (folder / "thirds.txt").write_text("left\nmiddle\nright\n")


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for make in (sound, recording, sensor, film):
        make(where)
