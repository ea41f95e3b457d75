"""Training mode of a converted network, whose operations were captured in eval mode."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import continual as co

CLIP = torch.randn(3, 4, 14, generator=torch.Generator().manual_seed(5))


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)

    def forward(self, x):
        return F.dropout(self.conv(x), 0.5, training=self.training)


class Branching(Dropping):
    def forward(self, x):
        y = self.conv(x)
        return sum(v * (2 if self.training else 1) for v in (y, y))


class Inside(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x.transpose(1, 2))
        return (y[0] if isinstance(y, tuple) else y).transpose(1, 2)


class Swapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 2


MODAL = {
    "functional dropout": (Dropping(), r"Dropping asks whether it is training \(test_modes.py:\d+: `return F.dropout"),
    "functional dropout inside": (Swapped(Dropping()), r"inner \(Dropping\) asks whether it is training \(test_modes.py:\d+: `"),
    "a generator in it": (Branching(), r"Branching asks whether it is training \(test_modes.py:\d+: `return sum"),
    "dropout between layers": (
        Inside(nn.LSTM(4, 6, 2, dropout=0.5, batch_first=True)),
        r"inner \(LSTM\) drops between its layers .*0.5",
    ),
    "a norm": (nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)), r"1 \(BatchNorm1d\) computes something else in training"),
    "a module of dropout": (
        nn.Sequential(nn.Conv1d(4, 4, 3), nn.Dropout(0.1)),
        r"1 \(Dropout\) computes something else in training",
    ),
}


@pytest.mark.parametrize("name", MODAL)
def test_what_works_otherwise_in_training_mode_is_refused_by_path_and_line(name):
    module, message = MODAL[name]
    net = co.continual(module.eval(), CLIP)
    with torch.no_grad():
        want = net.forward_steps(CLIP)
        net.clean_state()
        for x in CLIP[:, :, :9].unbind(2):
            net.forward_step(x)
        net.train()
        state = net.init_state
        for call in (
            lambda: net.forward_step(CLIP[:, :, 9]),  # the stream is open, and on its fast path
            lambda: net.forward_steps(CLIP[:, :, 9:]),
            lambda: net(CLIP),
            lambda: state(CLIP[:, :, 0]),
        ):
            with pytest.raises(co.NotStreamable, match=f"training mode.*{message}.*call eval"):
                call()
        net.eval()
        y = net.forward_steps(CLIP[:, :, 9:])
        torch.testing.assert_close(y, want[:, :, -y.shape[2] :], rtol=0, atol=1e-5)


def test_training_mode_is_allowed_where_it_makes_no_difference():
    net = co.continual(Inside(nn.LSTM(4, 6, 2, batch_first=True)).eval(), CLIP)
    want = net(CLIP)
    net.train()
    assert net.training
    assert net.inner.training
    torch.testing.assert_close(net.forward_steps(CLIP), want, rtol=0, atol=1e-5)


def test_a_part_may_be_set_to_eval_mode_and_to_training_mode_where_that_is_the_same():
    net = co.continual(nn.Sequential(nn.Conv1d(4, 4, 3), nn.ReLU()).eval(), CLIP)
    net.get_submodule("0").train().eval()
