"""Running trained PyTorch networks on endless streams, one step at a time, exactly.

>>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU()))
>>> net.delay, net.forward_step(torch.zeros(1, 2)) is None
(1, True)
"""

from . import closure, container, conv, convert, delay, linear, module, pooling, shape, skip
from .adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from .closure import Add, Constant, Identity, Lambda, Multiply, One, Zero
from .container import Broadcast, BroadcastReduce, Conditional, Parallel, ParallelDispatch, Reduce, Residual, Sequential
from .conv import Conv1d, Conv2d, Conv3d
from .convert import continual, forward_stepping
from .delay import Delay, Trim
from .embedding import Embedding
from .errors import (
    CapacityError,
    ContinualError,
    ExportError,
    NotStreamable,
    ShapeMismatch,
    StateMismatch,
    StreamMismatch,
)
from .linear import Linear
from .lp_pooling import LPPool1d, LPPool2d, LPPool3d
from .module import CoModule, PaddingMode, call_mode
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
from .pooling import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from .shape import Reshape
from .skip import Skip
from .state import State
from .storage import load_state, save_state
from .summary import summary
from .timing import Timing
from .unfold import Unfold
from .verify import Report, verify

__version__ = "0.1.0"

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Broadcast",
    "BroadcastReduce",
    "CapacityError",
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
    "Delay",
    "Embedding",
    "ExportError",
    "Identity",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "Lambda",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Multiply",
    "NotStreamable",
    "One",
    "PaddingMode",
    "Parallel",
    "ParallelDispatch",
    "Reduce",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "Report",
    "Reshape",
    "Residual",
    "Sequential",
    "ShapeMismatch",
    "Skip",
    "State",
    "StateMismatch",
    "StreamMismatch",
    "Timing",
    "Trim",
    "Unfold",
    "Zero",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
    "call_mode",
    "closure",
    "container",
    "continual",
    "conv",
    "convert",
    "delay",
    "forward_stepping",
    "linear",
    "load_state",
    "module",
    "pooling",
    "save_state",
    "shape",
    "skip",
    "summary",
    "verify",
]
