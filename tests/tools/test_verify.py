"""`co.verify` passes what is right, and catches what is broken, at the right point of the contract and with numbers."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.tools.report import Check

# ---- good networks -----------------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (lambda: co.Conv1d(2, 3, 3, padding=1), (2, 2, 30)),
    "strides, residual, pools": (
        lambda: co.Sequential(
            co.Conv1d(2, 4, 3, padding=1),
            nn.ReLU(),
            co.Residual(co.Conv1d(4, 4, 5, padding=2)),
            co.Conv1d(4, 4, 3, stride=2),
            co.AvgPool1d(2),
            co.MaxPool1d(3, stride=1, padding=1),
        ),
        (1, 2, 30),
    ),
    "branches": (
        lambda: co.BroadcastReduce(
            co.Conv1d(2, 4, 1), co.Conv1d(2, 4, 3, padding=1), co.Conv1d(2, 4, 5, padding=2), reduce="concat"
        ),
        (2, 2, 20),
    ),
    "delay": (lambda: co.Sequential(co.Delay(2), co.Conv1d(2, 3, 3)), (2, 2, 20)),
    "conditional": (
        lambda: co.Conditional(_never, co.Conv1d(2, 2, 5, padding=2), co.Conv1d(2, 2, 3, padding=1)),
        (2, 2, 20),
    ),
    "space": (lambda: co.Sequential(co.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.GELU()), (1, 2, 16, 4)),
    "bursts": (lambda: co.Conv1d(2, 3, 3, padding=4), (2, 2, 20)),
    "padding alone in some outputs": (
        lambda: co.Sequential(co.Conv1d(2, 2, 3, padding=1), nn.Conv1d(2, 2, 3, padding=4)),
        (2, 2, 20),
    ),
    "reflection": (lambda: co.Conv1d(2, 3, 5, padding=2, padding_mode="reflect"), (2, 2, 20)),
    "causal by a crop": (lambda: co.Sequential(co.Conv1d(2, 3, 3, padding=2), co.Trim(0, 2)), (2, 2, 20)),
    "a crop before end padding": (
        lambda: co.Sequential(co.Trim(1, 1), co.MaxPool1d(4, stride=1, padding=2, ceil_mode=True), co.Conv1d(2, 2, 1)),
        (1, 2, 12),
    ),
    "nothing but a crop": (lambda: co.Delay(2, auto_shrink="lagging"), (1, 3, 10)),
    "skip": (lambda: co.Sequential(co.Skip(3), co.Conv1d(2, 3, 3, dilation=2)), (2, 2, 20)),
    "nothing but a constant": (lambda: co.Sequential(co.Conv1d(2, 3, 3, padding=1), co.Constant(2.0)), (2, 2, 12)),
    "no memory": (lambda: co.Sequential(nn.Conv1d(2, 3, 1), nn.Tanh()), (2, 2, 8)),
    "clip shorter than the receptive field of its padding": (lambda: co.Conv1d(1, 1, 9, padding=4), (2, 1, 6)),
    "a clip of one step": (lambda: co.Conv1d(1, 1, 3, padding=1), (2, 1, 1)),
}


def _never(module: nn.Module, x: Tensor) -> bool:
    return False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", GOOD)
def test_passes_what_is_right(name: str, dtype: torch.dtype) -> None:
    make, shape = GOOD[name]
    net = make().to(dtype)
    report = co.verify(net, torch.randn(shape, dtype=dtype))
    assert report.passed
    assert {c.point for c in report.checks} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}


def test_half_precision() -> None:
    assert co.verify(co.Conv1d(2, 3, 3, padding=1).bfloat16(), torch.randn(2, 2, 12).bfloat16()).passed


def test_takes_a_reference() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 3))
    model(torch.randn(8, 2, 20))  # statistics that are not 0 and 1
    net = co.continual(model)
    model.train()
    report = co.verify(net, torch.randn(2, 2, 20), model)
    names = {c.name: c.outcome for c in report.checks}
    assert names["forward = reference"] == names["state_dict as the reference's"] == "passed"
    assert model.training


def test_several_streams() -> None:
    net = co.Parallel(co.Conv1d(2, 3, 3, padding=1), co.Conv1d(1, 2, 5, padding=2))
    report = co.verify(net, [torch.randn(2, 2, 16), torch.randn(2, 1, 16)], raise_on_fail=False)
    assert {c.name for c in report.failures} <= {"wrong inputs are refused"}  # a list of steps in the place of chunks: IndexError


class Frames:
    """A streaming object that is not a module: a mean of three frames. Its state is a clock and the last two."""

    def __init__(self) -> None:
        self.held: tuple[int, Tensor] | None = None

    def forward_steps(self, x: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        clock, last = (0, torch.zeros(len(x), 2, 2)) if self.held is None else self.held
        if x.ndim != 3 or x.shape[:2] != last.shape[:2] or x.dtype != torch.float32:
            raise co.ShapeMismatch(f"a chunk is (B, 2, T), got {tuple(x.shape)}")
        frames = torch.cat((last, x), 2)
        if update_state:
            self.held = clock + x.shape[2], frames[:, :, -2:].clone()
        known = frames[:, :, max(0, 2 - clock) :]
        return _mean_of_three(known) if known.shape[2] > 2 and x.shape[2] else None

    def forward_step(self, x: Tensor, update_state: bool = True) -> Tensor | None:
        y = self.forward_steps(x.unsqueeze(-1), update_state=update_state)
        return None if y is None else y.squeeze(2)

    def get_state(self) -> Any:
        return None if self.held is None else (self.held[0], self.held[1].clone())

    def set_state(self, state: Any) -> None:
        if state is not None and (not isinstance(state, tuple) or state[1].dtype != torch.float32):
            raise co.StateMismatch("not a clock and two frames")
        self.held = None if state is None else (state[0], state[1].clone())

    def clean_state(self) -> None:
        self.held = None


class Gathers(Frames):
    """The same, but steps wait until there are ``size`` of them; it says that it gathers ``chunk``."""

    delay = 2

    def __init__(self, size: int, chunk: int) -> None:
        super().__init__()
        self.size, self.chunk = size, chunk

    def forward_steps(self, x: Tensor, pad_end: bool = False, update_state: bool = True) -> Tensor | None:
        clock, last = (0, torch.zeros(len(x), 2, 2 + self.size)) if self.held is None else self.held
        if x.ndim != 3 or x.shape[:2] != last.shape[:2] or x.dtype != torch.float32:
            raise co.ShapeMismatch(f"a chunk is (B, 2, T), got {tuple(x.shape)}")
        frames, seen = torch.cat((last, x), 2), clock + x.shape[2]
        if update_state and seen:
            self.held = seen, frames[:, :, -last.shape[2] :].clone()
        first = max(0, clock // self.size * self.size - 2)
        stop = (seen if pad_end else seen // self.size * self.size) - 2
        before = last.shape[2] - clock
        return _mean_of_three(frames[:, :, first + before : stop + before + 2]) if stop > first else None

    def forward_step(self, x: Tensor, update_state: bool = True) -> Tensor | None:
        return self.forward_steps(x.unsqueeze(-1), update_state=update_state)


def test_outputs_may_wait_for_the_end_of_a_chunk_and_no_longer() -> None:
    clip = torch.randn(2, 2, 18)  # ends in the middle of a chunk
    report = co.verify(Gathers(4, chunk=4), clip, _mean_of_three)
    assert {c.name: c.detail for c in report.checks}["delay"] == "2, and 1 in a chunk of 4"
    for size, chunk in ((4, 1), (8, 4)):
        report = co.verify(Gathers(size, chunk), clip, _mean_of_three, raise_on_fail=False)
        assert {c.name for c in report.failures} == {"delay", "no output late, none early"}


def _mean_of_three(x: Tensor) -> Tensor:
    return nn.functional.avg_pool1d(x, 3, 1)


def test_takes_any_object_with_the_protocol() -> None:
    report = co.verify(Frames(), torch.randn(2, 2, 20), _mean_of_three)
    assert {c.name for c in report.skipped} >= {"delay", "counts as timing says", "state_dict has no stream state"}
    with pytest.raises(TypeError, match="Frames has no `forward`"):
        co.verify(Frames(), torch.randn(2, 2, 20))


def test_integer_input() -> None:
    class Embed(nn.Embedding):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sum(1).movedim(-1, 1)  # (B, C, T) to (B, E, T)

    net = co.Sequential(co.forward_stepping(Embed(7, 3)), nn.Conv1d(3, 4, 3, padding=1))
    # the embedding raises RuntimeError on the frame of the other network's state, before it is refused
    report = co.verify(net, torch.randint(0, 7, (2, 1, 16)), raise_on_fail=False)
    assert {c.name for c in report.failures} <= {"foreign states are refused"}
    assert "integer" in next(c for c in report.checks if c.point == 8).detail


# ---- the module is left as it was --------------------------------------------------------------------------------------


def test_leaves_a_stream_of_another_dtype_as_it_was() -> None:
    """Found with streams of tokens: the state was put back while a stream of the clip's dtype was open, which refuses it."""
    net = co.Delay(2)
    net.forward_steps(torch.arange(5.0).view(1, 1, 5))
    co.verify(net, torch.randn(2, 3, 12, dtype=torch.float64))
    assert net.forward_step(torch.zeros(1, 1)).item() == 3


def test_leaves_the_module_as_it_was() -> None:
    torch.manual_seed(1)
    net = co.Sequential(co.Conv1d(2, 4, 3, padding=1), nn.Dropout(0.5), nn.BatchNorm1d(4).eval(), co.Conv1d(4, 2, 3))
    net.call_mode = "forward_steps"
    net.train()
    net[2].eval()
    x = torch.randn(3, 2, 20)
    net.forward_steps(x[:, :, :7])
    net[0].weight.grad = torch.ones_like(net[0].weight)
    state, weights = net.get_state(), copy.deepcopy(net.state_dict())
    flags, clip, random = [m.training for m in net.modules()], x.clone(), torch.get_rng_state()

    co.verify(net, x)

    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, clip)
    assert flags == [m.training for m in net.modules()]
    assert net.call_mode == "forward_steps"
    assert state.clock == net.get_state().clock == 7
    assert all(torch.equal(a, b) for a, b in zip(state.tensors.values(), net.get_state().tensors.values(), strict=True))
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert all(p.grad is None for n, p in net.named_parameters() if n != "0.weight")
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_a_cold_module_stays_cold() -> None:
    net = co.Conv1d(1, 1, 3)
    co.verify(net, torch.randn(2, 1, 8))
    assert net.get_state() is None


def test_draws_the_same_every_time() -> None:
    net, x = co.Conv1d(1, 2, 5, stride=2), torch.randn(2, 1, 20)
    assert str(co.verify(net, x, seed=3)) == str(co.verify(net, x, seed=3))


def test_refuses_a_clip_that_forward_refuses() -> None:
    with pytest.raises(co.ShapeMismatch, match=r"refuses the clip \(1, 1, 4\) float32"):
        co.verify(co.Conv1d(1, 1, 9), torch.randn(1, 1, 4))


def test_report_reads_as_a_table() -> None:
    report = co.verify(co.Conv1d(1, 1, 3), torch.randn(2, 1, 12))
    lines = str(report).splitlines()
    assert lines[0] == "co.verify: Conv1d on a clip (2, 1, 12) float32, tolerance 1e-05: passed"
    assert re.match(r"  2  any chunking +chunks and steps = forward +ok +12 splits, off by ", lines[4])
    assert all("no reference" in c.detail for c in report.skipped[:1])
    assert str(Check(6, "rows", "failed", "why")) == "contract point 6 (independent rows), rows: why"


def test_is_the_function_not_the_module() -> None:
    import continual.tools.verify

    assert callable(co.verify)
    assert co.verify is continual.tools.verify.verify


def test_wrong_weights_and_keys() -> None:
    net, other = co.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 3, 3, padding=1)
    report = co.verify(net, torch.randn(2, 2, 12), other, raise_on_fail=False)
    assert [c.name for c in report.failures] == ["forward = reference"]
    other = nn.Sequential(copy.deepcopy(nn.Conv1d(2, 3, 3, padding=1)))
    other[0].load_state_dict(net.state_dict())
    report = co.verify(net, torch.randn(2, 2, 12), other, raise_on_fail=False)
    assert [c.name for c in report.failures] == ["state_dict as the reference's"]
    assert report.failures[0].detail == "state_dict entry '0.weight': none here, (3, 2, 3) in the reference"


def test_lambdas_skip_the_pickle_alone() -> None:
    report = co.verify(co.Sequential(co.Lambda(lambda step: 2 * step), co.Conv1d(2, 2, 3)), torch.randn(2, 2, 12))
    assert [c.name for c in report.skipped if "pickled" in c.detail] == ["pickle in mid-stream"]


def test_long_clips_are_looked_at_in_places() -> None:
    from continual.tools.checks.contract_run import ContractRun

    run = ContractRun(co.Conv1d(1, 1, 3), torch.randn(2, 1, 3000))
    assert len(run.places) <= 24
    assert {0, 1, 2, 3, 2999, 3000} <= set(run.places)  # from 2 steps on there is no output, with the third comes one
    assert len(run.random_plan()) < 300


def test_rising_content_stays_in_reach():
    """Every frame is above the one before, without values at which a network is a matter of rounding.

    Found with CoAGCN and CoS-TR on 549 frames: attention took values of hundreds and thousands, and clips of other lengths gave others.
    """
    from continual.tools.checks.timeliness import _rising

    clip = torch.rand(2, 3, 1000, 4) * 2 - 1
    rising = _rising(clip)
    assert bool((rising[:, :, 1:].amin((0, 1, 3)) > rising[:, :, :-1].amax((0, 1, 3))).all())
    assert float(rising.abs().max()) <= float(clip.abs().max())


def test_gradients_that_only_float64_could_tell_from_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.tools.checks import gradients
    from continual.tools.checks.contract_run import Broken, Skipped

    dtypes: list[torch.dtype] = []

    def agree(t: Any, x: Tensor) -> str:
        dtypes.append(x.dtype)
        raise Broken("off by 1e-3") if x.dtype == torch.float32 else Skipped("it takes too much memory")

    monkeypatch.setattr(gradients, "_gradients_agree", agree)
    report = co.verify(co.Conv1d(1, 1, 3), torch.randn(2, 1, 12), raise_on_fail=False)
    found = next(c for c in report.checks if c.name == "gradients = those of forward")
    assert (found.outcome, dtypes) == ("skipped", [torch.float32, torch.float64])
    assert "off by 1e-3" in found.detail
    assert "it takes too much memory" in found.detail


def test_parameters_made_in_inference_mode_have_no_gradients():
    """The check once failed in torch's words."""
    clip = torch.randn(2, 3, 9)
    with torch.inference_mode():
        net = co.Sequential(co.Conv1d(3, 4, 3, padding=1), nn.ReLU()).eval()
    report = co.verify(net, clip, effort="quick")
    assert report.passed
    assert "was made under torch.inference_mode" in next(c.detail for c in report.checks if c.name.startswith("gradients"))
