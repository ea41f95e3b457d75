"""Repositories for onnxruntime in the real server, with a stand-in for its onnxruntime backend: the server's implicit state is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import continual as co
from tests.long import LONG
from tests.triton.environment import environment
from tests.triton.networks import about, assert_close, clips, made, outputs, requests, solo

pytest.importorskip("onnxruntime", reason="writes ONNX files")
pytest.importorskip("onnxscript", reason="writes ONNX files")

from tests.triton.server import Server, answers_of
from tests.triton.stand_in import StandIn, library

pytestmark = LONG
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv_oldest": ("conv", {"queue_delay": 0.05}),
    "conv_direct": ("conv", {"batcher": "direct", "max_streams": 6, "queue_delay": 0.05}),
    "gru": ("gru", {"batcher": "direct", "max_streams": 5}),
    "strided": ("strided", {}),
    "attention": ("attention", {"batcher": "direct", "max_streams": 5}),
    "two_inputs": ("two_inputs", {}),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment()
    folder = tmp_path_factory.mktemp("repository")
    for name, (network, options) in VARIANTS.items():
        co.triton.write_repository(*made(network), folder, name=name, backend="onnxruntime", **options)
    return folder


@pytest.fixture(scope="module")
def stand_in(repository: Path) -> Iterator[StandIn]:
    with StandIn(repository) as running:
        yield running


@pytest.fixture(scope="module")
def server(repository: Path, stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    libraries = [library(tmp_path_factory.mktemp("library"))]
    with Server(environment(), repository, libraries, CONTINUAL_STAND_IN=stand_in.path) as running:
        yield running


@pytest.mark.parametrize("model", VARIANTS)
def test_interleaved_sequences_are_as_if_alone(server: Server, repository: Path, stand_in: StandIn, model: str):
    """Five streams of whole chunks, that begin at different times. There is no end: ``co.export(…, flush=False)``."""
    net, step = made(VARIANTS[model][0])
    metadata = about(repository / model)
    lengths = [metadata.chunk * n + metadata.chunk + metadata.start for n in (21, 2, 15, 28, 8)]
    streams = [clips(step, n, seed) for seed, n in enumerate(lengths)]
    found = answers_of(server, model, [requests(metadata, c, 10 + k) for k, c in enumerate(streams)], late=2)
    assert stand_in.problems == []
    for clip, answers in zip(streams, found, strict=True):
        assert not [a["error"] for a in answers if "error" in a]
        assert_close(outputs(metadata, answers), solo(net, clip, end=False))


@pytest.mark.parametrize("model", ["conv_oldest", "conv_direct"])
def test_an_id_that_is_used_again_begins_with_zeros(server: Server, repository: Path, model: str):
    net, step = made("conv")
    metadata = about(repository / model)
    left, last = clips(step, 11, 1), clips(step, 18, 2)
    answers = server.ask(model, [[r] for r in [*requests(metadata, left, 7, end=False), *requests(metadata, last, 7)]])
    assert_close(outputs(metadata, answers[:11]), solo(net, left, end=False))
    assert_close(outputs(metadata, answers[11:]), solo(net, last, end=False))


@pytest.mark.parametrize("model", ["conv_oldest", "conv_direct"])
def test_sequences_that_come_together_are_batches(server: Server, repository: Path, stand_in: StandIn, model: str):
    _, step = made("conv")
    stand_in.batches.clear()
    streams = [clips(step, 20, k) for k in range(6)]
    answers_of(server, model, [requests(about(repository / model), c, 50 + k) for k, c in enumerate(streams)])
    assert max(stand_in.batches) > 3
