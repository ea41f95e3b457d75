"""The zoo's networks stream exactly: logits of steps and chunks against the clip's."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import continual as co
from continual.models import encoders
from continual.models.zoo import Model
from tests.contract import assert_equal
from tests.long import ASKED_FOR, LONG, by_turns, some, whose_turn
from tests.models.zoo import SKELETONS, THIN, TRANSFORMERS, VIDEO, alive, assert_same, clip_for, made, random_statistics, thin

TIMING = {  # receptive field, padding, delay, stride: as in docs/models.md; of the regular skeleton networks with the pool
    "cox3d_xs": (60, 28, 31, 1),
    "cox3d_s": (69, 28, 40, 1),
    "cox3d_m": (72, 28, 43, 1),
    "cox3d_l": (130, 57, 72, 1),
    "coslow": (26, 9, 16, 1),
    "coi3d": (42, 17, 24, 2),
    "cost_gcn": (449, 152, 296, 4),
    "cost_gcn_star": (300, 0, 299, 1),
    "coa_gcn": (449, 152, 296, 4),
    "coa_gcn_star": (300, 0, 299, 1),
    "cos_tr": (449, 152, 296, 4),
    "cos_tr_star": (300, 0, 299, 1),
    "cooadtr_b1": (64, 0, 63, 1),
    "cooadtr_b2": (64, 0, 63, 1),
    "gtzan_b1": (120, 0, 119, 1),
    "gtzan_b2": (120, 0, 119, 1),
    "deepcot": (379, 378, 0, 1),
    "movinet_a0_stream": (31, 30, 0, 1),
    "kws_ds_cnn": (48, 0, 47, 2),
}


def test_every_network_is_listed():
    assert set(co.models.list()) == set(TIMING)


@pytest.mark.parametrize("name", co.models.list())
def test_timing(name: str):
    net = co.models.create(name, **({"input_size": 32} if name in VIDEO else {}))
    timing = net.timing
    assert (net.receptive_field, timing.start, net.delay, net.stride[0]) == TIMING[name]


def test_heads_over_64_frames_have_the_published_receptive_fields():
    """The accuracies are published for heads that average over 64 frames."""
    for name, receptive_field, delay in (("cox3d_s", 120, 91), ("cox3d_l", 178, 120)):
        net = co.models.create(name, input_size=32)
        net.head[3] = co.AvgPool3d((64, 1, 1), stride=1)
        assert (net.receptive_field, net.delay) == (receptive_field, delay)


@pytest.mark.parametrize("name", by_turns(THIN, 12))
def test_the_contract(name: str):
    net = thin(name)
    co.verify(net, clip_for(net, net.receptive_field + 9), splits=3)


@pytest.mark.parametrize("name", by_turns(["kws_ds_cnn", "gtzan_b1"], 2))
def test_the_contract_of_small_networks_as_they_are(name: str):
    net = made(name, torch.float32)
    co.verify(net, clip_for(net, net.receptive_field + 41), splits=2)


@LONG
@pytest.mark.parametrize("name", co.models.list())
def test_the_contract_of_every_network(name: str):
    """Frames of 64 × 64, a receptive field and 100 steps. Minutes each, for the largest an hour."""
    net = random_statistics(co.models.create(name, **({"input_size": 64} if name in VIDEO else {})))
    co.verify(net, clip_for(net, net.receptive_field + 100), splits=2)


LARGE = ("cox3d_l", "coa_gcn", "coa_gcn_star", "cos_tr", "cos_tr_star", "cost_gcn", "cost_gcn_star")  # ten seconds and more


NOW = whose_turn(LARGE, 12) | whose_turn(set(co.models.list()) - set(LARGE), 2)


@pytest.mark.parametrize("name", some(co.models.list(), set(co.models.list()) - NOW))
@torch.no_grad()
def test_steps_give_the_logits_of_the_clip(name: str):
    """Of the networks themselves, on small frames: from the first step on, past the delay."""
    net = made(name, **({"input_size": 32} if name in VIDEO else {"input_size": 18} if name in SKELETONS else {}))
    after = 12 if name in VIDEO else 7
    clip = clip_for(net, net.delay + after)
    want = net(clip)
    got = [y for y in (net.forward_step(frame) for frame in clip.unbind(2)) if y is not None]
    assert len(got) == net.timing.delivered(clip.shape[2]) >= after // net.stride[0]
    assert_same(torch.stack(got, 2), want[:, :, : len(got)])
    if name in ("coa_gcn_star", "cos_tr_star"):
        return  # chunks take seconds more, for what the thin relatives show
    net.clean_state()
    chunks = [
        net.forward_steps(c) for c in clip.split([net.delay - net.delay // 3, 5, net.delay // 3 + after - 5], 2) if c.numel()
    ]
    assert_same(torch.cat([c for c in chunks if c is not None], 2), want[:, :, : len(got)])


@LONG
@pytest.mark.parametrize("name", co.models.list())
@torch.no_grad()
def test_a_prediction_at_full_size(name: str):
    net = random_statistics(co.models.create(name))
    clip = clip_for(net, net.delay + 2, batch=1)
    want = net(clip)[:, :, : net.timing.delivered(clip.shape[2])]
    got = [y for y in (net.forward_step(frame) for frame in clip.unbind(2)) if y is not None]
    assert_equal(torch.stack(got, 2), want)


@pytest.mark.parametrize("kind, depth", by_turns([("single", 1), ("retroactive", 2), ("causal", 2)], 3))
@torch.no_grad()
def test_transformers_do_not_drift(kind: str, depth: int):
    """100,000 steps (in `make test` 10,000) of tokens of width 64, large and small ones, against the clip of the newest tokens."""
    torch.manual_seed(depth)
    window, steps = 16, 100_000 if ASKED_FOR else 10_000
    layers = encoders.encoder(
        3, 8, width=64, heads=4, hidden=64, window=window, positions=31, depth=depth, causal=kind == "causal"
    )
    net = alive(Model(layers, co.models.describe("deepcot"), 8))
    generator = torch.Generator().manual_seed(0)
    needed = net.receptive_field + 31  # and whole rounds of the positions
    with torch.inference_mode():
        for start in range(0, steps, 10_000):
            clip = torch.randn(1, 8, 10_000, generator=generator)
            clip[:, :, 3000:3010] *= 1e4  # an outlier must leave no trace
            for frame in clip.unbind(2):
                y = net.forward_step(frame)
            end = start + 10_000
            first = (end - needed) // 31 * 31  # where the positions begin again
            recent = clip[:, :, first - end :]
            assert_equal(y, net(recent)[:, :, -1], f"after {end} steps")


@pytest.mark.parametrize("name", ["x3d", "skeleton a", "retro"])
@torch.no_grad()
def test_copies_and_pickles_in_mid_stream(name: str):
    net = thin(name)
    clip = clip_for(net, net.delay + 6)
    net.forward_steps(clip[:, :, :-3])
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    want = net.forward_steps(clip[:, :, -3:])
    for made_copy in copies:
        assert made_copy.card is net.card
        assert torch.equal(made_copy.forward_steps(clip[:, :, -3:]), want)


@pytest.mark.parametrize("name", ["x3d", "resnet", "retro", "skeleton st", "skeleton tr*"])
@torch.no_grad()
def test_many_streams_in_one_program(name: str):
    net = thin(name)
    clips = clip_for(net, net.delay + 9, batch=3)
    want = net(clips)
    program = co.StreamBatch(net, clips[:1, :, 0], capacity=3, backend="eager")
    ids = [program.open() for _ in clips]
    got: dict[int, list[torch.Tensor]] = {i: [] for i in ids}
    for frame in clips.unbind(2):
        for i, y in program.step(dict(zip(ids, frame))).items():
            if y is not None:
                got[i].append(y if y.ndim == 1 else y[:, 0])
    for row, i in enumerate(ids):
        assert len(got[i]) >= 4
        assert_equal(torch.stack(got[i], 1), want[row, :, : len(got[i])])


def test_training_mode_is_refused_where_norms_would_see_the_whole_clip():
    net = made("cost_gcn_star", torch.float32).train()
    with (
        pytest.warns(UserWarning, match=r"data_bn.*training mode"),
        pytest.raises(co.NotStreamable, match=r"layers\.layer1\.gcn \(GraphConv\).*training mode"),
    ):
        net.forward_step(torch.randn(2, 3, 25, 2))
    with pytest.raises(co.NotStreamable, match=r"layers\.layer1\.gcn \(GraphConv\).*training mode"):
        net.forward_step(torch.randn(2, 3, 25, 2))


@pytest.mark.parametrize("name", ["x3d", "resnet", "skeleton a", "skeleton tr", "retro", "deep", "movinet", "kws"])
def test_clips_train(name: str):
    """Gradients reach every parameter that has an effect."""
    known = {"movinet": ("movinet_a0_stream", 32), "kws": ("kws_ds_cnn", 10)}
    net = (made(known[name][0], torch.float32, input_size=known[name][1]) if name in known else thin(name)).train()
    net(clip_for(net, max(12, net.receptive_field))).square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert all(name == "skeleton tr" and n.endswith("gcn.A") for n in dead), dead


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_attention_has_biases_where_it_should(name: str):
    net = co.models.create(name)
    for layer in net.encoder[0]:
        assert (layer.self_attn.in_proj_bias is None) == name.startswith("cooadtr")
        assert isinstance(layer.linear1.bias, nn.Parameter)
