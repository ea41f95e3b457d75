"""Exact windows: what they take and give, what is refused, and the contract."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from continual.convert.graph.window_check import assembled, window_of
from continual.convert.graph.windows.report import WindowReport
from tests.convert.windows import Residual, Scaled, Tokens, Video, close, made, noise, shared, stacked, way, windows_of

__all__ = ["shared", "way"]  # fixtures

CLIP = noise(2, 3, 40)


class Both(nn.Module):
    """Two scores by name, of two streams and a vector that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(2, 4, 5, padding=2), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor) -> dict[str, Any]:
        z = F.relu(self.a(x)) + self.b(y)
        return {"sum": self.head(z.mean(2)), "parts": (z.amax(2) * weight, z[:, :, -1])}


def test_the_default_is_exact_where_the_output_is_of_a_whole_clip():
    module = made(Residual())
    net = co.continual(module, CLIP)
    assert isinstance(net.windows, WindowReport)
    assert (net.windows.mode, net.windows.length, net.windows.every) == ("exact", 40, 4)
    assert co.continual(made(nn.Conv1d(3, 4, 3, padding=1)), CLIP).windows is None
    assert (net.delay, net.receptive_field, net.stride, net.padding) == (39, 40, (4,), (0,))


def test_shapes_of_scores():
    net = co.continual(made(Residual()), CLIP)
    clip = noise(2, 3, 52)
    assert net(clip[:, :, :40]).shape == (2, 4)
    assert net(clip[:, :, :41]).shape == (2, 4, 1), "a longer clip always stacks"
    assert net(clip).shape == (2, 4, 4)
    assert net.forward_steps(clip[:, :, :40]).shape == (2, 4, 1)
    with pytest.raises(co.ShapeMismatch, match="39 steps is shorter than the module's window of 40"):
        net(clip[:, :, :39])


def test_the_end_adds_nothing(way):
    net = co.continual(made(Residual()), CLIP)
    clip = noise(2, 3, 47)
    assert net.forward_steps(clip[:, :, :39], pad_end=True) is None
    assert net.forward_steps(clip[:, :, 39:46], pad_end=True).shape == (2, 4, 2)


def test_several_inputs_and_scores_by_name(way):
    module, clip = made(Both()), (noise(2, 3, 20), noise(2, 2, 20, seed=3), noise(2, 4, seed=4))
    net = co.continual(module, clip, time_dim=(2, 2, None))
    long = (noise(2, 3, 33, seed=5), noise(2, 2, 33, seed=6), noise(2, 4, seed=7))
    want = [module(long[0][:, :, i : i + 20], long[1][:, :, i : i + 20], long[2]) for i in range(14)]
    for got in (net(*long), net.forward_steps(*long)):
        close(got["sum"], stacked([y["sum"] for y in want]))
        assert isinstance(got["parts"], tuple)
        for k in (0, 1):
            close(got["parts"][k], stacked([y["parts"][k] for y in want]))
    net.clean_state()
    steps = [net.forward_step(long[0][:, :, t], long[1][:, :, t], long[2]) for t in range(33)]
    close(stacked([s["parts"][0] for s in steps if s is not None]), stacked([y["parts"][0] for y in want]))


def test_an_input_that_is_no_stream_may_be_another_one_in_the_next_call(shared):
    module, clip = made(Both()), (noise(2, 3, 20), noise(2, 2, 20, seed=3), noise(2, 4, seed=4))
    net = co.continual(module, clip, time_dim=(2, 2, None))
    net.forward_steps(*(x if x.ndim == 2 else x[:, :, :19] for x in clip))
    got = net.forward_step(clip[0][:, :, 19], clip[1][:, :, 19], -clip[2])
    close(got["parts"][0], module(clip[0], clip[1], -clip[2])["parts"][0])


# ---- options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"windows": "both"}, ValueError, "windows is 'exact', 'stream' or a WindowPlan"),
        ({"windows": "stream", "every": 2}, ValueError, "every= is for exact windows"),
        ({"windows": "stream", "output": -1}, ValueError, "output= is for exact windows"),
        ({"every": 0}, ValueError, "1 or more"),
        ({"every": 1.5}, ValueError, "1 or more"),
        ({"output": 0.5}, ValueError, "the number of a frame"),
        ({"output": -1}, co.NotStreamable, "has none"),
        ({"time_pooling": "frame"}, ValueError, "windows='stream'"),
    ],
)
def test_options_that_make_no_sense(options, error, text):
    with pytest.raises(error, match=text):
        co.continual(made(Residual()), CLIP, **options)


@pytest.mark.parametrize("option", [{"windows": "exact"}, {"every": 1}, {"output": -1}])
def test_options_without_a_clip(option):
    with pytest.raises(TypeError, match="go with an example clip"):
        co.continual(nn.Conv1d(2, 2, 3), **option)


def test_every_is_the_stride_of_what_is_taken_over():
    assert co.continual(made(Tokens()), CLIP).windows.every == 4
    assert co.continual(made(Scaled()), noise(2, 4, 20)).windows.every == 1
    found = co.continual(made(Residual()), CLIP, every=1)
    assert found.windows.every == 1
    assert "one each step" in " ".join(found.notes)
    assert "every=1 gives one each step" in " ".join(co.continual(made(Residual()), CLIP).notes)


def test_the_stream_by_choice_says_how_far_it_is():
    module = made(Residual())
    net = co.continual(module, CLIP, windows="stream")
    assert net.windows.mode == "stream"
    assert net.windows.every == 4
    text = " ".join(net.notes)
    assert "differs from exact windows by" in text
    assert f"the first score comes with step {net.delay + 1}" in text
    close(net(CLIP), module(CLIP))
    long = noise(2, 3, 80)
    assert (net(long)[:, :, 1] - module(long[:, :, 4:44])).abs().max() > 1e-3, "real neighbours in place of padding"


# ---- what is refused ----------------------------------------------------------------------------------------------------


class Mixes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0, keepdim=True)).amax(2)


class Flips(nn.Module):
    """Found by random modules: rows in another order."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + x.flip(0)).mean(2)


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.randn_like(x)).mean(2)


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x.mean(2) + self.seen


@pytest.mark.parametrize(
    "module, text", [(Mixes(), "rows"), (Flips(), "rows"), (Draws(), "random"), (Counts(), "changes its own")]
)
def test_refused(module, text):
    with pytest.raises(co.NotStreamable, match=text):
        co.continual(module.double().eval(), CLIP)


@pytest.mark.parametrize("module", [Mixes(), Flips()])
def test_a_refusal_says_that_rows_are_mixed_and_where(module):
    with pytest.raises(co.NotStreamable) as raised:
        co.continual(module.double().eval(), CLIP)
    assert [(r.mixes_rows, "test_windows.py" in r.source) for r in raised.value.refusals] == [(True, True)]


def test_training_mode_is_refused():
    with pytest.raises(co.NotStreamable, match="training mode"):
        co.continual(Residual().double(), CLIP)


class Reversed(nn.Module):
    """An operation that no rule knows, in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.irfft(torch.fft.rfft(self.a(x)) * 0.5, n=x.shape[2])
        return self.b(torch.cumsum(y.flip(2), 2)).mean(2)


def test_what_no_rule_knows_is_computed_on_the_window(way):
    module = made(Reversed())
    net = co.continual(module, CLIP)
    clip = noise(3, 3, 55)
    close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 1)))


class Baked(nn.Module):
    """The number of rows as a number of Python."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[i].mean(1) for i in range(int(x.shape[0]))])


def test_a_graph_of_so_many_rows_alone(way):
    module = Baked().double().eval()
    net = co.continual(module, CLIP)
    for rows in (1, 2, 3, 4):
        clip = noise(rows, 3, 44)
        net.clean_state()
        close(net.forward_steps(clip), stacked(windows_of(module, clip, 40, 1)))


# ---- the contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 1])
def test_contract(way, every):
    module = made(Residual(gate=True))
    net = co.continual(module, CLIP, every=every)
    co.verify(net, CLIP, reference=module)


def test_contract_of_several_inputs_and_scores_by_name(shared):
    module, clip = made(Both()), (noise(2, 3, 20), noise(2, 2, 20, seed=3), noise(2, 4, seed=4))
    co.verify(co.continual(module, clip, time_dim=(2, 2, None)), clip, reference=module)


def test_contract_of_frames_in_rows(shared):
    module, clip = made(Video()), noise(2, 9, 3, 8, 6)
    co.verify(co.continual(module, clip, time_dim=1), clip, reference=module)


def test_gradients_are_those_of_the_module_on_each_window(way):
    module = made(Residual())
    net = co.continual(module, CLIP)
    clip = noise(2, 3, 61).requires_grad_()
    want = stacked([module(clip[:, :, i : i + 40]) for i in range(0, 22, 4)])
    weight = noise(*want.shape, seed=9)
    given = [clip, *module.parameters()]
    expected = torch.autograd.grad((want * weight).sum(), given)
    parts = [net.forward_steps(c) for c in clip.split([7, 33, 1, 20], 2)]
    got = torch.cat([p for p in parts if p is not None], 2)
    for a, b in zip(torch.autograd.grad((got * weight).sum(), given), expected, strict=True):
        close(a, b)


@pytest.mark.parametrize("every", [1, 3, 4])
def test_snapshots_at_any_phase(way, every):
    net = co.continual(made(Residual()), CLIP, every=every)
    clip = noise(2, 3, 70)
    with torch.no_grad():
        for at in (0, 1, 5, 39, 42, 50):
            net.clean_state()
            net.forward_steps(clip[:, :, :at])
            state = net.get_state()
            want = [net.forward_step(clip[:, :, t]) for t in range(at, 70)]
            for other in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.new_stream()):
                other.set_state(state)
                got = [other.forward_step(clip[:, :, t]) for t in range(at, 70)]
                for a, b in zip(got, want, strict=True):
                    assert (a is None and b is None) or torch.equal(a, b)


def test_a_score_is_a_tensor_of_its_own(shared):
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x, x), 1)[:, :3, 0]

    net = co.continual(Last().double().eval(), CLIP)
    clip = noise(2, 3, 50)
    with torch.no_grad():
        for t in range(40):
            y = net.forward_step(clip[:, :, t])
        held = y.clone()
        for t in range(40, 50):
            net.forward_step(clip[:, :, t])
    assert torch.equal(y, held)


def test_other_dtypes(way):
    module = made(Residual())
    net = co.continual(module, CLIP, copy=True).float()
    clip = noise(2, 3, 52)
    want = stacked(windows_of(module, clip, 40, 4))
    assert (net.forward_steps(clip.float()) - want).abs().max() < 1e-5


def test_steps_of_another_shape_are_refused():
    net = co.continual(made(Video()), noise(2, 9, 3, 8, 6), time_dim=1)
    with pytest.raises(co.ShapeMismatch, match="captured with"):
        net.forward_step(noise(2, 3, 8, 5))


# ---- co.verify ----------------------------------------------------------------------------------------------------------


def line_of(report: Any) -> Any:
    """The check of windows."""
    return next(c for c in report.checks if c.name == "windows")


def test_verify_compares_every_window(shared):
    module = made(Residual())
    found = line_of(co.verify(co.continual(module, CLIP), CLIP, reference=module))
    assert "windows, off by" in found.detail
    assert "a frame changes them by" in found.detail


def test_verify_finds_margins_that_are_too_narrow(shared, monkeypatch: pytest.MonkeyPatch):
    module = made(Residual())
    right = co.continual(module, CLIP)
    window = window_of(module, CLIP, 2, None)
    stem = next(t for t in window.tasks if t.path == "stem")
    assert stem.wire.a > 0
    stem.wire = replace(stem.wire, a=0)
    wrong = assembled(window, module, window.complete(co.WindowPlan(every=4)))
    wrong.__dict__["windows"] = right.windows
    with pytest.raises(co.StreamMismatch) as caught:
        co.verify(wrong, CLIP, reference=module)
    assert "differs from the reference on that window" in line_of(caught.value.report).detail


def test_verify_says_of_a_stream_how_far_it_is():
    module = made(Residual())
    found = line_of(co.verify(co.continual(module, CLIP, windows="stream"), CLIP, reference=module))
    assert "differs from exact windows by" in found.detail


class Still(nn.Module):
    """It gives the same score for all clips."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.mean(2) + 1.0


def test_verify_is_not_content_with_a_score_that_never_changes():
    module = Still().double().eval()
    with pytest.raises(co.StreamMismatch, match="equal scores say nothing"):
        co.verify(co.continual(module, CLIP), CLIP, reference=module)


# ---- what people see ----------------------------------------------------------------------------------------------------


def test_an_explanation_shows_what_is_reused(shared):
    net = co.continual(made(Residual(gate=True)), CLIP)
    rows = {row.path: row for row in co.explain(net).rows}
    assert rows["stem"].op.startswith("conv1d, ")
    assert " of 20" in rows["stem"].op, "margins and what is new"
    assert rows["head"].op == "linear"
    assert rows["stem"].source
    assert sum(row.state_bytes for row in rows.values()) > 0
    assert "conv1d" in co.explain(net).mermaid()
    anew = co.explain(co.continual(made(Residual(norm="group")), CLIP))
    assert "window" in next(row.op for row in anew.rows if row.path == "norm")


def test_notes_say_where_sharing_ends_and_what_is_kept(shared):
    text = " ".join(co.continual(made(Residual()), noise(2, 3, 200), every=1).notes)
    assert re.search(r"from mean \(windows.py:\d+.*mean\(2\).*on the window is computed as a whole", text)
    assert re.search(r"the widest margins are \d+ \+ \d+ of 50 positions", text)
    assert "bytes of state for a row" in text
    assert re.search(r"every=4 keeps \d+ times less state", text)


def test_a_summary_counts_a_window(shared):
    net = co.continual(made(Residual()), CLIP)
    found = co.summary(net, torch.zeros(1, 3, dtype=torch.float64))
    row = next(r for r in found.rows if r.type == "windows")
    assert (row.receptive_field, row.delay, row.stride) == (40, 39, 4)
    assert found.rows[0].macs_step < found.rows[0].macs_clip / 4, "a step takes over what windows have in common"


class FirstFrame(nn.Module):
    """A score that is a frame of the window, which may lie in the stream's own memory."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0]


def test_scores_stay_as_they_were_when_the_stream_goes_on() -> None:
    clip = noise(2, 3, 30)
    net: Any = co.continual(FirstFrame().eval(), clip[:, :, :8], progress=False)
    with torch.no_grad():
        scores = [net.forward_step(frame) for frame in clip.unbind(2)]
    found = torch.stack([y for y in scores if y is not None], 2)
    torch.testing.assert_close(found, clip[:, :, : found.shape[2]])
