"""What users write, for ``mypy --strict``: tests/test_typing.py compares each revealed type with the comment on its line.

Nothing here runs. A line with ``type: ignore`` is wrong on purpose; ``--strict`` reports an ignored error that is none.
"""

from __future__ import annotations

from typing import reveal_type

from torch import Tensor, nn

import continual as co


def streams(net: co.CoModule, clip: Tensor, step: Tensor) -> None:
    reveal_type(net(clip))  # -> Tensor
    reveal_type(net.forward(clip))  # -> Tensor
    reveal_type(net.forward_step(step))  # -> Tensor | None
    reveal_type(net.forward_step(step, update_state=False))  # -> Tensor | None
    reveal_type(net.forward_steps(clip))  # -> Tensor | None
    reveal_type(net.forward_steps(clip, pad_end=True, update_state=False))  # -> Tensor | None
    reveal_type(net.init_state(step))  # -> State
    reveal_type(net.step(step, net.init_state(step)))  # -> tuple[Tensor | None, State]
    reveal_type(net.steps(clip, net.init_state(step), pad_end=True))  # -> tuple[Tensor | None, State]
    reveal_type(net.get_state())  # -> State | None
    reveal_type(net.set_state(net.get_state()))  # -> None
    reveal_type(net.new_stream())  # -> CoModule


def several_streams(net: co.CoModule, a: Tensor, b: Tensor) -> None:
    reveal_type(net([a, b]))  # -> Wire
    reveal_type(net(a, b))  # -> Tensor
    reveal_type(net.forward_step([a, b]))  # -> Wire | None
    reveal_type(net.forward_step([[a, b], a]))  # -> Wire | None
    reveal_type(net.forward_step(a, b, update_state=False))  # -> Tensor | None
    reveal_type(net.forward_steps((a, b), pad_end=True))  # -> Wire | None
    reveal_type(net.forward_steps(a, b, pad_end=True))  # -> Tensor | None
    reveal_type(net.step([a, b], net.init_state([a, b])))  # -> tuple[Wire | None, State]
    reveal_type(net.steps([a, b], net.init_state([a, b])))  # -> tuple[Wire | None, State]


def what_a_network_reports(net: co.CoModule) -> None:
    reveal_type(net.receptive_field)  # -> int
    reveal_type(net.delay)  # -> int
    reveal_type(net.step_size)  # -> int
    reveal_type(net.stride)  # -> tuple[int | Fraction, ...]
    reveal_type(net.padding)  # -> tuple[int | Fraction, ...]
    reveal_type(net.timing)  # -> Timing
    reveal_type(net.timing.bursts)  # -> bool
    reveal_type(net.unbounded_memory)  # -> bool
    reveal_type(net.call_mode)  # -> str
    reveal_type(co.CoModule.is_valid(net))  # -> bool


def as_any_module(net: co.CoModule, conv: co.Conv1d) -> None:
    reveal_type(net.eval())  # -> CoModule
    reveal_type(net.train())  # -> CoModule
    reveal_type(net.double())  # -> CoModule
    reveal_type(conv.train())  # -> Conv1d
    reveal_type(conv.to("cpu"))  # -> Conv1d
    reveal_type(conv.new_stream())  # -> Conv1d
    reveal_type(conv.weight)  # -> Tensor
    reveal_type(conv.stride)  # -> tuple[int, ...]
    reveal_type(conv.padding)  # -> tuple[int, ...]
    reveal_type(net.state_dict())  # -> dict[str, Any]


def states(state: co.State) -> None:
    reveal_type(state.clock)  # -> int
    reveal_type(state.tensors)  # -> dict[str, Tensor]
    reveal_type(state.nbytes)  # -> int
    reveal_type(state.signature)  # -> str
    reveal_type(state[0])  # -> Tensor
    reveal_type(state.clone())  # -> State
    reveal_type(co.save_state(state, "state.safetensors"))  # -> None
    reveal_type(co.load_state("state.safetensors"))  # -> State | StreamSnapshot | RunnerState | StreamState


def layers(clip: Tensor, step: Tensor) -> None:
    reveal_type(co.Conv2d(2, 4, (3, 1))(clip))  # -> Tensor
    reveal_type(co.Conv1d.build_from(nn.Conv1d(2, 4, 3)))  # -> Conv1d
    reveal_type(co.AvgPool1d.build_from(nn.AvgPool1d(2)))  # -> AvgPool1d
    reveal_type(co.CoModule.build_from(nn.ReLU()))  # -> CoModule
    reveal_type(co.GRU(4, 8)(clip))  # -> tuple[Tensor, Tensor]
    reveal_type(co.GRU(4, 8).forward(clip))  # -> tuple[Tensor, Tensor]
    reveal_type(co.GRU(4, 8).forward_step(step))  # -> Tensor | None
    reveal_type(co.LSTM(4, 8)(clip))  # -> tuple[Tensor, tuple[Tensor, Tensor]]
    reveal_type(co.LSTM(4, 8).forward(clip))  # -> tuple[Tensor, tuple[Tensor, Tensor]]
    reveal_type(co.LSTM(4, 8).forward_steps(clip, pad_end=True))  # -> Tensor | None
    reveal_type(co.LSTMCell(4, 8)(clip))  # -> Tensor
    reveal_type(co.Mamba(4, state_size=8)(clip))  # -> Tensor
    reveal_type(co.RWKV(4).forward_steps(clip))  # -> Tensor | None
    reveal_type(co.MultiheadAttention(4, 2, sequence_len=4)(clip))  # -> Tensor
    reveal_type(co.MultiheadAttention(4, 2, sequence_len=4)(clip, clip, clip))  # -> Tensor
    reveal_type(co.MultiheadAttention(4, 2, sequence_len=4).forward_step(step))  # -> Tensor | None
    reveal_type(co.MultiheadAttention(4, 2, sequence_len=4).forward_steps(clip, clip, clip))  # -> Tensor | None


class TheirLeaky(nn.Module):
    decay: float


class Leaky(co.Recurrence):
    def __init__(self, decay: float):
        super().__init__()
        self.decay = decay

    @staticmethod
    def build_from(module: TheirLeaky) -> Leaky:
        return Leaky(module.decay)

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        return {"h": x}

    def recur(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.decay * state["h"] + x
        return h, {"h": h}

    def recur_chunk(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return x, state

    def macs(self, x: Tensor) -> int:
        return x[0].numel()


class Median(co.SlidingWindow):
    def __init__(self, size: int):
        super().__init__()
        self.set_window(size)

    def over_time(self, frames: Tensor, start: int, ended: int | None) -> Tensor:
        return frames.unfold(2, self.receptive_field, 1).median(-1).values


class Halved(co.CoModule):
    def forward(self, input: Tensor) -> Tensor:
        return input / 2


def layers_of_their_own(clip: Tensor, step: Tensor) -> None:
    reveal_type(Leaky(0.5)(clip))  # -> Tensor
    reveal_type(Leaky(0.5).forward_step(step))  # -> Tensor | None
    reveal_type(Leaky.build_from(TheirLeaky()))  # -> Leaky
    reveal_type(Median(3).forward_steps(clip))  # -> Tensor | None
    reveal_type(Median(3).new_stream())  # -> Median
    reveal_type(Halved().eval()(clip))  # -> Tensor
    reveal_type(co.convert.register(TheirLeaky, Leaky))  # -> None


def containers(net: co.Sequential, clip: Tensor) -> None:
    reveal_type(net(clip))  # -> Tensor
    reveal_type(net.forward(clip))  # -> Tensor
    reveal_type(net[0])  # -> CoModule
    reveal_type(net[:2])  # -> Sequential
    reveal_type(net + net)  # -> Sequential
    reveal_type(net.append(nn.ReLU()))  # -> Sequential
    reveal_type([child for child in net])  # -> list[CoModule]
    reveal_type(co.Sequential.build_from(nn.Sequential()))  # -> Sequential
    reveal_type(co.Residual(net)(clip))  # -> Tensor
    reveal_type(co.BroadcastReduce(net, net).forward(clip))  # -> Tensor
    reveal_type(co.Parallel(net, net)([clip, clip]))  # -> Wire


def conversion(module: nn.Module, clip: Tensor, conv: co.Conv1d) -> None:
    reveal_type(co.continual(module))  # -> CoModule
    reveal_type(co.continual(module, clip, time_pooling="window", copy=True))  # -> CoModule
    reveal_type(co.continual(module, (clip, clip), time_dim=(2, None)))  # -> CoModule
    reveal_type(co.continual(module, sequence_len=8, causal=True))  # -> CoModule
    reveal_type(co.forward_stepping(module))  # -> CoModule
    reveal_type(co.calibrate(module, [clip]))  # -> Module
    reveal_type(co.fuse(conv))  # -> Conv1d
    reveal_type(co.convert.register(nn.ReLU, co.CoModule))  # -> None
    reveal_type(co.state_dict(module, flatten=True))  # -> dict[str, Any]
    with co.flat_state_dict, co.call_mode("forward_steps"):
        pass


def tools(net: co.CoModule, module: nn.Module, clip: Tensor, step: Tensor) -> None:
    reveal_type(co.verify(net, clip, reference=module, effort="quick"))  # -> Report
    reveal_type(co.verify(net, clip).passed)  # -> bool
    reveal_type(co.explain(module, clip, time_dim=1))  # -> Explanation
    reveal_type(co.explain(net).html())  # -> str
    reveal_type(co.summary(net, step, rate=30.0))  # -> Summary
    reveal_type(co.operations(net, step))  # -> Operations
    reveal_type(co.operations(net, step).mean.macs)  # -> Fraction


def programs(net: co.CoModule, clip: Tensor, step: Tensor) -> None:
    program = co.compile(net, step, chunk=4, backend="eager")
    reveal_type(program)  # -> StepProgram
    reveal_type(program.init_state())  # -> dict[str, Tensor]
    reveal_type(program(clip, program.init_state()))  # -> tuple[Tensor, Tensor, dict[str, Tensor]]
    reveal_type(program.step(step))  # -> Tensor | None
    reveal_type(program.step(step, step))  # -> Tensor | None
    reveal_type(program.step([step, step]))  # -> Wire | None
    reveal_type(program.flush())  # -> Tensor | None


def batches(net: co.CoModule, step: Tensor) -> None:
    streams = co.StreamBatch(net, step, capacity=8, grow=True)
    reveal_type(streams)  # -> StreamBatch
    reveal_type(streams.open())  # -> int
    reveal_type(streams.open("camera"))  # -> str
    reveal_type(streams.step({"camera": step}))  # -> dict[str, Tensor | None]
    reveal_type(streams.step({1: [step, step]}))  # -> dict[int, Wire | None]
    reveal_type(streams.flush("camera"))  # -> Tensor | None
    reveal_type(streams.snapshot("camera"))  # -> StreamSnapshot
    reveal_type(streams.statistics)  # -> Statistics
    reveal_type(streams.rows(["camera", 1]))  # -> Tensor
    reveal_type(streams.steps("camera"))  # -> int
    reveal_type(streams.step_rows([0, 1], step))  # -> tuple[Tensor, Tensor]
    reveal_type(streams.step_rows([0, 1], [step, step]))  # -> tuple[Wire, Tensor]
    reveal_type(streams.snapshot_rows([0, 1]))  # -> RowsSnapshot
    reveal_type(streams.finish("camera"))  # -> None
    reveal_type(co.StreamBatch(co.load("net.onnx"), capacity=8))  # -> StreamBatch


def streams_in_time(net: co.CoModule, step: Tensor, clip: Tensor) -> None:
    stream = co.Stream(net, rate=30, gaps="hold", lateness=0.1)
    reveal_type(stream)  # -> Stream
    reveal_type(stream.step(step, time=0.1))  # -> list[StreamOutput]
    reveal_type(stream.step(None, index=3))  # -> list[StreamOutput]
    reveal_type(stream.steps(clip, times=[0.1, 0.2]))  # -> list[StreamOutput]
    out = stream.finish()[0]
    reveal_type(out.time)  # -> float | None
    reveal_type(out.index)  # -> int | float
    reveal_type(out.flags.gap)  # -> bool
    reveal_type(stream.counters)  # -> dict[str, int]
    reveal_type(stream.delay_ms)  # -> float | None
    reveal_type(stream.get_state())  # -> StreamState | None
    co.Stream(net, gaps="skip")  # type: ignore[arg-type]
    co.Stream(co.load("net.onnx"))
    streams = co.Streams(co.StreamBatch(net, step, capacity=8), rate=30, gaps="hold")
    reveal_type(streams.open())  # -> int
    reveal_type(streams.open("camera", gaps="zero"))  # -> str
    streams.open("door", gap="zero")  # type: ignore[call-overload]
    frames: dict[str, Tensor | None] = {"camera": step, "door": None}
    reveal_type(streams.step(frames, times=0.1))  # -> dict[str, list[StreamOutput]]
    reveal_type(streams.finish("camera"))  # -> list[StreamOutput]
    reveal_type(streams.snapshot("camera"))  # -> StreamState | None


def pictures_and_times(net: co.CoModule, step: Tensor) -> None:
    found = co.bench(net, step, rate=30, forms=("eager", "window"))
    reveal_type(found)  # -> Benchmark
    reveal_type(found["eager"].p99)  # -> float
    reveal_type(found.fastest.name)  # -> str
    co.bench(net, step, forms=("fast",))  # type: ignore[arg-type]
    co.plot(net, step, rate=30, labels=["walk", "run"], path="scores.png")


def files(net: co.CoModule, clip: Tensor, step: Tensor) -> None:
    reveal_type(co.export(net, step, "net.onnx", format="onnx", int8="static", calibration=clip))  # -> Path
    reveal_type(co.onnx.export(net, (step,), "net.onnx", do_constant_folding=True))  # -> Path
    reveal_type(co.triton.write_repository(net, step, "models", backend="python"))  # -> Path
    runner = co.load("net.onnx", threads=1)
    reveal_type(runner)  # -> Runner
    reveal_type(runner.forward_step(step))  # -> Tensor | None
    reveal_type(runner.forward_steps(clip, pad_end=True))  # -> Tensor | None
    reveal_type(runner.forward_step(step, step, update_state=False))  # -> Tensor | None
    reveal_type(runner.forward_step([step, step]))  # -> Wire | None
    reveal_type(runner.get_state())  # -> RunnerState | None
    reveal_type(runner.metadata)  # -> Metadata


def zoo() -> None:
    reveal_type(co.models.list())  # -> list[str]
    reveal_type(co.models.describe("cox3d_s"))  # -> ModelCard
    net = co.models.create("cox3d_s", classes=5, input_size=160, pretrained=None, softmax=True)
    reveal_type(net)  # -> Model
    reveal_type(net.step_shape)  # -> tuple[int, ...]
    reveal_type(net[:2])  # -> Sequential
    reveal_type(co.models.load_weights(net, "weights.pt"))  # -> Model


def misspelt_arguments(net: co.CoModule, module: nn.Module, x: Tensor, state: co.State, streams: co.StreamBatch) -> None:
    net(x, upd_state=False)  # type: ignore[call-overload]
    net.forward(x, pad=True)  # type: ignore[call-arg]
    net.forward_step(x, upd_state=False)  # type: ignore[call-overload]
    net.forward_steps(x, pad_ends=True)  # type: ignore[call-overload]
    net.step(x, state, upd_state=False)  # type: ignore[call-overload]
    net.steps(x, state, pad_ends=True)  # type: ignore[call-overload]
    net.init_state(x, upd_state=False)  # type: ignore[call-arg]
    co.continual(module, sequence_length=4)  # type: ignore[call-arg]
    co.continual(module, x, time_dims=1)  # type: ignore[call-arg]
    co.explain(module, x, time_dims=1)  # type: ignore[call-arg]
    co.load("net.onnx").forward_step(x, upd_state=False)  # type: ignore[call-overload]
    co.load("net.onnx").forward_steps(x, pad_ends=True)  # type: ignore[call-overload]
    co.compile(net, x).step(x, upd_state=False)  # type: ignore[call-overload]
    streams.open(name="camera")  # type: ignore[call-overload]
    streams.step({1: x}, upd_state=False)  # type: ignore[call-overload]
    co.models.create("cox3d_s", class_count=5)  # type: ignore[call-arg]


def wrong_words(net: co.CoModule, module: nn.Module, x: Tensor) -> None:
    co.contiunal(module)  # type: ignore[attr-defined]
    co.continual(module, x, time_pooling="windows")  # type: ignore[arg-type]
    co.compile(net, x, backend="inducter")  # type: ignore[arg-type]
    co.export(net, x, "net.onnx", format="onx")  # type: ignore[arg-type]
