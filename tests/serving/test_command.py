"""`continual serve`: what it serves, and what it refuses before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import continual as co
from tests.long import one_in
from tests.serving.servers import STEP, clip, close_to, network, through, wanted

typer = pytest.importorskip("typer", reason="needs typer, of the extra `cli`")
from typer.testing import CliRunner  # noqa: E402

from continual.cli.app import app  # noqa: E402


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command; its server streams a clip and ends."""

    def command(*arguments: str, frames: Any = None, token: str | None = None) -> Any:
        found: dict[str, Any] = {}

        async def run(self: Any, ready: Any) -> None:
            async with self:
                ready(self)
                found["facts"], found["server"] = self.engine.model.facts, self
                if frames is not None:
                    found["y"] = await through(self.url, frames, 8, token=token)

        monkeypatch.setattr(co.serve.Server, "run", run)
        result = CliRunner().invoke(app, ["serve", *arguments, "--port", "0"])
        return result, found

    return command


def test_a_network_of_the_zoo(serving: Any):
    net = co.models.create("kws_ds_cnn")
    frames = np.random.default_rng(0).standard_normal((net.delay + 20, *net.step_shape)).astype(np.float32)
    result, found = serving("kws_ds_cnn", "--backend", "eager", "--capacity", "8", "--shards", "2", frames=frames)
    assert result.exit_code == 0, result.output
    assert "ready on ws://127.0.0.1:" in result.output
    assert "the weights are random" in result.output
    assert found["y"].shape[1:] == (12,)
    assert found["server"].engine.streams._rows == 4


def test_an_own_network_with_options(serving: Any, tmp_path: Path):
    tokens = tmp_path / "tokens"
    tokens.write_text("\none\ntwo\n")
    options = ("--clip", "1,3,20", "--dtype", "float64", "--backend", "eager", "--token-file", str(tokens), "--host", "0.0.0.0")
    more = (
        "--rate",
        "50",
        "--credit",
        "4",
        "--idle",
        "9",
        "--store",
        str(tmp_path / "states"),
        "--grace",
        "1",
        "--max-age",
        "99",
        "--json",
    )
    result, found = serving("tests/serving/servers.py:network", *options, *more, frames=clip(30), token="two")
    assert result.exit_code == 0, result.output
    close_to(found["y"], wanted(network(), clip(30)))
    assert json.loads(result.stdout) == {"ready": True, "url": found["server"].url}
    engine = found["server"].engine
    assert (engine.credit, engine.idle, engine.max_age, found["facts"]["rate"]) == (4, 9.0, 99.0, 50.0)
    assert (tmp_path / "states" / "streams.sqlite").is_file()


@one_in(3)
def test_an_exported_file(serving: Any, tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `onnx`")
    path = co.export(network(), STEP, tmp_path / "net.onnx")
    result, found = serving(str(path), "--capacity", "4", frames=clip(30))
    assert result.exit_code == 0, result.output
    close_to(found["y"], wanted(network(), clip(30)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("kws_ds_cnn", "--host", "0.0.0.0"), "--token-file FILE"),
        (("tests/serving/servers.py:network",), "needs an example: --clip"),
        (("no_such_network",), "no_such_network"),
        (("missing.onnx",), "missing.onnx"),
        (("kws_ds_cnn", "--tls-cert", "cert.pem"), "--tls-cert and --tls-key belong together"),
        (("kws_ds_cnn", "--tls-cert", "cert.pem", "--tls-key", "key.pem"), "can't read the certificate"),
        (("kws_ds_cnn", "--overload", "wait"), "overload is one of"),
        (("kws_ds_cnn", "--shards", "3"), "not divided by shards=3"),
        (("kws_ds_cnn", "--rate", "-1"), "--rate -1.0"),
    ],
)
def test_what_is_refused(serving: Any, arguments: tuple[str, ...], words: str):
    result, _ = serving(*arguments, "--backend", "eager")
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_file_without_tokens(serving: Any, tmp_path: Path):
    (tmp_path / "empty").write_text("\n")
    result, _ = serving("kws_ds_cnn", "--token-file", str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "has no token" in result.output
