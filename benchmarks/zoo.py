"""The model zoo: a step against the clip network and against continual-inference, a prediction each.

    python -m benchmarks.zoo [--only cox3d_s] [--threads 1] [--compiled none|small|all] [--no-other] [--markdown docs/models.md]

Compiled steps need a C++ compiler, and minutes for the largest networks. The other library is installed into an environment of its own.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import continual as co
from continual.models.blocks import Shortcut, SqueezeExcite
from continual.models.graph_conv import GraphConv

from . import report
from .measure import Effort
from .other_library import CantRun, OtherLibrary, Remote, install
from .programs import close
from .timing import Candidate, Local, alternate, conditions

ROWS = (
    "cox3d_s", "cox3d_m", "cox3d_l", "coslow", "coi3d", "cost_gcn", "cost_gcn_star", "coa_gcn_star", "cos_tr_star", "cooadtr_b1",
    "cooadtr_b2", "gtzan_b1", "gtzan_b2", "deepcot", "movinet_a0_stream", "kws_ds_cnn",
)  # fmt: skip
OWN = "clip, our kernels"
ENCODERS = ("cooadtr_b1", "cooadtr_b2", "gtzan_b1", "gtzan_b2")  # a clip of theirs is a window, and has its own way
LARGE = ("cox3d_m", "cox3d_l", "coslow", "coi3d")  # minutes to compile
PUBLISHED = {  # ratios on a CPU in the papers
    "cox3d_s": 5.9, "cox3d_m": 9.0, "cox3d_l": 9.2, "coslow": 7.7, "coi3d": 3.4, "cost_gcn": 14.0, "cost_gcn_star": 20.0,
    "coa_gcn_star": 14.5, "cos_tr_star": 25.8,
}  # fmt: skip
LEGEND = """\
Milliseconds for one prediction (at a temporal stride of two or four: of so many steps), batch 1, float32, medians of alternating runs.
*clip*: `forward` of the clip network on the published clip, by torch's convolutions; for the `_star` networks that of the regular
network, as in the papers. *clip, our kernels*: the same by `forward_steps`. *step*: `forward_step`. *compiled*:
`co.compile(net, step, backend="aot")`. *continual-inference*: the step of version 1.2.4, of the same layers with the same weights.
Ratios are taken within each run; *of operations*: multiply-adds that the clip executes, over those of a prediction; *published*: clip /
step on a CPU in the papers."""


@dataclass
class Row:
    """One network: milliseconds per prediction, and the ratio of the clip's time to each."""

    name: str
    threads: int
    operations: float
    times: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def alive(net: Any) -> Any:
    """Random norms: fresh ones make branches dead."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            module.running_var.uniform_(0.3, 1.0)  # type: ignore[union-attr]
    return net


# ---- the same network for the other library ------------------------------------------------------------------------------


class Described:
    """A network as data that the other library's process builds it from, and its weights in that order.

    Raises:
        CantRun: for a module that it has nothing for.
    """

    def __init__(self, net: Any):
        self.weights: dict[str, Tensor] = {}
        self.layers = [self.layer(child) for child in net]

    def spec(self) -> list[dict[str, Any]]:
        """As JSON can hold it."""
        return self.layers

    def layer(self, module: Any) -> dict[str, Any]:
        """One module."""
        if isinstance(module, Shortcut):
            return self._shortcut(module)
        if isinstance(module, co.Sequential) and not isinstance(module, co.TransformerEncoder):
            return _spec("Sequential", *(self.layer(child) for child in module))
        if isinstance(module, co.TransformerEncoder):
            return self._encoder(module)
        self._take(module)
        name = type(module).__name__
        if isinstance(module, nn.modules.conv._ConvNd):
            options = {k: getattr(module, k) for k in ("stride", "padding", "dilation", "groups")} | {
                "bias": module.bias is not None
            }
            return _spec(name, module.in_channels, module.out_channels, module.kernel_size, **options)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return _spec(name, module.num_features)
        if name.startswith(("AvgPool", "MaxPool")):
            return _spec(name, module.kernel_size, stride=module.stride, padding=module.padding)
        if isinstance(module, co.Linear):
            return _spec(name, module.in_features, module.out_features, channel_dim=module.channel_dim)
        if isinstance(module, co.Reshape):
            return _spec(name, *module.shape)
        if isinstance(module, co.Lambda):
            return _spec(name, module.fn.__name__)  # type: ignore[union-attr]
        if isinstance(module, SqueezeExcite):
            return _spec(name, module.fc1.in_channels, module.fc1.out_channels)
        if type(module) is GraphConv:
            return _spec(name, module.in_channels, module.out_channels, module.num_joints)
        if isinstance(module, co.RecyclingPositionalEncoding):
            return _spec(name, module.channels, module.num_embeds)
        if name in ("ReLU", "SiLU", "Dropout"):
            return _spec(name)
        raise CantRun(f"has no {name}")

    def _take(self, module: nn.Module) -> None:
        for value in module.state_dict().values():
            self.weights[str(len(self.weights))] = value

    def _shortcut(self, module: Shortcut) -> dict[str, Any]:
        around, path = module._children
        if isinstance(around, co.Sequential):
            crops = isinstance(around[0], co.Trim)  # in a stream, a delay
            first = _spec(
                "Sequential", *([_spec("Delay", around[0].first)] if crops else []), *map(self.layer, list(around)[crops:])
            )
            sum_ = _spec("BroadcastReduce", first, self.layer(path), auto_delay=not crops)
        else:
            sum_ = _spec("Residual", self.layer(path), residual_shrink=isinstance(around, co.Trim))
        return _spec("Sequential", sum_, _spec("ReLU"))

    def _encoder(self, module: Any) -> dict[str, Any]:
        if module.causal:
            raise CantRun("has no causal encoder")
        layers = list(module[0])
        heads, hidden = layers[0].heads, layers[0].linear1.out_features
        for layer in layers:
            attention = layer.self_attn
            for weight, bias in (
                (attention.in_proj_weight, attention.in_proj_bias),
                (attention.out_proj.weight, attention.out_proj.bias),
            ):
                zeros = torch.zeros(weight.shape[0])  # its layers always have biases
                self.weights |= {f"{len(self.weights)}": weight, f"{len(self.weights) + 1}": zeros if bias is None else bias}
            for part in (layer.norm1, layer.linear1, layer.linear2, layer.norm2):
                self._take(part)
        made = _spec("Encoder", heads.embed_dim, heads.num_heads, hidden, heads.sequence_len, len(layers))
        self._take(module[1])
        return _spec("Sequential", made, _spec("ChannelNorm", heads.embed_dim))


def _spec(name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"name": name, "args": list(args), "kwargs": kwargs}


class Weights(nn.Module):
    """What has a state dict of the given weights."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        self.weights = weights

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self.weights


@dataclass
class Periods:
    """A remote candidate, so many steps at a time."""

    remote: Remote
    steps: int

    @property
    def name(self) -> str:
        return self.remote.name

    def block(self, count: int) -> float:
        """Seconds that ``count`` predictions took."""
        return self.remote.block(count * self.steps)


# ---- measuring ------------------------------------------------------------------------------------------------------------


def measure(name: str, threads: int, effort: Effort, compiled: bool, other: OtherLibrary | None) -> Row:
    """Check and time one network."""
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        net = alive(co.models.create(name))
        whole = alive(co.models.create(net.card.clip_network)) if net.card.clip_network else net
        stride = net.stride[0]
        clip = torch.randn(1, net.step_shape[0], whole.card.frames, *net.step_shape[1:])
        stream = torch.randn(1, net.step_shape[0], net.delay + 2 * stride, *net.step_shape[1:])
        frame = stream[:, :, 0].clone()
        with FlopCounterMode(display=False, custom_mapping=co.counting.flop_formulas()) as counter:
            whole(clip)
        of_step = co.operations(net, frame).mean_executed
        assert of_step is not None
        row = Row(name, threads, counter.get_total_flops() / 2 / float(of_step * stride))
        want = net(stream)[:, :, :2]
        got = [y for y in (net.forward_step(f) for f in stream.unbind(2)) if y is not None]
        close(torch.stack(got[:2], 2), want[:, :, : len(got)], name)

        def steps() -> None:
            for _ in range(stride):
                net.forward_step(frame)

        candidates: list[Candidate] = [Local("clip", lambda: whole(clip)), Local("step", steps)]
        if name not in ENCODERS:
            fresh = copy.deepcopy(whole)
            fresh.clean_state()
            chunk_of_all = clip.clone()
            candidates.append(Local(OWN, lambda: fresh.forward_steps(chunk_of_all, pad_end=True, update_state=False)))
        if compiled:
            program = co.compile(net, frame, backend="aot")
            state, chunk = program.init_state(), torch.randn(1, frame.shape[1], program.chunk, *frame.shape[2:])

            def run() -> None:
                nonlocal state
                _, _, state = program.run(chunk, state)

            candidates.append(Local("compiled", run))
    if other is not None:
        try:
            made = Described(net)
            found = other.build(made, Weights(made.weights), stream)  # type: ignore[arg-type]
            if not torch.allclose(found[:, :, -1], torch.stack(got, 2)[:, :, -1], atol=1e-3, rtol=1e-3):
                row.missing["continual-inference"] = "gives other outputs"
            candidates.append(Periods(other.candidate("continual-inference"), stride))
        except CantRun as error:
            row.missing["continual-inference"] = str(error)
    timings = alternate(candidates, effort.rounds, effort.min_block)
    for candidate in candidates:
        row.times[candidate.name] = 1e3 * timings.stats(candidate.name).median
        row.ratios[candidate.name] = timings.ratio("clip", candidate.name).median
    return row


def table(rows: Sequence[Row]) -> str:
    """The part of a page."""
    names = ["clip", OWN, "step", "compiled", "continual-inference"]
    header = ["network", "threads", *names, "clip / step", "clip / compiled", "of operations", "published"]
    body = []
    for row in rows:
        times = [report.number(row.times[n]) if n in row.times else row.missing.get(n, "–") for n in names]
        if names[-1] in row.missing and names[-1] in row.times:
            times[-1] += f" ({row.missing[names[-1]]})"
        ratios = [report.number(row.ratios[n]) if n in row.ratios else "–" for n in ("step", "compiled")]
        published = report.number(PUBLISHED[row.name]) if row.name in PUBLISHED else "–"
        body.append([row.name, str(row.threads), *times, *ratios, report.number(row.operations), published])
    return "\n\n".join([f"Measured: {report.Machine.here()}.", LEGEND, report.markdown_table(header, body)])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Speed of the networks of the model zoo.")
    line.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="NAME", help=f"networks: {', '.join(ROWS)}")
    line.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="intra-op threads (default: 1)")
    line.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of each comparison (default: 7)")
    line.add_argument(
        "--compiled",
        choices=("none", "small", "all"),
        default="small",
        help="compile steps: of no network, of all but the largest (default), of all (minutes each)",
    )
    line.add_argument("--no-other", action="store_true", help="leave the other library out, and install nothing")
    line.add_argument("--markdown", type=Path, metavar="FILE", help="write the section 'zoo' of a page")
    return line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print the table in Markdown."""
    args = parser().parse_args(argv)
    rows = []
    with ExitStack() as stack:
        other = None
        if not args.no_other:
            try:
                other = stack.enter_context(OtherLibrary(install(lambda text: print(text, file=sys.stderr))))
            except CantRun as error:
                print(f"without the other library: {error}", file=sys.stderr)
        advance = stack.enter_context(report.progress(len(args.only) * len(args.threads)))
        try:
            for threads in args.threads:
                if other is not None:
                    other.conditions(threads)
                for name in args.only:
                    advance(f"{name}, {report.plural(threads, 'thread')}")
                    with conditions(threads):
                        compiled = args.compiled == "all" or (args.compiled == "small" and name not in LARGE)
                        rows.append(measure(name, threads, Effort(args.rounds, 0.02), compiled, other))
        except KeyboardInterrupt:
            print("interrupted: this is what was measured", file=sys.stderr)
    print(table(rows))
    if args.markdown:
        report.write_markdown(args.markdown, "zoo", table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
