"""`co.onnx.export` and `OnnxWrapper`: the import path of continual-inference."""

from .export.onnx_compat import export
from .export.onnx_wrapper import OnnxWrapper

__all__ = ["OnnxWrapper", "export"]
