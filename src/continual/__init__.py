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
    counting,
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
from .cells import GRUCell, LSTMCell, RNNCell
from .closure import Add, Constant, Identity, Lambda, Multiply, One, Zero
from .compiling import compile
from .container import Broadcast, BroadcastReduce, Conditional, Parallel, ParallelDispatch, Reduce, Residual, Sequential
from .conv import Conv1d, Conv2d, Conv3d
from .convert import continual, forward_stepping
from .cumulative import CumulativeMax, CumulativeMean, CumulativeSum
from .delay import Delay, Trim
from .embedding import Embedding
from .errors import (
    ArtefactMismatch,
    CapacityError,
    CheckpointMismatch,
    ContinualError,
    ExportError,
    NotStreamable,
    ShapeMismatch,
    StateMismatch,
    StreamInUse,
    StreamMismatch,
)
from .explain import explain
from .explanation import Explanation, Refusal
from .exporting import export, load
from .frozen import FrozenNorm, calibrate
from .fusing import fuse
from .linear import Linear
from .lp_pooling import LPPool1d, LPPool2d, LPPool3d
from .module import CoModule, PaddingMode, call_mode
from .multihead_attention import MultiheadAttention, RetroactiveMultiheadAttention, SingleOutputMultiheadAttention
from .norms import (
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
from .operations import operations
from .pads import (
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
from .positional_encoding import RecyclingPositionalEncoding, RotaryPositionalEncoding, SinusoidalPositionalEncoding
from .rnn import GRU, LSTM, RNN
from .shape import Reshape
from .skip import Skip
from .state import State
from .storage import load_state, save_state
from .summary import summary
from .timing import Timing
from .transformer import (
    CausalTransformerEncoderLayer,
    RetroactiveTransformerEncoderLayer,
    SingleOutputTransformerEncoderLayer,
    TransformerEncoder,
    TransformerEncoderLayerFactory,
)
from .transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .unfold import Unfold
from .upsample import Upsample
from .utils import flat_state_dict, load_state_dict, state_dict
from .verify import Report, verify

if TYPE_CHECKING:
    from . import models, onnx, triton
    from .program.snapshot import StreamSnapshot
    from .program.step_program import StepProgram
    from .program.stream_batch import StreamBatch
    from .shipping.runner import Runner

__version__ = "0.1.0"

_LATER = {  # imported when they are first used
    "Runner": "shipping.runner",
    "StepProgram": "program.step_program",
    "StreamBatch": "program.stream_batch",
    "StreamSnapshot": "program.snapshot",
}


def __getattr__(name: str) -> Any:
    if name in ("models", "onnx", "triton"):
        return importlib.import_module(f".{name}", __name__)
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    "MultiheadAttention",
    "Multiply",
    "NotStreamable",
    "One",
    "PaddingMode",
    "Parallel",
    "ParallelDispatch",
    "RNN",
    "RNNCell",
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
    "Sequential",
    "ShapeMismatch",
    "SingleOutputMultiheadAttention",
    "SingleOutputTransformerEncoderLayer",
    "SinusoidalPositionalEncoding",
    "Skip",
    "State",
    "StepProgram",
    "StreamBatch",
    "StateMismatch",
    "StreamInUse",
    "StreamMismatch",
    "StreamSnapshot",
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
    "Zero",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
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
    "pooling",
    "positional_encoding",
    "rnn",
    "save_state",
    "shape",
    "skip",
    "state_dict",
    "summary",
    "transformer",
    "triton",
    "utils",
    "verify",
]
