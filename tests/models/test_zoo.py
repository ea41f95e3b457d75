"""`co.models`: what it lists, builds and refuses."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

import continual as co
from tests.contract import assert_equal
from tests.models.zoo import VIDEO, clip_for

NAMES = (
    "cox3d_xs cox3d_s cox3d_m cox3d_l coslow coi3d cost_gcn cost_gcn_star coa_gcn coa_gcn_star cos_tr cos_tr_star cooadtr_b1 cooadtr_b2 "
    "gtzan_b1 gtzan_b2 movinet_a0_stream deepcot kws_ds_cnn"
)


def test_names():
    assert set(co.models.list()) == set(NAMES.split())


@pytest.mark.parametrize("name", co.models.list())
def test_cards(name: str):
    card = co.models.describe(name)
    assert card.name == name
    assert "arXiv:" in card.paper
    assert card.of_video == (name in VIDEO)
    assert card.step(card.input_size)[0] in (1, 3, card.input_size)
    assert pickle.loads(pickle.dumps(card)) is card


@pytest.mark.parametrize("name, size, shape", [
    ("cox3d_m", 64, (3, 64, 64)),
    ("coslow", 96, (3, 96, 96)),
    ("coi3d", 33, (3, 33, 33)),
    ("movinet_a0_stream", 45, (3, 45, 45)),
    ("cos_tr_star", 18, (3, 18, 2)),
    ("cooadtr_b2", 20, (20,)),
    ("deepcot", 20, (20,)),
    ("kws_ds_cnn", 13, (1, 13)),
])  # fmt: skip
@torch.no_grad()
def test_sizes_and_classes(name: str, size: int, shape: tuple[int, ...]):
    net = co.models.create(name, classes=7, input_size=size)
    assert net.step_shape == shape
    y = net(clip_for(net, net.receptive_field, batch=1))
    assert y.shape[:2] == (1, 7)
    assert y.ndim == 3


def test_the_pool_goes_with_the_frame():
    """A frame of 161 pixels is halved to 6: one row more than 160 has."""
    for size, left in ((160, 5), (161, 6), (192, 6), (312, 10)):
        assert co.models.create("cox3d_xs", input_size=size).head.avg_pool.kernel_size == (4, left, left)
        assert co.models.create("coslow", input_size=size).blocks[5].pool.kernel_size == (8, left, left)


@torch.no_grad()
def test_softmax():
    torch.manual_seed(3)
    plain = co.models.create("kws_ds_cnn")
    torch.manual_seed(3)
    net = co.models.create("kws_ds_cnn", softmax=True)
    clip = clip_for(net, 60)
    assert_equal(net(clip), plain(clip).softmax(1))
    assert_equal(net.forward_steps(clip), plain.forward_steps(clip).softmax(1))


def test_networks_come_in_eval_mode():
    assert not any(m.training for m in co.models.create("cox3d_xs", input_size=32).modules())


@pytest.mark.parametrize("options, message", [
    ({"name": "cox3d_x"}, r"no network 'cox3d_x' in the zoo: did you mean 'cox3d_xs' or .*co\.models\.list\(\) names all 19"),
    ({"name": "CoST-GCN"}, "did you mean 'cost_gcn'"),
    ({"name": "resnet"}, r"no network 'resnet'"),
    ({"name": "cox3d_s", "classes": 0}, "classes is a whole number from 1 up, got 0"),
    ({"name": "cox3d_s", "input_size": 2.5}, r"input_size is a whole number from 1 up, got 2\.5"),
    ({"name": "cox3d_s", "input_size": 31}, "input_size is at least 32, got 31"),
    ({"name": "coslow", "input_size": 20}, "input_size is at least 32, got 20"),
    ({"name": "cost_gcn", "input_size": 17}, r"17 joints is not known: input_size is 25 \(NTU RGB\+D\) or 18"),
    ({"name": "kws_ds_cnn", "input_size": 3}, "at least 4, got 3"),
])  # fmt: skip
def test_refusals(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        co.models.create(**options)  # type: ignore[arg-type]


def test_a_frame_of_another_size_is_refused_by_name():
    net = co.models.create("cost_gcn")
    with pytest.raises(co.ShapeMismatch, match=r"data_bn \(BatchNorm1d\): expects steps of 150 channels"):
        net.forward_step(torch.zeros(1, 3, 18, 2))


def test_the_zoo_is_not_imported_with_the_library():
    name = "'continual.models'"
    code = f"import sys, continual as co; assert {name} not in sys.modules; co.models.list(); assert {name} in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_x3d_begins_as_its_paper_has_it():
    """Blocks begin as their shortcuts, the classifier near zero."""
    net = co.models.create("cox3d_s")
    block = net.s4.pathway0_res3
    assert not block.branch2.c_bn.weight.any()
    assert block.branch2.a_bn.weight.all()
    assert block.branch2.c.weight.std().item() == pytest.approx((2 / 96) ** 0.5, rel=0.1)
    assert block.branch2.b.weight.std().item() == pytest.approx((2 / 27 / 216) ** 0.5, rel=0.1)
    assert net.head.projection.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not net.head.projection.bias.any()
