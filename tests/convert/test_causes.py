"""A refusal names the cause, not what follows from it, and no internals of Python or of the library."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import assert_equal
from tests.convert import remedies
from tests.convert.cases import noise, seeded
from tests.convert.faults import FRAMES, Behind, Fault, heads

CLIP = noise(2, 4, FRAMES)
INTERNALS = re.compile(r"Error\b|object is not|NoneType|Clocked|Const\b|Unknown\b|This is a bug")


def refused(body: Callable[..., Tensor], *inputs: Tensor, **options: Any) -> co.NotStreamable:
    module = seeded(lambda: Behind(body))
    with pytest.raises(co.NotStreamable) as caught:
        co.continual(module, inputs or CLIP, **{"windows": "stream", **options})
    remedies.check(caught.value, lambda **more: co.continual(module, inputs or CLIP, **options | more))
    return caught.value


# ---- attention to the whole clip ---------------------------------------------------------------------------------------


def all_seen(s: Fault, x: Tensor) -> Tensor:
    """As Hugging Face's encoders make it: a mask for each row."""
    q, k, v = heads(s, x)
    mask = torch.ones(x.shape[0], 1, x.shape[2], x.shape[2], dtype=torch.bool)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1).transpose(1, 2)


def zeros_added(s: Fault, x: Tensor) -> Tensor:
    q, k, v = heads(s, x)
    scores = q @ k.transpose(-2, -1) / 2 + torch.zeros(x.shape[0], 1, x.shape[2], x.shape[2])
    return (scores.softmax(-1) @ v).squeeze(1).transpose(1, 2)


def no_mask(s: Fault, x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*heads(s, x)).squeeze(1).transpose(1, 2)


def distances(s: Fault, x: Tensor) -> Tensor:
    """Transformer-XL's relative positions: a table for the distances -(T-1) … T-1, shifted by a view."""
    t = x.shape[2]
    q, k, v = (part.squeeze(1) for part in heads(s, x))
    place = torch.arange(t - 1, -t, -1.0)
    by_place = q @ torch.stack((place.sin(), place.cos(), place, place * place), -1).T
    shifted = F.pad(by_place, (1, 0)).view(x.shape[0], 2 * t, t)[:, 1:].reshape(x.shape[0], t, 2 * t - 1)[:, :, :t]
    return ((q @ k.transpose(1, 2) + shifted).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize(
    "body, op, reason",
    [
        (all_seen, "scaled_dot_product_attention", r"attention to all frames of the clip \(bidirectional\)"),
        (zeros_added, "matmul", r"attention to all frames of the clip \(bidirectional\)"),
        (no_mask, "scaled_dot_product_attention", r"attention to all frames of the clip \(bidirectional\)"),
        (distances, "arange", r"2 · 20 - 1 positions.* one for each distance .*\(bidirectional\)"),
    ],
)  # fmt: skip
def test_attention_to_the_whole_clip_is_called_so(body: Any, op: str, reason: str):
    first: Any = refused(body).refusals[0]
    assert (first.path, first.op) == ("fault", op)
    assert re.search(reason, first.reason), first.reason
    assert "faults.py" in first.source
    assert "causal" in first.remedy
    assert "trained" in first.remedy


def causal(s: Fault, x: Tensor) -> Tensor:
    q, k, v = heads(s, x)
    t = x.shape[2]
    mask = torch.ones(t, t, dtype=torch.bool).tril().triu(-6).expand(x.shape[0], 1, t, t)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1).transpose(1, 2)


def causal_added(s: Fault, x: Tensor) -> Tensor:
    q, k, v = heads(s, x)
    t, i = x.shape[2], torch.arange(x.shape[2])
    far = (i[:, None] - i[None]).float()
    mask = torch.where((far < 0) | (far > 5), torch.finfo(torch.float32).min, -0.3 * far).expand(x.shape[0], 1, t, t)
    return ((q @ k.transpose(-2, -1) / 2 + mask).softmax(-1) @ v).squeeze(1).transpose(1, 2)


@pytest.mark.parametrize("body", [causal, causal_added])
def test_a_mask_for_each_row_that_is_the_same_for_all_is_read(body: Any):
    """Causal models of Hugging Face hand such masks on: ``(B, 1, T, T)``."""
    module = seeded(lambda: Behind(body)).double()
    net = co.continual(module, CLIP.double())
    co.verify(net, noise(2, 4, 33).double(), reference=module)


def other_rows(s: Fault, x: Tensor) -> Tensor:
    q, k, v = heads(s, x)
    mask = torch.stack((torch.ones(FRAMES, FRAMES).tril(), torch.ones(FRAMES, FRAMES).tril().triu(-3))).bool().unsqueeze(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1).transpose(1, 2)


def test_a_mask_that_is_another_one_for_each_row():
    (only,) = refused(other_rows).refusals
    assert "differs between the rows" in only.reason


# ---- the clip's maximum, loops, positions ------------------------------------------------------------------------------


def top_db(s: Fault, x: Tensor) -> Tensor:
    """As torchaudio's decibels: over the rows too."""
    db = 10 * x.abs().clamp(min=1e-5).log10()
    packed = db.reshape(-1, db.shape[0], *db.shape[-2:])
    return torch.maximum(packed, packed.amax((-3, -2, -1), keepdim=True) - 80).reshape(db.shape)


def test_a_maximum_of_the_clip_and_of_the_rows():
    (only,) = refused(top_db).refusals
    assert "over the whole clip and over the rows" in only.reason
    assert "top_db=None" in only.remedy


def sum_of_slices(s: Fault, x: Tensor) -> Tensor:
    return sum((x[:, :, t : t + 1] * float(t * t) for t in range(x.shape[2])), torch.zeros(1))


def sum_of_frames(s: Fault, x: Tensor) -> Tensor:
    return sum((x[:, :, t] * float(t * t) for t in range(x.shape[2])), torch.zeros(1))


@pytest.mark.parametrize("body", [sum_of_slices, sum_of_frames])
def test_a_loop_over_frames_is_called_one(body: Any):
    (only,) = refused(body).refusals
    assert "a number in the loop depends on the iteration: 0.0, 1.0, 4.0, 9.0" in only.reason


def test_segments_at_fixed_places_are_no_shift():
    error: Any = refused(lambda s, x: torch.stack([x[:, :, t : t + 5].mean(2) for t in range(0, FRAMES, 5)], 2))
    first, later = error.refusals
    assert "the first 5 frames" in first.reason
    assert "a shift by" in first.remedy
    assert "frames 5 … 9" in later.reason
    assert "unfold" in later.remedy


def quantised(s: Fault, x: Tensor) -> Tensor:
    """The nearest of a table, for rows and frames that are merged."""
    far = torch.cdist(x.transpose(1, 2).reshape(-1, 4), s.table)
    return s.table[far.argmin(1)].view(x.shape[0], -1, 4).transpose(1, 2)


def test_merged_rows_are_no_rows_that_are_mixed():
    module = seeded(lambda: Behind(quantised)).double()
    co.verify(co.continual(module, CLIP.double()), noise(2, 4, 31).double(), reference=module)


def branches(s: Fault, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


def test_control_flow_is_called_so():
    error: Any = refused(branches)
    assert [r.op for r in error.refusals] == ["sum", "cond"]
    assert "control flow" in error.refusals[1].reason


def test_an_output_that_is_no_tensor():
    (only,) = refused(lambda s, x: (x, 3)).refusals
    assert (only.op, only.reason) == ("output", "output 1 is 3")


def test_inputs_of_different_lengths_may_be_no_streams():
    with pytest.raises(co.ShapeMismatch, match=r"\{0: 20, 1: 6\} frames.*time_dim=\(2, None"):
        co.continual(seeded(lambda: Behind(lambda s, x, y: x)), (CLIP, noise(2, 4, 6)))


def part_of_positions(s: Fault, x: Tensor) -> Tensor:
    """Several results of an operation on positions."""
    even, odd = torch.stack((torch.arange(x.shape[2]), torch.arange(x.shape[2]) * 3), 1).float().split(1, 1)
    return x * even[:, 0].cos() + odd[:, 0].sin()


def test_parts_of_positions_are_followed():
    module = seeded(lambda: Behind(part_of_positions)).double()
    co.verify(co.continual(module, CLIP.double()), noise(2, 4, 31).double(), reference=module)


def last_position(s: Fault, x: Tensor) -> Tensor:
    return x / torch.arange(x.shape[2]).float().max()


def test_a_maximum_of_positions_is_the_length():
    (only,) = refused(last_position).refusals
    assert "depends on the length of the clip" in only.reason
    assert only.op == "max"


def of_one_size(s: Fault, x: Tensor) -> Tensor:
    """``(2, 20, 20)``, but of frames and channels."""
    wide = x.repeat(1, 5, 1)
    return (wide + wide.transpose(1, 2)).mean(1, keepdim=True)


def test_sizes_are_told_with_what_they_are():
    (only,) = refused(of_one_size).refusals
    assert only.reason.endswith("do not fit: (2 rows, 20, 20 frames) and (2 rows, 20 frames, 20)")


# ---- numbers that are taken out of tensors -----------------------------------------------------------------------------


LENGTHS = torch.tensor([FRAMES, FRAMES - 5])


def cut_to_lengths(s: Fault, x: Tensor, lengths: Tensor) -> Tensor:
    return x[:, :, : lengths.max().item()]


def if_of_lengths(s: Fault, x: Tensor, lengths: Tensor) -> Tensor:
    return x if lengths.max() > 3 else -x


def list_of_a_parameter(s: Fault, x: Tensor) -> Tensor:
    order = s.mix.weight.long().clamp(0, 3)[0, :4].tolist()
    return x[:, order]


def number_of_a_parameter(s: Fault, x: Tensor) -> Tensor:
    return x[:, : 2 + int(s.mix.weight.abs().max())]


def length_in_a_tensor(s: Fault, x: Tensor) -> Tensor:
    lengths = torch.full((x.shape[0],), x.shape[2])
    return x if lengths.float().square().sum() > 2 * lengths[0] else -x


def length_of_a_table(s: Fault, x: Tensor) -> Tensor:
    return x if s.table[: x.shape[2]].square().sum() < 1000 else -x


def if_of_values(s: Fault, x: Tensor) -> Tensor:
    return x if x.abs().max() > 1 else -x


@pytest.mark.parametrize(
    "body, inputs, said, not_said",
    [
        (cut_to_lengths, (CLIP, LENGTHS), "input that is not a stream|values of input 1", "parameter|stream's"),
        (if_of_lengths, (CLIP, LENGTHS), "values of input 1, which is not a stream", "parameter"),
        (list_of_a_parameter, (CLIP,), "a number out of a parameter or a buffer", "values of its input"),
        (number_of_a_parameter, (CLIP,), "a number out of a parameter or a buffer", "values of its input"),
        (length_in_a_tensor, (CLIP,), "made of constants and sizes", "values of its input"),
        (length_of_a_table, (CLIP,), "a number out of a parameter or a buffer", "values of its input"),
        (if_of_values, (CLIP,), "depends on values of its input", "parameter|no stream"),
    ],
)
def test_what_a_number_depends_on(body: Any, inputs: tuple[Tensor, ...], said: str, not_said: str):
    message = str(refused(body, *inputs, time_dim=(2, None)[: len(inputs)]))
    assert re.search(said, message), message
    assert not re.search(not_said, message), message
    assert "fault" in message
    assert re.search(r"(test_causes|faults)\.py:\d+", message)
    assert "Remed" in message


def masked(s: Fault, x: Tensor, lengths: Tensor) -> Tensor:
    seen = torch.arange(x.shape[2]) < lengths[:, None]
    return x * seen.unsqueeze(1)


def test_a_mask_by_lengths_is_the_remedy_that_works():
    module = seeded(lambda: Behind(masked)).double()
    net = co.continual(module, (CLIP.double(), LENGTHS), time_dim=(2, None))
    clip = noise(2, 4, 31).double()
    with torch.no_grad():
        assert torch.allclose(net.forward_steps(clip, LENGTHS, pad_end=True), module(clip, LENGTHS), atol=1e-12)
        net.clean_state()
        steps = [net.forward_step(clip[:, :, t], LENGTHS) for t in range(31)]
    found = torch.stack([y for y in steps if y is not None], 2)
    assert torch.allclose(found, module(clip, LENGTHS)[:, :, : found.shape[2]], atol=1e-12)


# ---- what nobody foresaw ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TypeError, KeyError, IndexError, AttributeError, AssertionError, RuntimeError, StopIteration])
def test_an_error_in_a_rule_is_a_refusal_of_the_operation(kind: type[Exception], monkeypatch: pytest.MonkeyPatch):
    from continual.convert.graph.rule_context import RULES

    def broken(b: Any, call: Any) -> Any:
        raise kind("'Inner' object has no secret")

    monkeypatch.setitem(RULES, "aten.glu.default", broken)
    error: Any = refused(lambda s, x: s.norm(F.glu(torch.cat((x, x), 1), 1)))
    first, second = error.refusals
    assert (first.path, first.op) == ("fault", "glu")
    assert "faults.py" in first.source
    assert "does not know this use of `glu`, on a tensor of the shape (2, 8, 20)" in first.reason
    assert second.op == "group_norm"
    assert "secret" not in str(error)
    assert not INTERNALS.search(str(error))
    assert isinstance(error.__cause__, kind)


def test_an_error_behind_the_walk_is_a_refusal(monkeypatch: pytest.MonkeyPatch):
    from continual.convert.graph import conversion as convert

    def broken(*_: Any) -> Any:
        raise KeyError("secret")

    monkeypatch.setattr(convert, "assemble", broken)
    with pytest.raises(co.NotStreamable, match="Conv1d: its streaming version can't be put together") as caught:
        co.continual(nn.Conv1d(4, 4, 3).eval(), CLIP)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


class Halved(nn.Module):
    """A skip connection around a pool of two frames."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.up(F.max_pool1d(x, 2))), 1)


def test_branches_that_do_not_meet_for_some_lengths():
    """Clips of even length convert. At odd ones the module can't run, and the end of a stream is refused, in words of the library."""
    module, clip = Halved().eval(), noise(2, 4, 24)
    net = co.continual(module, clip)
    assert_equal(net(clip), module(clip))
    with pytest.raises(co.ShapeMismatch, match="the streams that meet have") as caught:
        net(noise(2, 4, 23))
    assert not INTERNALS.search(str(caught.value))
    net.forward_steps(noise(2, 4, 23))
    with pytest.raises(co.ShapeMismatch, match="the streams that meet have"):
        net.forward_steps(noise(2, 4, 0), pad_end=True)


def test_a_generator_made_in_forward():
    def noisy(s: Fault, x: Tensor) -> Tensor:
        return x + torch.randn(4, 1, generator=torch.Generator().manual_seed(0))

    (only,) = refused(noisy).refusals
    assert "draws random numbers" in only.reason


def test_a_module_that_can_not_run_on_the_clip_says_so_itself():
    def strict(s: Fault, x: Tensor) -> Tensor:
        raise ValueError("channels come in the order of the cap")

    with pytest.raises(co.NotStreamable, match=r"Behind: module\(clip\) raises ValueError: channels come in the order"):
        co.continual(seeded(lambda: Behind(strict)), CLIP, windows="stream")
