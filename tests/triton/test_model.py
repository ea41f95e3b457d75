"""`model.py` of the Python backend under a stand-in for the server's module: what it makes of controls and of errors.

tests/triton/test_server.py runs it in the server itself, where that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.triton.conftest import Written
from tests.triton.networks import about, assert_close, clips, made, outputs, requests, solo


class Tensor:
    def __init__(self, name: str, value: np.ndarray):
        self.name, self.value = name, value

    def as_numpy(self) -> np.ndarray:
        return self.value


class TritonError(Exception):
    UNAVAILABLE, INVALID_ARG = "UNAVAILABLE", "INVALID_ARG"


class Response:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None):
        self.error, self.found = error, {t.name: t.value for t in output_tensors}


@pytest.fixture
def model(written: Written, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = written("conv", "python")
    given = SimpleNamespace(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=Response,
        get_input_tensor_by_name=lambda request, name: next((t for t in request if t.name == name), None),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", given)
    monkeypatch.syspath_prepend(str(folder / "1"))
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "model", module)
    spec.loader.exec_module(module)
    found = module.TritonPythonModel()
    found.initialize({"model_config": json.dumps(_as_the_server_says_it((folder / "config.pbtxt").read_text()))})
    yield found
    sys.modules.pop("slot_table", None)


def _as_the_server_says_it(text: str) -> dict[str, Any]:
    """The part of a configuration that the model reads."""
    slots, threads = re.findall(r'string_value: "(\d+)"', text)
    return {
        "input": [{"name": "x"}],
        "output": [{"name": "y"}, {"name": "valid"}],
        "parameters": {"max_streams": {"string_value": slots}, "intra_op_thread_count": {"string_value": threads}},
        "sequence_batching": {"max_sequence_idle_microseconds": "60000000"},
    }


def asked(request: dict[str, Any], ready: bool | None = None) -> list[Tensor]:
    flags = {"START": request["start"], "END": request["end"]} | ({} if ready is None else {"READY": ready})
    controls = [Tensor(name, np.array([[value]])) for name, value in flags.items()]
    return [Tensor("x", request["x"][0]), Tensor("CORRID", np.array([[request["stream"]]], np.uint64)), *controls]


@pytest.mark.parametrize("ready", [None, True])
def test_requests_are_answered_in_order(model: Any, written: Written, ready: bool | None):
    (net, step), metadata = made("conv"), about(written("conv", "python"))
    streams = [clips(step, 10, k) for k in range(3)]
    plans = [requests(metadata, clip, 2**63 + k) for k, clip in enumerate(streams)]
    answers = [model.execute([asked(r, ready) for r in together]) for together in zip(*plans, strict=True)]
    for clip, found in zip(streams, zip(*answers, strict=True), strict=True):
        assert_close(outputs(metadata, [a.found for a in found]), solo(net, clip))


def test_requests_of_nobody_move_nothing(model: Any, written: Written):
    """With "direct" they fill batches up; what they hold are copies of another sequence's request."""
    (net, step), metadata = made("conv"), about(written("conv", "python"))
    clip = clips(step, 10, 1)
    found = []
    for request in requests(metadata, clip, 4):
        nobody = asked(request | {"start": False, "end": False}, ready=False)
        empty, answer, again = model.execute([nobody, asked(request, ready=True), nobody])
        assert empty.found == again.found == {}
        assert empty.error is again.error is None
        found.append(answer.found)
    assert_close(outputs(metadata, found), solo(net, clip))


def test_errors_have_codes(model: Any, written: Written):
    _, step = made("conv")
    first = [requests(about(written("conv", "python")), clips(step, 3, k), k + 1)[0] for k in range(6)]
    answers = model.execute([asked(first[5] | {"start": False}), *map(asked, first[:5])])
    assert [a.error.args[1] if a.error else None for a in answers] == ["INVALID_ARG", None, None, None, None, "UNAVAILABLE"]
