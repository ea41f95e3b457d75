"""The counters and timings of a server, and their form for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.optional_packages import package
from .protocol import Array

BOUNDS = np.array([1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
RECENT = 4096  # values of which percentiles are taken


class Durations:
    """A histogram of many values, and percentiles of the latest ones. Values are sorted into the histogram when it is read."""

    def __init__(self, bounds: Array = BOUNDS):
        self.bounds, self._counts, self._total = bounds, np.zeros(len(bounds) + 1, np.int64), 0.0
        self._recent, self._at = np.zeros(RECENT), 0
        self._new: list[Any] = []

    def observe(self, values: Any) -> None:
        """Take a value, or an array of them."""
        self._new.append(values)
        if len(self._new) == RECENT:
            self._count()

    def _count(self) -> None:
        if not self._new:
            return
        values = np.concatenate([np.atleast_1d(v) for v in self._new])
        self._new.clear()
        self._counts += np.bincount(np.searchsorted(self.bounds, values), minlength=len(self._counts))
        self._total += float(values.sum())
        values = values[-RECENT:]
        self._recent[(self._at + np.arange(len(values))) % RECENT] = values
        self._at += len(values)

    @property
    def counts(self) -> Array:
        """How many values are below each bound, and above all of them."""
        self._count()
        return self._counts

    @property
    def total(self) -> float:
        """The sum of all values."""
        self._count()
        return self._total

    def percentile(self, q: float) -> float:
        """Of the latest values; 0 if there are none."""
        self._count()
        return float(np.percentile(self._recent[: min(self._at, RECENT)], q)) if self._at else 0.0


class Metrics:
    """The counters of an engine.

    Attributes:
        frames, snapshots: their numbers.
        dropped, refused, resumes: numbers by reason, code and result.
        queue, step, frame: seconds that a frame waited, that a step took, and from the arrival of a frame to its answer.
        batch: streams in a step.
        compile: seconds.
    """

    def __init__(self) -> None:
        self.frames = self.snapshots = 0
        self.dropped, self.refused, self.resumes = Counter[str](), Counter[str](), Counter[str]()
        self.queue, self.step, self.frame = Durations(), Durations(), Durations()
        self.batch = Durations(np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]))
        self.compile = 0.0


def text(metrics: Metrics, gauges: Callable[[], dict[str, float]]) -> tuple[bytes, str]:
    """All figures as Prometheus reads them, and the content type."""
    client = package("prometheus_client", "serve", "continual serve")
    registry = client.CollectorRegistry()
    registry.register(_Collector(metrics, gauges, package("prometheus_client.core", "serve", "continual serve")))
    return client.generate_latest(registry), client.CONTENT_TYPE_LATEST


class _Collector:
    """Makes Prometheus's metric families."""

    def __init__(self, metrics: Metrics, gauges: Callable[[], dict[str, float]], core: Any):
        self._metrics, self._gauges, self._core = metrics, gauges, core

    def collect(self) -> Iterator[Any]:
        m, core = self._metrics, self._core
        for name, value in self._gauges().items():
            yield core.GaugeMetricFamily(f"continual_streams_{name}", f"Streams: {name}.", value)
        yield core.GaugeMetricFamily("continual_compile_seconds", "Seconds that compiling took.", m.compile)
        yield core.CounterMetricFamily("continual_frames", "Frames that took a step.", m.frames)
        yield core.CounterMetricFamily("continual_snapshots", "Checkpoints of streams that were written.", m.snapshots)
        for name, label, counts in (
            ("dropped", "reason", m.dropped),
            ("refused", "code", m.refused),
            ("resumes", "result", m.resumes),
        ):
            family = core.CounterMetricFamily(f"continual_{name}", f"By {label}.", labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family
        for name, what, durations in (
            ("queue_seconds", "Seconds that frames waited for their step.", m.queue),
            ("step_seconds", "Seconds of the steps.", m.step),
            ("frame_seconds", "Seconds from the arrival of frames to their answers.", m.frame),
            ("batch_streams", "Streams in a step.", m.batch),
        ):
            sums = np.cumsum(durations.counts)
            buckets = [(str(b), float(n)) for b, n in zip([*durations.bounds, "+Inf"], sums, strict=True)]
            yield core.HistogramMetricFamily(f"continual_{name}", what, buckets, durations.total)
