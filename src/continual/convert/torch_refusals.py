"""Classes of `torch.nn` without a streaming version: the reason, and what to use instead."""

from __future__ import annotations

from torch import nn

_WHOLE = "pools over the whole clip, which a stream has not seen. Remedy: co.{}(1, kernel_size=steps), a window of so many steps"
_RANDOM = "lays random regions over the length of the whole clip. Remedy: nn.{}"
_INDICES = (
    "takes positions in the clip as a second input, which nn.MaxPool(return_indices=True) gives; in a stream they have no meaning. "
    "Remedy: nn.Upsample or nn.ConvTranspose"
)
_TWO = "takes two inputs. Remedy: run both as streams side by side (co.Parallel, co.Broadcast) and join them with co.Reduce({})"
_HOLDS = "holds {} and computes nothing itself. Remedy: convert the module that uses them, or co.Sequential(*modules)"

REASONS: dict[type[nn.Module], str] = {
    nn.AdaptiveAvgPool1d: _WHOLE.format("AdaptiveAvgPool1d"),
    nn.AdaptiveMaxPool1d: _WHOLE.format("AdaptiveMaxPool1d"),
    nn.FractionalMaxPool2d: _RANDOM.format("MaxPool2d"),
    nn.FractionalMaxPool3d: _RANDOM.format("MaxPool3d"),
    nn.MaxUnpool1d: _INDICES,
    nn.MaxUnpool2d: _INDICES,
    nn.MaxUnpool3d: _INDICES,
    nn.Unfold: (
        "lists its windows over time and space in one dimension, (B, C*k, L). Remedy: co.Unfold(kernel_size), windows over time alone"
    ),
    nn.Fold: (
        "takes windows over time and space in one dimension, (B, C*k, L), and adds them up to a clip of fixed length. Remedy: "
        "nn.ConvTranspose; windows over time alone are made by co.Unfold"
    ),
    nn.EmbeddingBag: (
        "a bag is the sum over a clip of tokens, or over parts that a second input names. Remedy: co.Embedding, then "
        "co.AdaptiveAvgPool1d(1, kernel_size=tokens), a bag that slides"
    ),
    nn.Bilinear: _TWO.format("module") + ", where module takes the list of the two",
    nn.CosineSimilarity: _TWO.format("lambda streams: F.cosine_similarity(*streams, dim=1).unsqueeze(1)"),
    nn.PairwiseDistance: _TWO.format("lambda streams: (streams[0] - streams[1]).norm(dim=1, keepdim=True)"),
    nn.AdaptiveLogSoftmaxWithLoss: (
        "takes targets along with its input. Remedy: convert the network without it, and call it (or its log_prob) on the outputs"
    ),
    nn.modules.loss._Loss: (
        "a loss compares outputs with targets; it is not a layer. Remedy: convert the network without it, and call it on the outputs"
    ),
    nn.ModuleList: _HOLDS.format("modules"),
    nn.ModuleDict: _HOLDS.format("modules"),
    nn.ParameterList: _HOLDS.format("parameters"),
    nn.ParameterDict: _HOLDS.format("parameters"),
}
