"""Running trained PyTorch networks on endless streams, one step at a time, exactly.

>>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU()))
>>> net.delay, net.forward_step(torch.zeros(1, 2)) is None
(1, True)
"""

from . import closure, container, conv, convert, counting, delay, linear, module, pooling, shape, skip, utils
from .closure import Add, Constant, Identity, Lambda, Multiply, One, Zero
from .container import Broadcast, BroadcastReduce, Conditional, Parallel, ParallelDispatch, Reduce, Residual, Sequential
from .conv import Conv1d, Conv2d, Conv3d
from .convert import continual, forward_stepping
from .delay import Delay, Trim
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
from .module import CoModule, PaddingMode, call_mode
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
from .shape import Reshape
from .skip import Skip
from .state import State
from .storage import load_state, save_state
from .summary import summary
from .timing import Timing
from .utils import flat_state_dict, load_state_dict, state_dict
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
    "CoModule",
    "Conditional",
    "Constant",
    "ContinualError",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Delay",
    "ExportError",
    "Identity",
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
    "Zero",
    "call_mode",
    "closure",
    "container",
    "continual",
    "conv",
    "convert",
    "counting",
    "delay",
    "flat_state_dict",
    "forward_stepping",
    "linear",
    "load_state",
    "load_state_dict",
    "module",
    "pooling",
    "save_state",
    "shape",
    "skip",
    "state_dict",
    "summary",
    "utils",
    "verify",
]
