"""`co.verify` uses lengths that the reference takes, and tries all kinds of them: no false alarms, and no blind spots."""

import pytest
import torch
from torch import Tensor, nn

import continual as co
from continual.tools.checks.wires import lengthened


def checks(report: co.Report) -> dict[str, co.Report]:
    return {c.name: c for c in report.checks}


# ---- networks that are right -------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """Two levels, strided: lengths 68 + 16 k and three more of each are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv1d(2, 4, 8, 4), nn.Conv1d(4, 6, 8, 4)
        self.lstm = nn.LSTM(6, 6)
        self.up, self.out = nn.ConvTranspose1d(6, 4, 8, 4), nn.ConvTranspose1d(4, 2, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x).relu()
        b = self.deep(a).relu()
        b = self.lstm(b.permute(2, 0, 1))[0].permute(1, 2, 0) + b
        return self.out(self.up(b).relu() + a)


class EcgResNet(nn.Module):
    """After Ribeiro et al.: the pool rounds down, the strided convolution up, so that most lengths are refused.

    Where the pool leaves a length of 1, it broadcasts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 5, padding=2)
        self.convs = nn.ModuleList([nn.Conv1d(4, 4, 5, padding=2), nn.Conv1d(4, 4, 5, padding=2)])
        self.strided = nn.ModuleList([nn.Conv1d(4, 4, 5, 4, padding=2), nn.Conv1d(4, 4, 5, 2, padding=2)])
        self.skips = nn.ModuleList([nn.Sequential(nn.MaxPool1d(s, s), nn.Conv1d(4, 4, 1)) for s in (4, 2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for conv, strided, skip in zip(self.convs, self.strided, self.skips, strict=True):
            x = (strided(conv(x).relu()) + skip(x)).relu()
        return x


class MeanAndStd(nn.Module):
    """What it keeps for its windows fills with single steps for as long as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv1d(2, 4, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.out(torch.cat((x.mean(2), x.std(2)), 1))


class Spectrum(nn.Conv1d):
    def __init__(self) -> None:
        super().__init__(2, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(*super().forward(x).chunk(2, 1))


class OwnDtype(nn.Conv1d):
    def __init__(self) -> None:
        super().__init__(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bct,dc->bdt", super().forward(x), torch.arange(8, dtype=torch.float32).view(2, 4))


class SmallValues(nn.Conv1d):
    """Passes what is in a small range on, in which noise and NaN are hardly ever."""

    def __init__(self) -> None:
        super().__init__(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(torch.where((x > 0) & (x < 0.02), x, torch.zeros_like(x))).relu()


RIGHT = {
    "U-Net with an LSTM": (UNet, (1, 2, 84)),
    "ECG ResNet": (EcgResNet, (2, 2, 48)),
    "mean and std": (MeanAndStd, (1, 2, 30)),
    "complex outputs": (Spectrum, (2, 2, 30)),
    "a dtype of its own": (OwnDtype, (2, 2, 30)),
    "a comparison": (SmallValues, (2, 2, 30)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_passes_what_is_right(name: str) -> None:
    make, shape = RIGHT[name]
    torch.manual_seed(0)
    module, clip = make().eval(), torch.randn(shape)
    report = co.verify(co.continual(module, clip, windows="stream"), clip, module)
    skipped = {c.name: c.detail for c in report.skipped}
    if name == "a dtype of its own":
        assert skipped["state follows a change of dtype"].startswith(
            "forward of a copy moved to torch.float64 raises too (ShapeMismatch: OwnDtype can't run"
        )
    if name == "a comparison":
        said = checks(report)["no output late, none early"].detail
        assert said == "none early; what is due is left to timing, because of a comparison, which NaN does not pass"
    if name == "ECG ResNet":
        assert checks(report)["forward = reference, other lengths"].detail.startswith("2 lengths from 40 to 56")
    if name == "mean and std":
        assert report.notes == ["the clip was lengthened from 30 to 39 steps, by its own content: the delay is 30"]
        assert {"delay", "steps are singles or stacked, always"}.isdisjoint(skipped)


# ---- clips that are too short ------------------------------------------------------------------------------------------


def test_lengthens_a_clip_that_is_shorter_than_the_delay() -> None:
    class Late(co.Conv1d):
        delay = 7

    net = Late(2, 3, 9)
    net.weight.data[:, :, 1:] = 0  # the outputs hang on steps of long ago
    clip = torch.randn(2, 2, 9)
    report = co.verify(net, clip, raise_on_fail=False)
    assert report.notes == ["the clip was lengthened from 9 to 16 steps, by its own content: the delay is 7"]
    assert "note: the clip was lengthened" in str(report)
    assert checks(report)["delay"].detail == "delay says 7, so the first output should come with input 8; it came with input 9"


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_what_clips_are_lengthened_by_is_never_constant(length: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(2 * length).view(2, 1, length).to(dtype)
    long = lengthened(x, 23, generator)
    assert long.shape == (2, 1, 23)
    assert torch.equal(long[:, :, :length], x)
    assert set(long.unique().tolist()) <= set(x.unique().tolist()) or dtype == torch.float32
    if length > 1 or dtype == torch.float32:
        for n in range(0, 20 - 2 * length):
            assert bool((long[:, :, n : n + 2 * length + 1] != long[:, :, n : n + 1]).any())


# ---- networks that are right for some lengths --------------------------------------------------------------------------


class Plain(nn.Conv1d):
    def __init__(self) -> None:
        super().__init__(2, 3, 3, padding=1)


class RightForEven(co.Conv1d):
    """Wrong where the clip's length is odd, streams and forward alike."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if x.shape[2] % 2 == 0 else y + 1e-2


class RightForItsOwn(co.Conv1d):
    """As a conversion that has the length of its clip in it."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if x.shape[2] <= 20 else torch.cat((y[:, :, :20], y[:, :, 20:] * 1.1), 2)


class RaisesForOthers(co.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(x.shape[0], 3, 20) if x.shape[2] > 20 else super().forward(x)


class RefusesOthers(co.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 4:
            raise co.ShapeMismatch("lengths are multiples of 4")
        return super().forward(x)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (RightForEven, "forward equals the reference on 20 steps, and differs on 17: output 0 is off by"),
        (RightForItsOwn, "forward equals the reference on 20 steps, and differs on 21: output 20 is off by"),
        (RaisesForOthers, "the reference takes a clip of 21 steps; forward raised RuntimeError: shape"),
    ],
)
def test_catches_what_is_right_for_some_lengths_alone(cls: type[co.Conv1d], message: str) -> None:
    module = Plain()
    net = cls(2, 3, 3, padding=1)
    net.load_state_dict(module.state_dict())
    report = co.verify(net, torch.randn(2, 2, 20), module, raise_on_fail=False)
    assert checks(report)["forward = reference, other lengths"].detail.startswith(message)


def test_segments_that_are_right_at_one_length() -> None:
    """Frames of a batch in groups of 4, with the number of groups of the first clip."""

    class Segments(nn.Module):
        def __init__(self, groups: int | None) -> None:
            super().__init__()
            self.groups = groups

        def forward(self, x: Tensor) -> Tensor:
            b, c, t = x.shape
            groups = b * t // 4 if self.groups is None else self.groups
            y = x.transpose(1, 2).reshape(groups, -1, c)
            return (y + y.roll(1, 1)).reshape(b, t, c).transpose(1, 2)

    net = co.forward_stepping(Segments(10))
    report = co.verify(net, torch.randn(2, 3, 20), Segments(None), raise_on_fail=False)
    message = "the reference takes a clip of 16 steps; forward raised RuntimeError: shape"
    assert checks(report)["forward = reference, other lengths"].detail.startswith(message)


def test_refused_lengths_are_said() -> None:
    module = Plain()
    net = RefusesOthers(2, 3, 3, padding=1)
    net.load_state_dict(module.state_dict())
    report = co.verify(net, torch.randn(2, 2, 20), module, raise_on_fail=False)
    check = checks(report)["forward = reference, other lengths"]
    assert check.outcome == "passed"
    assert check.detail == "3 lengths from 16 to 28; forward refuses 17, 18, 19, 21, 22, 23, which the reference takes"


def test_lengths_are_not_compared_where_the_clip_itself_differs() -> None:
    report = co.verify(co.Conv1d(2, 3, 3, padding=1), torch.randn(2, 2, 20), Plain(), raise_on_fail=False)
    assert [c.name for c in report.failures] == ["forward = reference"]
    assert checks(report)["forward = reference, other lengths"].outcome == "skipped"
