"""Every public layer and container through `co.verify`, as a user would. Options are in the tables of the layers' own tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import continual as co
from tests.long import by_turns

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
SPACES: dict[str, tuple[int, ...]] = {"1d": (), "2d": (5,), "3d": (5, 4)}


def _on(module: co.CoModule, x: object) -> bool:
    return True


def tokens(step: torch.Tensor) -> torch.Tensor:
    """A token of each step: which of its values is the largest, and whether its sum is positive."""
    return step.argmax(1, keepdim=True) + 4 * (step.sum(1, keepdim=True) > 0)


CASES: dict[str, Case] = {
    "Conv1d": (lambda: co.Conv1d(4, 3, 3, padding=1, stride=2), ()),
    "Conv1d reflect": (lambda: co.Conv1d(4, 3, 4, padding="same", padding_mode="reflect"), ()),
    "Conv1d wide padding": (lambda: co.Conv1d(4, 3, 2, padding=5, padding_mode="replicate"), ()),
    "Conv2d": (lambda: co.Conv2d(4, 3, (3, 1), padding=(1, 0), dilation=(2, 1)), (5,)),
    "Conv3d": (lambda: co.Conv3d(4, 4, 3, padding=1, groups=4), (5, 4)),
    "ConvTranspose1d": (lambda: co.ConvTranspose1d(4, 3, 5, stride=2, padding=2, output_padding=1), ()),
    "ConvTranspose1d, rate 1": (lambda: co.ConvTranspose1d(4, 3, 3, padding=1), ()),
    "ConvTranspose2d": (lambda: co.ConvTranspose2d(4, 3, (4, 3), stride=(2, 1), padding=1), (5,)),
    "ConvTranspose3d": (lambda: co.ConvTranspose3d(4, 2, 2, stride=2, groups=2), (5, 4)),
    "Upsample": (lambda: co.Upsample(scale_factor=2), ()),
    "Upsample, linear": (lambda: co.Upsample(scale_factor=1.5, mode="linear"), ()),
    "Upsample, bicubic": (lambda: co.Upsample(scale_factor=2, mode="bicubic"), (5,)),
    "Upsample, down": (lambda: co.Upsample(scale_factor=(0.5, 2, 2), mode="trilinear"), (5, 4)),
    "Linear": (lambda: co.Linear(4, 3, channel_dim=1), ()),
    "RNN": (lambda: co.RNN(4, 3, nonlinearity="relu"), ()),
    "GRU": (lambda: co.GRU(4, 3, num_layers=3, bias=False), ()),
    "LSTM": (lambda: co.LSTM(4, 3, num_layers=2), ()),
    "LSTM, projected": (lambda: co.Sequential(co.Conv1d(4, 4, 3, padding=1), co.LSTM(4, 6, proj_size=2)), ()),
    "RNNCell": (lambda: co.RNNCell(4, 3), ()),
    "GRUCell": (lambda: co.GRUCell(4, 3), ()),
    "LSTMCell": (lambda: co.LSTMCell(4, 3), ()),
    "minGRU": (lambda: co.minGRU(4, 3), ()),
    "RGLRU": (lambda: co.RGLRU(4, 2), ()),
    "S4D": (lambda: co.S4D(4, 6), ()),
    "Mamba": (lambda: co.Mamba(4, 3), ()),
    "Mamba2": (lambda: co.Mamba2(4, 2, 3, 5), ()),
    "GatedLinearAttention": (lambda: co.GatedLinearAttention(4, 2), ()),
    "DeltaNet": (lambda: co.DeltaNet(4, 2, expand_k=2, norm_eps=1e-2), ()),
    "RWKV": (lambda: co.RWKV(4), ()),
    "Unfold": (lambda: co.Unfold(3, dilation=2, padding=1, stride=2), (5,)),
    "STFT": (lambda: co.STFT(8, 3, window=torch.hann_window(8), return_complex=False), ()),
    "STFT, causal": (lambda: co.STFT(7, 9, 5, center=False, onesided=False, return_complex=False), ()),
    "InverseSTFT": (
        lambda: co.Sequential(
            co.STFT(8, 3, normalized=True, return_complex=False),
            co.InverseSTFT(8, 3, window=torch.hann_window(8), normalized=True),
        ),
        (),
    ),
    "Spectrogram": (lambda: co.Spectrogram(9, 6, 2, power=1.5, normalized=True, pad_mode="constant"), ()),
    "MelSpectrogram": (lambda: co.MelSpectrogram(8000, 16, hop_length=5, n_mels=3, pad_mode="replicate"), ()),
    "LogMel": (lambda: co.LogMel(8000, 16, hop_length=5, n_mels=3, center=False, log="db"), ()),
    "MFCC": (lambda: co.MFCC(8000, 3, n_fft=16, hop_length=20, n_mels=4, log_mels=True), ()),
    "SOSFilter": (lambda: co.SOSFilter([[0.3, 0.1, -0.2, 2.0, -3.2, 1.28], [1.0, 0.0, 0.5, 1.0, 0.7, 0.2]]), (5,)),
    "SOSFilter, initial state": (lambda: co.SOSFilter([[0.3, 0.1, -0.2, 1.0, -0.9, 0.3]], zi=[[0.5, -0.25]]), ()),
    "IIRFilter": (lambda: co.IIRFilter([0.2, -0.1], [1.0, -0.2, 0.3, -0.1]), ()),
    "FIRFilter": (lambda: co.FIRFilter(torch.linspace(-1, 1, 12).view(4, 3)), ()),
    "Resample": (lambda: co.Resample(3, 2, lowpass_filter_width=2), ()),
    "Resample, down": (lambda: co.Resample(2, 1, lowpass_filter_width=2), (5,)),
    "Resample, up": (lambda: co.Sequential(co.Resample(2, 5, "sinc_interp_kaiser", 3, 0.8), co.Conv1d(4, 3, 3, padding=1)), ()),
    "ExponentialMean": (lambda: co.ExponentialMean(0.3), (5,)),
    "ExponentialNorm": (lambda: co.ExponentialNorm(0.2, adjust=False), ()),
    "PCEN": (lambda: co.Sequential(co.Lambda(torch.exp), co.PCEN(0.1, torch.linspace(0.5, 1, 4))), (5,)),
    "AutomaticGain": (lambda: co.AutomaticGain(0.5, 0.2, 3.0), (5,)),
    "PreEmphasis": (lambda: co.PreEmphasis(), (5, 4)),
    "ComputeDeltas": (lambda: co.ComputeDeltas(7, "reflect"), (5,)),
    "SlidingWindowCmn": (lambda: co.SlidingWindowCmn(5, 1, norm_vars=True), (5,)),
    "SlidingWindowCmn, first frames together": (lambda: co.SlidingWindowCmn(6, 4), ()),
    "SlidingWindowCmn, centred": (lambda: co.SlidingWindowCmn(6, center=True, norm_vars=True), ()),
    "TopDB": (lambda: co.TopDB(0.5), (5,)),
    "OverlapAdd": (lambda: co.OverlapAdd(5, 2, padding=4), (5,)),
    "OverlapAdd, cut": (lambda: co.OverlapAdd(5, 4, padding=2), (5,)),
    "LPPool1d": (lambda: co.LPPool1d(2, 3, stride=2, ceil_mode=True), ()),
    "LPPool2d": (lambda: co.LPPool2d(2, (9, 2), stride=1), (5,)),
    "LPPool3d": (lambda: co.LPPool3d(float("inf"), (3, 2, 2), stride=1), (5, 4)),
    "CircularPad1d": (lambda: co.CircularPad1d(0), ()),
    "CircularPad2d": (lambda: co.CircularPad2d((2, 1, 0, 0)), (5,)),
    "CircularPad3d": (lambda: co.CircularPad3d((1, 1, 2, 0, 0, 0)), (5, 4)),
    "shift": (lambda: co.ReplicationPad1d((2, -2)), ()),
    "causal": (
        lambda: co.Sequential(co.ReplicationPad1d((2, 0)), co.Conv1d(4, 4, 3), co.ReflectionPad1d(1), co.MaxPool1d(3, 1)),
        (),
    ),
    "Embedding": (lambda: co.Sequential(co.Lambda(tokens), co.Embedding(9, 3), co.Conv1d(3, 3, 3)), ()),
    "Delay": (lambda: co.Delay(3), ()),
    "Delay, shrinking": (lambda: co.Delay(2, auto_shrink=True), ()),
    "Skip": (lambda: co.Skip(2), ()),
    "Trim": (lambda: co.Trim(1, 2), ()),
    "Reshape": (lambda: co.Reshape(-1, 2, 2), ()),
    "Lambda": (lambda: co.Lambda(torch.tanh), ()),
    "Add": (lambda: co.Add(2), ()),
    "Multiply": (lambda: co.Multiply(torch.linspace(-2, 1, 4).view(1, 4, 1)), ()),
    "Constant": (lambda: co.Constant(3), ()),
    "Zero": (lambda: co.Zero(), ()),
    "One": (lambda: co.One(), ()),
    "Identity": (lambda: co.Identity(), ()),
    "BatchNorm1d": (lambda: co.continual(nn.BatchNorm1d(4)), ()),
    "LayerNorm": (lambda: co.continual(nn.LayerNorm(5)), (5,)),
    "GroupNorm": (lambda: co.continual(nn.GroupNorm(2, 4), time_norm="cumulative"), ()),
    "LocalResponseNorm": (lambda: co.continual(nn.LocalResponseNorm(3, alpha=0.5)), (5,)),
    "CumulativeGroupNorm": (lambda: co.CumulativeGroupNorm(2, 4), (5,)),
    "CumulativeLayerNorm": (lambda: co.CumulativeLayerNorm(4), ()),
    "WindowedGroupNorm": (lambda: co.WindowedGroupNorm(2, 4, window=6), (5,)),
    "WindowedLayerNorm": (lambda: co.WindowedLayerNorm(4, window=4), ()),
    "FrozenNorm": (lambda: co.calibrate(nn.GroupNorm(2, 4), torch.randn(2, 4, 9)), (5, 4)),
    "CumulativeSum": (lambda: co.CumulativeSum(), ()),
    "CumulativeMean": (lambda: co.CumulativeMean(), (5,)),
    "CumulativeMax": (lambda: co.CumulativeMax(), (5, 4)),
    "Softmax": (lambda: co.continual(nn.Softmax(1)), ()),
    "GELU": (lambda: co.continual(nn.GELU()), ()),
    "MultiheadAttention": (lambda: co.MultiheadAttention(4, 2, sequence_len=5, look_ahead=1, embed_dim_second=True), ()),
    "MultiheadAttention, rotary": (
        lambda: co.MultiheadAttention(4, 2, sequence_len=5, embed_dim_second=True, positions=co.RotaryPositionalEncoding(2)),
        (),
    ),
    "SingleOutputMultiheadAttention": (
        lambda: co.SingleOutputMultiheadAttention(4, 2, sequence_len=5, query_index=2, embed_dim_second=True),
        (),
    ),
    "RetroactiveMultiheadAttention": (lambda: co.RetroactiveMultiheadAttention(4, 2, sequence_len=5, embed_dim_second=True), ()),
    "SingleOutputTransformerEncoderLayer": (lambda: co.SingleOutputTransformerEncoderLayer(4, 2, 8, sequence_len=5), ()),
    "RetroactiveTransformerEncoderLayer": (lambda: co.RetroactiveTransformerEncoderLayer(4, 2, 8, sequence_len=5), ()),
    "CausalTransformerEncoderLayer": (lambda: co.CausalTransformerEncoderLayer(4, 2, 8, sequence_len=5, positions="alibi"), ()),
    "TransformerEncoder": (
        lambda: co.TransformerEncoder(co.TransformerEncoderLayerFactory(4, 2, 8, sequence_len=5), 3, nn.LayerNorm(4)),
        (),
    ),
    "TransformerEncoder, causal": (
        lambda: co.TransformerEncoder(co.TransformerEncoderLayerFactory(4, 2, 8, sequence_len=3, causal=True, look_ahead=1), 2),
        (),
    ),
    "RecyclingPositionalEncoding": (lambda: co.RecyclingPositionalEncoding(4, 7), ()),
    "SinusoidalPositionalEncoding": (lambda: co.SinusoidalPositionalEncoding(4), ()),
    "RotaryPositionalEncoding": (lambda: co.RotaryPositionalEncoding(4, 2), ()),
    "Sequential": (lambda: co.Sequential(nn.Conv1d(4, 4, 3, 2), nn.ReLU(), nn.Conv1d(4, 2, 3, padding=1)), ()),
    "Residual": (lambda: co.Residual(co.Conv1d(4, 4, 4), residual_shrink=True), ()),
    "BroadcastReduce": (
        lambda: co.BroadcastReduce(
            co.Sequential(co.Conv1d(4, 4, 3, 2, 1), nn.ReLU(), co.Conv1d(4, 4, 3, padding=1)), co.Conv1d(4, 4, 1, 2)
        ),
        (),
    ),
    "streams": (
        lambda: co.Sequential(
            co.Broadcast(), co.Parallel(co.Conv1d(4, 4, 3, padding=1), co.Delay(2)), co.ParallelDispatch([1, 0]), co.Reduce("max")
        ),
        (),
    ),
    "Conditional": (lambda: co.Conditional(_on, co.Conv1d(4, 4, 3, padding=1)), ()),
}
for _dims, _space in SPACES.items():
    for _norm, _options in (("Cumulative", {"affine": True}), ("Windowed", {"window": 5})):
        _class = getattr(co, f"{_norm}InstanceNorm{_dims}")
        CASES[_class.__name__] = (lambda norm=_class, options=_options: norm(4, **options), _space)
    for _fill in ("Constant", "Zero", "Replication", "Reflection"):
        _pad = getattr(co, f"{_fill}Pad{_dims}")
        _args = ((*(1, 0) * len(_space), 3, 2), *([0.5] if _fill == "Constant" else []))
        CASES[_pad.__name__] = (lambda pad=_pad, args=_args: pad(*args), _space)
    for _kind in ("Avg", "Max"):
        _pool, _adaptive = getattr(co, f"{_kind}Pool{_dims}"), getattr(co, f"Adaptive{_kind}Pool{_dims}")
        CASES[_pool.__name__] = (lambda pool=_pool: pool(3, stride=2, padding=1, ceil_mode=True), _space)
        CASES[f"{_pool.__name__}, long"] = (lambda pool=_pool, space=_space: pool((11, *(2 for _ in space)), stride=1), _space)
        CASES[_adaptive.__name__] = (lambda pool=_adaptive: pool(1, kernel_size=4), _space)


@pytest.mark.parametrize("name", by_turns(CASES, 3))
def test_keeps_the_contract(name: str):
    """In double precision, where what is not exact shows."""
    keeps_the_contract(name, torch.float64)


@pytest.mark.parametrize("name", by_turns(CASES, 6, of="single"))
def test_keeps_the_contract_in_single_precision(name: str):
    keeps_the_contract(name, torch.float32)


def keeps_the_contract(name: str, dtype: torch.dtype) -> None:
    make, space = CASES[name]
    net = make().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    report = co.verify(net.to(dtype), torch.randn(2, 4, 31, *space, dtype=dtype))
    assert report.passed


def test_no_layer_is_forgotten():
    """Whoever adds a public layer adds a row."""
    public = {n for n in co.__all__ if isinstance(getattr(co, n), type) and issubclass(getattr(co, n), co.CoModule)}
    used = {type(m).__name__ for make, _ in CASES.values() for m in make().modules()}
    bases = {"CoModule", "Recurrence", "SlidingWindow"}  # layers of them: tests/layers/test_own_layers.py
    assert public - bases <= used
