"""Images that wait lie in memory as they came: with their channels last, or first."""

import pytest
import torch
from torch import Tensor, nn

import continual as co


class Around(nn.Module):
    """A shortcut around a convolution, for conversion by graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, (3, 1, 1), groups=4, padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def converted() -> co.CoModule:
    return co.continual(Around().eval(), torch.randn(2, 4, 9, 5, 3))


NETS = {
    "delay": lambda: co.Delay(2),
    "residual": lambda: co.Residual(co.Conv3d(4, 4, (3, 1, 1), groups=4, padding=(1, 0, 0))),
    "converted": converted,
}
FORMATS = {"last": (torch.channels_last, torch.channels_last_3d), "first": (torch.contiguous_format,) * 2}


def waiting(net: co.CoModule) -> Tensor:
    """The frames that wait."""
    state = net.get_state()
    assert state is not None
    return next(t for name, t in state.tensors.items() if "queue" in name or "frames" in name)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_frames_leave_as_they_came(name: str, layout: str):
    step_format, clip_format = FORMATS[layout]
    net, clip = NETS[name]().eval(), torch.randn(2, 4, 9, 5, 3)
    with torch.no_grad():
        expected = net(clip)
        found = [net.forward_step(f.contiguous(memory_format=step_format)) for f in clip.unbind(2)]
        given = [y for y in found if y is not None]
        assert given[-1].is_contiguous(memory_format=step_format) or (name != "delay" and layout == "first")
        assert waiting(net).stride(2) == (1 if layout == "last" else 15)
        torch.testing.assert_close(torch.stack(given, 2), expected[:, :, : len(given)])
        net.clean_state()
        chunk = net.forward_steps(clip[:, :, :6].contiguous(memory_format=clip_format))
        assert waiting(net).stride(2) == (1 if layout == "last" else 15)
        rest = net.forward_steps(clip[:, :, 6:], pad_end=True)
        torch.testing.assert_close(torch.cat([chunk, rest], 2)[:, :, : expected.shape[2]], expected)


@pytest.mark.parametrize("name", NETS)
def test_a_state_that_is_kept_has_its_own_layout(name: str):
    """A pure step lays out its own state, and the one that it was given stays as it is."""
    net, clip = NETS[name]().eval(), torch.randn(2, 4, 9, 5, 3)
    x = clip[:, :, 0].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        cold = net.init_state(x)
        before = [(t.data_ptr(), t.stride()) for t in cold.tensors.values()]
        _, state = net.step(x, cold)
        assert [(t.data_ptr(), t.stride()) for t in cold.tensors.values()] == before
    with torch.no_grad():  # no inference tensors, which could not be written any more
        net.set_state(state)
        found = [net.forward_step(f) for f in clip[:, :, 1:].unbind(2)]
        expected = net(clip)
    given = torch.stack([y for y in found if y is not None], 2)
    start = net.delay == 0
    torch.testing.assert_close(given, expected[:, :, start : start + given.shape[2]])


@pytest.mark.parametrize("name", NETS)
def test_a_state_that_has_lost_its_layout_gets_it_back(name: str):
    net, clip = NETS[name]().eval(), torch.randn(2, 4, 9, 5, 3).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        net.forward_steps(clip[:, :, :5])
        lost = net.get_state().map(lambda t: t.contiguous())
        expected = [net.forward_step(f) for f in clip[:, :, 5:].unbind(2)]
        net.set_state(lost)
        assert waiting(net).is_contiguous()
        found = [net.forward_step(f) for f in clip[:, :, 5:].unbind(2)]
    assert waiting(net).stride(2) == 1
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want)
        assert got.stride() == want.stride()
