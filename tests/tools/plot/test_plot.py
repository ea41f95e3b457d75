"""`co.plot`: what is drawn of a signal, of scores and of a video."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.tools.plot.story import probabilities, story_of

pytest.importorskip("matplotlib")


def lines(axes: Any, least: int = 3) -> list[Any]:
    """The curves of a panel."""
    return [line for line in axes.lines if len(line.get_xdata()) >= least]


def values(line: Any) -> Tensor:
    return torch.tensor(line.get_ydata(), dtype=torch.float32)


def test_a_signal_and_its_outputs_where_they_belong(tmp_path: Any) -> None:
    net, clip = (
        co.Sequential(co.Conv1d(2, 3, 5, padding=2), nn.Tanh(), co.Conv1d(3, 1, 3, padding=1)).eval(),
        torch.randn(2, 2, 90),
    )
    drawn = co.plot(net, clip, rate=30, title="Mine", path=tmp_path / "mine.png")
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    above, middle, below, late = drawn.axes
    assert [list(line.get_ydata()) for line in lines(above)] == [clip[0, c].tolist() for c in range(2)]
    (out,) = lines(middle)
    assert out.get_xdata() == pytest.approx([t / 30 for t in range(90)])  # each at the moment that it is about
    assert torch.allclose(values(out), net(clip)[0, 0].detach(), atol=1e-6)
    assert "it came 3 steps = 100 ms later" in middle.get_title(loc="left")
    (came,) = lines(late)
    at = [round(30 * x) for x in came.get_xdata()]
    want = net(clip)[0, 0].detach()
    assert torch.allclose(values(came), want[[t - 3 for t in at]], atol=1e-6)  # three steps after it
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert "sees 7 steps = 233.3 ms" in labels
    assert "comes 3 steps = 100 ms after the moment that it is about" in labels
    assert drawn.get_suptitle() == "Mine"
    assert net.get_state() is None


def test_class_probabilities_and_a_video() -> None:
    module = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        module[-1].weight.mul_(8)  # type: ignore[union-attr, operator]
    clip = torch.randn(1, 3, 30, 9, 8).cumsum(2)
    net = co.continual(module, clip[:, :, :12])
    drawn = co.plot(net, clip, rate=10, labels=["walk", "run", "rest"], top=2)
    above, middle, below, _ = drawn.axes
    assert len(above.images) == 10
    scores = net(clip)[0].softmax(0).detach()  # (classes, windows)
    shown = lines(middle)
    order = scores.amax(1).argsort(descending=True)[:2].tolist()
    assert [line.get_label() for line in shown] == [["walk", "run", "rest"][i] for i in order]
    for line, i in zip(shown, order, strict=True):
        assert torch.allclose(values(line), scores[i], atol=1e-5)
        assert line.get_xdata()[0] == pytest.approx(1.1)  # the newest frame of the first window
    assert middle.texts[0].get_text().strip() == "no output yet: 11 steps = 1100 ms"
    marked = story_of(net, clip, None).marked
    best = max(order, key=lambda i: float(scores[i, marked]))  # closely, the likeliest class there
    assert f"{['walk', 'run', 'rest'][best]}, when it comes" in [text.get_text() for text in below.get_legend().get_texts()]
    assert "comes with the step that it is about" in [text.get_text() for text in below.get_legend().get_texts()]


def test_many_channels_are_an_image_and_steps_have_no_seconds() -> None:
    net, clip = co.Conv1d(20, 12, 3).eval(), torch.randn(1, 20, 40)
    drawn = co.plot(net, clip)
    above, middle, below, _ = drawn.axes
    assert above.images[0].get_array().shape == (20, 40)
    assert torch.allclose(torch.from_numpy(above.images[0].get_array().data), clip[0])
    assert middle.images[0].get_array().shape == (12, 38)
    assert below.get_xlabel() == "steps"


def test_a_layout_of_its_own() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    module, clip = Rows().eval(), torch.randn(2, 30, 3)
    net = co.continual(module, clip, time_dim=1)
    found = story_of(net, clip, None)
    assert torch.equal(found.inputs, clip[0])
    assert torch.allclose(found.outputs, module(clip)[0].detach(), atol=1e-6)
    assert (found.name, found.lookahead, found.seen) == ("Rows", 0, (20, 20))


def test_probabilities_stay_as_they_are() -> None:
    scores = torch.randn(5, 4)
    assert torch.equal(probabilities(scores), scores.softmax(1))
    assert torch.equal(probabilities(scores.softmax(1)), scores.softmax(1))


def test_what_is_refused() -> None:
    net = co.Conv1d(2, 3, 9).eval()
    with pytest.raises(co.ShapeMismatch, match="clip of 5 steps gives no output: the first one takes 9 steps"):
        co.plot(net, torch.randn(1, 2, 5))
    with pytest.raises(co.ShapeMismatch, match=r"2 labels for outputs \(3,\)"):
        co.plot(net, torch.randn(1, 2, 20), labels=["a", "b"])
    with pytest.raises(co.ShapeMismatch, match="takes 1 inputs, got 2 clips"):
        co.plot(net, [torch.randn(1, 2, 20)] * 2)
    with pytest.raises(co.NotStreamable):
        co.plot(nn.Conv1d(2, 3, 9), torch.randn(1, 2, 20))  # type: ignore[arg-type]
