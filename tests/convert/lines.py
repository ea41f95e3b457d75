"""Lines that a random program is made of: for each kind of operation a function that adds one to a draft. No tests are in this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.convert.drafts import Draft, Unfit, Value, padding, slices
from tests.pasting import new

LONGEST = 512  # clips that tables of positions are made for
POINTWISE = (
    "F.relu(x)", "torch.tanh(x)", "x.abs()", "1.5 * x - 0.5", "x.clamp(-1, 1)", "x * torch.sigmoid(x)", "F.gelu(x)", "-x",
    "F.leaky_relu(x, 0.2)", "(x.square() + 1).log()", "x / 2 + x ** 2", "torch.where(x > 0.3, x, 0.5 * x)", "torch.sin(x)",
    "x.masked_fill(x < -0.3, 0.1)", "F.dropout(x, 0.5, self.training)", "torch.maximum(x, torch.tanh(x))", "x.float().double()",
    "x.clone().add_(0.3).mul_(2)", "torch.lerp(x, x.abs(), 0.3)", "x.clamp(max=3).exp()", "x.masked_fill(~(x.abs() < 1), 0)",
    "x.new_full((), 0.7) * x", "torch.full_like(x, 0.4) - x", "torch.nan_to_num(x / x.abs().clamp(min=0.1))", "x.reciprocal().clamp(-2, 2)",
    "F.hardtanh(x.contiguous(), -0.7, 2, inplace=True)", "torch.where((x > 0) & (x < 1), x, torch.zeros_like(x))", "F.softplus(x)",
    "x if x.shape[1] else -x", "torch.addcmul(x, x, x, value=0.1)", "x.detach().pow(2).neg()", "(x > 0.3).to(x.dtype) + x",
)  # fmt: skip
ALONG = (
    "x.softmax({a})", "x.log_softmax({a})", "x.flip({a})", "x.roll(1, {a})", "x.cumsum({a})", "x - x.mean({a}, keepdim=True)",
    "x.sort({a}).values", "F.normalize(x, dim={a})", "torch.cat(x.chunk(2, {a})[::-1], {a})", "torch.stack(x.unbind({a}), {a})",
    "x / (1 + x.norm(dim={a}, keepdim=True))", "x.repeat_interleave(2, {a})", "x.narrow({a}, 0, 1).expand_as(x) + x",
    "torch.cat((x, x.amax({a}, keepdim=True)), {a})", "x.index_select({a}, torch.tensor([1, 0]))", "x.topk(2, {a}).values",
    "torch.cat((x, torch.ones_like(x)), {a}).narrow({a}, 1, x.shape[{a}])", "x.split(1, {a})[0] * x", "x.amin({a}, keepdim=True) + x",
    "x * (x.argmax({a}, keepdim=True) + 0.5)", "F.glu(torch.cat((x, x.flip({a})), {a}), {a})", "x.std({a}, correction=0, keepdim=True) + x",
    "torch.logsumexp(x, {a}, keepdim=True) - x", "x.take_along_dim(x.argsort({a}), {a})",
)  # fmt: skip

TIMELY: list[tuple[int, Callable[[Draft], Any]]] = []  # kinds of lines by how often they are drawn


def kind(weight: int) -> Callable[[Callable[[Draft], Any]], Callable[[Draft], Any]]:
    """Register a kind of line."""

    def registered(make: Callable[[Draft], Any]) -> Callable[[Draft], Any]:
        TIMELY.append((weight, make))
        return make

    return registered


# ---- within a frame -----------------------------------------------------------------------------------------------------


@kind(3)
def pointwise(d: Draft) -> Value:
    v = d.pick()
    return d.add(d.choose(*POINTWISE), v.dims, v)


@kind(3)
def along(d: Draft) -> Value:
    """Along channels or space."""
    v = d.pick()
    letter = d.choose(*(letter for letter in v.dims if letter in "CS"))
    return d.add(d.choose(*ALONG).format(a=d.choose(v.at(letter), v.at(letter) - len(v.dims))), v.dims, v)


@kind(4)
def channels(d: Draft) -> Value:
    """Sums over channels with weights: linear layers, products, einsum."""
    v = d.arranged(d.pick(), "BTC", "BCT", "BTCS", "BTSC", "MC", "MSC")
    c, out = v.size("C"), d.number(1, 4)
    weight = torch.randn(out, c, generator=torch.Generator().manual_seed(out)) * c**-0.5
    given = [x for x in d.values if x.dims == "KC" and x.size("C") == c]
    if given and d.chance(2):
        y = given[0]
        letters = v.dims.lower()
        return d.add(f'torch.einsum("{letters},kc->{letters.replace("c", "k")}", x, y)', v.dims, v, y)
    if v.dims.endswith("C"):
        if d.chance(2):
            return d.add("self.linear(x)", v.dims, v, linear=new(nn.Linear, c, out, bias=d.chance(2)))
        return d.add(d.choose("x @ self.weight", "torch.matmul(x, self.weight)"), v.dims, v, weight=weight.t().contiguous())
    if v.dims == "BCT":
        code = d.choose(
            "self.weight @ x",
            "torch.einsum('bct,kc->bkt', x, self.weight)",
            "torch.bmm(self.weight.expand(x.shape[0], -1, -1), x)",
            "F.linear(x.transpose(1, 2), self.weight).mT",
        )
        return d.add(code, "BCT", v, weight=weight)
    return d.add("torch.einsum('btcs,kc->btks', x, self.weight)", "BTCS", v, weight=weight)


@kind(3)
def norm(d: Draft) -> Value:
    """Norms whose statistics are fixed, or of one frame."""
    v = d.arranged(d.pick(), "BCT", "BCTS", "BCST", "BTC", "MCS", "MSC", "MC")
    c = v.size("C")
    if v.dims.endswith("C") and (v.dims != "MC" or d.chance(2)):
        return d.add("self.norm(x)", v.dims, v, norm=new(d.choose(nn.LayerNorm, nn.RMSNorm), c))
    if v.dims == "MCS" and d.chance(2):
        return d.add(
            "self.norm(x)",
            v.dims,
            v,
            norm=d.choose(new(nn.GroupNorm, 1, c), new(nn.InstanceNorm1d, c), new(nn.LayerNorm, [c, v.size("S")])),
        )
    if d.chance(4):
        cls = {2: None, 3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}[len(v.dims)]
        if cls is not None:
            return d.add("self.norm(x)", v.dims, v, norm=new(cls, c, affine=True, track_running_stats=True))
    return d.add("self.norm(x)", v.dims, v, norm=new(nn.BatchNorm2d if len(v.dims) == 4 else nn.BatchNorm1d, c))


@kind(2)
def merged(d: Draft) -> Value:
    """Frames as rows: an operation over space, and perhaps apart again."""
    v = d.arranged(d.pick(lambda v: "S" in v.dims), "MCS")
    c = v.size("C")
    match d.choose("conv", "pool", "softmax", "attention"):
        case "conv":
            v = d.add("self.conv(x)", "MCS", v, conv=new(nn.Conv1d, c, d.number(1, 3), 3, padding=d.choose(1, "same")))
        case "pool":
            v = d.add(d.choose("F.adaptive_avg_pool1d(x, 2)", "F.max_pool1d(x, 2, 1)", "F.avg_pool1d(x, 3, 1, 1)"), "MCS", v)
        case "softmax":
            v = d.add("(x.mT @ x).softmax(-1) @ x.mT", "MSC", v)
        case "attention":
            v = d.add("F.scaled_dot_product_attention(x, x, x)", "MCS", v)
    return d.unmerged(v) if d.chance(2) else v


@kind(1)
def embedding(d: Draft) -> Value:
    """Indices, and rows of a table for them."""
    v = d.arranged(d.pick(), "BTC", "BCT")
    table = new(nn.Embedding, v.size("C"), d.number(1, 3))
    return d.add(f"self.table(x.argmax({v.at('C')}))", "BTC", v, table=table)


@kind(2)
def shapes(d: Draft) -> Value:
    """Shapes and sizes that come to the same."""
    v = d.pick(lambda v: not v.merged)
    t, n = v.at("T"), len(v.dims)
    code = d.choose(
        f"x.unsqueeze({t}).squeeze({t})",
        "x.reshape(x.shape)",
        f"x.unsqueeze(-1).expand({', '.join(['-1'] * n)}, 2).sum(-1)",
        f"torch.stack((x, -x), {t}).amax({t})",
        f"x.unflatten({v.at('C')}, (1, -1)).flatten({v.at('C')}, {v.at('C') + 1})",
        "x.view(*x.shape, 1)[..., 0]",
        f"x.repeat({', '.join('2' if letter == 'C' else '1' for letter in v.dims)})",
        "x.view_as(x) + x.new_zeros(x.shape)",
        f"torch.cat((x, x.new_ones({', '.join('1' if i == v.at('C') else f'x.size({i})' for i in range(n))})), {v.at('C')})",
        "torch.stack([x, x.tanh()])[1]",
    )
    return d.add(code, v.dims, v)


# ---- over time: windows -------------------------------------------------------------------------------------------------


def window(d: Draft, v: Value) -> dict[str, Any]:
    """Kernel, stride, padding and dilation; time is where the layout has it."""
    kernel, dilation, stride = d.number(1, 4), d.choose(1, 1, 2), d.choose(1, 1, 1, 2, 3)
    pad = d.number(0, dilation * (kernel - 1))
    if "S" not in v.dims:
        return {"kernel_size": kernel, "stride": stride, "padding": pad, "dilation": dilation}
    made = {"kernel_size": kernel, "stride": stride, "padding": pad, "dilation": dilation}
    space = d.choose((1, 1, 0, 1), (1, 1, 0, 1), (2, 1, 0, 1), (3, 1, 1, 1), (2, 2, 1, 1))
    return {name: (n, m) if v.dims == "BCTS" else (m, n) for (name, n), m in zip(made.items(), space)}


@kind(6)
def convolution(d: Draft) -> Value:
    v = d.arranged(d.pick(), "BCT", "BCTS", "BCST")
    c, options = v.size("C"), window(d, v)
    out = d.number(1, 4)
    groups = c if d.chance(4) else 1
    if d.chance(6):
        options["padding_mode"] = d.choose("replicate", "reflect")
    elif d.chance(6):
        options |= {"padding": "same", "stride": 1}
    cls = nn.Conv2d if "S" in v.dims else nn.Conv1d
    conv = new(cls, c, out * groups, groups=groups, bias=not d.chance(4), **options)
    if d.chance(8):
        conv = new(nn.utils.parametrizations.weight_norm, conv)
    return d.add("self.conv(x)", v.dims, v, conv=conv)


@kind(3)
def pooling(d: Draft) -> Value:
    v = d.arranged(d.pick(), "BCT", "BCTS", "BCST")
    o = window(d, v)
    space, n = "S" in v.dims, "2d" if "S" in v.dims else "1d"
    pads, kernels = ((n if space else (n,)) for n in (o["padding"], o["kernel_size"]))
    halves = tuple(min(p, k // 2) for p, k in zip(pads, kernels))
    o["padding"] = halves if space else halves[0]
    o["ceil_mode"] = d.chance(4)
    plain = {k: w for k, w in o.items() if k != "dilation"}
    match d.choose("avg", "max", "lp", "adaptive"):
        case "avg":
            pool: nn.Module = new(getattr(nn, f"AvgPool{n}"), count_include_pad=d.chance(2), **plain)
        case "max":
            pool = new(getattr(nn, f"MaxPool{n}"), **(o if o["padding"] in (0, (0, 0)) else plain))
        case "lp":
            pool = new(getattr(nn, f"LPPool{n}"), 2, plain["kernel_size"], plain["stride"], plain["ceil_mode"])
        case _:
            if v.dims != "BCTS":
                raise Unfit("adaptive pooling of time")
            return d.add(d.choose("F.adaptive_avg_pool2d(x, (None, 1))", "F.adaptive_max_pool2d(x, (None, 2))"), v.dims, v)
    return d.add("self.pool(x)", v.dims, v, pool=pool)


@kind(2)
def transposed(d: Draft) -> Value:
    v = d.arranged(d.pick(), "BCT", "BCTS", "BCST")
    rate = d.choose(1, 2, 2, 3)
    kernel = d.number(rate, rate + 2)
    pad, beyond = d.number(0, (kernel - 1) // 2), d.number(0, rate - 1)
    o: dict[str, Any] = {"kernel_size": kernel, "stride": rate, "padding": pad, "output_padding": beyond}
    if "S" in v.dims:
        o = {name: (n, int(name in ("kernel_size", "stride"))) for name, n in o.items()}
        o = o if v.dims == "BCTS" else {name: pair[::-1] for name, pair in o.items()}
    cls = nn.ConvTranspose2d if "S" in v.dims else nn.ConvTranspose1d
    return d.add("self.up(x)", v.dims, v, up=new(cls, v.size("C"), d.number(1, 3), **o))


@kind(2)
def resampling(d: Draft) -> Value:
    """Interpolation, repetition, every other frame."""
    if d.chance(2):
        v = d.pick(lambda v: not v.merged)
        t = v.at("T")
        return d.add(d.choose(slices(v, t, "::2"), slices(v, t, "1::3"), f"x.repeat_interleave(2, {t})"), v.dims, v)
    v = d.arranged(d.pick(), "BCT", "BCTS", "BCST")
    factor = d.choose(2, 2, 3, 0.5)
    if v.dims == "BCT":
        return d.add(f"F.interpolate(x, scale_factor={factor}, mode='{d.choose('nearest', 'linear')}')", v.dims, v)
    pair = (factor, 1) if v.dims == "BCTS" else (1, factor)
    return d.add(f"F.interpolate(x, scale_factor={pair}, mode='{d.choose('nearest', 'bilinear')}')", v.dims, v)


@kind(2)
def unfolding(d: Draft) -> Value:
    v = d.pick(lambda v: not v.merged)
    size, step = d.number(1, 4), d.choose(1, 1, 2)
    after = d.choose(".mean(-1)", ".amax(-1)", ".prod(-1)", "[..., 0]", ".flip(-1)[..., 0]", " @ self.taps")
    taps = torch.linspace(-1, 1, size + 1)[1:]
    return d.add(f"x.unfold({v.at('T')}, {size}, {step}){after}", v.dims, v, **({"taps": taps} if "taps" in after else {}))


@kind(4)
def shifts(d: Draft) -> Value:
    """Padding, cuts, shifts and differences."""
    v = d.pick(lambda v: not v.merged)
    t, a, b = v.at("T"), d.number(0, 3), d.number(0, 3)

    def ends(what: str) -> str:
        return slices(v, t, what)

    match d.choose("pad", "pad", "slice", "slice", "past", "future", "difference", "both", "frames", "mode", "written"):
        case "pad":
            sign = d.choose(1, 1, -1)
            return d.add(f"F.pad(x, {padding(v, t, a, b * sign)}, value={d.choose(0, 0.5)})", v.dims, v)
        case "slice":
            return d.add(ends(f"{a or ''}:{-b if b else ''}"), v.dims, v)
        case "past":
            a = max(1, a)
            return d.add(f"torch.cat((torch.zeros_like({ends(f':{a}')}), {ends(f':-{a}')}), {t})", v.dims, v)
        case "future":
            a = max(1, a)
            return d.add(f"torch.cat(({ends(f'{a}:')}, torch.zeros_like({ends(f':{a}')})), dim={t})", v.dims, v)
        case "difference":
            return d.add(f"{ends('1:')} {d.choose('-', '*', '+')} {ends(':-1')}", v.dims, v)
        case "both":
            c = v.at("C")
            if v.size("C") < 2:
                raise Unfit("one channel")
            one, more = (f"x.narrow({c}, {i}, {n})" for i, n in ((0, 1), (1, v.size("C") - 1)))
            return d.add(f"torch.cat((F.pad({one}, {padding(v, t, 1, -1)}), {more}), {c})", v.dims, v)
        case "frames":
            shape = [v.example.shape[i] if letter in "CS" else 2 if letter == "T" else 1 for i, letter in enumerate(v.dims)]
            frames = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)
            expanded = ", ".join("x.shape[0]" if letter == "B" else "-1" for letter in v.dims)
            order = d.choose("({f}, x)", "(x, {f})", "({f}, x, {f})").format(f=f"self.frames.expand({expanded})")
            return d.add(f"torch.cat({order}, {t})", v.dims, v, frames=frames)
        case "mode":
            v = d.arranged(v, "BCT", "BCTS")
            return d.add(f"F.pad(x, {padding(v, 2, a, b)}, mode='{d.choose('replicate', 'reflect')}')", v.dims, v)
    lines = ["out = torch.zeros_like(x)", f"out{ends('1:')[1:]} = {ends(':-1')}", "return out"]
    if d.chance(2):
        lines = ["out = x.clone()", f"out{ends(':-1')[1:]} += {ends('1:')}", "return out"]
    return d.add("\n".join(lines), v.dims, v)


# ---- over time: all that came before ------------------------------------------------------------------------------------


@kind(2)
def cumulative(d: Draft) -> Value:
    v = d.pick(lambda v: not v.merged)
    t = v.at("T")
    ones = f"torch.ones_like(x).cumsum({t})"
    return d.add(d.choose(f"torch.tanh(x.cumsum({t}))", f"x.cumsum({t}) / {ones}", f"torch.cumsum(x.tanh(), dim={t})"), v.dims, v)


@kind(2)
def recurrent(d: Draft) -> Value:
    v = d.arranged(d.pick(), "BTC", "TBC")
    first, layers = v.dims == "BTC", d.choose(1, 1, 2)
    cls = d.choose(nn.GRU, nn.LSTM, nn.RNN)
    rnn = new(cls, v.size("C"), d.number(1, 4), layers, batch_first=first, bias=not d.chance(5))
    return d.add("self.rnn(x)[0]", v.dims, v, rnn=rnn)


@kind(2)
def attention(d: Draft) -> Value:
    """Attention to the past, or to a band of it."""
    v = d.arranged(d.pick(), "BTC")
    c = v.size("C")
    banded = d.chance(2)
    mask = f"attn_mask=band(x, {d.number(0, 4)})" if banded else "is_causal=True"
    if not banded:
        d.flags.add("one length")
    match d.choose("one", "heads", "projected"):
        case "one":
            return d.add(f"F.scaled_dot_product_attention(x, x, x, {mask})", "BTC", v)
        case "heads" if c % 2 == 0:
            code = f"F.scaled_dot_product_attention(heads(x, 2), heads(x, 2), heads(x, 2), {mask}).transpose(1, 2).flatten(2)"
            return d.add(code, "BTC", v)
    width = d.number(1, 3)
    code = f"F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1), {mask})"
    return d.add(code, "BTC", v, qkv=new(nn.Linear, c, 3 * width))


@kind(2)
def positions(d: Draft) -> Value:
    """What depends on a frame's number."""
    v = d.pick(lambda v: not v.merged)
    t, after = v.at("T"), len(v.dims) - 1 - v.at("T")
    shape = [1] * len(v.dims)
    shape[t], shape[v.at("C")] = LONGEST, v.size("C")
    table: dict[str, Tensor] = {"table": torch.sin(torch.arange(float(LONGEST * v.size("C")))).view(shape)}
    index = f"{', '.join([':'] * t + [f': x.shape[{t}]'])}"
    numbers = f"torch.arange(x.shape[{t}]).view(-1{', 1' * after})"
    code = d.choose(
        f"x + self.table[{index}]",
        f"x + self.table.narrow({t}, 0, x.shape[{t}])",
        f"x * torch.cos(0.3 * {numbers})",
        f"torch.where({numbers} % 3 == 0, x, -x)",
        f"x * ({numbers} > 1)",
    )
    return d.add(code, v.dims, v, **(table if "table" in code else {}))
