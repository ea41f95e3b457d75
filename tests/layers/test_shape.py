"""`Reshape`."""

import pytest
import torch

import continual as co
from tests.contract import assert_equal, check_contract, check_gradients

# (step's shape after, clip before, clip after by torch)
CASES = {
    "joints to channels": ((-1, 15), (2, 3, 9, 5), lambda x: x.movedim(3, 2).reshape(2, 15, 9)),
    "channels to joints": ((-1, 3, 5), (2, 15, 9), lambda x: x.view(2, 3, 5, 9).movedim(3, 2)),
    "heads into the batch": ((-1, 2, 5), (3, 4, 9, 5), lambda x: x.view(3, 2, 2, 9, 5).reshape(6, 2, 9, 5)),
    "flatten space": ((2, 3, -1), (2, 3, 9, 4, 5), lambda x: x.flatten(3)),
}


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("name", [n for n in CASES if n != "heads into the batch"])
def test_reshape(name: str, contiguous: bool):
    shape, before, reference = CASES[name]
    for dtype in (torch.float64, torch.float32):
        net, clip = co.Reshape(*shape, contiguous=contiguous), torch.randn(before).to(dtype)
        assert co.Reshape(shape).shape == co.Reshape(list(shape)).shape == net.shape  # also in one tuple
        assert_equal(net(clip), reference(clip))
        check_contract(net, clip)
    check_gradients(net, clip.double())
    if contiguous:
        assert net(clip).is_contiguous()
        assert net.forward_step(clip[:, :, 0]).is_contiguous()


def test_the_batch_may_change():
    """Rows of the output are then no rows of the input, so only the values are compared."""
    shape, before, reference = CASES["heads into the batch"]
    net, clip = co.Reshape(*shape), torch.randn(before, dtype=torch.float64)
    assert_equal(net(clip), reference(clip))
    assert_equal(net.forward_steps(clip), reference(clip))
    assert_equal(torch.stack([net.forward_step(x) for x in clip.unbind(2)], 2), reference(clip))


def test_reshape_between_layers():
    net = co.Sequential(
        co.Conv2d(3, 2, (3, 1)), co.Reshape(-1, 10), co.Conv1d(10, 4, 2), co.Reshape(-1, 2, 2), co.Conv2d(2, 3, 2, padding=1)
    )
    check_contract(net.double(), torch.randn(2, 3, 12, 5, dtype=torch.float64))


def test_too_few_numbers():
    with pytest.raises(ValueError, match=r"at least batch and channels.*got \(-1,\)"):
        co.Reshape(-1)
    with pytest.raises(ValueError, match=r"at least batch and channels.*got \(\(2, 3\), 4\)"):
        co.Reshape((2, 3), 4)
