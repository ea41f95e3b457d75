"""Lines in which branches meet, heads for whole clips, and faults: what can't be streamed. No tests are in this file."""

from __future__ import annotations

import torch
from torch import nn

from tests.convert.drafts import Draft, Unfit, Value, slices
from tests.convert.lines import kind
from tests.pasting import new

JOINTS = ("x + y", "x + y", "x * y", "torch.maximum(x, y)", "x - 0.5 * y", "torch.where(y > 0.3, x, y)", "x * torch.sigmoid(y)",
          "torch.add(x, y, alpha=2)", "torch.stack((x, y)).mean(0)", "torch.atan2(x, y.abs() + 1)", "x.clone().mul_(y)")  # fmt: skip


def meets(v: Value, w: Value) -> int | None:
    """By how many frames the second is longer, on clips of all lengths that both take; ``None`` if it is not the same for all."""
    pairs = [(a, b) for a, b in zip(v.lengths, w.lengths) if a is not None and b is not None]
    over = {b - a for a, b in pairs}
    if len(over) == 1 and len(pairs) > 2:
        return over.pop()
    equal = [a == b for a, b in zip(v.lengths, w.lengths)]
    return 0 if equal[0] and equal[-1] else None  # down and up again: equal for multiples of a rate


@kind(9)
def joint(d: Draft) -> Value:
    """Two values that need not have come at the same time."""
    v = d.pick(lambda v: not v.merged)
    others = [w for w in d.values if w is not v and w.number != v.number and "T" in w.dims and w.example.is_floating_point()]
    others = [w for w in others if ("S" in w.dims) == ("S" in v.dims) and meets(v, w) is not None]
    if not others:
        raise Unfit("nothing to join it with")
    w = others[d.number(0, len(others) - 1)]
    over = meets(v, w)
    assert over is not None
    if abs(over) > 8:
        raise Unfit("the branches differ by too much")
    if over:
        a = d.number(0, abs(over))
        longer = v if over < 0 else w
        cut = d.add(slices(longer, longer.at("T"), f"{a}:{-(abs(over) - a) or ''}"), longer.dims, longer)
        v, w = (cut, w) if over < 0 else (v, cut)
    w = d.permuted(w, v.dims)
    same = v.example.shape == w.example.shape
    single = [i for i, letter in enumerate(v.dims) if letter in "CS" and 1 in (v.example.shape[i], w.example.shape[i])]
    rest = all(m == n or i in single for i, (m, n) in enumerate(zip(v.example.shape, w.example.shape)))
    if d.chance(3) or not (same or rest):
        c = v.at("C")
        return d.add(d.choose(f"torch.cat((x, y), {c})", f"torch.cat([y, x, y], dim={c - len(v.dims)})"), v.dims, v, w)
    if "S" not in v.dims and d.chance(6):
        dims = d.choose("BTC", "BCT")
        v, w = d.permuted(v, dims), d.permuted(w, dims)
        products = ("torch.einsum('btc,btk->bt', x, y).unsqueeze(2)", "(x.unsqueeze(2) @ y.unsqueeze(3)).squeeze(3)")
        if dims == "BTC" and same:
            return d.add(d.choose(*products), "BTC", v, w)
    codes = JOINTS if same else ("x + y", "x * y", "torch.maximum(x, y)")
    return d.add(d.choose(*codes), v.dims, v, w)


@kind(3)
def residual(d: Draft) -> Value:
    """A branch that is as long as its input, whatever it is delayed by."""
    v = d.arranged(d.pick(), "BCT")
    c, k = v.size("C"), d.number(1, 4)
    match d.choose("same", "causal", "ahead", "cut", "rnn", "unet"):
        case "same":
            w = d.add("self.conv(x)", "BCT", v, conv=new(nn.Conv1d, c, c, 2 * k + 1, padding=k))
        case "causal":
            w = d.add(f"self.conv(F.pad(x, ({k}, 0)))", "BCT", v, conv=new(nn.Conv1d, c, c, k + 1))
        case "ahead":
            w = d.add(f"F.relu(self.conv(F.pad(x, (0, {k}))))", "BCT", v, conv=new(nn.Conv1d, c, c, k + 1))
        case "cut":
            w = d.add(f"self.conv(x)[:, :, :-{k}]", "BCT", v, conv=new(nn.Conv1d, c, c, k + 1, padding=k))
        case "rnn":
            w = d.add("self.rnn(x.mT)[0].mT", "BCT", v, rnn=new(nn.GRU, c, c, batch_first=True))
        case _:
            w = _unet(d, v)
    if w.example.shape[:2] != v.example.shape[:2] or meets(v, w) != 0:
        raise Unfit("the branch has another length")
    return d.add(d.choose("x + y", "torch.cat((x, y), 1)", "F.relu(x) * torch.sigmoid(y)"), "BCT", v, w)


def _unet(d: Draft, v: Value) -> Value:
    """Down by a rate, something, and up again."""
    c, rate = v.size("C"), d.choose(2, 2, 3)
    match d.choose("conv", "pool", "slice"):
        case "conv":
            w = d.add("self.down(x)", "BCT", v, down=new(nn.Conv1d, c, c, rate, stride=rate))
        case "pool":
            w = d.add(f"F.{d.choose('avg', 'max')}_pool1d(x, {rate})", "BCT", v)
        case _:
            w = d.add(f"x[:, :, ::{rate}]", "BCT", v)
    if d.chance(2):
        w = d.add("self.inner(x)", "BCT", w, inner=new(nn.Conv1d, c, c, 3, padding=1))
    match d.choose("conv", "interpolate", "repeat"):
        case "conv":
            return d.add("self.up(x)", "BCT", w, up=new(nn.ConvTranspose1d, c, c, rate, stride=rate))
        case "interpolate":
            return d.add(f"F.interpolate(x, scale_factor={rate}, mode='{d.choose('nearest', 'linear')}')", "BCT", w)
    return d.add(f"x.repeat_interleave({rate}, dim=2)", "BCT", w)


# ---- whole clips --------------------------------------------------------------------------------------------------------


def head(d: Draft) -> Value:
    """An output of the whole clip: it becomes that of a sliding window."""
    d.flags.add("one length")
    v = d.pick()
    match d.choose("reduce", "reduce", "last", "flat", "adaptive", "merged"):
        case "reduce":
            v = d.unmerged(v) if v.merged else v
            t = v.at("T")
            y = d.add(d.choose(f"x.mean({t})", f"x.amax({t})", f"x.sum({t})", f"x.max({t}).values"), v.dims.replace("T", ""), v)
        case "last":
            v = d.unmerged(v) if v.merged else v
            y = d.add(f"x.select({v.at('T')}, {d.choose(-1, -1, 0, 1)})", v.dims.replace("T", ""), v)
        case "flat":
            v = d.arranged(v, "BCT", "BTC")
            y = d.add("self.head(x.flatten(1))", "BC", v, head=new(nn.Linear, v.example[0].numel(), d.number(1, 4)))
        case "adaptive":
            v = d.arranged(v, "BCT", "BCTS")
            y = d.add(f"F.adaptive_avg_pool{len(v.dims) - 2}d(x, 1).flatten(1)", "BC", v)
        case _:  # the length is in the code
            v = d.arranged(v, "MC")
            rows = v.example.shape[0] // d.values[0].example.shape[0]
            y = d.add(f"x.view(-1, {rows}, {v.size('C')}).{d.choose('mean(1)', 'amax(1)', 'sum(1)')}", "BC", v)
    if not y.dims.startswith("B"):
        y = d.permuted(y, "B" + y.dims.replace("B", ""))
    if y.dims == "BC" and d.chance(2):
        y = d.add(d.choose("self.head(x)", "self.head(F.relu(x)).softmax(-1)"), "BC", y, head=new(nn.Linear, y.size("C"), 3))
    return y


# ---- faults -------------------------------------------------------------------------------------------------------------

ANYWHERE = (
    "x.flip({t})", "x.softmax({t}) * 9", "x.roll(1, {t})", "x.sort({t}).values", "x - x.mean({t}, keepdim=True)",
    "x * x.amax({t}, keepdim=True)", "torch.cat((x, x), {t})", "x.cumsum({t}).flip({t})", "F.normalize(x, dim={t})",
    "x - x.mean({b}, keepdim=True)", "x + x.flip({b})", "x + x.roll(1, {b})", "x - x.sum({t}, keepdim=True)", "x.log_softmax({t})",
    "torch.cat((x, x.flip({t})), {c})", "x.argsort({t}) * 0.1", "x / x.std({t}, keepdim=True)", "torch.logsumexp(x, {t}, True) + x",
)  # fmt: skip
BEFORE_TIME = (
    "F.group_norm(x, 1)", "F.instance_norm(x)", "F.layer_norm(x, x.shape[2:])", "F.pad(x, {pad}, mode='circular')",
    "x.reshape(x.shape[0], -1, x.shape[1], *x.shape[3:]).transpose(1, 2)",
)  # fmt: skip
TOKENS = ("F.scaled_dot_product_attention(x, x, x)", "(x @ x.mT).tanh() @ x", "torch.einsum('btc,bsc->bts', x, x) @ x",
          "self.rnn(x.abs())[0]", "self.attention(x, x, x)[0]")  # fmt: skip


def fault(d: Draft) -> Value:
    """What can't be streamed. Values of the rows, of the clip's end or of its length get into its beginning."""
    v = d.pick(lambda v: not v.merged)
    match d.choose("anywhere", "anywhere", "anywhere", "channels", "tokens", "length"):
        case "anywhere":
            code = d.choose(*ANYWHERE).format(t=v.at("T"), b=v.at("B"), c=v.at("C"))
            return d.add(code, v.dims, v)
        case "channels":
            v = d.arranged(v, "BCT", "BCTS")
            pad = (2, 1) if v.dims == "BCT" else (0, 0, 2, 1)
            return d.add(d.choose(*BEFORE_TIME).format(pad=pad), v.dims, v)
        case "tokens":
            v = d.arranged(v, "BTC")
            code, c = d.choose(*TOKENS), v.size("C")
            if "self.attention" in code:
                return d.add(code, "BTC", v, attention=new(nn.MultiheadAttention, c, 1, batch_first=True))
            if "self.rnn" not in code:
                return d.add(code, "BTC", v)
            rnn = new(nn.RNN, c, c, nonlinearity="relu", batch_first=True, bidirectional=True)
            y = d.add(code, "BTC", v, rnn=rnn)
            with torch.no_grad():  # what comes from the end shall not fade
                for name, weight in rnn.named_parameters():
                    weight.copy_(torch.eye(c) if "_hh" in name and weight.ndim > 1 else weight.abs() * 0.02)
            return y
    if "one length" in d.flags:
        raise Unfit("its length is fixed already")
    d.flags |= {"one length", "fixed"}
    factor = torch.linspace(-1, 2, v.size("T"))[(..., *(None,) * (len(v.dims) - 1 - v.at("T")))]
    return d.add(d.choose("x * self.factor", "x + self.factor"), v.dims, v, factor=factor)
