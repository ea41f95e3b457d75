"""Running trained PyTorch networks on endless streams, one step at a time, exactly.

>>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU()))
>>> net.delay, net.forward_step(torch.zeros(1, 2)) is None
(1, True)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import (
    closure,
    container,
    conv,
    convert,
    delay,
    linear,
    module,
    multihead_attention,
    pooling,
    positional_encoding,
    rnn,
    shape,
    skip,
    transformer,
    utils,
)
from .__about__ import __copyright__ as __copyright__
from .__about__ import __license__ as __license__
from .container import Broadcast, BroadcastReduce, Conditional, Parallel, ParallelDispatch, Reduce, Residual, Sequential
from .containers.transformer_encoder import (
    CausalTransformerEncoderLayer,
    RetroactiveTransformerEncoderLayer,
    SingleOutputTransformerEncoderLayer,
    TransformerEncoder,
    TransformerEncoderLayerFactory,
)
from .convert.conversion import continual, forward_stepping
from .convert.fuse import fuse
from .convert.graph.windows.report import WindowPlan
from .core import name_clash
from .core.module import CoModule, PaddingMode, call_mode
from .core.state import State
from .core.state_dicts import flat_state_dict, load_state_dict, state_dict
from .core.timing import Timing
from .core.version import __version__ as __version__
from .errors import (
    ArtefactMismatch,
    CapacityError,
    CheckpointMismatch,
    ContinualError,
    ExportError,
    MissingFrames,
    NotStreamable,
    ShapeMismatch,
    StateMismatch,
    StreamInUse,
    StreamMismatch,
)
from .export.api import export, load
from .layers.attention.multihead import MultiheadAttention, RetroactiveMultiheadAttention, SingleOutputMultiheadAttention
from .layers.closure import Add, Constant, Identity, Lambda, Multiply, One, Zero
from .layers.conv import Conv1d, Conv2d, Conv3d
from .layers.cumulative import CumulativeMax, CumulativeMean, CumulativeSum
from .layers.delay import Delay, Trim
from .layers.embedding import Embedding
from .layers.linear import Linear
from .layers.norms.causal import (
    CumulativeGroupNorm,
    CumulativeInstanceNorm1d,
    CumulativeInstanceNorm2d,
    CumulativeInstanceNorm3d,
    CumulativeLayerNorm,
    WindowedGroupNorm,
    WindowedInstanceNorm1d,
    WindowedInstanceNorm2d,
    WindowedInstanceNorm3d,
    WindowedLayerNorm,
)
from .layers.norms.frozen import FrozenNorm, calibrate
from .layers.padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from .layers.pooling.power_average import LPPool1d, LPPool2d, LPPool3d
from .layers.positions.encodings import RecyclingPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding
from .layers.recurrence import Recurrence
from .layers.recurrent.cells import GRUCell, LSTMCell, RNNCell
from .layers.recurrent.stacked import GRU, LSTM, RNN
from .layers.scan import scan
from .layers.shape import Reshape
from .layers.skip import Skip
from .layers.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .layers.unfold import Unfold
from .layers.upsample import Upsample
from .layers.window import SlidingWindow
from .pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from .programs.compile import compile

if TYPE_CHECKING:
    from . import logging as logging
    from . import models, onnx, triton
    from . import serving as serve
    from .export.runner import Runner
    from .programs.snapshot import RowsSnapshot, StreamSnapshot
    from .programs.step_program import StepProgram
    from .programs.stream_batch import StreamBatch
    from .serving.ray_map import ray_map
    from .streams.batch import Streams
    from .streams.output import StreamOutput
    from .streams.state import StreamState
    from .streams.stream import Stream
    from .tools import counting
    from .tools.bench.bench import bench
    from .tools.bench.result import Benchmark
    from .tools.explain import explain
    from .tools.explanation import Explanation, Refusal
    from .tools.operations import operations
    from .tools.plot.plot import plot
    from .tools.storage import load_state, save_state
    from .tools.summary import summary
    from .tools.verify import Report, verify
    from .tools.window_times import WindowTimes, fastest_windows

name_clash.warn_of_others(__path__[0])

_MODULES = {
    "counting": "tools.counting",
    "logging": "logging",
    "models": "models",
    "onnx": "onnx",
    "serve": "serving",
    "triton": "triton",
}
_LATER = {  # imported when they are first used, as these modules are
    "Benchmark": "tools.bench.result",
    "Explanation": "tools.explanation",
    "Refusal": "tools.explanation",
    "Report": "tools.report",
    "RowsSnapshot": "programs.snapshot",
    "Runner": "export.runner",
    "StepProgram": "programs.step_program",
    "Stream": "streams.stream",
    "StreamBatch": "programs.stream_batch",
    "StreamOutput": "streams.output",
    "StreamSnapshot": "programs.snapshot",
    "StreamState": "streams.state",
    "Streams": "streams.batch",
    "WindowTimes": "tools.window_times",
    "bench": "tools.bench.bench",
    "explain": "tools.explain",
    "fastest_windows": "tools.window_times",
    "load_state": "tools.storage",
    "operations": "tools.operations",
    "plot": "tools.plot.plot",
    "ray_map": "serving.ray_map",
    "save_state": "tools.storage",
    "summary": "tools.summary",
    "verify": "tools.verify",
}


if not TYPE_CHECKING:  # for a type checker a misspelt name is an error

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name) or _LATER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = importlib.import_module(f".{module}", __name__)
        globals()[name] = found = found if name in _MODULES else getattr(found, name)
        return found


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "ArtefactMismatch",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Benchmark",
    "Broadcast",
    "BroadcastReduce",
    "CapacityError",
    "CheckpointMismatch",
    "CausalTransformerEncoderLayer",
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "CoModule",
    "Conditional",
    "Constant",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ContinualError",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CumulativeGroupNorm",
    "CumulativeInstanceNorm1d",
    "CumulativeInstanceNorm2d",
    "CumulativeInstanceNorm3d",
    "CumulativeLayerNorm",
    "CumulativeMax",
    "CumulativeMean",
    "CumulativeSum",
    "Delay",
    "Embedding",
    "Explanation",
    "ExportError",
    "FrozenNorm",
    "GRU",
    "GRUCell",
    "Identity",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTM",
    "LSTMCell",
    "Lambda",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MissingFrames",
    "MultiheadAttention",
    "Multiply",
    "NotStreamable",
    "One",
    "PaddingMode",
    "Parallel",
    "ParallelDispatch",
    "RNN",
    "RNNCell",
    "Recurrence",
    "RecyclingPositionalEncoding",
    "Reduce",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "Refusal",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Report",
    "Runner",
    "Reshape",
    "Residual",
    "RetroactiveMultiheadAttention",
    "RetroactiveTransformerEncoderLayer",
    "RotaryPositionalEncoding",
    "RowsSnapshot",
    "Sequential",
    "ShapeMismatch",
    "SingleOutputMultiheadAttention",
    "SingleOutputTransformerEncoderLayer",
    "SinusoidalPositionalEncoding",
    "Skip",
    "SlidingWindow",
    "State",
    "StepProgram",
    "Stream",
    "StreamBatch",
    "StateMismatch",
    "StreamInUse",
    "StreamMismatch",
    "StreamOutput",
    "StreamSnapshot",
    "StreamState",
    "Streams",
    "Timing",
    "TransformerEncoder",
    "TransformerEncoderLayerFactory",
    "Trim",
    "Unfold",
    "Upsample",
    "WindowedGroupNorm",
    "WindowedInstanceNorm1d",
    "WindowedInstanceNorm2d",
    "WindowedInstanceNorm3d",
    "WindowedLayerNorm",
    "WindowPlan",
    "WindowTimes",
    "Zero",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "bench",
    "calibrate",
    "call_mode",
    "closure",
    "compile",
    "container",
    "continual",
    "conv",
    "convert",
    "counting",
    "delay",
    "explain",
    "export",
    "fastest_windows",
    "flat_state_dict",
    "forward_stepping",
    "fuse",
    "linear",
    "load",
    "load_state",
    "load_state_dict",
    "models",
    "onnx",
    "module",
    "multihead_attention",
    "operations",
    "plot",
    "ray_map",
    "pooling",
    "positional_encoding",
    "rnn",
    "save_state",
    "scan",
    "serve",
    "shape",
    "skip",
    "state_dict",
    "summary",
    "transformer",
    "triton",
    "utils",
    "verify",
]
