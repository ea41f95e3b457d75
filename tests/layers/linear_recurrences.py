"""Linear recurrent layers as their papers write them: loops over time in plain operations. No tests are in this file.

Each function takes a layer of this library for its parameters, and a clip ``(B, C, T)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolved(conv: Any, x: Tensor) -> Tensor:
    """A causal depthwise convolution of ``(B, T, C)``, term by term."""
    weight, taps, frames = conv.weight[:, 0], conv.weight.shape[-1], x.shape[1]
    y = torch.zeros_like(x) if conv.bias is None else conv.bias.expand_as(x).clone()
    for t in range(frames):
        for i in range(taps):
            if t - (taps - 1 - i) >= 0:
                y[:, t] += weight[:, i] * x[:, t - (taps - 1 - i)]
    return y


def normed(x: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def min_gru(net: Any, clip: Tensor) -> Tensor:
    h, outs = clip.new_zeros(len(clip), net.hidden_size), []
    for x in clip.unbind(2):
        z = torch.sigmoid(net.linear_z(x))
        h = (1 - z) * h + z * net.linear_h(x)
        outs.append(h)
    return torch.stack(outs, 2)


def rg_lru(net: Any, clip: Tensor) -> Tensor:
    h, outs = torch.zeros_like(clip[:, :, 0]), []
    for t, x in enumerate(clip.unbind(2)):
        gates = []
        for gate in ("recurrent", "input"):
            weight, bias = getattr(net, f"{gate}_gate_weight"), getattr(net, f"{gate}_gate_bias")
            parts = [p @ w + b for p, w, b in zip(x.chunk(net.num_blocks, 1), weight, bias, strict=True)]
            gates.append(torch.sigmoid(torch.cat(parts, 1)))
        a = torch.sigmoid(-net.recurrent_param) ** (8 * gates[0])
        h = a * h + gates[1] * x * (torch.sqrt(1 - a**2) if t else 1)
        outs.append(h)
    return torch.stack(outs, 2)


def mamba(net: Any, clip: Tensor) -> Tensor:
    x, z = net.in_proj(clip.transpose(1, 2)).chunk(2, -1)
    x = F.silu(convolved(net.conv1d, x))
    step, b, c = net.x_proj(x).split((net.rank, net.state_size, net.state_size), -1)
    if net.norm_eps is not None:
        step, b, c = (normed(t, net.norm_eps) for t in (step, b, c))
    step, a = F.softplus(net.dt_proj(step)), -net.A_log.exp()
    h, outs = [torch.zeros_like(x[:, 0]) for _ in range(net.state_size)], []
    for t in range(x.shape[1]):
        y = net.D * x[:, t]
        for n in range(net.state_size):
            h[n] = torch.exp(step[:, t] * a[:, n]) * h[n] + step[:, t] * b[:, t, n, None] * x[:, t]
            y = y + c[:, t, n, None] * h[n]
        outs.append(y)
    return net.out_proj(torch.stack(outs, 1) * F.silu(z)).transpose(1, 2)


def mamba2(net: Any, clip: Tensor) -> Tensor:
    inner, outer, heads = net.sizes[0], net.sizes[1], net.heads
    z, x, step = net.in_proj(clip.transpose(1, 2)).split((inner, inner + 2 * outer, heads), -1)
    x, b, c = F.silu(convolved(net.conv1d, x)).split((inner, outer, outer), -1)
    step = F.softplus(step + net.dt_bias).clamp(*net.limit)
    outs = []
    h = [x.new_zeros(len(x), net.state_size, net.head_dim) for _ in range(heads)]
    for t in range(x.shape[1]):
        found = []
        for i in range(heads):
            values = x[:, t].chunk(heads, 1)[i]
            k, q = (w[:, t].chunk(net.groups, 1)[i * net.groups // heads] for w in (b, c))
            a = torch.exp(-step[:, t, i] * net.A_log[i].exp()).view(-1, 1, 1)
            h[i] = a * h[i] + torch.einsum("bn,bp->bnp", k, step[:, t, i, None] * values)
            found.append(torch.einsum("bn,bnp->bp", q, h[i]) + net.D[i] * values)
        outs.append(torch.cat(found, 1))
    y = (torch.stack(outs, 1) * F.silu(z)).chunk(net.groups, -1)
    y = torch.cat([normed(part, net.norm.eps) for part in y], -1) * net.norm.weight
    return net.out_proj(y).transpose(1, 2)


def gla(net: Any, clip: Tensor) -> Tensor:
    outs, heads = [], net.heads
    memory = [clip.new_zeros(len(clip), net.key_dim, net.value_dim) for _ in range(heads)]
    for x in clip.unbind(2):
        q, k, v = (m(x).chunk(heads, 1) for m in (net.q_proj, net.k_proj, net.v_proj))
        gates = (torch.sigmoid(net.gk_proj(x)) ** (1 / net.slowness)).chunk(heads, 1)
        found = []
        for i in range(heads):
            memory[i] = gates[i].unsqueeze(2) * memory[i] + k[i].unsqueeze(2) * v[i].unsqueeze(1)
            read = torch.einsum("bk,bkv->bv", q[i], memory[i]) / math.sqrt(net.key_dim)
            found.append(normed(read, net.g_norm.eps) * net.g_norm.weight)
        outs.append(net.o_proj(torch.cat(found, 1) * F.silu(net.g_proj(x))))
    return torch.stack(outs, 2)


def delta_net(net: Any, clip: Tensor) -> Tensor:
    x, heads, outs = clip.transpose(1, 2), net.heads, []
    q, k, v = (
        F.silu(convolved(conv, m(x)))
        for m, conv in ((net.q_proj, net.q_conv1d), (net.k_proj, net.k_conv1d), (net.v_proj, net.v_conv1d))
    )
    beta = torch.sigmoid(net.b_proj(x))
    memory = [x.new_zeros(len(x), net.keys // heads, net.values // heads) for _ in range(heads)]
    for t in range(x.shape[1]):
        found = []
        for i in range(heads):
            query, key, value = (w[:, t].chunk(heads, 1)[i] for w in (q, k, v))
            query, key = (w / w.norm(dim=1, keepdim=True) for w in (query, key))
            eye = torch.eye(key.shape[1], dtype=x.dtype)
            write = beta[:, t, i].view(-1, 1, 1)
            memory[i] = (eye - write * key.unsqueeze(2) * key.unsqueeze(1)) @ memory[i] + write * key.unsqueeze(
                2
            ) * value.unsqueeze(1)
            read = torch.einsum("bk,bkv->bv", query, memory[i]) / math.sqrt(key.shape[1])
            found.append(normed(read, net.o_norm.eps) * net.o_norm.weight)
        outs.append(net.o_proj(torch.cat(found, 1)))
    return torch.stack(outs, 2)


def rwkv(net: Any, clip: Tensor) -> Tensor:
    outs, before = [], torch.zeros_like(clip[:, :, 0])
    past: list[tuple[Tensor, Tensor]] = []
    rate, first = net.time_decay.exp(), net.time_first
    for t, x in enumerate(clip.unbind(2)):
        mixed = [
            m(mix.view(-1) * x + (1 - mix.view(-1)) * before)
            for m, mix in (
                (net.key, net.time_mix_key),
                (net.value, net.time_mix_value),
                (net.receptance, net.time_mix_receptance),
            )
        ]
        terms = [(k - (t - 1 - s) * rate, v) for s, (k, v) in enumerate(past)] + [(mixed[0] + first, mixed[1])]
        weights = torch.softmax(torch.stack([e for e, _ in terms]), 0)
        outs.append(net.output(torch.sigmoid(mixed[2]) * (weights * torch.stack([v for _, v in terms])).sum(0)))
        past.append((mixed[0], mixed[1]))
        before = x
    return torch.stack(outs, 2)


def s4d(net: Any, clip: Tensor) -> Tensor:
    a = torch.complex(-net.log_A_real.exp(), net.A_imag)
    grown = torch.exp(net.log_dt.exp().unsqueeze(1) * a)
    c = torch.view_as_complex(net.C) * (grown - 1) / a
    h, outs = torch.zeros(len(clip), *a.shape, dtype=a.dtype), []
    for x in clip.unbind(2):
        h = grown * h + x.unsqueeze(2)
        outs.append(2 * (c * h).sum(2).real + net.D * x)
    return torch.stack(outs, 2)


FORMULAS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "minGRU": min_gru,
    "RGLRU": rg_lru,
    "Mamba": mamba,
    "Mamba2": mamba2,
    "GatedLinearAttention": gla,
    "DeltaNet": delta_net,
    "RWKV": rwkv,
    "S4D": s4d,
}


@torch.no_grad()
def as_trained(net: Any) -> Any:
    """Weights, biases and norms as training leaves them."""
    for p in net.parameters():
        p.add_(torch.randn_like(p) * 0.2)
    return net.eval()
