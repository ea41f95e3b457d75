"""Modules that Hypothesis found, shrunk. Each says what was wrong."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import continual as co
from tests.contract import check_contract


class PaddingBesideLookAhead(nn.Module):
    """A frame of padding existed before the frame that it is added to: the stream gave no output where the counts said one."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead, self.pair = nn.Conv1d(3, 3, 5, padding=2), nn.Conv1d(3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ahead(x)
        return F.pad(self.pair(x), (1, 0), value=0.5) + x


class Difference(nn.Module):
    """`x[:, :, 1:]` exports as a chain of slices, of which the last alone was taken for all that reads the convolution."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 3, kernel, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x[:, :, 1:] - x[:, :, :-1]


class PaddedCut(nn.Module):
    """Behind a layer that looks ahead, padding comes before any frame has come."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, 1:], (1, 0), value=0.5)


class PaddedDifference(nn.Module):
    """The same, where it waits in a queue, which was too short."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, 1:] - x[:, :, :-1], (1, 0), value=0.5) + x


class RecurrentShift(nn.Module):
    """The length of a clip was a number behind a recurrent layer, so that a shift looked like a join of one frame and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.conv = nn.GRU(3, 3, batch_first=True), nn.Conv1d(3, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        z = self.conv(y + self.gru(y.transpose(1, 2))[0].transpose(1, 2) + x)
        z = torch.cat((z, y[:, :, 0:-3]), 1)
        return torch.cat((z[:, :, 1:], torch.zeros_like(z[:, :, :1])), 2)


class FlattenedChannels(nn.Module):
    """Channels that were flattened are known by their pieces, (3, 2), which are as many as the weight's 6."""

    def __init__(self, equation: str) -> None:
        super().__init__()
        self.weight, self.equation = nn.Parameter(torch.randn(5, 6)), equation

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, T, 2)
        y = x.transpose(1, 2).flatten(2)
        if self.equation == "btc,kc->btk":
            return torch.einsum(self.equation, y, self.weight).transpose(1, 2)
        return torch.einsum(self.equation, y.transpose(1, 2), self.weight)


MODULES = {
    "padding beside look-ahead": PaddingBesideLookAhead,
    "difference, one frame of padding": lambda: Difference(3, 1),
    "difference, two frames of padding": lambda: Difference(3, 2),
    "difference, wide": lambda: Difference(5, 2),
    "recurrent shift": RecurrentShift,
}


@pytest.mark.parametrize("name", MODULES)
def test_the_contract(name: str) -> None:
    module, clip = MODULES[name]().double().eval(), torch.randn(2, 3, 13).double()
    check_contract(co.continual(module, clip[:, :, :9]), clip)


@pytest.mark.parametrize("inner", [PaddedCut, PaddedDifference])
def test_the_contract_behind_a_layer_that_looks_ahead(inner: type[nn.Module]) -> None:
    clip = torch.randn(2, 3, 13).double()
    net = co.Sequential(co.Conv1d(3, 3, 5, padding=2), co.continual(inner().eval(), clip[:, :, :9])).double().eval()
    check_contract(net, clip)


class OnePlace(nn.Module):
    """All places of a window were waited for, though one was used: its outputs were held back."""

    def __init__(self, place: int, step: int) -> None:
        super().__init__()
        self.conv, self.place, self.step = nn.Conv1d(2, 2, 3, padding=1), place, step

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv(x)).unfold(2, 3, self.step)[..., self.place]


@pytest.mark.parametrize(("place", "step"), [(0, 1), (1, 1), (2, 1), (-3, 1), (1, 2)])
def test_one_place_of_sliding_windows(place: int, step: int) -> None:
    module, clip = OnePlace(place, step).double().eval(), torch.randn(2, 2, 13, dtype=torch.float64)
    co.verify(co.continual(module, clip), clip, reference=module)


@pytest.mark.parametrize("equation", ["btc,kc->btk", "bct,kc->bkt"])
def test_einsum_on_flattened_channels(equation: str) -> None:
    module, clip = FlattenedChannels(equation).double().eval(), torch.randn(2, 3, 13, 2).double()
    co.verify(co.continual(module, clip), clip, reference=module, splits=2)


@pytest.mark.parametrize(
    "first", [lambda x: F.relu(x, inplace=True), lambda x: F.hardtanh(x.contiguous(), -0.7, 2, inplace=True)]
)
def test_a_module_that_writes_into_its_input(first: Callable[[Tensor], Tensor]) -> None:
    """The twin was compared on clips that the module had changed before; and the user's clip was changed by the conversion."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(first(x) + x)

    module, clip = Writes().double().eval(), torch.randn(2, 2, 9).double()
    before = clip.clone()
    net = co.continual(module, clip)
    assert torch.equal(clip, before)
    for steps in (9, 12, 13):
        other = torch.randn(2, 2, steps).double()
        torch.testing.assert_close(net(other.clone()), module(other.clone()))


class CopyThatIsWritten(nn.Module):
    """`contiguous` of a turned tensor is a copy: writing into it leaves the tensor as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).transpose(1, 2)
        return y + F.relu(y.contiguous(), inplace=True)


def test_a_copy_that_is_written_into() -> None:
    module, clip = CopyThatIsWritten().double().eval(), torch.randn(2, 2, 13).double()
    net = co.continual(module, clip)
    torch.testing.assert_close(net(clip), module(clip))
    co.verify(net, clip, reference=module, effort="quick")


class ShiftBeforeAHead(nn.Module):
    """A head fixes the length in the export, and the zeros before a shift looked like all but the last frames."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(x, scale_factor=2, mode="nearest").relu()
        y = torch.cat((torch.zeros_like(y[:, :, :3]), y[:, :, :-3]), 2)
        return self.head(y[:, :, ::2].flatten(1))


def test_a_shift_before_a_head() -> None:
    module, clip = ShiftBeforeAHead().double().eval(), torch.randn(2, 2, 8).double()
    co.verify(co.continual(module, clip), torch.randn(2, 2, 19).double(), splits=2)
    net = co.continual(module, clip)
    torch.testing.assert_close(net(clip), module(clip))
