"""Time-series networks of tsai."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..network import Network
from ..packages import cls, load

CHANNELS, CLASSES, FRAMES = 3, 4, 48


def row(name: str, file: str, source: str, expected: Any = "windows", frames: int = FRAMES, **more: Any) -> Network:
    """A network of tsai: ``file`` holds the class."""
    row_of = {k: more.pop(k) for k in ("why", "options", "single") if k in more}
    own = more.pop("own", name)
    length = {"seq_len": frames} if more.pop("fixed", False) else {}

    def build() -> nn.Module:
        load("torchvision")
        module: nn.Module = cls(f"tsai.models.{file}.{own}")(CHANNELS, CLASSES, **length, **more)
        return module

    return Network(f"tsai/{name}", build, (2, CHANNELS, frames), expected, source, package="tsai", **row_of)


def _patch_tst() -> nn.Module:
    load("torchvision")
    module: nn.Module = cls("tsai.models.PatchTST.PatchTST")(
        c_in=3, c_out=3, seq_len=48, pred_dim=8, patch_len=8, stride=4, d_model=16
    )
    return module


def _mini_rocket() -> nn.Module:
    """With biases as after fitting: its own come from memory that nobody has written."""
    load("torchvision")
    module: nn.Module = cls("tsai.models.MINIROCKETPlus_Pytorch.MiniRocketPlus")(CHANNELS, CLASSES, FRAMES, num_features=840)
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if "biases" in name:
                buffer.normal_()
    return module


MISSING = "It looks for missing values in the clip, and masks them only where there are some: values decide what it computes."
ROWS = "It takes the rows of the batch for a sequence, so that a score depends on the other clips beside it."
NETWORKS = [
    row("FCN", "FCN", "Wang 2017, IJCNN"),
    row("FCNPlus", "FCNPlus", "Wang 2017, IJCNN"),
    row("ResNet", "ResNet", "Wang 2017, IJCNN"),
    row("ResNetPlus", "ResNetPlus", "Wang 2017, IJCNN"),
    row("ResCNN", "ResCNN", "Zou 2019, Neurocomputing"),
    row("InceptionTime", "InceptionTime", "Fawaz 2020, DMKD"),
    row("InceptionTimePlus", "InceptionTimePlus", "Fawaz 2020, DMKD"),
    row("InCoordTime", "InceptionTimePlus", "Liu 2018, NeurIPS (CoordConv)"),
    row("XCoordTime", "InceptionTimePlus", "Liu 2018, NeurIPS (CoordConv)"),
    row("InceptionTime with SE", "InceptionTimePlus", "Hu 2018, CVPR", own="InceptionTimePlus", se=8),
    row("XceptionTime", "XceptionTime", "Rahimian 2019, arXiv:1911.03803"),
    row("XceptionTimePlus", "XceptionTimePlus", "Rahimian 2019, arXiv:1911.03803"),
    row("OmniScaleCNN", "OmniScaleCNN", "Tang 2022, ICLR", fixed=True, layers=[96, 2400]),
    row("XCM", "XCM", "Fauvel 2021, Mathematics", fixed=True),
    row("XCMPlus", "XCMPlus", "Fauvel 2021, Mathematics", fixed=True),
    row("xresnet1d18", "XResNet1d", "He 2019, CVPR"),
    row("xresnet1d34", "XResNet1d", "He 2019, CVPR"),
    row("xresnet1d18_deep", "XResNet1d", "He 2019, CVPR"),
    row("TCN", "TCN", "Bai 2018, arXiv:1803.01271"),
    row("RNN", "RNN", "Elman 1990, Cogn. Sci."),
    row("LSTM", "RNN", "Hochreiter 1997, Neural Comput."),
    row("GRU", "RNN", "Cho 2014, EMNLP"),
    row("BiLSTM", "RNN", "Schuster 1997, IEEE TSP", own="LSTM", bidirectional=True),
    row("LSTMPlus", "RNNPlus", "Hochreiter 1997, Neural Comput.", fixed=True),
    row("GRUPlus, bidirectional", "RNNPlus", "Cho 2014, EMNLP", own="GRUPlus", fixed=True, bidirectional=True),
    row("RNN_FCN", "RNN_FCN", "Karim 2018, IEEE Access", fixed=True),
    row("LSTM_FCN", "RNN_FCN", "Karim 2018, IEEE Access", fixed=True),
    row("GRU_FCN", "RNN_FCN", "Elsayed 2018, arXiv:1812.07683", fixed=True),
    row("MLSTM_FCN", "RNN_FCN", "Karim 2019, Neural Netw.", fixed=True),
    row("MLSTM_FCNPlus", "RNN_FCNPlus", "Karim 2019, Neural Netw.", fixed=True),
    row("LSTMAttention", "RNNAttention", "Bahdanau 2015, ICLR", fixed=True),
    row("GRUAttentionPlus", "RNNAttentionPlus", "Bahdanau 2015, ICLR", fixed=True),
    row("TST", "TST", "Zerveas 2021, KDD", fixed=True),
    row("TSTPlus", "TSTPlus", "Zerveas 2021, KDD", expected="refused", why=MISSING, fixed=True),
    Network("tsai/PatchTST", _patch_tst, (2, 3, 48), "windows", "Nie 2023, ICLR", package="tsai"),
    row("TSiTPlus", "TSiTPlus", "Dosovitskiy 2021, ICLR", fixed=True),
    row("TSPerceiver", "TSPerceiver", "Jaegle 2021, ICML", fixed=True),
    row("TSSequencerPlus", "TSSequencerPlus", "Tatsunami 2022, NeurIPS", expected="refused", why=ROWS, fixed=True),
    row("ConvTranPlus", "ConvTranPlus", "Foumani 2024, DMKD", fixed=True),
    row("TransformerModel", "TransformerModel", "Vaswani 2017, NeurIPS"),
    row("TransformerLSTMPlus", "TransformerRNNPlus", "Vaswani 2017, NeurIPS", expected="refused", why=ROWS, fixed=True),
    row("gMLP", "gMLP", "Liu 2021, NeurIPS", fixed=True),
    row("MLP", "MLP", "Wang 2017, IJCNN", fixed=True),
    row("mWDN", "mWDN", "Wang 2018, KDD", fixed=True),
    Network("tsai/MiniRocketPlus", _mini_rocket, (2, CHANNELS, FRAMES), "windows", "Dempster 2021, KDD", package="tsai"),
    row("HydraPlus", "HydraPlus", "Dempster 2023, DMKD", fixed=True, zero_init=False),
]
