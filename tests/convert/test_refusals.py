"""What can't be streamed exactly is refused, with the place, the reason and what to do: never converted into something else."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.convert import remedies
from tests.convert.cases import noise, seeded
from tests.convert.refused import CHANNELS, REFUSED, Refused, ThreeFaults

every_fault = pytest.mark.parametrize("fault", REFUSED.values(), ids=REFUSED)


def message_of(module: nn.Module, clip: Tensor, **options: Any) -> str:
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(module, clip, **{"windows": "stream", **options})
    return str(caught.value)


def is_named(path: str, text: str) -> bool:
    """The path, not one that begins or ends with it."""
    return re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", text) is not None


@every_fault
def test_it_says_where_why_and_what_to_do(fault: Refused):
    message = message_of(fault.module, fault.clip, **{"windows": "stream", **fault.options})
    assert type(fault.module).__name__ in message
    assert is_named(fault.path, message) or not fault.path
    assert re.search(r"refused\.py:\d+", message)
    assert fault.line in message
    assert re.search(fault.reason, message)
    assert "Remed" in message
    assert re.search(fault.remedy, message.partition("Remed")[2])


@every_fault
def test_no_remedy_is_refused_in_turn(fault: Refused):
    module = fault.module
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(module, fault.clip, **{"windows": "stream", **fault.options})
    remedies.check(
        caught.value,
        lambda **options: co.continual(module, fault.clip, **fault.options | options),
        lambda: co.continual(co.calibrate(module, [fault.clip]), fault.clip, **{"windows": "stream", **fault.options}),
    )


@every_fault
def test_the_module_still_works_and_is_unchanged(fault: Refused):
    module = fault.module
    before = {name: t.clone() for name, t in module.state_dict().items()}
    held = {path: sorted(m.__dict__) for path, m in module.named_modules()}
    with torch.no_grad():
        want = module(fault.clip)
    message_of(module, fault.clip, **{"windows": "stream", **fault.options})
    with torch.no_grad():
        assert torch.equal(module(fault.clip), want)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert {path: sorted(m.__dict__) for path, m in module.named_modules()} == held


@every_fault
def test_without_the_fault_it_is_converted(fault: Refused):
    """What is around the fault is not what is refused."""
    module = fault.module
    module.get_submodule("middle").fault = nn.Identity()
    assert co.continual(module, fault.clip, **{"windows": "stream", **fault.options}).delay == 0


@pytest.mark.parametrize("name", [name for name, fault in REFUSED.items() if fault.path])
def test_the_fault_is_real(name: str):
    """Of these tests' modules: the first half of the output changes with the last frame, the clip's length, or another row."""
    fault = REFUSED[name]
    module, clip = fault.module.double(), fault.clip.double()
    other_end = clip.clone()
    other_end[:, :, -1] += 5
    other_row = clip.clone()
    other_row[1] += 5
    with torch.no_grad():
        y = module(clip)
        early = y.shape[2] // 2
        changed = [float((module(x)[0, :, :early] - y[0, :, :early]).abs().max()) for x in (other_end, other_row)]
        try:
            longer = module(torch.cat((clip, clip[:, :, :3]), 2))
            changed.append(float((longer[0, :, :early] - y[0, :, :early]).abs().max()))
        except RuntimeError:
            changed.append(torch.inf)
    assert max(changed) > 1e-6


def test_all_faults_are_named_at_once():
    module = seeded(ThreeFaults)
    message = message_of(module, noise(2, CHANNELS, 12))
    places = []
    for path, line in ThreeFaults.FAULTS:
        assert is_named(path, message), path
        assert line in message, line
        places.append(message.index(path))
    assert places == sorted(places), "they are named in the order in which they come"
    assert len(re.findall(r"refused\.py:\d+", message)) == 3
    assert message.count("Remed") == 3


def test_what_can_be_streamed_is_not_named():
    message = message_of(seeded(ThreeFaults), noise(2, CHANNELS, 12))
    assert not is_named("branches.0", message)
    assert not is_named("head.conv", message)


def test_a_mean_in_the_middle_is_converted_if_one_says_so():
    fault = REFUSED["x - mean over time"]
    module = fault.module
    message_of(module, fault.clip)
    window, frame = (co.continual(module, fault.clip, time_pooling=pooling) for pooling in ("window", "frame"))
    with torch.no_grad():
        first = module.get_submodule("first")(fault.clip)
        trailing = torch.stack([first[:, :, : t + 1].mean(2) for t in range(first.shape[2])], 2)
        assert torch.allclose(window(fault.clip), torch.tanh(first - trailing), atol=1e-6)
        assert torch.allclose(frame(fault.clip), torch.zeros_like(first), atol=1e-6)
    for net in (window, frame):
        assert any("another function" in note for note in net.notes)
        co.verify(net, fault.clip)


def test_a_module_in_training_mode_is_refused():
    module = nn.Sequential(nn.Conv1d(CHANNELS, CHANNELS, 3), nn.BatchNorm1d(CHANNELS), nn.Dropout(0.5))
    message = message_of(module.train(), noise(2, CHANNELS, 12))
    assert "eval" in message


@pytest.mark.parametrize(
    "clip, options, words",
    [
        (noise(2, CHANNELS, 12), {"time_dim": 5}, "time_dim"),
        (noise(2, CHANNELS, 12), {"time_dim": (2, 2)}, "time_dim"),
        (noise(2, CHANNELS, 12), {"time_pooling": "mean"}, "time_pooling"),
        (noise(2, CHANNELS, 12), {"time_dim": None}, "stream"),
        (noise(2, CHANNELS + 1, 12), {}, "channels"),
    ],
    ids=["no such dim", "more dims than inputs", "no such pooling", "no stream", "a clip that the module refuses"],
)
def test_wrong_arguments_are_explained(clip: Tensor, options: dict[str, Any], words: str):
    module = nn.Conv1d(CHANNELS, CHANNELS, 3).eval()
    with pytest.raises((ValueError, TypeError), match=words):
        co.continual(module, clip, **{"windows": "stream", **options})
