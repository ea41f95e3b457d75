"""Running trained PyTorch networks on endless streams, one step at a time, exactly.

>>> net = co.continual(nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU()))
>>> net.delay, net.forward_step(torch.zeros(1, 2)) is None
(1, True)
"""

import importlib
from typing import TYPE_CHECKING, Any

from .core.collector import without_collections

with without_collections():  # a pass over the objects of torch would take longer than all of these imports
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
    from .layers.linear_recurrent.deltanet import DeltaNet
    from .layers.linear_recurrent.gla import GatedLinearAttention
    from .layers.linear_recurrent.mamba import Mamba
    from .layers.linear_recurrent.mamba2 import Mamba2
    from .layers.linear_recurrent.mingru import minGRU
    from .layers.linear_recurrent.rglru import RGLRU
    from .layers.linear_recurrent.rwkv import RWKV
    from .layers.linear_recurrent.s4d import S4D
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
    from .layers.signals.cmn import SlidingWindowCmn
    from .layers.signals.differences import ComputeDeltas, PreEmphasis
    from .layers.signals.exponential import ExponentialMean, ExponentialNorm
    from .layers.signals.fir import FIRFilter
    from .layers.signals.gain import PCEN, AutomaticGain
    from .layers.signals.iir import IIRFilter
    from .layers.signals.istft import InverseSTFT
    from .layers.signals.mel import LogMel, MelSpectrogram
    from .layers.signals.mfcc import MFCC
    from .layers.signals.overlap import OverlapAdd
    from .layers.signals.resample import Resample
    from .layers.signals.sos import SOSFilter
    from .layers.signals.spectrogram import Spectrogram
    from .layers.signals.stft import STFT
    from .layers.signals.top_db import TopDB
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
    "AutomaticGain": "layers.signals.gain",
    "ComputeDeltas": "layers.signals.differences",
    "Benchmark": "tools.bench.result",
    "Explanation": "tools.explanation",
    "ExponentialMean": "layers.signals.exponential",
    "ExponentialNorm": "layers.signals.exponential",
    "FIRFilter": "layers.signals.fir",
    "IIRFilter": "layers.signals.iir",
    "InverseSTFT": "layers.signals.istft",
    "LogMel": "layers.signals.mel",
    "MFCC": "layers.signals.mfcc",
    "MelSpectrogram": "layers.signals.mel",
    "OverlapAdd": "layers.signals.overlap",
    "PCEN": "layers.signals.gain",
    "PreEmphasis": "layers.signals.differences",
    "Refusal": "tools.explanation",
    "Report": "tools.report",
    "Resample": "layers.signals.resample",
    "RowsSnapshot": "programs.snapshot",
    "Runner": "export.runner",
    "SOSFilter": "layers.signals.sos",
    "STFT": "layers.signals.stft",
    "SlidingWindowCmn": "layers.signals.cmn",
    "Spectrogram": "layers.signals.spectrogram",
    "StepProgram": "programs.step_program",
    "Stream": "streams.stream",
    "StreamBatch": "programs.stream_batch",
    "StreamOutput": "streams.output",
    "StreamSnapshot": "programs.snapshot",
    "TopDB": "layers.signals.top_db",
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
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d", "Add", "ArtefactMismatch", "AutomaticGain", "AvgPool1d", "AvgPool2d", "AvgPool3d", "Benchmark",
    "Broadcast", "BroadcastReduce", "CapacityError", "CausalTransformerEncoderLayer", "CheckpointMismatch", "CircularPad1d",
    "CircularPad2d", "CircularPad3d", "CoModule", "ComputeDeltas", "Conditional", "Constant", "ConstantPad1d", "ConstantPad2d",
    "ConstantPad3d", "ContinualError", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "CumulativeGroupNorm", "CumulativeInstanceNorm1d", "CumulativeInstanceNorm2d", "CumulativeInstanceNorm3d",
    "CumulativeLayerNorm", "CumulativeMax", "CumulativeMean", "CumulativeSum", "Delay", "DeltaNet", "Embedding", "Explanation",
    "ExponentialMean", "ExponentialNorm", "ExportError", "FIRFilter", "FrozenNorm", "GRU", "GRUCell", "GatedLinearAttention",
    "IIRFilter", "Identity", "InverseSTFT", "LPPool1d", "LPPool2d", "LPPool3d", "LSTM", "LSTMCell", "Lambda", "Linear", "Mamba",
    "Mamba2", "LogMel", "MFCC", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MelSpectrogram", "MissingFrames", "MultiheadAttention",
    "Multiply", "NotStreamable", "One", "OverlapAdd", "PCEN", "PaddingMode", "Parallel", "ParallelDispatch", "RGLRU",
    "PreEmphasis", "RNN", "RNNCell", "RWKV", "Recurrence", "RecyclingPositionalEncoding", "Reduce", "ReflectionPad1d",
    "ReflectionPad2d", "ReflectionPad3d", "Refusal", "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "Report",
    "Resample", "Reshape", "Residual", "RetroactiveMultiheadAttention", "RetroactiveTransformerEncoderLayer",
    "RotaryPositionalEncoding", "RowsSnapshot", "S4D", "Runner", "SOSFilter", "STFT", "Sequential", "ShapeMismatch",
    "SingleOutputMultiheadAttention", "SingleOutputTransformerEncoderLayer", "SinusoidalPositionalEncoding", "Skip",
    "SlidingWindow", "SlidingWindowCmn", "Spectrogram", "State", "StateMismatch", "StepProgram", "Stream", "StreamBatch",
    "StreamInUse", "StreamMismatch", "StreamOutput", "StreamSnapshot", "StreamState", "Streams", "Timing", "TopDB",
    "TransformerEncoder", "TransformerEncoderLayerFactory", "Trim", "Unfold", "Upsample", "WindowPlan", "WindowTimes",
    "WindowedGroupNorm", "WindowedInstanceNorm1d", "WindowedInstanceNorm2d", "WindowedInstanceNorm3d", "WindowedLayerNorm",
    "Zero", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "bench", "calibrate", "call_mode", "closure", "compile", "container",
    "continual", "conv", "convert", "counting", "delay", "explain", "export", "fastest_windows", "flat_state_dict",
    "forward_stepping", "fuse", "linear", "load", "load_state", "load_state_dict", "minGRU", "models", "module",
    "multihead_attention", "onnx", "operations", "plot", "ray_map", "pooling", "positional_encoding", "rnn", "save_state",
    "scan", "serve", "shape", "skip", "state_dict", "summary", "transformer", "triton", "utils", "verify",
]  # fmt: skip
