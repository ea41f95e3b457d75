"""Repositories of the Python backend in the real server: sequences that come together are as if each were alone."""

from __future__ import annotations

import io
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import continual as co
from continual.export.metadata import Metadata
from tests.long import LONG
from tests.triton.environment import environment
from tests.triton.networks import about, assert_close, clips, made, outputs, requests, solo

pytest.importorskip("onnxruntime", reason="writes ONNX files")
pytest.importorskip("onnxscript", reason="writes ONNX files")

from tests.triton.server import Server, answers_of

pytestmark = LONG
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "triton.md"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv_oldest": ("conv", {"queue_delay": 0.05}),
    "conv_direct": ("conv", {"batcher": "direct", "max_streams": 6, "queue_delay": 0.05}),
    "gru": ("gru", {}),
    "strided_oldest": ("strided", {}),
    "strided_direct": ("strided", {"batcher": "direct", "max_streams": 5}),
    "attention": ("attention", {}),
    "two_inputs": ("two_inputs", {"threads": 1}),
    "two_slots": ("conv", {"max_streams": 2}),
    "sensor": ("sensor", {}),  # of the documentation
    "forgetful": ("conv", {"max_streams": 1, "idle": 1.0}),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment()
    folder = tmp_path_factory.mktemp("repository")
    for name, (network, options) in VARIANTS.items():
        co.triton.write_repository(*made(network), folder, name=name, backend="python", **options)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with Server(environment(), repository) as running:
        yield running


@pytest.mark.parametrize("model", [m for m in VARIANTS if m not in ("two_slots", "sensor", "forgetful")])
def test_interleaved_sequences_are_as_if_alone(server: Server, repository: Path, model: str):
    """Five streams that begin at different times, of different lengths, one shorter than the receptive field."""
    net, step = made(VARIANTS[model][0])
    metadata = about(repository / model)
    lengths = [23, 3, 16, 30, 9]
    streams = [clips(step, n, seed) for seed, n in enumerate(lengths)]
    found = answers_of(server, model, [requests(metadata, c, 10 + k) for k, c in enumerate(streams)], late=2)
    for clip, answers in zip(streams, found, strict=True):
        assert not [a["error"] for a in answers if "error" in a]
        assert_close(outputs(metadata, answers), solo(net, clip))


def test_sequences_that_come_together_are_one_call(server: Server, repository: Path):
    net, step = made("conv")
    metadata = about(repository / "conv_oldest")
    before = (server.ask("conv_oldest", []), server.executions)[1]
    streams = [clips(step, 20, 50 + k) for k in range(8)]
    found = answers_of(server, "conv_oldest", [requests(metadata, c, 50 + k) for k, c in enumerate(streams)])
    for clip, answers in zip(streams, found, strict=True):
        assert_close(outputs(metadata, answers), solo(net, clip))
    assert server.executions - before < 8 * 20 / 2


@pytest.mark.parametrize("model", ["conv_oldest", "conv_direct"])
def test_an_id_that_is_used_again_is_a_new_stream(server: Server, repository: Path, model: str):
    """After the end of its stream, and in the middle of it."""
    net, step = made("conv")
    metadata = about(repository / model)
    ended, left, last = (clips(step, n, 70 + n) for n in (15, 11, 18))
    plan = [*requests(metadata, ended, 7), *requests(metadata, left, 7, end=False), *requests(metadata, last, 7)]
    answers = server.ask(model, [[r] for r in plan])
    assert_close(outputs(metadata, answers[:15]), solo(net, ended))
    assert_close(outputs(metadata, answers[15:26]), solo(net, left, end=False))
    assert_close(outputs(metadata, answers[26:]), solo(net, last))


def test_a_missing_start_is_an_error(server: Server, repository: Path):
    _, step = made("conv")
    sequence = requests(about(repository / "conv_oldest"), clips(step, 3, 1), 31)
    sequence[0]["start"] = False
    (answer,) = server.ask("conv_oldest", [[sequence[0]]])
    assert "must specify the START flag" in str(answer["error"])
    answers = server.ask("conv_oldest", [[r] for r in requests(about(repository / "conv_oldest"), clips(step, 3, 1), 31)])
    assert not [a["error"] for a in answers if "error" in a]
    (answer,) = server.ask("conv_oldest", [[sequence[1]]])  # it has ended
    assert "must specify the START flag" in str(answer["error"])


def test_more_sequences_than_slots_are_refused_until_one_ends(server: Server, repository: Path):
    net, step = made("conv")
    metadata: Metadata = about(repository / "two_slots")
    first, second, third = (requests(metadata, clips(step, 8, k), 40 + k) for k in range(3))
    head = server.ask("two_slots", [[first[0]], [second[0]], [third[0]], [third[1]], *([r] for r in first[1:])])
    assert "all 2 streams are in use" in str(head[2]["error"])
    assert "UNAVAILABLE" in str(head[2]["error"])
    assert "sequence_start=True" in str(head[3]["error"])  # it has no slot
    assert_close(outputs(metadata, [head[0], *head[4:]]), solo(net, clips(step, 8, 0)))
    tail = server.ask("two_slots", [[r] for r in [*third, *second[1:]]])
    assert_close(outputs(metadata, tail[:8]), solo(net, clips(step, 8, 2)))
    assert_close(outputs(metadata, [head[1], *tail[8:]]), solo(net, clips(step, 8, 1)))


def test_a_sequence_that_was_left_gives_its_slot_away(server: Server, repository: Path):
    net, step = made("conv")
    metadata = about(repository / "forgetful")
    (_,) = server.ask("forgetful", [[requests(metadata, clips(step, 5, 0), 1)[0]]])
    time.sleep(2.5)  # the server forgets it after one second, and says so to nobody
    answers = server.ask("forgetful", [[r] for r in requests(metadata, clips(step, 9, 1), 2)])
    assert not [a["error"] for a in answers if "error" in a]
    assert_close(outputs(metadata, answers), solo(net, clips(step, 9, 1)))


def test_a_chunk_of_another_length_is_an_error_and_moves_nothing(server: Server, repository: Path):
    net, step = made("strided")
    metadata = about(repository / "strided_oldest")
    clip = clips(step, 11, 5)
    sequence = requests(metadata, clip, 61)
    wrong = {"stream": 61, "x": [sequence[1]["x"][0][:, :, :1]]}
    answers = server.ask("strided_oldest", [[r] for r in [sequence[0], wrong, *sequence[1:]]])
    assert "x takes float32 (1, 2, 2, 6)" in str(answers[1]["error"])
    assert_close(outputs(metadata, [answers[0], *answers[2:]]), solo(net, clip))


def test_the_client_of_the_documentation(server: Server):
    (code,) = re.findall(r"```py\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("localhost:8001", f"127.0.0.1:{server.grpc}")
    code += "\nimport sys; np.savez(sys.stdout.buffer, clip=clip, result=result)"
    done = subprocess.run([server.environment.python, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    found = np.load(io.BytesIO(done.stdout))
    assert_close([found["result"]], solo(made("sensor")[0], [torch.from_numpy(found["clip"])]))
