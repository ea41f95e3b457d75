"""The digest of weights: other for any other weights, the same wherever they are and however they lie in memory."""

from __future__ import annotations

import copy
import hashlib
import io
import struct
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.core import weights_digest as module
from continual.core.weights_digest import Weights, check_fingerprint, fingerprint, fingerprint_of


def network() -> co.Sequential:
    torch.manual_seed(3)
    return co.Sequential(co.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())


def in_place(net: Any) -> None:
    with torch.no_grad():
        net[0].weight[1, 2, 0, 1] += 1e-3


def one_bit(net: Any) -> None:
    with torch.no_grad():
        net[0].bias.view(torch.int32)[2] ^= 1


def sign_of_zero(net: Any) -> None:
    with torch.no_grad():
        net[1].bias[0] = -0.0


def statistic(net: Any) -> None:
    net[1].running_var[3] *= 1.5


def new_data(net: Any) -> None:
    net[0].weight.data = net[0].weight.data * 2


def new_parameter(net: Any) -> None:
    net[0].bias = nn.Parameter(net[0].bias.detach() + 1)


def loaded(net: Any) -> None:
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})


def exchanged(net: Any) -> None:
    with torch.no_grad():
        a, b = net[1].running_mean.clone(), net[1].running_var.clone()
        net[1].running_mean.copy_(b), net[1].running_var.copy_(a)


def narrower(net: Any) -> None:
    net.half()


def narrower_and_back(net: Any) -> None:
    """The memory of the first weights may be that of the last ones."""
    net.half().float()


def another_buffer(net: Any) -> None:
    net[0].register_buffer("gain", torch.ones(2), persistent=False)


CHANGES = (
    in_place, one_bit, sign_of_zero, statistic, new_data, new_parameter, loaded, exchanged, narrower, narrower_and_back,
    another_buffer,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_other_weights_have_another_digest(change: Callable[[Any], None]):
    """Also after the digest has been asked for, and the digests of tensors are kept."""
    net = network()
    before = fingerprint(net)
    assert fingerprint(net) == before
    change(net)
    after = fingerprint(net)
    assert after != before
    assert after == fingerprint(copy.deepcopy(net)), "as if it were asked for the first time"


def test_the_same_weights_have_the_same_digest():
    net = network()
    want, stored = fingerprint(net), io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    other = network()
    in_place(other)
    other.load_state_dict(torch.load(stored))
    assert fingerprint(other) == want
    assert fingerprint(network().eval().requires_grad_(False)) == want
    assert fingerprint(network().to(memory_format=torch.channels_last)) == want
    laid = network()
    laid[0].weight = nn.Parameter(laid[0].weight.detach().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0))
    assert fingerprint(laid) == want
    laid[1].num_batches_tracked += 7  # which no output depends on
    assert fingerprint(laid) == want
    assert fingerprint(network().double()) != want


def test_what_the_digest_is_of():
    """It stands in files, so it must not change from version to version: names in their order, with dtypes, shapes and bytes."""
    net, total = co.Conv1d(2, 3, 2), hashlib.sha256()
    for name, shape, values in (("bias", "(3,)", net.bias), ("weight", "(3, 2, 2)", net.weight)):
        total.update(f"{name} torch.float32 {shape}\n".encode())
        total.update(hashlib.sha256(struct.pack(f"<{values.numel()}f", *values.flatten().tolist())).digest())
    assert fingerprint(net) == total.hexdigest()[:32]


def test_other_weights_at_the_same_address():
    """Where the memory of the first ones was freed, and others got it."""
    net, memory = nn.Linear(4, 1, bias=False), bytearray(struct.pack("<4f", 1, 2, 3, 4))
    net.weight.data = torch.frombuffer(memory, dtype=torch.float32).view(1, 4)
    first, mark = fingerprint(net), (net.weight.data_ptr(), net.weight._version)
    memory[:] = struct.pack("<4f", 1, 2, 3, 5)
    net.weight.data = torch.frombuffer(memory, dtype=torch.float32).view(1, 4)
    assert (net.weight.data_ptr(), net.weight._version) == mark
    assert fingerprint(net) != first


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(4).bfloat16(),
        torch.randn(5).to(torch.float8_e4m3fn),
        torch.eye(3).to_sparse(),
        torch.arange(12).view(3, 4).t(),
    ],
    ids=lambda t: f"{t.dtype} {t.layout}",
)
def test_buffers_of_all_kinds(tensor: Tensor):
    net = nn.Module()
    net.register_buffer("held", tensor)
    first = fingerprint(net)
    net.register_buffer("held", tensor.clone())
    assert fingerprint(net) == first
    net.register_buffer("held", tensor.reshape(1, *tensor.shape) if tensor.layout is torch.strided else 2 * tensor)
    assert fingerprint(net) != first


def test_weights_made_under_inference_mode():
    """They have no versions, so nothing is kept of them."""
    with torch.inference_mode():
        net = nn.Linear(2, 3)
        first = fingerprint(net)
        net.weight.mul_(2)
        assert fingerprint(net) != first
    assert not Weights(net).changed


def test_bytes_are_read_once_a_version(monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []

    def counted(t: Tensor, own: Any = module._read) -> bytes:
        read.append(t.numel())
        return own(t)

    monkeypatch.setattr(module, "_read", counted)
    net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    net.append(net[0])  # the same weights by other names
    first = fingerprint(net)
    assert read == [7, 35, 3, 21]
    assert fingerprint(net) == first
    with torch.no_grad():
        net[1].bias.add_(1)
    assert fingerprint(net) != first
    assert read == [7, 35, 3, 21, 3]


def test_networks_are_not_kept_alive():
    net = nn.Linear(3, 4)
    fingerprint(net)
    kept = weakref.ref(net.weight)
    del net
    assert kept() is None


def test_weights_know_whether_they_have_changed():
    net = network()
    taken = Weights(net)
    assert fingerprint_of(taken) == fingerprint(net)
    net.to(memory_format=torch.channels_last)
    assert not taken.changed
    in_place(net)
    assert taken.changed
    assert fingerprint_of(taken) == ""


def test_a_refusal_says_which_digests_and_what_to_do():
    net, other = network(), network()
    in_place(other)
    given, mine = fingerprint(other), fingerprint(net)
    with pytest.raises(co.StateMismatch) as caught:
        check_fingerprint("Net", net, given, "say so")
    assert str(caught.value) == (
        f"Net: this state was made with other weights (their digest is {given[:12]}…, that of the weights here {mine[:12]}…). Load the "
        "weights that it was made with, or, if it is meant to go on with these, say so"
    )
    check_fingerprint("Net", net, mine, "")
    check_fingerprint("Net", net, "", "")
    check_fingerprint("Net", "", given, "")
