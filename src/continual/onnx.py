"""`co.onnx.export`: the import path of continual-inference."""

from .export.onnx_compat import export

__all__ = ["export"]
