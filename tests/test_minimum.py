import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace import seeded
from mspace.models import mlp
from mspace.training import refine


def line():
    x = torch.randn(60, 4, generator=seeded(0), dtype=torch.float64)
    return x, x @ torch.ones(4, 2, dtype=torch.float64) + torch.randn(60, 2, generator=seeded(1), dtype=torch.float64)


def test_least_squares_and_ridge_in_closed_form():
    x, y = line()
    net = nn.Linear(4, 2, bias=False).double()
    start = net.weight.detach().clone()
    found = refine(net, (x, y), F.mse_loss, tolerance=1e-7)
    assert torch.allclose(found.weight, torch.linalg.lstsq(x, y).solution.T, atol=1e-6)
    assert torch.equal(net.weight, start)
    decay = 0.3  # the mean is over 60 * 2 numbers
    ridge = torch.linalg.solve(x.T @ x + 60 * decay * torch.eye(4), x.T @ y).T
    assert torch.allclose(refine(net, (x, y), F.mse_loss, weight_decay=decay, tolerance=1e-7).weight, ridge, atol=1e-6)


def with_dropout():
    first, tanh, last = mlp(4, 3, 2, activation=nn.Tanh, generator=seeded(3))
    return nn.Sequential(first, tanh, nn.Dropout(0.5), last)


def test_a_network_ends_at_a_minimum_with_dropout_at_rest():
    x, y = line()
    net = with_dropout().double()
    decay = 1e-3  # without it a tanh may become a step, whose weights run away
    found = refine(net, (x, y), F.mse_loss, weight_decay=decay, steps=5000, tolerance=1e-6)
    assert found.training
    F.mse_loss(found.eval()(x), y).backward()
    assert max((p.grad + decay * p.detach()).abs().max() for p in found.parameters()) < 2e-6
    with torch.no_grad():
        assert F.mse_loss(found(x), y) < F.mse_loss(net.eval()(x), y)


def test_the_type_that_came_is_returned():
    x, y = line()
    data = x.float(), y.float()
    found = refine(with_dropout().eval(), data, F.mse_loss, weight_decay=1e-3, steps=5000, tolerance=1e-3)
    assert not found.training and found[0].weight.dtype == torch.float32


def test_too_few_steps_are_said():
    with pytest.warns(RuntimeWarning, match="no minimum within 2 steps"):
        refine(mlp(4, 3, 2, generator=seeded(2)).double(), line(), F.mse_loss, steps=2)


@pytest.mark.parametrize(
    "options, said", [({"steps": 0}, "steps"), ({"weight_decay": -1}, "weight_decay"), ({"tolerance": 0}, "tolerance")]
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        refine(mlp(4, 2).double(), line(), F.mse_loss, **options)


def test_bad_data():
    x, y = line()
    with pytest.raises(ValueError, match="as many targets"):
        refine(mlp(4, 2).double(), (x, y[:3]), F.mse_loss)
