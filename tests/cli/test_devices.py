"""Sources that are devices: by fakes of their drivers, and the Lab Streaming Layer over the loopback. None was tried on hardware."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from continual.cli.pacing import WAITING, Clocked
from continual.cli.sources import lsl, microphone
from continual.cli.sources.base import Asked
from continual.cli.sources.open import opened
from continual.cli.target import BadInput


class Driver:
    """PortAudio, as sounddevice shows it: it calls back with data of its own, from a thread of its own."""

    class PortAudioError(Exception):
        pass

    def __init__(self, blocks: int = 5, channels: int = 2):
        self.blocks, self.asked, self.closed, self.heard = blocks, {}, False, np.empty((0, channels), np.float32)
        driver = self

        class InputStream:
            def __init__(self, callback: Any, **asked: Any):
                if asked["device"] == "none":
                    raise Driver.PortAudioError("no such device")
                driver.asked, self.callback, self.active = asked, callback, True

            def start(self) -> None:
                self.thread = threading.Thread(target=self.run)
                self.thread.start()

            def run(self) -> None:
                shared = np.empty((driver.asked["blocksize"], channels), np.float32)
                for i in range(driver.blocks):
                    shared[:] = np.random.default_rng(i).standard_normal(shared.shape)
                    driver.heard = np.concatenate([driver.heard, shared])
                    self.callback(shared, len(shared), types.SimpleNamespace(inputBufferAdcTime=70 + i * len(shared) / 100), None)
                self.active = False

            def close(self) -> None:
                driver.closed = True

        self.InputStream = InputStream


def test_a_microphone(monkeypatch: pytest.MonkeyPatch):
    driver = Driver()
    monkeypatch.setitem(sys.modules, "sounddevice", driver)
    source = opened("mic:USB", Asked(rate=100, pause=0.07, channels=2), pictures=False)
    blocks = list(source.blocks())
    assert driver.asked == {"samplerate": 100, "blocksize": 7, "device": "USB", "channels": 2, "dtype": "float32"}
    assert np.array_equal(np.concatenate([b.frames for b in blocks]), driver.heard)  # copies: the driver uses its memory again
    assert np.concatenate([b.times for b in blocks]) == pytest.approx(np.arange(35) / 100)
    assert (source.facts.live, source.facts.rate, source.dropped) == (True, 100, 0)
    source.close()
    assert driver.closed


def test_a_network_that_is_too_slow_for_a_microphone(monkeypatch: pytest.MonkeyPatch):
    driver = Driver(microphone.WAITING + 3)
    monkeypatch.setitem(sys.modules, "sounddevice", driver)
    source = opened("mic:3", Asked(pause=5 / 16_000), pictures=False)
    assert (driver.asked["device"], driver.asked["samplerate"]) == (3, 16_000)
    source._stream.thread.join()
    assert source.dropped == 15
    assert sum(b.count for b in source.blocks()) == 5 * microphone.WAITING


def test_no_microphone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sounddevice", Driver())
    with pytest.raises(BadInput, match=r"the microphone none can't be opened \(no such device\)"):
        opened("mic:none", Asked(), pictures=False)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(BadInput, match="needs sounddevice and PortAudio: pip install sounddevice"):
        opened("mic", Asked(), pictures=False)


class Layer(types.ModuleType):
    """The Lab Streaming Layer, as pylsl shows it."""

    cf_string = 3

    class LostError(Exception):
        pass

    def __init__(self, samples: np.ndarray, kind: int = 1, rate: float = 250.0):
        super().__init__("pylsl")
        layer = self
        self.samples, self.resolved = samples, []
        self.util = types.SimpleNamespace(LostError=Layer.LostError)

        class StreamInlet:
            def __init__(self, info: Any, recover: bool):
                self.at, self.closed = 0, False
                assert not recover

            def pull_chunk(self, timeout: float, max_samples: int) -> tuple[list[list[float]], list[float]]:
                if self.at >= len(layer.samples):
                    raise Layer.LostError
                part = layer.samples[self.at : self.at + 9].tolist()
                stamps = [1000 + (self.at + i) / 250 for i in range(len(part))]
                self.at += 9
                return part, stamps

            def close_stream(self) -> None:
                self.closed = True

        self.StreamInlet = StreamInlet
        self.info = types.SimpleNamespace(
            channel_format=lambda: kind, channel_count=lambda: samples.shape[1], nominal_srate=lambda: rate
        )

    def resolve_byprop(self, key: str, value: str, least: int, timeout: float) -> list[Any]:
        self.resolved.append((key, value))
        return [self.info] if value == "EEG" else []


def test_a_stream_of_the_lab_streaming_layer(monkeypatch: pytest.MonkeyPatch):
    samples = np.random.default_rng(0).standard_normal((40, 3))
    layer = Layer(samples)
    monkeypatch.setitem(sys.modules, "pylsl", layer)
    source = opened("lsl:EEG", Asked(), pictures=False)
    assert layer.resolved == [("name", "EEG")]
    assert (source.facts.rate, source.facts.live, len(source.facts.channels)) == (250, True, 3)
    blocks = list(source.blocks())  # until its sender is gone
    assert np.array_equal(np.concatenate([b.frames for b in blocks]), samples)
    assert np.concatenate([b.times for b in blocks]) == pytest.approx(np.arange(40) / 250)
    source.close()
    with pytest.raises(BadInput, match="there is no stream 'ECG' of the Lab Streaming Layer"):
        opened("lsl:ECG", Asked(), pictures=False)
    monkeypatch.setitem(sys.modules, "pylsl", Layer(samples, Layer.cf_string))
    with pytest.raises(BadInput, match="the stream 'EEG' holds text"):
        opened("lsl:EEG", Asked(), pictures=False)
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(BadInput, match="lsl:EEG needs pylsl: pip install pylsl"):
        opened("lsl:EEG", Asked(), pictures=False)


def test_the_lab_streaming_layer_over_the_loopback():
    try:
        import pylsl
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs pylsl and liblsl, of the extra `lsl` ({error})")
    samples = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("continual test", "EEG", 2, 100, pylsl.cf_float32, "continual"))
    source = lsl.Inlet("continual test", Asked())
    blocks = source.blocks()
    found: list[np.ndarray] = []
    giving = threading.Thread(target=lambda: outlet.wait_for_consumers(10) and [outlet.push_sample(s.tolist()) for s in samples])
    giving.start()
    while sum(map(len, found)) < len(samples):
        found.append(next(blocks).frames)
    giving.join()
    assert np.array_equal(np.concatenate(found).astype(np.float32), samples)
    source.close()


# ---- pacing --------------------------------------------------------------------------------------------------------------------


def test_items_that_wait_too_long_are_dropped_and_counted():
    read = threading.Event()

    def items() -> Iterator[int]:
        yield from range(WAITING + 10)
        read.set()

    clocked = Clocked(items(), lambda item: None, lambda item: 2, pace=False)
    reader = iter(clocked)
    clocked._thread.start()
    assert read.wait(20)
    clocked._thread.start = lambda: None  # type: ignore[method-assign]  # it runs already
    assert list(reader) == list(range(10, WAITING + 10))  # the newest are there
    assert clocked.dropped == 20
    assert clocked.close()


def test_errors_come_where_items_are_used():
    def items() -> Iterator[int]:
        yield 1
        raise BadInput("broken")

    reader = iter(Clocked(items(), lambda item: None, lambda item: 1, pace=False))
    assert next(reader) == 1
    with pytest.raises(BadInput, match="broken"):
        next(reader)


def test_items_of_a_file_wait_for_their_moments(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    clocked = Clocked([0.0, 500.0, 7000.0], lambda item: item, lambda item: 1, pace=True)
    monkeypatch.setattr(clocked._stopped, "wait", lambda seconds: waits.append(seconds))
    assert list(clocked) == [0.0, 500.0, 7000.0]
    assert waits[0] <= 0.0 < 400 < waits[1] <= 500 < 6900 < waits[2] <= 7000  # of a clock that all but stands still


def test_closing_ends_a_wait():
    clocked = Clocked([0.0, 1e6], lambda item: item, lambda item: 1, pace=True)
    assert next(iter(clocked)) == 0.0
    assert clocked.close()
