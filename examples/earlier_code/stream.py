"""Code for continual-inference 1.2.4, which runs on this library as it is: `python stream.py RESULTS`, once with each of the two.

The first run writes its results to a file, the second compares its own with them.
"""

import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

import continual as co

if len(sys.argv) != 2:
    sys.exit("usage: python stream.py RESULTS (a file: the first run writes it, the second compares with it)")


def norm_relu(module):
    return co.Sequential(module, nn.BatchNorm3d(module.out_channels), nn.ReLU())


def inception(channels):
    return co.BroadcastReduce(
        co.Conv3d(channels, 4, kernel_size=1),
        co.Sequential(norm_relu(co.Conv3d(channels, 3, 1)), norm_relu(co.Conv3d(3, 4, kernel_size=3, padding=1))),
        co.Sequential(norm_relu(co.Conv3d(channels, 2, 1)), norm_relu(co.Conv3d(2, 4, kernel_size=5, padding=2))),
        co.Sequential(co.MaxPool3d((1, 3, 3), padding=(0, 1, 1), stride=1), norm_relu(co.Conv3d(channels, 4, 1))),
        reduce="concat",
    )


def bottleneck(channels, inner):
    expand, depthwise = co.Conv3d(channels, inner, kernel_size=1), co.Conv3d(inner, inner, 3, padding=1, groups=inner)
    return co.Residual(co.Sequential(norm_relu(expand), norm_relu(depthwise), co.Conv3d(inner, channels, kernel_size=1)))


net = co.Sequential(OrderedDict(
    stem=nn.Conv3d(3, 8, kernel_size=(3, 3, 3), stride=(1, 2, 2), padding=(1, 1, 1)),
    scale=co.Multiply(torch.tensor([0.5, -1.5]).repeat(4).view(1, 8, 1, 1, 1)),
    blocks=co.Sequential(inception(8), bottleneck(16, 24), co.Lambda(lambda x: x.mean((-2, -1)))),
    smooth=co.AvgPool1d(4, stride=1),
    memory=co.GRU(16, 12),
    mix=co.Sequential(
        co.Broadcast(2), co.Parallel(co.Delay(1), co.Conv1d(12, 12, 3, padding=1)), co.ParallelDispatch([1, 0]), co.Reduce("max")
    ),
    head=co.Linear(12, 5, channel_dim=1),
))  # fmt: skip
net.eval()
with torch.no_grad():
    for i, weight in enumerate([*net.parameters(), *(b for name, b in net.named_buffers() if "running" in name)]):
        numbers = torch.sin(torch.arange(weight.numel()) * 1.7 + i).view_as(weight)  # the same for both, whatever the names are
        weight.copy_(numbers.abs() + 0.5 if weight.ndim == 1 else numbers / (weight[0].numel() ** 0.5))
    clip = torch.sin(torch.arange(2 * 3 * 24 * 64) * 0.37).view(2, 3, 24, 8, 8)
    results = {"timing": torch.tensor([net.receptive_field, net.delay, net.stride[0], net.padding[0]]), "clip": net(clip)}
    results["chunk"] = net.forward_steps(clip[:, :, :16])
    results["a look ahead"] = net.forward_step(clip[:, :, 16], update_state=False)
    results["steps"] = torch.stack([net.forward_step(x) for x in clip[:, :, 16:].unbind(2)], 2)
    net.clean_state()
    with co.call_mode("forward_step"):
        results["first output"] = torch.tensor([net(x) is None for x in clip.unbind(2)].index(False))

path = Path(sys.argv[1])
if path.exists():
    before = torch.load(path)
    print({name: float((found.double() - before[name].double()).abs().max()) for name, found in results.items()})
else:
    torch.save(results, path)
