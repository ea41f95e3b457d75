"""The messages of the open inference protocol (KServe, version 2) that the gRPC transport uses, made from a table of their fields."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core.optional_packages import package

PACKAGE, SERVICE = "inference", "GRPCInferenceService"
KINDS = {"double": 1, "int64": 3, "uint64": 4, "bool": 8, "string": 9, "message": 11, "bytes": 12}  # of protobuf
MAP = "map ParametersEntry"
# message: field, number, type; "*" repeated, "?" one of several
FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "InferParameter": [
        ("bool_param", 1, "?bool"),
        ("int64_param", 2, "?int64"),
        ("string_param", 3, "?string"),
        ("double_param", 4, "?double"),
        ("uint64_param", 5, "?uint64"),
    ],
    "ModelInferRequest": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, MAP),
        ("inputs", 5, "*InferInputTensor"),
        ("raw_input_contents", 7, "*bytes"),
    ],
    "ModelInferResponse": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, MAP),
        ("outputs", 5, "*InferOutputTensor"),
        ("raw_output_contents", 6, "*bytes"),
    ],
    "ModelStreamInferResponse": [("error_message", 1, "string"), ("infer_response", 2, "ModelInferResponse")],
    "ServerLiveRequest": [],
    "ServerLiveResponse": [("live", 1, "bool")],
    "ServerReadyRequest": [],
    "ServerReadyResponse": [("ready", 1, "bool")],
    "ModelReadyRequest": [("name", 1, "string"), ("version", 2, "string")],
    "ModelReadyResponse": [("ready", 1, "bool")],
    "ModelMetadataRequest": [("name", 1, "string"), ("version", 2, "string")],
    "ModelMetadataResponse": [
        ("name", 1, "string"),
        ("versions", 2, "*string"),
        ("platform", 3, "string"),
        ("inputs", 4, "*TensorMetadata"),
        ("outputs", 5, "*TensorMetadata"),
    ],
}
TENSOR = [("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "*int64")]
NESTED = {
    "InferInputTensor": ("ModelInferRequest", TENSOR),
    "InferOutputTensor": ("ModelInferResponse", TENSOR),
    "TensorMetadata": ("ModelMetadataResponse", TENSOR),
}
DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    "uint8": "UINT8",
    **{f"int{n}": f"INT{n}" for n in (8, 16, 32, 64)},
}


@functools.cache
def messages() -> SimpleNamespace:
    """The classes of the messages, by name."""
    pb = package("google.protobuf.descriptor_pb2", "grpc", "the gRPC transport")
    pool = package("google.protobuf.descriptor_pool", "grpc", "the gRPC transport").DescriptorPool()
    factory = package("google.protobuf.message_factory", "grpc", "the gRPC transport")
    file = pb.FileDescriptorProto(name="continual/inference.proto", package=PACKAGE, syntax="proto3")
    made = {name: file.message_type.add(name=name) for name in FIELDS}
    for name, (outer, fields) in NESTED.items():
        _fill(made[outer].nested_type.add(name=name), outer, fields)
    for name, fields in FIELDS.items():
        _fill(made[name], name, fields)
    pool.Add(file)
    found = {name: factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in FIELDS}
    return SimpleNamespace(**found)


def _fill(message: Any, path: str, fields: list[tuple[str, int, str]]) -> None:
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number, label=3 if kind[0] == "*" or kind == MAP else 1)
        kind = kind.lstrip("*")
        if kind[0] == "?":
            if not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
            field.oneof_index, kind = 0, kind[1:]
        if kind == MAP:
            entry = message.nested_type.add(name="ParametersEntry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=1, type=KINDS["string"])
            entry.field.add(name="value", number=2, label=1, type=KINDS["message"], type_name=f".{PACKAGE}.InferParameter")
            field.type, field.type_name = KINDS["message"], f".{PACKAGE}.{path}.ParametersEntry"
        elif kind in KINDS:
            field.type = KINDS[kind]
        else:
            field.type = KINDS["message"]
            outer = f"{NESTED[kind][0]}." if kind in NESTED else ""
            field.type_name = f".{PACKAGE}.{outer}{kind}"


def value(parameters: Any, name: str, default: Any = None) -> Any:
    """A parameter of a request."""
    if name not in parameters:
        return default
    found = parameters[name]
    choice = found.WhichOneof("parameter_choice")
    return default if choice is None else getattr(found, choice)


def set_value(parameters: Any, name: str, new: Any) -> None:
    """A parameter of a response."""
    kind = "bool_param" if isinstance(new, bool) else "int64_param" if isinstance(new, int) else "string_param"
    setattr(parameters[name], kind, new)


def datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a dtype."""
    return DATATYPES[dtype.name]
