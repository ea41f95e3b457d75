"""Functions of the matrices of each frame or window: covariances, as networks on them take them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import continual as co
from tests.long import by_turns


class OfCovariances(nn.Module):
    """A function of the covariance of each window of 8 frames."""

    def __init__(self, of: Callable[[Tensor], Tensor]):
        super().__init__()
        self.conv, self._of = nn.Conv1d(3, 4, 3, padding=1), of

    def forward(self, x: Tensor) -> Tensor:
        windows = self.conv(x).unfold(2, 8, 2).transpose(1, 2)  # (B, n, 4, 8)
        return self._of(windows @ windows.mT / 8 + torch.eye(4, dtype=x.dtype))


def log_of_eigenvalues(c: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(c)
    return (vectors * values.log().unsqueeze(-2)) @ vectors.mT


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "matrix logarithm": log_of_eigenvalues,
    "eigenvalues": torch.linalg.eigvalsh,
    "singular values": torch.linalg.svdvals,
    "cholesky": lambda c: torch.linalg.cholesky(c).flatten(2),
    "inverse": lambda c: torch.linalg.inv(c).diagonal(dim1=-2, dim2=-1),
    "log determinant": lambda c: torch.linalg.slogdet(c)[1],
    "triangle": lambda c: torch.linalg.qr(c)[1].abs(),
    "exponential": torch.linalg.matrix_exp,
    "pseudoinverse": torch.linalg.pinv,
    "power": lambda c: torch.linalg.matrix_power(c, 3),
    "norm": torch.linalg.matrix_norm,
    "system of equations": lambda c: torch.linalg.solve(c, c * c),
    "constant right side": lambda c: torch.linalg.solve(c, torch.eye(4, dtype=c.dtype)[:, :2]),
    "packed": lambda c: torch.cat([c], 1),
}


@pytest.mark.parametrize("name", by_turns(FUNCTIONS, 2))
def test_matrices_of_each_window(name: str) -> None:
    module = OfCovariances(FUNCTIONS[name]).double().eval()
    nn.init.normal_(module.conv.weight, std=0.5)
    net = co.continual(module, torch.randn(2, 3, 30).double())
    assert (net.delay, net.stride[0]) == (8, 2)
    report = co.verify(net, torch.randn(2, 3, 41).double(), reference=module)
    if name == "cholesky":
        assert any("NaN, which the network refuses" in check.detail for check in report.checks)


def test_frames_as_rows_of_a_matrix_are_refused() -> None:
    module = nn.Sequential(nn.Conv1d(3, 12, 3, padding=1)).eval()
    module.forward = lambda x: torch.linalg.svd(nn.Sequential.forward(module, x))[0]  # type: ignore[method-assign]
    with pytest.raises(co.NotStreamable, match="takes the frames of the clip for the rows of a matrix"):
        co.continual(module, torch.randn(2, 3, 12), windows="stream")
