"""Tools of torch that trace a call: steps leave `torch.compile`'s graphs, and refuse to become constants of a program."""

import io

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import continual as co

CLIP = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(3))
STEP = CLIP[:, :, 0]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 6, 3), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().transpose(1, 2)).transpose(1, 2)


class Calling(nn.Module):
    """A user's module around a stream."""

    def __init__(self, net, method):
        super().__init__()
        self.net, self.method = net, method

    def forward(self, x):
        return getattr(self.net, self.method)(x)


def calling(net, method):
    return Calling(net, method).eval()


@pytest.fixture(scope="module", params=["built", "converted"])
def net(request):
    torch.manual_seed(0)
    if request.param == "converted":
        return co.continual(Net().eval(), CLIP)
    return co.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 5, 3, stride=2)).eval()


@pytest.fixture
def cold(net):
    net.clean_state()
    net.call_mode = "forward"
    yield net
    net.call_mode = "forward"
    torch._dynamo.reset()


# ---- tools that make a program of one call --------------------------------------------------------------------------

TRACERS = {
    "torch.export": lambda model, x: torch.export.export(model, (x,), strict=False),
    "torch.onnx.export": lambda model, x: torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False),
    "torch.jit.trace": lambda model, x: torch.jit.trace(model, (x,)),
    "make_fx": lambda model, x: make_fx(model)(x),
    "make_fx on fake tensors": lambda model, x: make_fx(model, tracing_mode="fake")(x),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(("method", "x"), [("forward_step", STEP), ("forward_steps", CLIP)])
@pytest.mark.parametrize("tool", TRACERS)
def test_what_would_freeze_the_state_is_refused_and_the_stream_unharmed(cold, tool, method, x, running):
    with torch.no_grad():
        if running:
            cold.forward_steps(CLIP)
        before = cold.get_state()
        with pytest.raises(co.ExportError, match="become a constant of the program.*co.export.*co.compile"):
            TRACERS[tool](calling(cold, method), x)
        after = cold.get_state()
        assert (before is None) == (after is None)
        if running:
            assert before.clock == after.clock
            assert all(torch.equal(a, b) for a, b in zip(before.tensors.values(), after.tensors.values(), strict=True))


@pytest.mark.parametrize("mode", ["forward_step", "forward_steps"])
def test_the_call_mode_is_seen_through(cold, mode):
    cold.call_mode = mode
    with pytest.raises(co.ExportError, match="become a constant of the program"):
        torch.export.export(cold, (STEP if mode == "forward_step" else CLIP,), strict=False)


@pytest.mark.parametrize("export", [
    lambda model: torch.export.export(model, (STEP,), strict=True),
    lambda model: torch.onnx.export(model, (STEP,), io.BytesIO(), verbose=False),
])  # fmt: skip
def test_tools_with_errors_of_their_own_hand_the_reason_on(cold, export):
    with pytest.raises(Exception, match=r"become a constant of the program[\s\S]*co.export"):
        export(calling(cold, "forward_step"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_is_refused(cold):
    for model in (cold, calling(cold, "forward_step")):
        with pytest.raises(
            co.ExportError, match="torch.jit.script can't compile a streaming network.*co.export.*torch.jit.trace"
        ):
            torch.jit.script(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:While compiling, we found certain side effects")
def test_clips_are_traced_as_they_were(cold):
    want = cold(CLIP)
    torch.testing.assert_close(torch.jit.trace(cold, (CLIP,))(CLIP), want, rtol=0, atol=1e-6)
    for strict in (False, True):
        program = torch.export.export(cold, (CLIP,), strict=strict)
        torch.testing.assert_close(program.module()(CLIP), want, rtol=0, atol=1e-6)


def test_the_pure_step_is_exported_with_its_state(cold):
    class Pure(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, *tensors):
            state = self.net.init_state(STEP)
            for own, given in zip(state.tensors.values(), tensors, strict=True):
                own.copy_(given)
            y, state = self.net.step(x, state)
            return tuple(state.tensors.values()) if y is None else (y, *state.tensors.values())

    with torch.no_grad():
        tensors = tuple(t.clone() for t in cold.init_state(STEP).tensors.values())
        program = torch.export.export(Pure(cold), (STEP, *tensors), strict=False)
    assert len(program.graph_signature.user_inputs) == 1 + len(tensors)


def test_counters_that_watch_a_call_are_no_tracers(cold):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for x in CLIP.unbind(2):
            cold.forward_step(x)
    assert counter.get_total_flops() > 0
    assert cold.get_state().clock == 12


# ---- torch.compile --------------------------------------------------------------------------------------------------


def compiled(net, way, backend):
    if way == "method":
        return torch.compile(net.forward_step, backend=backend)
    if way == "call mode":
        net.call_mode = "forward_step"
        return torch.compile(net, backend=backend)

    def scaled(x):
        y = net.forward_step(x * 2)
        return None if y is None else y + 1

    return torch.compile(scaled, backend=backend)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("way", ["method", "call mode", "a user's function"])
def test_compiled_steps_are_those_of_the_network_without_a_graph_a_step(cold, way, grad):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    scale, offset = (2, 1) if way == "a user's function" else (1, 0)
    with torch.set_grad_enabled(grad):
        want = [None if (y := cold.forward_step(x * scale)) is None else y + offset for x in CLIP.unbind(2)]
        after = cold.get_state()
        cold.clean_state()
        run = compiled(cold, way, backend)
        for n, x in enumerate(CLIP.unbind(2)):
            y = run(x)
            assert (y is None) == (want[n] is None)
            if y is not None:
                torch.testing.assert_close(y, want[n], rtol=0, atol=1e-6)
    assert len(graphs) <= (3 if way == "a user's function" else 0)
    state = cold.get_state()
    assert state.clock == after.clock
    for a, b in zip(state.tensors.values(), after.tensors.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_longer_network_under_torchs_own_compilers(backend):
    torch._dynamo.reset()
    net = co.continual(nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.Conv1d(6, 6, 3))).eval()
    with torch.no_grad():
        step = torch.compile(net.forward_step, backend=backend)
        steps = [y for x in CLIP.unbind(2) if (y := step(x)) is not None]
        torch.testing.assert_close(torch.stack(steps, 2), net(CLIP), rtol=0, atol=1e-6)
        net.clean_state()
        chunk = torch.compile(net.forward_steps, backend=backend)(CLIP, pad_end=True)
        torch.testing.assert_close(chunk, net(CLIP), rtol=0, atol=1e-6)


def test_pure_steps_run_outside_of_the_graph_too(cold):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        step, steps = torch.compile(cold.step, backend=backend), torch.compile(cold.steps, backend=backend)
        state = cold.init_state(STEP)
        for x in CLIP[:, :, :9].unbind(2):
            y, state = step(x, state)
            want = cold.forward_step(x)
            assert (y is None) == (want is None)
            if y is not None:
                torch.testing.assert_close(y, want, rtol=0, atol=1e-6)
        y, state = steps(CLIP[:, :, 9:], state)
        torch.testing.assert_close(y, cold.forward_steps(CLIP[:, :, 9:]), rtol=0, atol=1e-6)
    assert state.clock == 12
    assert len(graphs) <= 1
