"""Every way to a covariance, on the one problem where all of them must agree: linear least squares with equal noise."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace import bootstrap, laplace, online, sandwich, seeded, variational, wasserstein2

N, NOISE = 2000, 0.5
QUICK = partial(torch.optim.SGD, lr=0.3)


@pytest.fixture(scope="module")
def line():
    """The fitted layer, its data, and sigma^2 (X^T X)^-1 with the known noise."""
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.7]], dtype=torch.float64)
    x = torch.randn(N, 3, generator=seeded(0), dtype=torch.float64) @ mixing
    noise = NOISE**0.5 * torch.randn(N, 1, generator=seeded(1), dtype=torch.float64)
    noise = noise - x @ torch.linalg.lstsq(x, noise).solution  # the residuals are then the noise, and
    noise = noise * (NOISE * N / noise.square().sum()).sqrt()  # their mean square the variance itself
    layer = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]))
        y = layer(x) + noise
    return layer, (x, y), NOISE * torch.linalg.inv(x.T @ x)


ESTIMATORS = {
    "laplace": (1e-6, partial(laplace, prior_precision=0.0)),
    "variational": (0.02, partial(variational, prior_precision=1e-6, generator=seeded(2))),
    "variational, noise known": (
        0.02,
        partial(variational, prior_precision=1e-6, noise=NOISE, batch_size=None, epochs=4000, generator=seeded(2)),
    ),
    "sandwich": (0.05, sandwich),
    "online": (0.10, partial(online, generator=seeded(3), steps=20_000)),
    "bootstrap": (
        0.15,
        partial(bootstrap, n_models=400, chunk=400, batch_size=N, epochs=60, optimizer=QUICK, generator=seeded(4)),
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_all_find_the_covariance_of_least_squares(line, name):
    layer, data, truth = line
    tolerance, estimate = ESTIMATORS[name]
    found = estimate(layer, data, F.mse_loss).neurons("0").cov[0]
    assert torch.linalg.matrix_norm(found - truth, 2) < tolerance * torch.linalg.matrix_norm(truth, 2)


SHORT = {
    "laplace": laplace,
    "sandwich": sandwich,
    "online": partial(online, generator=seeded(3), steps=1000),
    "variational": partial(variational, epochs=20, generator=seeded(2)),
    "bootstrap": partial(bootstrap, n_models=20, epochs=2, generator=seeded(4)),
}


@pytest.fixture(scope="module")
def planes():
    """Two units that differ in their biases alone, fitted, with their data."""
    x = torch.randn(N, 3, generator=seeded(0), dtype=torch.float64)
    layer = nn.Sequential(nn.Linear(3, 2)).double()
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]).expand(2, 3))
        layer[0].bias.copy_(torch.tensor([1.0, -1.0]))
        noise = 0.1 * torch.randn(N, 1, generator=seeded(1), dtype=torch.float64)
        design = torch.cat([x, torch.ones(N, 1, dtype=torch.float64)], 1)
        noise = noise - design @ torch.linalg.lstsq(design, noise).solution
        return layer, (x, layer(x) + noise), design


@pytest.mark.parametrize("name", SHORT)
def test_a_neuron_holds_its_bias(planes, name):
    layer, data, _ = planes
    found = SHORT[name](layer, data, F.mse_loss)
    rows, with_bias = found.neurons("0"), found.neurons("0", bias=True)
    assert with_bias.dim == 4 and rows.dim == 3
    assert torch.allclose(with_bias.mean[:, :3], rows.mean) and torch.allclose(with_bias.cov[:, :3, :3], rows.cov)
    assert torch.allclose(with_bias.mean[:, 3], torch.tensor([1.0, -1.0]).double(), atol=0.05)
    assert (with_bias.cov[:, 3, 3] > 0).all()
    assert wasserstein2(rows)[0, 1] < 0.1 < 1.9 < wasserstein2(with_bias)[0, 1]


def test_the_covariance_of_a_row_with_its_bias_is_that_of_least_squares_with_an_intercept(planes):
    layer, (x, y), design = planes
    found = sandwich(layer, (x, y), F.mse_loss).neurons("0", bias=True).cov[0]
    residual = (y - layer(x).detach())[:, :1]
    bread = torch.linalg.inv(design.T @ design)
    assert torch.allclose(found, bread @ (design * residual).T @ (design * residual) @ bread, rtol=1e-8)
