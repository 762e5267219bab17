from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import optimize
from torch import nn

from mspace import NeuronDistribution, seeded, weight_of
from mspace.models import mlp
from mspace.network.parameters import flatten
from mspace.posterior import Block, GaussianPosterior
from mspace.selection import (
    belsley,
    contribution,
    correlation_similarity,
    group_obs,
    group_obs_update,
    layer_inputs,
    neuron_similarity,
    qpfs,
    qpfs_targets,
    relevance,
    select,
    simplex,
)
from mspace.selection.relevance import gradient_covariance, wald
from mspace.selection.second_order import layerwise_relevance

Q3 = torch.tensor([[1, 0, 0], [0, 1, 0.8], [0, 0.8, 1]], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def regression(n=60, p=6, seed=0):
    """Inputs that correlate, targets, and the least squares fit."""
    x = normal(n, p, seed=seed) @ normal(p, p, seed=seed + 1)
    y = x @ normal(p, seed=seed + 2) + normal(n, seed=seed + 3)
    return x, y, torch.linalg.lstsq(x, y[:, None]).solution[:, 0]


def half_mse(x, y, w):
    return (y - x @ w).square().mean() / 2


def neurons_of(m=5, n=3, seed=0):
    root = normal(m, n, n, seed=seed)
    return NeuronDistribution(normal(m, n, seed=seed + 1), root @ root.mT + 0.1 * torch.eye(n))


def targets(r):
    """The example of Isachenko's thesis: the first target r - 1 times, the second once."""
    first, second = torch.tensor([0.4, 0.5, 0.8]), torch.tensor([0, 0.8, 0.1])
    p = torch.ones(r, r, dtype=torch.float64)
    p[-1, :-1] = p[:-1, -1] = 0.2
    return torch.stack([first] * (r - 1) + [second], 1).double(), p


# Second order


@pytest.mark.parametrize("group", [[2], [0, 4], [1, 2, 5]])
def test_group_obs_is_the_refit_without_the_group(group):
    x, y, w = regression()
    rest = [i for i in range(6) if i not in group]
    refit = torch.zeros(6, dtype=torch.float64)
    refit[rest] = torch.linalg.lstsq(x[:, rest], y[:, None]).solution[:, 0]
    hessian = x.T @ x / len(x)
    rise = half_mse(x, y, refit) - half_mse(x, y, w)
    assert torch.allclose(group_obs(w, hessian, [group])[0], rise, rtol=1e-10, atol=0)
    assert torch.allclose(group_obs_update(w, hessian, group), refit, rtol=1e-10, atol=1e-10)


def test_groups_of_one_have_the_textbook_formulas():
    x, _, w = regression()
    hessian = x.T @ x / len(x)
    inverse = torch.linalg.inv(hessian)
    assert torch.allclose(group_obs(w, hessian), w.square() / inverse.diagonal() / 2, rtol=1e-10)
    moved = group_obs_update(w, hessian, [3])
    assert torch.allclose(moved, w - w[3] / inverse[3, 3] * inverse[:, 3], atol=1e-10)
    assert moved[3] == 0


@pytest.mark.parametrize("group", [[0], [6], [0, 6], [1, 2], [0, 1], [6, 7]])
def test_a_singular_quadratic_is_refitted_as_well(group):
    """Column 6 repeats column 0 and column 7 the sum of two others, so they can stand in."""
    x, y, _ = regression()
    x = torch.cat([x, x[:, :1], x[:, 1:2] + 3 * x[:, 2:3]], 1)
    w = torch.linalg.pinv(x) @ y
    rest = [i for i in range(8) if i not in group]
    best = half_mse(x[:, rest], y, torch.linalg.pinv(x[:, rest]) @ y)
    hessian = x.T @ x / len(x)
    rise = best - half_mse(x, y, w)
    assert torch.allclose(group_obs(w, hessian, [group])[0], rise, rtol=1e-8, atol=1e-11)
    moved = group_obs_update(w, hessian, group)
    assert torch.allclose(half_mse(x, y, moved), best, rtol=1e-10)
    assert not moved[group].any()


def test_obs_does_not_depend_on_units():
    x, _, w = regression()
    units = torch.tensor([1e6, 1, 1e-6, 1, 10, 1e3]).double()
    hessian, groups = x.T @ x, [[0, 1], [2], [4, 5]]
    plain, scaled = group_obs(w, hessian, groups), group_obs(w / units, units[:, None] * hessian * units, groups)
    assert torch.allclose(plain, scaled, rtol=1e-8)


def test_obs_is_half_of_wald_and_its_update_the_conditional_mean():
    model = mlp(2, 3, 1, generator=seeded(0)).double()
    p = len(flatten(model))
    root = normal(p, p + 5)
    hessian = root @ root.T
    posterior = GaussianPosterior.of(model, [Block(torch.arange(p)[None], torch.linalg.inv(hessian)[None])])
    rows = torch.arange(6).view(3, 2)  # of the first layer
    loss = group_obs(flatten(model), hessian, rows)
    assert torch.allclose(relevance(posterior, by="obs", layer="0"), loss, rtol=1e-10)
    assert torch.allclose(wald(posterior.neurons("0")), 2 * loss, rtol=1e-10)
    given = posterior.condition(rows[1], 0.0).mean
    assert torch.allclose(group_obs_update(flatten(model), hessian, rows[1]), given, atol=1e-10)


def test_wald_of_a_regression_is_the_squared_t_statistic():
    sm = pytest.importorskip("statsmodels.api")
    x, y, _ = regression()
    fit = sm.OLS(y.numpy(), x.numpy()).fit()
    single = NeuronDistribution(fit.params[:, None], np.diag(fit.cov_params()).copy()[:, None, None])
    assert np.allclose(wald(single), fit.tvalues**2, rtol=1e-10)
    pair = NeuronDistribution(fit.params[None, [1, 4]], fit.cov_params()[np.ix_([1, 4], [1, 4])][None])
    f = fit.f_test(np.eye(6)[[1, 4]]).fvalue
    assert np.allclose(wald(pair), 2 * f, rtol=1e-10)
    s2 = fit.mse_resid  # group OBS = Wald s^2 / 2n
    rise = group_obs(fit.params, x.T @ x / 60, [[1, 4]])
    assert np.allclose(rise, wald(pair) * s2 / 120, rtol=1e-10)


def test_wald_on_the_range_of_a_singular_covariance():
    root = normal(4, 3, 2)
    mean = (root @ normal(4, 2, 1, seed=1))[..., 0]
    inside = NeuronDistribution(mean, root @ root.mT)
    expected = (torch.linalg.pinv(root) @ mean[..., None]).square().sum((1, 2))
    assert torch.allclose(wald(inside), expected, rtol=1e-8)
    known = NeuronDistribution(torch.zeros(1, 3), torch.diag(torch.tensor([1.0, 0, 0]))[None])
    assert wald(known) == 0
    nothing = NeuronDistribution(torch.zeros(1, 2), torch.zeros(1, 2, 2))
    assert wald(nothing) == 0


@pytest.mark.parametrize("mean", [[0, 0, 1e-3], [1, 1, -1]])
def test_wald_is_refused_where_it_is_infinite(mean):
    cov = torch.diag(torch.tensor([1.0, 1.0, 0]))
    both = NeuronDistribution(torch.tensor([[1, 1, 0.0], mean]), torch.stack([cov, cov]))
    with pytest.raises(ValueError, match="infinite for 1 of 2 neurons, the first is 1"):
        wald(both)


def test_a_neuron_that_never_moves_is_named():
    samples = normal(20, 3, 2)
    samples[:, 1] = torch.tensor([0.3, -0.1])
    neurons = NeuronDistribution.from_samples(samples)
    with pytest.raises(ValueError, match=r"the first is 1.*rank 0 in R\^2.*1 never move at all.*neurons\["):
        wald(neurons)
    assert wald(neurons[[0, 2]]).shape == (2,)


def test_wald_is_refused_for_fewer_draws_than_weights():
    with pytest.raises(ValueError, match=r"of rank 3 in R\^6.*draw more networks"):
        relevance(NeuronDistribution.from_samples(normal(4, 2, 6)))


def test_wald_does_not_depend_on_units_but_magnitude_does():
    neurons = neurons_of()
    units = torch.diag(torch.tensor([100, 1, 0.01]).double())
    other = NeuronDistribution(neurons.mean @ units, units @ neurons.cov @ units)
    assert torch.allclose(wald(neurons), wald(other), rtol=1e-8)
    direct = torch.einsum("mi,mij,mj->m", neurons.mean, torch.linalg.inv(neurons.cov), neurons.mean)
    assert torch.allclose(relevance(neurons), direct, rtol=1e-10)
    assert torch.allclose(relevance(neurons, by="magnitude"), neurons.mean.square().sum(1).sqrt())
    assert not torch.allclose(relevance(other, by="magnitude"), relevance(neurons, by="magnitude"))


def test_obd_of_neurons_is_the_diagonal_of_their_precision():
    diagonal = NeuronDistribution(normal(4, 3), torch.diag_embed(uniform(4, 3) + 0.1))
    assert torch.allclose(relevance(diagonal, by="obd"), relevance(diagonal, by="obs"), rtol=1e-12)
    neurons = neurons_of()
    precision = torch.linalg.inv(neurons.cov).diagonal(dim1=1, dim2=2)
    assert torch.allclose(relevance(neurons, by="obd"), (precision * neurons.mean**2).sum(1) / 2, rtol=1e-10)
    assert (relevance(neurons, by="obd") > relevance(neurons, by="obs")).any()


# Networks


def linear_network(outputs=3):
    """One linear layer, of which mse_loss is quadratic; targets it cannot reach."""
    model = nn.Linear(4, outputs).double()
    with torch.no_grad():
        model.weight.copy_(normal(outputs, 4))
        model.bias.copy_(normal(outputs, seed=1))
    x = normal(50, 4, seed=2) @ normal(4, 4, seed=3) + 1
    return nn.Sequential(model), (x, normal(50, outputs, seed=4))


@pytest.mark.parametrize("axis", [0, 1])
def test_obd_and_obs_of_a_linear_network(axis):
    net, (x, y) = linear_network()
    w = weight_of(net, "0")
    head = {"layer": "0", "axis": axis, "data": (x, y), "loss": F.mse_loss}
    damage = x.square().mean(0) * w.square() / 3  # the loss is a mean over 3 outputs, without the half
    assert torch.allclose(relevance(net, by="obd", **head), damage.sum(1 - axis), rtol=1e-10)
    ones = torch.cat([x, torch.ones(50, 1).double()], 1)
    moment = 2 * ones.T @ ones / 50 / 3
    if axis:
        unit = 1 / torch.linalg.inv(moment).diagonal()[:4]
        expected = (w.square() * unit).sum(0) / 2
    else:
        core = torch.linalg.inv(torch.linalg.inv(moment)[:4, :4])
        expected = torch.einsum("oi,ij,oj->o", w, core, w) / 2
    assert torch.allclose(relevance(net, by="obs", **head), expected, rtol=1e-9)


def test_the_curvature_is_that_of_gauss_and_newton():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(normal(*p.shape, seed=i))
    data, w = (normal(30, 3, seed=7), 5 * normal(30, 2, seed=8)), weight_of(net, "0")

    def output(w):
        return net[2](torch.tanh(data[0] @ w.view(4, 3).T + net[0].bias)).reshape(-1)

    slope = torch.autograd.functional.jacobian(output, w.reshape(-1))
    h = 2 * slope.T @ slope / 60
    head = {"layer": "0.weight", "data": data, "loss": F.mse_loss}  # the bias is held
    for damping in (0.0, 0.3):
        damped = h + damping * torch.eye(12).double()
        expected = (damped.diagonal().view(4, 3) * w.square()).sum(1) / 2
        assert torch.allclose(relevance(net, by="obd", damping=damping, **head), expected, rtol=1e-9)
        expected = group_obs(w.flatten(), damped, torch.arange(12).view(4, 3))
        assert torch.allclose(relevance(net, by="obs", damping=damping, **head), expected, rtol=1e-8)


def test_the_bias_makes_up_for_a_neuron():
    net, data = linear_network()
    head = {"by": "obs", "data": data, "loss": F.mse_loss}
    alone = relevance(net, layer="0.weight", **head)  # the bias is held
    assert torch.allclose(alone, (data[0] @ weight_of(net, "0").T).square().mean(0) / 3, rtol=1e-9)
    assert (relevance(net, layer="0", **head) < alone).all()
    assert (relevance(net, layer="0", damping=0.7, **head) > relevance(net, layer="0", **head)).all()


def hidden():
    """A network with a unit whose output is not used (2), and data."""
    net = mlp(4, 6, 2, generator=seeded(3)).double()
    with torch.no_grad():
        net[2].weight[:, 2] = 0
    x = normal(80, 4, seed=5)
    return net, (x, normal(80, 2, seed=6))


@pytest.mark.parametrize("by", ["obd", "obs", "gradient"])
def test_a_unit_that_nothing_hears_is_least_relevant(by):
    net, data = hidden()
    found = relevance(net, by=by, layer="0", data=data, loss=F.mse_loss)
    assert found[2] == 0 and (found[[0, 1, 3, 4, 5]] > 0).all()
    assert relevance(net, by="magnitude", layer="0")[2] > 0
    layerwise = relevance(net, by="layerwise", layer="2", axis=1, data=data[0])
    assert layerwise[2] == 0 and (layerwise[[0, 1, 3, 4, 5]] > 0).all()
    h = net[:2](data[0]).detach()
    told = contribution(h, net[2].weight.detach())
    assert told[2] == 0 and (told[[0, 1, 3, 4, 5]] > 0).all() and (told <= 1).all()


def test_the_scale_of_a_relu_changes_magnitude_alone():
    net, data = hidden()
    other, _ = hidden()
    with torch.no_grad():
        other[0].weight[1] *= 10
        other[0].bias[1] *= 10
        other[2].weight[:, 1] /= 10
    for by in ("obs", "obd"):
        a, b = (relevance(n, by=by, layer="0", data=data, loss=F.mse_loss) for n in (net, other))
        assert torch.allclose(a, b, rtol=1e-8)
    a, b = (relevance(n, by="layerwise", layer="2", axis=1, data=data) for n in (net, other))
    assert torch.allclose(a, b, rtol=1e-8)
    assert not torch.allclose(*(relevance(n, by="magnitude", layer="0") for n in (net, other)))
    c = data[0].T @ data[0] / 80
    a, b = (neuron_similarity(NeuronDistribution(weight_of(n, "0"), torch.zeros(6, 4, 4)), c) for n in (net, other))
    assert torch.allclose(a, b)


def test_a_posterior_with_data_stands_for_its_network():
    net, data = hidden()
    posterior = GaussianPosterior.of(net, [Block(torch.arange(24)[None], torch.eye(24)[None].double())])
    for by in ("obd", "obs", "gradient"):
        head = {"by": by, "layer": "0", "data": data, "loss": F.mse_loss}
        assert torch.equal(relevance(posterior, **head), relevance(net, **head))
    direct = weight_of(net, "0").square().sum(1)
    assert torch.allclose(relevance(posterior, layer="0"), direct)
    assert torch.allclose(relevance(posterior, layer="0", axis=1), weight_of(net, "0").square().sum(0))
    assert torch.allclose(relevance(posterior, by="magnitude", layer="0"), direct.sqrt())


def test_gradient_covariance_is_that_of_single_examples():
    net, (x, y) = hidden()
    rows = []
    for i in range(80):
        slope = torch.autograd.grad(F.mse_loss(net(x[i : i + 1]), y[i : i + 1]), net[0].weight)[0]
        rows.append(slope)
    rows = torch.stack(rows)
    found = gradient_covariance(net, (x, y), F.mse_loss, layer="0")
    for i in range(6):
        assert torch.allclose(found[i], rows[:, i].T.cov(), rtol=1e-9, atol=1e-12)
    columns = gradient_covariance(net, (x, y), F.mse_loss, layer="0", axis=1)
    assert torch.allclose(columns[3], rows[:, :, 3].T.cov(), rtol=1e-9, atol=1e-12)
    trace = relevance(net, by="gradient", layer="0", data=(x, y), loss=F.mse_loss)
    assert torch.allclose(trace, rows.var(0).sum(1), rtol=1e-9)
    with pytest.raises(ValueError, match="two examples"):
        gradient_covariance(net, (x[:1], y[:1]), F.mse_loss, layer="0")


def test_gradient_covariance_of_more_examples_than_are_held_at_once():
    net, _ = linear_network()
    x = normal(5000, 4)
    x = x[x[:, 0].argsort()] + 3  # the parts have means of their own
    y = normal(5000, 3, seed=1)
    rows = (2 / 3 * (net(x) - y)[:, :, None] * x[:, None, :]).detach()
    found = gradient_covariance(net, (x, y), F.mse_loss, layer="0")
    for i in range(3):
        assert torch.allclose(found[i], rows[:, i].T.cov(), rtol=1e-9)


def test_running_average_of_gradients_is_short_of_the_covariance():
    """One example less the mean of its batch of S: the mean of the squares is (S - 1) / S of the covariance."""
    net, (x, y) = hidden()
    cov = gradient_covariance(net, (x, y), F.mse_loss, layer="0")
    batches = torch.stack([torch.randperm(80, generator=seeded(i))[:8] for i in range(4000)])
    rows = torch.stack(
        [torch.autograd.grad(F.mse_loss(net(x[i : i + 1]), y[i : i + 1]), net[0].weight)[0] for i in range(80)]
    )
    away = rows[batches[:, 0]] - rows[batches].mean(1)
    ratio = away.square().mean(0).sum() / cov.diagonal(dim1=1, dim2=2).sum()
    assert abs(ratio - 7 / 8) < 0.03


# Layer by layer


def linear_of(weight):
    """A linear network without a bias."""
    model = nn.Linear(weight.shape[1], len(weight), bias=False).double()
    with torch.no_grad():
        model.weight.copy_(weight)
    return nn.Sequential(model)


def test_layerwise_relevance_is_least_squares_without_the_input():
    x, _, _ = regression(p=5)
    w = normal(3, 5, seed=9)
    outputs = x @ w.T
    found = relevance(linear_of(w), by="layerwise", layer="0", axis=1, data=x)
    for q in range(5):
        rest = [i for i in range(5) if i != q]
        refit = torch.linalg.lstsq(x[:, rest], outputs).solution
        left = (outputs - x[:, rest] @ refit).square().mean(0) / 2
        assert torch.allclose(found[q], left.sum(), rtol=1e-10)


def test_an_input_that_others_make_up_costs_nothing():
    x, _, _ = regression(p=4)
    x = torch.cat([x, x[:, :1] - 2 * x[:, 2:3]], 1)
    cost = relevance(linear_of(normal(3, 5, seed=9)), by="layerwise", layer="0", axis=1, data=x)
    assert (cost[[0, 2, 4]] < 1e-12 * cost.max()).all() and (cost[[1, 3]] > 1e-3).all()


def test_layerwise_relevance_of_a_network_has_a_bias_make_up():
    net, (x, _) = hidden()
    net.float()
    h = layer_inputs(net, x.float(), "2")
    assert h.dtype == torch.float64 and torch.allclose(h, net.double()[:2](x.float().double()))
    w = weight_of(net, "2").double()
    found = layerwise_relevance(net, x.float(), layer="2", axis=1)
    for q in range(6):
        rest = [i for i in range(6) if i != q]
        with_one = torch.cat([h[:, rest], torch.ones(80, 1).double()], 1)
        answers = h @ w.T
        left = answers - with_one @ torch.linalg.lstsq(with_one, answers).solution
        assert torch.allclose(found[q], left.square().mean(0).sum() / 2, rtol=1e-8, atol=1e-14)
    assert torch.allclose(layerwise_relevance(net, x.float(), layer="2"), (h @ w.T).square().mean(0) / 2)


# Collinearity


def test_belsley_finds_the_planted_collinearity():
    """Two unit vectors with correlation c and one apart: eigenvalues 1 + c, 1, 1 - c."""
    c = 0.99
    found = belsley(torch.tensor([[4, 2 * c, 0], [2 * c, 1, 0], [0, 0, 9]]).double())
    assert torch.allclose(found.condition_index, ((1 + c) / torch.tensor([1 - c, 1, 1 + c]).double()).sqrt(), rtol=1e-5)
    near, far = (1 + c) / 2, (1 - c) / 2
    expected = torch.tensor([[near, near, 0], [0, 0, 1], [far, far, 0]]).double()
    assert torch.allclose(found.shares, expected, atol=1e-6)
    plain = belsley(torch.diag(torch.tensor([1.0, 4, 100])), scaled=False)
    assert torch.allclose(plain.condition_index, torch.tensor([10.0, 5, 1]).double())


def test_shares_are_parts_of_the_variance():
    x, _, _ = regression()
    found = belsley(x.T @ x)
    size = x.norm(dim=0)
    inverse = torch.linalg.inv((x / size).T @ (x / size)).diagonal()  # variance inflation factors
    singular = torch.linalg.svdvals(x / size)
    assert torch.allclose(found.condition_index, singular[0] / singular.flip(0), rtol=1e-8)
    parts = found.components.square() / singular.flip(0).square()[:, None]
    assert torch.allclose(parts.sum(0), inverse, rtol=1e-8)
    assert torch.allclose(found.shares, parts / inverse, rtol=1e-8)


def test_belsley_of_exact_dependence():
    x, _, _ = regression()
    x = torch.cat([x, x[:, :1] + x[:, 1:2]], 1)
    found = belsley(x.T @ x)
    assert found.condition_index[0] == torch.inf and torch.isfinite(found.condition_index[1:]).all()
    assert torch.allclose(found.shares[0], torch.tensor([1, 1, 0, 0, 0, 0, 1]).double())
    assert torch.allclose(found.shares.sum(0), torch.ones(7).double())
    small, large = (belsley(c * x.T @ x, scaled=False).shares for c in (1, 1e16))
    assert torch.allclose(small, large, atol=1e-9)


# QPFS


@pytest.mark.parametrize("r, golden", [(2, (0.365, 0.612, 0.023)), (5, (0.398, 0.177, 0.426))])
def test_qpfs_has_the_golden_weights(r, golden):
    b, _ = targets(r)
    assert qpfs(Q3, b.sum(1)).tolist() == pytest.approx(golden, abs=6e-4)
    assert torch.allclose(qpfs(Q3, b.sum(1)), qpfs(Q3, 1e6 * b.sum(1)), atol=1e-10)  # any unit will do


@pytest.mark.parametrize("m, rank", [(4, 9), (30, 40), (30, 3), (120, 4)])
def test_qpfs_meets_the_conditions_of_karush_kuhn_and_tucker(m, rank):
    x = normal(rank, m)
    x = x / x.norm(dim=0)
    q, b = (x.T @ x).square(), uniform(m, seed=1)
    for alpha in (None, 0.0, 0.3, 0.9, 1.0):
        z = qpfs(q, b, alpha=alpha)
        a = float(q.mean() / (q.mean() + b.mean())) if alpha is None else alpha
        slope = 2 * (1 - a) * q @ z - a * b
        assert z.min() >= 0 and abs(z.sum() - 1) < 1e-12
        assert (z * (slope - slope.min())).sum() < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_qpfs_agrees_with_a_general_solver(seed):
    q, b = correlation_similarity(normal(20, 7, seed=seed)), uniform(7, seed=seed)
    quadratic, linear = (2 * b.mean() * q).numpy(), (q.mean() * b).numpy()
    found = optimize.minimize(
        lambda z: z @ quadratic @ z / 2 - linear @ z,
        np.full(7, 1 / 7),
        jac=lambda z: quadratic @ z - linear,
        method="SLSQP",
        bounds=[(0, 1)] * 7,
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1},
        options={"ftol": 1e-15},
    )
    assert np.allclose(qpfs(q, b), found.x, atol=1e-6)


def test_qpfs_by_hand():
    assert torch.allclose(qpfs(torch.eye(5), torch.zeros(5)), torch.full((5,), 0.2).double())
    assert qpfs(torch.eye(3), [0.1, 0.9, 0.3], alpha=1.0).tolist() == [0, 1, 0]
    b, a = torch.tensor([0.5, 0.6, 0.55]).double(), 0.4  # all are inside: z = Q^-1 (alpha b + u) / (2 (1 - alpha))
    inverse = torch.linalg.inv(Q3)
    free = inverse @ (a * b) / (2 * (1 - a))
    expected = free + inverse.sum(1) * (1 - free.sum()) / inverse.sum()
    assert (expected > 0).all() and torch.allclose(qpfs(Q3, b, alpha=a), expected, atol=1e-12)


@pytest.mark.parametrize("m", [3, 100])
def test_duplicates_share_their_weight(m):
    """With m = 100 neurons of four weights the matrix has a rank of ten."""
    x = normal(m, 4)
    x = x / x.norm(dim=1, keepdim=True)
    q, b = (x @ x.T).square(), uniform(m, seed=1)
    a = 0.3
    single, double = qpfs(q, b, alpha=a), qpfs(q.repeat(2, 2), b.repeat(2), alpha=a)
    assert torch.allclose(double[:m], double[m:], atol=1e-7)
    assert torch.allclose(double[:m] + double[m:], single, atol=1e-7)
    inside = double > 0
    assert torch.equal(inside[:m], inside[m:]) and inside.any()
    three = qpfs(torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), torch.zeros(4))
    assert three.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3], abs=1e-9)


def test_minmax_has_the_golden_weights_and_is_a_saddle():
    b, p = targets(5)
    p = p + 1e-3 * torch.eye(5)
    x, y = qpfs_targets(Q3, b, p)
    assert x.tolist() == pytest.approx([0.382, 0.568, 0.051], abs=6e-4)
    assert y.tolist() == pytest.approx([0.123] * 4 + [0.508], abs=6e-4)
    weights = torch.stack([p.mean() * b.mean(), Q3.mean() * p.mean(), Q3.mean() * b.mean()])
    one, two, three = weights / weights.sum()

    def value(x, y):
        return one * x @ Q3 @ x - two * x @ b @ y - three * y @ p @ y

    for i in range(3):
        other = x + 1e-3 * (torch.eye(3)[i].double() - x)
        assert value(other, y) > value(x, y) - 1e-12
    for j in range(5):
        other = y + 1e-3 * (torch.eye(5)[j].double() - y)
        assert value(x, other) < value(x, y) + 1e-12


def test_minmax_of_neurons_with_few_weights_is_a_saddle():
    """Similarities of rank six."""
    x, y = normal(60, 3), normal(5, 3, seed=1)
    q, p = ((v @ v.T / v.norm(dim=1) / v.norm(dim=1)[:, None]).square() for v in (x, y))
    b = uniform(60, 5, seed=2)
    x, y = qpfs_targets(q, b, p)
    weights = torch.stack([p.mean() * b.mean(), q.mean() * p.mean(), q.mean() * b.mean()])
    one, two, three = weights / weights.sum()
    down, up = 2 * one * q @ x - two * b @ y, -two * b.T @ x - 2 * three * p @ y
    assert (x * (down - down.min())).sum() < 1e-10 and (y * (up.max() - up)).sum() < 1e-10
    assert abs(x.sum() - 1) < 1e-12 and abs(y.sum() - 1) < 1e-12 and min(x.min(), y.min()) >= 0


def test_one_target_is_plain_qpfs():
    b = torch.tensor([0.4, 0.5, 0.8]).double()
    x, y = qpfs_targets(Q3, b[:, None], [[1.0]])
    assert torch.allclose(x, qpfs(Q3, b), atol=1e-10) and y.tolist() == [1]


def test_select_keeps_one_of_each_kind():
    x = normal(200, 3)
    x = torch.cat([x, x + 1e-3 * normal(200, 3, seed=1)], 1)  # twice the same three
    q = correlation_similarity(x)
    b = torch.tensor([0.9, 0.3, 0.5, 0.91, 0.29, 0.49])
    assert sorted(i % 3 for i in select(q, b, 3).tolist()) == [0, 1, 2]
    assert set(select(q, b, 3).tolist()) == {3, 1, 2}
    assert select(q, b, 6).tolist()[0] == 3 and sorted(select(q, b, 6).tolist()) == list(range(6))
    assert set(select(q, b, 5).tolist()[3:]) < {0, 4, 5}
    b = torch.tensor([0.5, 0.1, 0.3])  # 1 and 2 have no weight: by what they would cost
    assert qpfs(torch.ones(3, 3), b, alpha=0.5).tolist() == [1, 0, 0]
    assert select(torch.full((3, 3), 0.9) + 0.1 * torch.eye(3), b, 3, alpha=0.9).tolist() == [0, 2, 1]
    similar = torch.tensor([[1, 0.9, 0.2], [0.9, 1, 0.2], [0.2, 0.2, 1]])  # 1 is more relevant than 2, and repeats 0
    b = torch.tensor([1, 0.2, 0.1])
    assert qpfs(similar, b, alpha=0.8).tolist() == [1, 0, 0]
    assert select(similar, b, 3, alpha=0.8).tolist() == [0, 2, 1]


def test_select_of_duplicates_waits_for_the_others():
    q = torch.tensor([[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]])
    assert select(q, [0.9, 0.8, 0.1], 2, alpha=0.9).tolist() == [0, 2]
    assert select(q, [0.9, 0.8, 0.1], 3, alpha=0.9, duplicate=0.4).tolist() == [0, 1, 2]


def test_neurons_that_rounding_alone_tells_apart_are_chosen_by_their_number():
    noise = 1e-14 * torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alike = torch.eye(6, dtype=torch.float64)
    assert select(alike + torch.diag(noise), torch.full((6,), 0.5), 6).tolist() == list(range(6))
    assert select(alike, 0.5 + noise, 6).tolist() == list(range(6))
    assert select(alike, 1e-9 * (1 + torch.arange(6)), 6).tolist() == [5, 4, 3, 2, 1, 0]  # small is not equal


# Similarity


def test_correlations_are_those_of_numpy():
    x = normal(30, 4)
    both = np.corrcoef(x.T)
    assert np.allclose(correlation_similarity(x), both**2)
    draws = torch.stack([x, normal(30, 4, seed=2)])
    assert np.allclose(correlation_similarity(draws), (both**2 + np.corrcoef(draws[1].T) ** 2) / 2)
    assert torch.linalg.eigvalsh(correlation_similarity(normal(5, 20)))[0] > -1e-12


def test_constant_columns_correlate_with_nothing():
    x = normal(30, 3)
    x[:, 1] = 0.1
    with pytest.warns(RuntimeWarning, match="1 constant columns"):
        q = correlation_similarity(x)
    assert q[1].tolist() == [0, 1, 0] and q[0, 2] > 0


def test_similarity_of_random_neurons_is_what_draws_of_them_show():
    neurons, root = neurons_of(4), normal(3, 3, seed=5)
    c = root @ root.T
    draws = neurons.sample(200_000, seeded(1))
    answer = torch.einsum("sin,nk,sjk->sij", draws, c, neurons.sample(200_000, seeded(2))).square().mean(0)
    size = answer.diagonal().sqrt()
    assert torch.allclose(neuron_similarity(neurons, c), (answer / size[:, None] / size).fill_diagonal_(1), rtol=0.03)
    assert torch.linalg.eigvalsh(neuron_similarity(neurons, c))[0] > -1e-12


def test_similarity_of_known_neurons_is_the_squared_correlation_of_their_answers():
    w, x = normal(5, 3), normal(100, 3, seed=1)
    known = NeuronDistribution(w, torch.zeros(5, 3, 3))
    h = x @ w.T
    h = h / h.norm(dim=0)
    assert torch.allclose(neuron_similarity(known, x.T @ x / 100), (h.T @ h).square())
    zero = NeuronDistribution(torch.cat([w, torch.zeros(1, 3)]), torch.zeros(6, 3, 3))
    with pytest.warns(RuntimeWarning, match="1 neurons are zero"):
        assert neuron_similarity(zero)[5].tolist() == [0] * 5 + [1]


def test_contribution_is_the_squared_correlation_with_the_sum():
    h, v = normal(50, 4), normal(2, 4, seed=1)
    y = h @ v.T
    expected = [np.mean([np.corrcoef(h[:, i], y[:, o])[0, 1] ** 2 for o in range(2)]) for i in range(4)]
    assert np.allclose(contribution(h, v), expected)


# Bad input


NAN = float("nan")
BAD_QPFS = {
    "not square": (lambda: qpfs(torch.ones(2, 3), torch.ones(2)), "symmetric"),
    "not symmetric": (lambda: qpfs([[1, 0.5], [0, 1]], [1.0, 1]), "symmetric"),
    "NaN": (lambda: qpfs([[1, NAN], [NAN, 1]], [1.0, 1]), "similarity must be finite"),
    "NaN relevance": (lambda: qpfs(torch.eye(2), [1.0, NAN]), "relevance must be finite"),
    "infinite": (lambda: qpfs(torch.eye(2), [1.0, torch.inf]), "relevance must be finite"),
    "negative": (lambda: qpfs(torch.eye(2), [1.0, -0.1]), "relevance must not be negative"),
    "negative similarity": (lambda: qpfs([[1, -0.5], [-0.5, 1]], [1.0, 1]), "similarity must not be negative"),
    "sizes": (lambda: qpfs(torch.eye(3), [1.0, 1]), "similarity and relevance"),
    "empty": (lambda: qpfs(torch.ones(0, 0), torch.ones(0)), "not empty"),
    "alpha": (lambda: qpfs(torch.eye(2), [1.0, 1], alpha=1.1), "alpha"),
    "alpha below": (lambda: qpfs(torch.eye(2), [1.0, 1], alpha=-0.1), "alpha"),
    "alpha NaN": (lambda: qpfs(torch.eye(2), [1.0, 1], alpha=NAN), "alpha"),
    "alpha word": (lambda: qpfs(torch.eye(2), [1.0, 1], alpha="auto"), "alpha"),
    "strings": (lambda: qpfs("similar", [1.0, 1]), "real numbers"),
    "target sizes": (lambda: qpfs_targets(Q3, torch.ones(3, 2), torch.eye(3)), "relevance must be \\(m, r\\)"),
    "no balance": (lambda: qpfs_targets(Q3, torch.zeros(3, 1), [[1.0]]), "all zero"),
    "too many": (lambda: select(torch.eye(2), [1.0, 1], 3), "k must be a whole number"),
    "duplicate": (lambda: select(torch.eye(2), [1.0, 1], 1, duplicate=1.5), "duplicate"),
}


@pytest.mark.parametrize("case", BAD_QPFS)
def test_bad_programs_are_refused(case):
    call, message = BAD_QPFS[case]
    with pytest.raises(ValueError, match=message):
        call()


def call(by="wald", given=None, **options):
    return partial(relevance, neurons_of() if given is None else given, by=by, **options)


NET, DATA = hidden()
FLAT = NeuronDistribution(torch.ones(2, 2), torch.ones(2, 2, 2))
BAD = {
    "method": (call("random"), "by must be one of wald"),
    "layer of neurons": (call("wald", layer="0"), "leave them out"),
    "data of neurons": (call("obd", data=DATA, loss=F.mse_loss, layer="0"), "needs a network"),
    "data unused": (call("wald", data=DATA), "leave them out"),
    "type": (call("wald", given=torch.ones(3, 3)), "must be neurons, a posterior"),
    "no covariance": (call("wald", given=NET, layer="0"), "must be neurons, a posterior"),
    "no data": (call("obd", given=NET, layer="0"), "layer= and data="),
    "singular obd": (call("obd", given=FLAT), "full rank"),
    "no layer": (call("obd", given=NET, data=DATA, loss=F.mse_loss), "layer="),
    "no such layer": (call("obd", given=NET, layer="9", data=DATA, loss=F.mse_loss), "9"),
    "no loss": (call("gradient", given=NET, layer="0", data=DATA), "loss="),
    "gradient without data": (call("gradient", given=NET, layer="0"), "data= and loss="),
    "sum": (call("obd", given=NET, layer="0", data=DATA, loss=partial(F.mse_loss, reduction="sum")), "mean"),
    "damping": (call("obs", given=NET, layer="0", data=DATA, loss=F.mse_loss, damping=-1.0), "damping"),
    "activation": (call("layerwise", given=NET, layer="1", data=DATA), r"layer must name .* \(Linear: 0, 2\)"),
    "inputs": (call("layerwise", given=NET, layer="2", data=DATA[0][:, :2]), "do not fit"),
    "layerwise NaN": (call("layerwise", given=NET, layer="2", data=DATA[0] * NAN), "finite"),
    "damping unused": (call("wald", damping=1.0), "leave them out"),
    "layerwise axis": (call("layerwise", given=NET, layer="2", data=DATA[0], axis=2), "axis"),
    "magnitude with data": (call("magnitude", given=NET, layer="2", data=DATA), "leave them out"),
    "hessian": (partial(group_obs, [1.0, 1], [[1, 2], [2, 1]]), "hessian must be positive semidefinite"),
    "weights": (partial(group_obs, [1.0, 1], torch.eye(3)), "\\(p,\\) and \\(p, p\\)"),
    "group": (partial(group_obs, [1.0, 1], torch.eye(2), [[0, 2]]), "groups must be different"),
    "group twice": (partial(group_obs_update, [1.0, 1], torch.eye(2), [1, 1]), "different"),
    "group empty": (partial(group_obs_update, [1.0, 1], torch.eye(2), []), "different"),
    "group negative": (partial(group_obs, [1.0, 1], torch.eye(2), [[-1]]), "different"),
    "belsley": (partial(belsley, [[1, 2], [2, 1.0]]), "precision must be positive semidefinite"),
    "belsley zero": (partial(belsley, torch.diag(torch.tensor([1.0, 0]))), "positive diagonal"),
    "belsley nothing": (partial(belsley, torch.zeros(2, 2), scaled=False), "zero"),
    "one example": (partial(correlation_similarity, torch.ones(1, 3)), "two examples"),
    "outgoing": (partial(contribution, normal(5, 3), torch.ones(3, 2)), "agree in m"),
    "moment": (partial(neuron_similarity, neurons_of(), torch.eye(2)), "n = 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    function, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function()


def test_nothing_is_changed_in_place():
    net, data = hidden()
    before = flatten(net).clone()
    for by in ("obd", "obs", "gradient", "layerwise"):
        relevance(net, by=by, layer="0", data=data, **({} if by == "layerwise" else {"loss": F.mse_loss}))
    assert torch.equal(flatten(net), before) and not any(p.grad is not None for p in net.parameters())
    assert not net[0]._forward_pre_hooks
    x, _, w = regression()
    hessian, kept = x.T @ x, (x.T @ x).clone()
    old = w.clone()
    group_obs_update(w, hessian, [1])
    assert torch.equal(w, old) and torch.equal(hessian, kept)


def test_every_subset_is_cheaper_than_what_holds_it():
    x, _, w = regression(p=5)
    hessian = x.T @ x
    for pair in combinations(range(5), 2):
        both, one = group_obs(w, hessian, [pair])[0], group_obs(w, hessian, [pair[:1]])[0]
        assert both >= one


@pytest.mark.parametrize("seed", range(6))
def test_following_the_saddle_on_one_simplex_finds_the_minimum(seed):
    """Without an antisymmetric part the two programs are one; many weights enter and leave on the way."""
    m = 25
    half = normal(m, 8, seed=seed)
    matrix, linear = half @ half.T + 0.01 * torch.eye(m), 3 * normal(m, seed=100 + seed)
    found = simplex.saddle(matrix, linear, torch.zeros(m, dtype=torch.long))
    assert torch.allclose(found, simplex.minimum(matrix, linear), atol=1e-9)
    slope = matrix @ found - linear
    assert (slope[found > 0] - slope.min()).abs().max() < 1e-8 and 1 < (found > 0).sum() < m
