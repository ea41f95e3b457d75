"""The streaming twin of a module: its layout, its parameters, its inputs and outputs, and what it is beside other modules."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.convert.residual_net import CLIP, Net, made, steps

# ---- the module is left alone, and shares its weights -----------------------------------------------------------------


def test_state_dict_is_the_modules():
    module = made(Net())
    net = co.continual(module, CLIP, windows="stream")
    assert list(net.state_dict()) == list(module.state_dict())
    assert all(a is b for a, b in zip(net.parameters(), module.parameters(), strict=True))


def test_the_module_is_not_changed():
    module = made(Net())
    before = {n: (set(m.__dict__), m.training, len(m._forward_hooks)) for n, m in module.named_modules()}
    weights = {n: (id(p), p._version, p.requires_grad) for n, p in module.named_parameters()}
    module.norm.weight.requires_grad_(False)
    weights["norm.weight"] = (id(module.norm.weight), module.norm.weight._version, False)
    co.verify(co.continual(module, CLIP, windows="stream"), CLIP, reference=module)
    assert before == {n: (set(m.__dict__), m.training, len(m._forward_hooks)) for n, m in module.named_modules()}
    assert weights == {n: (id(p), p._version, p.requires_grad) for n, p in module.named_parameters()}


def test_fine_tuning_the_module_changes_the_twin_in_mid_stream():
    module = made(Net(head=False))
    net = co.continual(module, CLIP)
    with torch.no_grad():
        net.forward_steps(CLIP)
        for p in module.parameters():  # also those of which the weight norm computes a weight
            p.mul_(1.3)
        net.clean_state()
        assert torch.allclose(net.forward_steps(CLIP, pad_end=True), module(CLIP), atol=1e-5)
        module.conv.weight = nn.Parameter(torch.randn(4, 3, 3))  # another tensor, not other values
        net.clean_state()
        assert torch.allclose(net.forward_steps(CLIP, pad_end=True), module(CLIP), atol=1e-5)
        assert torch.allclose(net(CLIP), module(CLIP), atol=1e-5)


def test_a_checkpoint_of_the_module_can_be_loaded():
    other, module = made(Net()), made(Net())
    net = co.continual(module, CLIP, windows="stream")
    net.load_state_dict(other.state_dict())
    assert torch.allclose(net(CLIP), other(CLIP), atol=1e-5)
    assert torch.allclose(module(CLIP), other(CLIP), atol=1e-5)  # they share


def test_copy_separates_the_parameters():
    module = made(Net())
    net = co.continual(module, CLIP, windows="stream", copy=True)
    want = net(CLIP).detach().clone()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    assert torch.equal(net(CLIP), want)
    assert not any(p is q for p in net.parameters() for q in module.parameters())


def test_moves_act_on_both():
    module = made(Net())
    net = co.continual(module, CLIP, windows="stream").double()
    assert {t.dtype for t in module.state_dict().values() if t.is_floating_point()} == {torch.float64}
    assert torch.allclose(net.forward_steps(CLIP.double(), pad_end=True)[:, :, -1], module(CLIP.double()), atol=1e-12)


def test_gradients_reach_the_module():
    module = made(Net(head=False))
    net = co.continual(module, CLIP)
    net.forward_steps(CLIP, pad_end=True).square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(CLIP).square().sum().backward()
    for a, p in zip(found, module.parameters(), strict=True):
        assert float((a - p.grad).abs().max()) <= 1e-4 * max(1.0, float(p.grad.abs().max()))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_copies_stand_alone(again: Any):
    module = made(Net())
    net = co.continual(module, CLIP, windows="stream")
    with torch.no_grad():
        net.forward_steps(CLIP[:, :, :7])
        twin = again(net)
        want = net.forward_steps(CLIP[:, :, 7:], pad_end=True)
        for p in module.parameters():
            p.zero_()
        assert torch.equal(twin.forward_steps(CLIP[:, :, 7:], pad_end=True), want)


# ---- layouts --------------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """On (B, T, C)."""

    def __init__(self, first: bool = False):
        super().__init__()
        self.rnn, self.out, self.first = nn.GRU(3, 4, batch_first=not first), nn.Linear(4, 2), first

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


@pytest.mark.parametrize("dim", [0, 1])
def test_time_where_the_module_has_it(dim: int):
    module = made(Tokens(first=dim == 0))
    clip = CLIP.movedim(2, dim).contiguous() if dim == 1 else CLIP.permute(2, 0, 1).contiguous()
    net = co.continual(module, clip, time_dim=dim)
    assert (net.time_dim, net.output_time_dims) == (dim, (dim,))
    with torch.no_grad():
        assert torch.allclose(torch.stack(steps(net, clip, dim), dim), module(clip), atol=1e-6)
        net.clean_state()
        parts = [net.forward_steps(part) for part in clip.split(5, dim)]
        assert torch.allclose(torch.cat(parts, dim), module(clip), atol=1e-6)
    co.verify(net, clip, reference=module)


class Raw(nn.Module):
    """On (B, T), without channels; (B, T') comes out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(1)).amax(1)


def test_rows_and_frames_alone():
    module, clip = made(Raw()), torch.randn(3, 19)
    net = co.continual(module, clip, time_dim=1)
    found = [y for y in steps(net, clip, 1) if y is not None]
    assert found[0].shape == (3,)
    assert torch.allclose(torch.stack(found, 1), module(clip), atol=1e-6)
    co.verify(net, clip, reference=module)


class Spectral(nn.Module):
    """On (B, 1, F, T), with time last, down and up again."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.relu(self.down(x)))


def test_time_last_and_steps_with_several_outputs():
    module, clip = made(Spectral()), torch.randn(2, 1, 6, 14)
    net = co.continual(module, clip, time_dim=3)
    assert net.timing.bursts
    with torch.no_grad():
        found = [y for y in steps(net, clip, 3) if y is not None]
        assert {y.shape[:3] for y in found} == {(2, 1, 6)}  # stacked where the module has time
        rest = net.forward_steps(clip[..., :0], pad_end=True)
        assert torch.allclose(torch.cat([*found, *([] if rest is None else [rest])], 3), module(clip), atol=1e-5)
    co.verify(net, clip, reference=module)


# ---- several inputs and outputs -----------------------------------------------------------------------------------------


class Conditioned(nn.Module):
    """A stream, the embedding of a speaker with a row for each, and a mixing matrix without rows."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x: Tensor, speaker: Tensor, mix: Tensor) -> Tensor:
        y = self.conv(x) * self.fc(speaker).unsqueeze(-1)
        return torch.einsum("bct,cd->bdt", y, mix / mix.sum())


def test_inputs_that_are_no_streams_go_along():
    module, speaker, mix = made(Conditioned()), torch.randn(2, 5), torch.rand(4, 4)
    net = co.continual(module, (CLIP, speaker, mix), time_dim=(2, None, None))
    with torch.no_grad():
        want = module(CLIP, speaker, mix)
        assert torch.allclose(net(CLIP, speaker, mix), want, atol=1e-6)
        found = [net.forward_step(CLIP[:, :, t], speaker, mix) for t in range(12)]
        found.append(net.forward_steps(CLIP[:, :, :0], speaker, mix, pad_end=True)[:, :, 0])
        assert torch.allclose(torch.stack(found[1:], 2), want, atol=1e-6)
        other = net.forward_step(CLIP[:, :, 0], 2 * speaker, mix, update_state=False)
        assert not torch.allclose(other, net.forward_step(CLIP[:, :, 0], speaker, mix))
    co.verify(net, (CLIP, speaker, mix), reference=lambda inputs: module(*inputs))


class Pair(nn.Module):
    """Two streams in, two out, which belong to the same moments."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(2, 4, 7, padding=3)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x) + self.b(y), self.a(x)


def test_two_streams_in_and_two_out():
    module, other = made(Pair()), torch.randn(2, 2, 12)
    net = co.continual(module, (CLIP, other))
    assert net.delay == 3
    found = net.forward_steps(CLIP, other, pad_end=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, module(CLIP, other), strict=True))
    co.verify(net, (CLIP, other), reference=lambda inputs: module(*inputs))
    with pytest.raises(co.ShapeMismatch, match="takes 2 inputs"):
        net.forward_step(CLIP[:, :, 0])
    with pytest.raises(co.ShapeMismatch, match="equal lengths"):
        net.forward_steps(CLIP, other[:, :, :5])


# ---- a CoModule like any other --------------------------------------------------------------------------------------


def test_in_containers():
    block, head = made(Net(head=False)), made(Net())
    net = co.Sequential(
        co.Residual(co.continual(nn.Sequential(block, nn.Conv1d(4, 3, 1)).eval(), CLIP)),
        co.continual(head, CLIP, windows="stream"),
    )
    longer = torch.randn(2, 3, 17)
    with torch.no_grad():
        assert torch.allclose(net.forward_steps(longer, pad_end=True), net(longer), atol=1e-5)
        assert net(longer[:, :, :12]).shape == (2, 2, 1)
    co.verify(net.double(), longer.double())


def test_pure_functions_and_snapshots():
    net = co.continual(made(Net(head=False)), CLIP)
    state, found = net.init_state(CLIP[:, :, 0]), []
    with torch.no_grad():
        for t in range(12):
            y, state = net.step(CLIP[:, :, t], state)
            found.append(y)
        rest, _ = net.steps(CLIP[:, :, :0], state, pad_end=True)
        whole = torch.cat([torch.stack([y for y in found if y is not None], 2), rest], 2)
        assert torch.allclose(whole, net(CLIP), atol=1e-6)
    assert set(state.tensors) == {"conv.window", "wide.window", "add.wait.0.queue"}


class Everything(nn.Module):
    """A queue, positions, a recurrent state and a strided head."""

    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(3, 4, 5, padding=2), nn.GRU(4, 4, batch_first=True)
        self.down = nn.Conv1d(4, 2, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) + F.pad(x, (0, 0, 0, 1))
        y = y * torch.cos(0.3 * torch.arange(x.shape[2]))
        return self.down(self.rnn(y.transpose(1, 2))[0].transpose(1, 2))


@pytest.mark.parametrize("phase", [0, 1, 4, 7])
def test_stored_states_go_on(phase: int, tmp_path: Any):
    module = made(Everything())
    net, other = co.continual(module, CLIP), co.continual(module, CLIP)
    with torch.no_grad():
        net.forward_steps(CLIP[:, :, :phase])
        state = net.get_state() or net.init_state(CLIP[:, :, 0])
        co.save_state(state, tmp_path / "state.safetensors")
        other.set_state(co.load_state(tmp_path / "state.safetensors"))
        a, b = (n.forward_steps(CLIP[:, :, phase:], pad_end=True) for n in (net, other))
    assert torch.equal(a, b)


def test_everything_at_once():
    co.verify(co.continual(made(Everything()), CLIP).double(), CLIP.double())


def test_a_state_of_another_network_is_refused():
    net, other = co.continual(made(Net()), CLIP, windows="stream"), co.continual(made(Everything()), CLIP, windows="stream")
    with pytest.raises(co.StateMismatch):
        net.set_state(other.init_state(CLIP[:, :, 0]))


def test_the_table_follows_the_data():
    explained = co.continual(made(Everything()), CLIP).operation_graph()
    rows = {row.path: row for row in explained.rows}
    names = [row.path for row in explained.rows]
    add = rows["add"]
    assert [names[i] for i in add.inputs] == ["conv", "pad"]
    assert add.waits == (0, 2)
    assert rows["down"].rate == 1 / 2
    assert (rows["down"].receptive_field, rows["down"].delay) == (explained.receptive_field, 3)
    assert "test_graph_module.py" in add.source
    assert explained.state_bytes == co.continual(made(Everything()), CLIP).init_state(CLIP[:, :, 0]).nbytes
    assert explained.inputs == ("x (2, 3, T)",)


def test_refused_operations_stand_in_the_table():
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x.flip(2)) + x

    explained = co.explain(Turned().eval(), CLIP)
    rows = {row.path: row for row in explained.rows}
    assert [(r.path, r.op, r.row) for r in explained.refusals] == [("", "flip", "flip")]
    assert rows["flip"].inputs == (-1,)
    assert explained.refusal_of(rows["flip"]) is explained.refusals[0]
    assert "stream has not seen" in str(explained)


def test_summary_counts_layers_and_the_rest():
    net = co.continual(made(Net()), CLIP, windows="stream")
    rows = {row.path: row for row in co.summary(net, CLIP[:1, :, 0]).rows}
    assert rows[""].params == sum(p.numel() for p in net.parameters())
    assert rows["conv"].macs_step == 3 * 4 * 3
    assert rows[""].macs_step == 3 * 4 * 3 + 4 * 4 * 5 + 4 * 2  # the linear layer has no state and no row of its own


def test_training_mode_is_refused_where_it_makes_a_difference():
    module = Net()
    with pytest.raises(co.NotStreamable, match="training mode.*module.eval"):
        co.continual(module.train(), CLIP)
    net = co.continual(module.eval(), CLIP, windows="stream")
    net.train()
    with pytest.raises(co.NotStreamable, match="BatchNorm1d"):
        net(CLIP)
    net.eval()
    net(CLIP)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"time_pooling": "mean"}, ValueError, "'window' or 'frame'"),
        ({"time_dim": 5}, co.ShapeMismatch, "no time_dim=5"),
        ({"time_dim": (2, None)}, ValueError, "names 2 inputs, the clip has 1"),
        ({"time_dim": None}, ValueError, "no input of the clip is a stream"),
        ({"sequence_len": 3}, TypeError, "no option sequence_len"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        co.continual(made(Net()), CLIP, **arguments)


def test_options_without_a_clip():
    with pytest.raises(TypeError, match="go with an example clip"):
        co.continual(nn.Conv1d(2, 2, 3), time_dim=1)


def test_wrong_shapes_are_named_in_the_modules_layout():
    net = co.continual(made(Tokens()), CLIP.transpose(1, 2), time_dim=1)
    with pytest.raises(co.ShapeMismatch, match="time in dim 1"):
        net.forward_steps(torch.randn(2, 3))
    with pytest.raises(co.ShapeMismatch, match="GRU.: expects steps .B, 3., got .2, 7."):
        net.forward_step(torch.randn(2, 7))
    with pytest.raises(co.ShapeMismatch, match=r"got \(2, 3\). A step goes to net.forward_step\(x\)"):
        net(torch.randn(2, 3))
