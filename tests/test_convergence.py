"""Members brought to their own minimum: closed forms, and how far they are said to be from it."""

import torch
import torch.nn.functional as F
from torch import nn

import mspace as ms
from mspace.training.convergence import descend, finish
from mspace.training.loop import stack_of

N = 200
X = ms.normal(N, 3, seed=1)
G = ms.seeded(0)
DRAWN = torch.randint(N, (30, N), generator=G)
ALL = (None, None)
COUNTS = torch.stack([d.bincount(minlength=N) for d in DRAWN]).double()


def stacked(model, data, loss, n_models):
    start = {k: p.detach().expand(n_models, *p.shape).clone() for k, p in model.named_parameters()}
    return stack_of(model, start, *data, loss, [0] * n_models)


def linear():
    y = X @ ms.normal(3, 1, seed=3) + 0.3 * ms.normal(N, 1, seed=4)
    model = nn.Linear(3, 1).double()
    with torch.no_grad():
        model.weight.zero_(), model.bias.zero_()
    return model, (X, y)


def least_squares(x, y):
    a = torch.cat([x, torch.ones(len(x), 1)], 1)
    return torch.linalg.lstsq(a, y).solution[:, 0]


def test_least_squares_on_each_resample():
    model, (x, y) = linear()
    for drawn, counts in ((DRAWN, None), (None, COUNTS)):
        stack = stacked(model, (x, y), F.mse_loss, 30)
        distance = descend(stack, (drawn, counts), ALL)[0]
        own = stack.parameters()
        spread = own["weight"].std(0).mean()
        for i in range(30):
            right = least_squares(x[DRAWN[i]], y[DRAWN[i]])
            assert (torch.cat([own["weight"][i, 0], own["bias"][i]]) - right).abs().max() < 0.1 * spread
        assert distance.max() <= 0.03


def test_the_distance_is_the_newton_step_left_in_units_of_sampling():
    model, (x, y) = linear()
    a = torch.cat([x, torch.ones(N, 1)], 1)
    for evaluations in (4, 5, 6):
        stack = stacked(model, (x, y), F.mse_loss, 30)
        distance = descend(stack, (DRAWN, None), ALL, evaluations=evaluations)[0]
        own = torch.cat([stack.parameters()["weight"][:, 0], stack.parameters()["bias"]], 1)
        right = []
        for i in range(30):
            b, t = a[DRAWN[i]], y[DRAWN[i], 0]
            curvature = b.T @ b
            left = own[i] - least_squares(x[DRAWN[i]], y[DRAWN[i]])
            drawn = b.T @ (b @ own[i] - t) - a.T @ (a @ own[i] - y[:, 0])
            right.append((left @ curvature @ left / (drawn @ torch.linalg.solve(curvature, drawn))).sqrt())
        ratio = distance / torch.stack(right)
        assert 0.5 < ratio.median() < 2


def test_members_do_not_look_at_each_other():
    model, data = linear()
    whole, part = stacked(model, data, F.mse_loss, 30), stacked(model, data, F.mse_loss, 4)
    a, b = descend(whole, (DRAWN, None), ALL)[0], descend(part, (DRAWN[:4], None), ALL)[0]
    assert torch.allclose(whole.parameters()["weight"][:4], part.parameters()["weight"], rtol=1e-9, atol=1e-9)
    assert torch.allclose(a[:4], b, rtol=1e-4, atol=1e-6)


def test_logistic_regression_has_the_spread_of_the_sandwich():
    y = (torch.rand(N, 1, generator=ms.seeded(3), dtype=torch.float64) < torch.sigmoid(X[:, :1] + 0.5)).double()
    model = ms.refine(nn.Sequential(nn.Linear(3, 1)).double(), (X, y), F.binary_cross_entropy_with_logits)
    drawn = torch.randint(N, (200, N), generator=ms.seeded(5))
    stack = stacked(model, (X, y), F.binary_cross_entropy_with_logits, 200)
    finish(stacked(model, (X, y), F.binary_cross_entropy_with_logits, 1), stack, drawn, None)
    spread = stack.parameters()["0.weight"].std(0)[0]
    right = ms.sandwich(model, (X, y), F.binary_cross_entropy_with_logits).variance()["0.weight"][0].sqrt()
    assert (spread / right - 1).abs().max() < 0.2  # a standard error of 5 %, and the difference of order 1/n


def test_bounds_are_kept_and_nan_is_never_taken():
    class Bounds(nn.Linear):
        def keep_bounds(self, parameters):
            for p in parameters.values():
                p.clamp_(-0.1, 0.1)

    model, data = Bounds(3, 1).double(), linear()[1]
    with torch.no_grad():
        model.weight.zero_(), model.bias.zero_()
    stack = stacked(model, data, F.mse_loss, 3)
    descend(stack, (DRAWN[:3], None), ALL, bounded=model)
    assert all(v.abs().max() <= 0.1 for v in stack.parameters().values())

    def steep(out, target):
        return (out - target).square().mean() + torch.where(out > 1, torch.nan, 0.0).mean()

    stack = stacked(linear()[0], (X, X[:, :1] * 0.1), steep, 3)
    descend(stack, (DRAWN[:3], None), ALL)
    assert all(torch.isfinite(v).all() for v in stack.parameters().values())
