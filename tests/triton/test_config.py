"""`config.pbtxt`: what it says, and that the server's own protobuf reads it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import continual as co
from continual.export.metadata import Port
from continual.triton.config import TYPES, config
from continual.triton.pbtxt import pbtxt
from continual.triton.settings import Settings
from tests.long import by_turns
from tests.triton.configurations import metadata_of
from tests.triton.conftest import Written
from tests.triton.environment import environment
from tests.triton.networks import NETWORKS

PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
texts = json.load(sys.stdin)
options = {"preserving_proto_field_name": True}
parsed = [json_format.MessageToDict(text_format.Parse(t, model_config_pb2.ModelConfig()), **options) for t in texts]
json.dump(parsed, sys.stdout)
"""


def parsed(*texts: str) -> list[dict[str, Any]]:
    """Configurations as the server reads them."""
    done = subprocess.run(
        [environment().python, "-c", PARSE], input=json.dumps(texts), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STRIDED = metadata_of(
    inputs=[Port("x", (None, 3, 4, 7), "float32", 2), Port("x1", (None, 4), "int64", 1)],
    outputs=[Port("y", (None, 5, 2, 7), "float32", 2), Port("y1", (None, 2, 6), "float16", 1)],
    states=[("state.calls", (None, 1), "int64"), ("state.a.b'\"ü.on", (None, 2, 8), "bool")],
    chunk=4,
    start=-3,
    per_call=2,
    stride=2,
    rate=25.0,
)


def test_onnxruntime_with_the_oldest_first():
    options = Settings(max_streams=40, max_batch=8, preferred_batches=(4, 8), queue_delay=0.0015, idle=2.5, threads=3)
    (found,) = parsed(config(metadata_of(), options))
    assert found == {
        "name": "model",
        "backend": "onnxruntime",
        "max_batch_size": 8,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "1"]}],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": ["5", "1"]},
            {"name": "valid", "data_type": "TYPE_BOOL", "dims": ["1"]},
        ],
        "sequence_batching": {
            "max_sequence_idle_microseconds": "2500000",
            "oldest": {"max_candidate_sequences": 40, "max_queue_delay_microseconds": "1500", "preferred_batch_size": [4, 8]},
            "state": [_state("state.calls", "TYPE_INT64", ["1"]), _state("state.0.window", "TYPE_FP32", ["3", "4"])],
        },
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": {"intra_op_thread_count": {"string_value": "3"}},
    }


def _state(name: str, kind: str, dims: list[str]) -> dict[str, Any]:
    initial = {"name": f"zeros of {name}", "data_type": kind, "dims": dims, "zero_data": True}
    return {"input_name": name, "output_name": f"new_{name}", "data_type": kind, "dims": dims, "initial_state": [initial]}


def test_python_with_a_row_for_each():
    (found,) = parsed(config(STRIDED, Settings(name="v-1.2", backend="python", batcher="direct", max_streams=5)))
    controls: list[dict[str, Any]] = [
        {"name": name, "control": [{"kind": f"CONTROL_SEQUENCE_{name}", "bool_false_true": [False, True]}]}
        for name in ("START", "END", "READY")
    ]
    del controls[0]["control"][0]["kind"]  # the first of the kinds: protobuf's JSON leaves such values out
    correlation = {"name": "CORRID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]}
    assert found == {
        "name": "v-1.2",
        "backend": "python",
        "max_batch_size": 5,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": ["3", "-1", "7"]},
            {"name": "x1", "data_type": "TYPE_INT64", "dims": ["-1"]},
        ],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": ["5", "-1", "7"]},
            {"name": "y1", "data_type": "TYPE_FP16", "dims": ["-1", "6"]},
            {"name": "valid", "data_type": "TYPE_BOOL", "dims": ["-1"]},
        ],
        "sequence_batching": {
            "max_sequence_idle_microseconds": "60000000",
            "direct": {},
            "control_input": [*controls, correlation],
        },
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "parameters": {"max_streams": {"string_value": "5"}},
    }


def test_python_with_the_oldest_first_lets_in_more_than_it_serves():
    """So that a stream too many is answered by an error, instead of waiting."""
    (found,) = parsed(config(metadata_of(), Settings(backend="python", max_streams=5)))
    assert found["sequence_batching"]["oldest"] == {"max_candidate_sequences": 10}
    assert [c["name"] for c in found["sequence_batching"]["control_input"]] == ["START", "END", "CORRID"]
    assert found["input"][0]["dims"] == ["3", "1"]  # one step: no shorter chunk


def test_strided_onnxruntime_and_names_that_need_quoting():
    (found,) = parsed(config(STRIDED, Settings(batcher="direct", queue_delay=0.002)))
    assert found["sequence_batching"]["direct"] == {"max_queue_delay_microseconds": "2000"}
    assert [i["dims"] for i in found["input"]] == [["3", "4", "7"], ["4"]]
    assert [o["dims"] for o in found["output"]] == [["5", "2", "7"], ["2", "6"], ["2"]]
    assert found["sequence_batching"]["state"][1] == _state("state.a.b'\"ü.on", "TYPE_BOOL", ["2", "8"])


def test_every_type_is_one_of_the_servers():
    states = [(f"state.{dtype}", (None, 1), dtype) for dtype in TYPES]
    (found,) = parsed(config(metadata_of(states=states), Settings()))
    assert [s["data_type"] for s in found["sequence_batching"]["state"]] == list(TYPES.values())


@pytest.mark.parametrize("network", by_turns(NETWORKS, 2))
def test_configurations_of_networks(written: Written, network: str):
    backends = ("onnxruntime", "python")
    folders = [written(network, backend) for backend in backends]
    said = parsed(*((f / "config.pbtxt").read_text("utf-8") for f in folders))
    for backend, folder, found in zip(backends, folders, said, strict=True):
        assert (found["name"], found["backend"], found["max_batch_size"]) == ("model", backend, 4)
        assert ("state" in found["sequence_batching"]) == (backend == "onnxruntime")
        assert folder.name == "model"


@pytest.mark.parametrize("network", by_turns(NETWORKS, 2))
def test_an_onnxruntime_configuration_has_the_tensors_of_its_file(written: Written, network: str):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = written(network, "onnxruntime")
    session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = parsed((folder / "config.pbtxt").read_text("utf-8"))
    states = found["sequence_batching"]["state"]
    for values, ports, key in (
        (session.get_inputs(), found["input"], "input_name"),
        (session.get_outputs(), found["output"], "output_name"),
    ):
        said = {p["name"]: p["dims"] for p in ports} | {s[key]: s["dims"] for s in states}
        assert {v.name: v.shape for v in values} == {name: ["batch", *map(int, dims)] for name, dims in said.items()}


def test_comments_tell_a_client_what_to_send():
    text = config(STRIDED, Settings(backend="python", max_streams=7))
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    for said in (
        "receptive field 5 steps, delay 4 steps, stride 2. 25 steps per second",
        "a chunk of 4 steps: x float32 (1, 3, 4, 7), x1 int64 (1, 4)",
        "The first 3 of the 4 steps in the first request of a sequence are from before the stream",
        "The last request of a sequence may have fewer steps",
        "the 2 outputs of its steps: y float32 (1, 5, 2, 7), y1 float16 (1, 2, 6)",
        "all outputs that the end of the stream brings",
        "7 sequences at a time; a further one gets an error",
        "requirements.txt",
    ):
        assert said in head
    assert max(map(len, text.splitlines())) <= 120


def test_comments_of_onnxruntime_repositories():
    text = config(metadata_of(), Settings())
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert "A request is one step: x float32 (1, 3, 1)." in head
    assert "the network is 4 steps behind) are not given" in head
    assert "a further one waits" in head
    assert "fewer steps" not in head


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"inputs": [Port("x", (4, None, 3), "float32", 0)]},
            "x of Made is float32 (4, B, 3), and batches of the server have their rows",
        ),
        ({"inputs": [Port("x", (None, 3, 1), "float32", 2), Port("x1", (7,), "float32")]}, "x1 of Made is float32 (7)"),
        ({"outputs": [Port("y", (1, None, 3), "float32", 0)]}, "y of Made is float32 (1, B, 3)"),
        (
            {"inputs": [Port("x", (None, 3, 1), "complex64", 2)]},
            "x is complex64 (B, 3, 1), a type that the backend onnxruntime has not",
        ),
    ],
)
def test_what_the_server_can_not_batch_is_refused(changes: dict[str, Any], said: str):
    with pytest.raises(co.ExportError) as error:
        config(metadata_of(**changes), Settings())
    assert said in str(error.value)


def test_bfloat16_is_for_onnxruntime_alone():
    metadata = metadata_of(states=[("state.calls", (None, 1), "int64"), ("state.0.window", (None, 2), "bfloat16")])
    assert "TYPE_BF16" in config(metadata, Settings())
    with pytest.raises(co.ExportError, match="state.0.window is bfloat16"):
        config(metadata, Settings(backend="python"))


def test_text_format():
    assert pbtxt([("a", ()), ("a", (("b", 'x"\\\n'),)), ("c", [True, 2]), ("d", 0.5)]) == (
        'a {}\na {\n  b: "x\\"\\\\\\n"\n}\nc: [true, 2]\nd: 0.5\n'
    )


def test_nothing_of_this_machine_is_in_a_repository(written: Written):
    folder = written("conv", "python")
    for path in folder.rglob("*"):
        if path.is_file():
            assert str(Path.home()).encode() not in path.read_bytes()
