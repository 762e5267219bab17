"""Variational Bayes against posteriors that are known exactly, and predictions against closed forms."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mspace.checks import seeded
from mspace.network.parameters import blocks_of, positions
from mspace.posterior import Block, GaussianPosterior
from mspace.posterior.predict import Prediction, calibration, predict
from mspace.posterior.variational import descent, networks, variational, variational_ensemble
from mspace.posterior.variational.families import Diagonal, Full, LowRank, columns_of, kl_divergence
from mspace.posterior.variational.networks import Group, LocalNetwork, SampledNetwork, network_of
from mspace.training import Ensemble, train_ensemble

NOISE, PRECISION = 0.25, 2.0
EXACT = {  # all examples at once and nothing drawn: a smooth function, brought to its minimum
    "batch_size": None,
    "epochs": 40,
    "optimizer": partial(
        torch.optim.LBFGS,
        max_iter=1000,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-14,
        tolerance_change=1e-20,
    ),
}


def double(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def linear(n_in, n_out, seed=0, bias=True):
    net = nn.Linear(n_in, n_out, bias=bias).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * double(*p.shape, seed=seed))
    return net


def perceptron(seed=1, sizes=(3, 4, 2)):
    return nn.Sequential(linear(sizes[0], sizes[1], seed), nn.Tanh(), linear(sizes[1], sizes[2], seed + 1))


def regression(n=60, d=3, outputs=1):
    """Correlated inputs, so that a diagonal family is wrong in a known way."""
    x = double(n, d) @ (torch.eye(d).double() + 0.6 * torch.ones(d, d).double().triu(1))
    y = x @ double(d, outputs, seed=1) + 0.3 + math.sqrt(NOISE) * double(n, outputs, seed=2)
    return x, y


def exact(x, y, noise=NOISE, precision=PRECISION):
    """Posterior covariance (d + 1, d + 1) and means (d + 1, m) of a linear layer, [weights | bias]."""
    z = F.pad(x, (0, 1), value=1.0)
    inverse = z.T @ z / noise + precision * torch.eye(z.shape[1]).double()
    return torch.linalg.inv(inverse), torch.linalg.solve(inverse, z.T @ y / noise)


def close(a, b, rtol=1e-9, atol=0.0):
    a, b = (torch.as_tensor(t, dtype=torch.float64) for t in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


# linear regression, whose posterior is known


@pytest.mark.parametrize("outputs", [1, 2])
def test_full_family_is_the_exact_posterior_and_its_bound_the_evidence(outputs):
    x, y = regression(outputs=outputs)
    q = variational(linear(3, outputs), (x, y), F.mse_loss, noise=NOISE, prior_precision=PRECISION, **EXACT)
    cov, mean = exact(x, y)
    z = F.pad(x, (0, 1), value=1.0)
    evidence = torch.distributions.MultivariateNormal(
        torch.zeros(len(x)).double(), z @ z.T / PRECISION + NOISE * torch.eye(len(x)).double()
    )
    index = blocks_of(q.template, "neuron")[0]
    for i, row in enumerate(index):
        assert (q.cov(row) - cov).norm() < 1e-7 * cov.norm()
        close(q.mean[row], mean[:, i], rtol=0, atol=1e-8)
    close(q.report["elbo"], evidence.log_prob(y.T).sum(), rtol=1e-12)
    assert q.report["noise"] == NOISE and q.report["kl_weight"] == 1 and not q.report["conditional"]


def test_diagonal_family_has_one_over_the_precision():
    x, y = regression()
    q = variational(
        linear(3, 1), (x, y), nn.MSELoss(), family="diagonal", noise=NOISE, prior_precision=PRECISION, **EXACT
    )
    cov, mean = exact(x, y)
    close(q.cov().diagonal(), 1 / torch.linalg.inv(cov).diagonal(), rtol=1e-7)
    assert (q.cov().diagonal() < 0.9 * cov.diagonal()).any()
    close(q.mean, mean[:, 0], rtol=0, atol=1e-8)
    assert q.cov().count_nonzero() == 4


@pytest.mark.parametrize("blocks,parts", [(None, [[0, 1, 2], [3]]), (2, [[0, 1], [2, 3]]), ((1, 3), [[0], [1, 2, 3]])])
def test_block_family_inverts_the_blocks_of_the_precision(blocks, parts):
    x, y = regression()
    q = variational(
        linear(3, 1),
        (x, y),
        F.mse_loss,
        family="block",
        blocks=blocks,
        noise=NOISE,
        prior_precision=PRECISION,
        **EXACT,
    )
    inverse = torch.linalg.inv(exact(x, y)[0])
    expected = torch.zeros(4, 4).double()
    for part in parts:
        at = torch.tensor(part)
        expected[at[:, None], at] = torch.linalg.inv(inverse[at[:, None], at])
    close(q.cov(), expected, rtol=0, atol=1e-7 * expected.max())
    assert sorted(b.index.shape[1] for b in q.blocks for _ in b.index) == sorted(len(p) for p in parts)


def test_low_rank_family_lies_between_diagonal_and_full():
    x, y = regression(d=4)
    quick = partial(torch.optim.Adam, lr=1e-2)
    common = {"noise": NOISE, "prior_precision": PRECISION, "batch_size": None, "epochs": 1000, "optimizer": quick}
    found = {
        name: variational(linear(4, 1), (x, y), F.mse_loss, family=family, **more, **common)
        for name, family, more in [
            ("diagonal", "diagonal", {}),
            ("one", "low_rank", {"rank": 1}),
            ("full", "full", {}),
        ]
    }
    elbo = {k: q.report["elbo"] for k, q in found.items()}
    assert elbo["diagonal"] + 0.01 < elbo["one"] < elbo["full"] - 1e-4
    assert found["one"].cov().count_nonzero() == 25


def test_learned_noise_holds_the_variance_of_the_answers():
    x, y = regression(n=30)
    q = variational(linear(3, 1), (x, y), F.mse_loss, prior_precision=PRECISION, **EXACT)
    noise = q.report["noise"]
    z = F.pad(x, (0, 1), value=1.0)
    residual = (y - z @ q.mean[:, None]).square().mean()
    spread = (z @ q.cov() * z).sum(1).mean()
    close(noise, residual + spread, rtol=1e-9)
    assert spread > 0.03 * noise
    close(q.cov(), exact(x, y, noise)[0], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("structure", ["neuron", "full"])
def test_minibatches_find_the_covariance_of_least_squares(structure):
    x, y = regression(n=500)
    q = variational(
        linear(3, 1),
        (x, y),
        F.mse_loss,
        prior_precision=1e-6,
        structure=structure,
        batch_size=100,
        epochs=300,
        generator=seeded(1),
    )
    z = F.pad(x, (0, 1), value=1.0)
    expected = q.report["noise"] * torch.linalg.inv(z.T @ z)
    assert (q.cov() - expected).norm() < 0.02 * expected.norm()
    close(q.report["noise"], (y - z @ torch.linalg.lstsq(z, y).solution).square().mean() * (1 + 4 / 500), rtol=0.01)


def test_draws_of_weights_find_it_too():
    x, y = regression(n=200, outputs=2)
    net = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Flatten(), linear(3, 2))  # not a row of linear layers
    q = variational(
        net,
        (x, y),
        F.mse_loss,
        noise=NOISE,
        prior_precision=PRECISION,
        draws=32,
        batch_size=None,
        epochs=1000,
        optimizer=partial(torch.optim.Adam, lr=5e-3),
        generator=seeded(0),
    )
    cov, mean = exact(x, y)
    for i, row in enumerate(blocks_of(net, "neuron")[0]):
        assert (q.cov(row) - cov).norm() < 0.08 * cov.norm()
        close(q.mean[row], mean[:, i], rtol=0, atol=0.2 * cov.diagonal().min().sqrt())


def test_without_the_divergence_the_covariance_dies_and_the_report_says_so():
    x, y = regression()
    options = {"noise": NOISE, "prior_precision": PRECISION, "batch_size": None, "epochs": 500, "generator": seeded(0)}
    q = variational(linear(3, 1), (x, y), F.mse_loss, kl_weight=0.0, **options)
    assert q.report["kl_weight"] == 0
    assert q.cov().diagonal().max() < 0.05 * exact(x, y)[0].diagonal().min()
    z = F.pad(x, (0, 1), value=1.0)
    square = (y - z @ q.mean[:, None]).square().mean() + (z @ q.cov() * z).sum(1).mean()
    nll = (math.log(2 * math.pi * NOISE) + square / NOISE) / 2
    close(q.report["nll"], nll)
    close(q.report["elbo"], -60 * nll - q.report["kl"])
    close(q.report["kl"], kl_divergence(q, prior_precision=PRECISION))


# semi-Bayesian


def test_random_parameters_are_conditional_on_the_known_ones():
    x, y = regression()
    net = linear(3, 1)
    q = variational(
        net,
        (x, y),
        F.mse_loss,
        layers="weight",
        noise=NOISE,
        prior_precision=PRECISION,
        train_rest=False,
        batch_size=None,
        epochs=1000,
        draws=32,
        generator=seeded(0),
    )
    inverse = torch.linalg.inv(exact(x, y)[0])
    expected = torch.linalg.inv(inverse[:3, :3])
    assert (q.cov() - expected).norm() < 0.05 * expected.norm()
    assert q.report["conditional"] and len(q) == 3
    close(q.mean[3], net.bias[0].detach(), rtol=0)


def test_last_layer_is_least_squares_on_what_stands_before_it():
    net = perceptron()
    x = double(50, 3)
    y = double(50, 2, seed=4)
    q = variational(
        net,
        (x, y),
        F.mse_loss,
        layers=["2"],
        train_rest=False,
        noise=NOISE,
        prior_precision=PRECISION,
        **EXACT,
    )
    cov, mean = exact(net[:2](x).detach(), y)
    for i, row in enumerate(blocks_of(net, "neuron", ["2"])[0]):
        assert (q.cov(row) - cov).norm() < 1e-6 * cov.norm()
        close(q.mean[row], mean[:, i], rtol=0, atol=1e-7)
    close(q.report["kl"], kl_divergence(q, prior_precision=PRECISION))
    known = positions(net, "0")
    close(q.mean[known], torch.cat([p.detach().reshape(-1) for p in net[0].parameters()]), rtol=0)


def test_the_rest_is_trained_when_asked():
    net = perceptron()
    data = double(50, 3), double(50, 2, seed=4)
    q = variational(net, data, F.mse_loss, layers=["2"], epochs=30, generator=seeded(0))
    before = torch.cat([p.detach().reshape(-1) for p in net[0].parameters()])
    assert (q.mean[positions(net, "0")] - before).abs().min() > 1e-4
    assert (q.index == positions(net, "2")).all()


# a prior that is another posterior


def random_posterior(net, structure="full", seed=3, scale=1.0, layers=None):
    blocks = []
    for i, index in enumerate(blocks_of(net, structure, layers)):
        root = 0.5 * double(*index.shape, index.shape[1], seed=seed + i) + torch.eye(index.shape[1]).double()
        blocks.append(Block(index, scale * root @ root.mT))
    template = copy.deepcopy(net)
    mean = 0.5 * double(sum(p.numel() for p in net.parameters()), seed=seed + 10)
    return GaussianPosterior(template, mean, blocks)


def dense_kl(q, p):
    """KL over the random parameters of q by torch.distributions, p marginal."""
    at = q.index
    a, b = (torch.distributions.MultivariateNormal(g.mean[at], g.cov(at)) for g in (q, p))
    return float(torch.distributions.kl_divergence(a, b))


@pytest.mark.parametrize("ours", ["full", "layer", "neuron", "diagonal"])
@pytest.mark.parametrize("theirs", ["full", "layer", "neuron", "diagonal"])
def test_divergence_equals_the_dense_one(ours, theirs):
    net = perceptron()
    q, p = random_posterior(net, ours, 3), random_posterior(net, theirs, 20, 1.5)
    close(kl_divergence(q, p), dense_kl(q, p))
    part = q.marginal(["2"])
    close(kl_divergence(part, p), dense_kl(part, p))
    assert 0 < kl_divergence(part, p) < kl_divergence(q, p)
    wide = GaussianPosterior(
        net, torch.zeros_like(q.mean), [Block(q.index[:, None], torch.ones(len(q), 1, 1).double() / 3)]
    )
    close(kl_divergence(q, prior_precision=3.0), dense_kl(q, wide))


def test_divergence_is_zero_only_from_itself():
    net = perceptron()
    q = random_posterior(net, "neuron")
    assert abs(kl_divergence(q, q)) < 1e-10
    moved = GaussianPosterior(net, q.mean + 1e-3, q.blocks)
    wider = GaussianPosterior(net, q.mean, [Block(b.index, 1.01 * b.cov) for b in q.blocks])
    assert kl_divergence(moved, q) > 1e-7 and kl_divergence(wider, q) > 1e-6
    flat = GaussianPosterior(net, q.mean, [Block(b.index, torch.zeros_like(b.cov)) for b in q.blocks])
    assert kl_divergence(flat, q) == math.inf


@pytest.mark.parametrize("family", ["full", "diagonal", "low_rank", "block"])
@pytest.mark.parametrize("structure", ["full", "neuron", None])
def test_divergence_in_training_is_the_closed_form(family, structure):
    net = perceptron()
    prior = None if structure is None else random_posterior(net, structure)
    data = double(20, 3), double(20, 2, seed=4)
    q = variational(net, data, F.mse_loss, family=family, prior=prior, epochs=3, generator=seeded(0))
    assert (q.cov().diagonal() > 0).all()
    close(q.report["kl"], kl_divergence(q, prior))


@pytest.mark.parametrize("family", ["full", "diagonal", "low_rank", "block"])
def test_gradient_of_the_divergence_agrees_with_differences(family):
    start = double(2, 3, 4).abs() + 0.2
    weight = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    made = {
        "full": lambda: Full(start),
        "diagonal": lambda: Diagonal(start),
        "low_rank": lambda: LowRank(start, 2, [seeded(0), seeded(1)]),
        "block": lambda: Full(start, [torch.tensor([0, 2]), torch.tensor([1, 3])]),
    }[family]()
    mean = double(2, 3, 4, seed=5).requires_grad_()
    precision = weight.expand(3, 4) if family == "diagonal" else weight.diag().expand(3, 4, 4)
    with torch.no_grad():
        for leaf in made.leaves()[1:]:
            leaf.add_(0.02 * double(*leaf.shape, seed=6))

    def value(*_):
        return made.trace(made.root(), precision) - made.logdet(made.root()) + (weight * mean**2).sum((1, 2))

    torch.autograd.gradcheck(value, [mean, *made.leaves()])
    cov = made.cov()
    by_hand = (torch.einsum("nkii,i->n", cov, weight) - torch.logdet(cov).sum(1)).detach()
    close((value() - (weight * mean**2).sum((1, 2))).detach(), by_hand)
    if family == "block":
        assert (cov[:, :, 0, 1] == 0).all() and (cov[:, :, 0, 2] != 0).all()


def test_a_prior_from_a_teacher_is_where_no_data_leave_it():
    net = linear(3, 1)
    prior = random_posterior(net)
    x, y = torch.zeros(2, 3).double(), torch.zeros(2, 1).double()
    q = variational(net, (x, y), F.mse_loss, prior=prior, noise=1e12, **EXACT)
    close(q.cov(), prior.cov(), rtol=1e-4, atol=1e-6)
    close(q.mean, prior.mean, rtol=1e-5)


# local reparametrisation and draws of weights


@pytest.mark.parametrize("family", ["full", "diagonal", "low_rank"])
def test_outputs_drawn_have_the_moments_of_weights_drawn(family):
    size, draws = 4, 100_000
    start = (double(1, 3, size).abs() + 0.3).to(torch.float64)
    made = {"full": Full, "diagonal": Diagonal, "low_rank": lambda s: LowRank(s, 2, [seeded(0)])}[family](start)
    with torch.no_grad():
        for leaf in made.leaves()[1:]:
            leaf.add_(0.05 * double(*leaf.shape, seed=6))
    mean = double(1, 3, size, seed=7)
    net = nn.Sequential(nn.Linear(size - 1, 3).double())
    groups = [Group(blocks_of(net, "neuron")[0], mean, made)]
    x, roots = double(1, 1, 3, seed=8), [made.root().detach() if family != "low_rank" else made.root()]
    local = network_of(net, groups, x[0], False, 1)
    assert isinstance(local, LocalNetwork)
    sampled = SampledNetwork(net, groups, draws, x[0])
    with torch.no_grad():
        many = x.expand(1, draws, 3)
        a, _ = local(many, roots, double(1, local.normals(draws), seed=9))
        b, _ = sampled(x, roots, double(1, sampled.normals(1), seed=10))
    z = F.pad(x[0, 0], (0, 1), value=1.0)
    variance = torch.einsum("i,kij,j->k", z, made.cov()[0], z)
    for out in (a[0], b[0]):
        assert out.shape == (draws, 3)
        close(out.mean(0), mean[0] @ z, rtol=0, atol=float(4 * (variance.max() / draws).sqrt()))
        close(out.var(0), variance, rtol=0.02)
        assert (torch.corrcoef(out.T) - torch.eye(3).double()).abs().max() < 0.02
    closed = network_of(net, groups, x[0], True, 1)
    out, total = closed(many, roots, double(1, 0))
    close(total[0], draws * variance.sum())
    assert closed.normals(7) == 0 and out.shape == (1, draws, 3)


def test_layers_are_drawn_apart():
    net, draws = nn.Sequential(linear(1, 1, bias=False), linear(1, 1, seed=1, bias=False)), 50_000
    means = [torch.full((1, 1, 1), v, dtype=torch.float64) for v in (0.7, -0.4)]
    groups = [
        Group(torch.tensor([[i]]), m, Diagonal(torch.full_like(m, s)))
        for i, (m, s) in enumerate(zip(means, (0.5, 0.8)))
    ]
    local = network_of(net, groups, double(1, 1), False, 1)
    out, _ = local(
        torch.ones(1, draws, 1).double(), [g.family.root() for g in groups], double(1, local.normals(draws), seed=3)
    )
    close(out.mean().detach(), -0.28, rtol=0, atol=0.02)
    close(out.var().detach(), (0.49 + 0.25) * (0.16 + 0.64) - 0.28**2, rtol=0.05)


def test_bound_does_not_depend_on_how_it_is_estimated():
    net, rebuilt = perceptron(), nn.Sequential(nn.Identity(), nn.Flatten(), *perceptron())
    data = double(40, 3), double(40, 2, seed=4)
    options = {"noise": 0.5, "epochs": 0, "init_scale": 2.0, "generator": seeded(0)}
    a = variational(net, data, F.mse_loss, **options)
    b = variational(rebuilt, data, F.mse_loss, draws=100, **options)
    close(a.report["kl"], b.report["kl"])
    close(a.report["nll"], b.report["nll"], rtol=0.03)
    plain = variational(net, data, F.mse_loss, **(options | {"init_scale": 1e-6})).report["nll"]
    assert a.report["nll"] > 1.05 * plain


def test_start_is_the_model_and_small():
    net = perceptron()
    data = double(40, 3), double(40, 2, seed=4)
    q = variational(net, data, F.mse_loss, epochs=0)
    close(q.mean, torch.cat([p.detach().reshape(-1) for p in net.parameters()]), rtol=0)
    rows = blocks_of(net, "neuron")[0]
    close(q.cov(rows[0]).diagonal(), 0.02**2 * q.mean[rows].square().mean().expand(4))
    square = (net(data[0]) - data[1]).square().mean().item()
    close(q.report["noise"], square, rtol=0.02)


def test_classes():
    """Against the posterior by quadrature: one weight, logits (0, w x)."""
    quick = partial(torch.optim.Adam, lr=1e-2)
    x = torch.tensor([[1.0], [2.0], [-1.0], [0.5]], dtype=torch.float64).repeat(5, 1)
    y = torch.tensor([1, 1, 0, 0]).repeat(5)
    net = linear(1, 2, bias=False)
    q = variational(
        net, (x, y), F.cross_entropy, batch_size=None, epochs=1000, draws=8, optimizer=quick, generator=seeded(0)
    )
    assert q.report["likelihood"] == "categorical" and "noise" not in q.report
    grid = torch.linspace(-6, 8, 2001, dtype=torch.float64)
    # the difference of the two weights is N(0, 2) beforehand, and all that the data see
    logits = torch.stack([torch.zeros(2001, 20).double(), grid[:, None] * x[:, 0]], -1)
    level = -F.cross_entropy(logits.flatten(0, 1), y.repeat(2001), reduction="none").view(2001, -1).sum(1) - grid**2 / 4
    weight = level.softmax(0)
    mean = float((weight * grid).sum())
    spread = float((weight * (grid - mean) ** 2).sum().sqrt())
    close(q.mean[1] - q.mean[0], mean, rtol=0, atol=0.15 * spread)
    close(predict(q, x, size=4000, generator=seeded(0)).sum(1), torch.ones(20))
    again = variational(net, (x, y), partial(F.cross_entropy), epochs=20, generator=seeded(3))
    same = variational(net, (x, y), nn.CrossEntropyLoss(), epochs=20, generator=seeded(3))
    assert again.report["likelihood"] == "loss"
    close(again.mean, same.mean)


@pytest.mark.parametrize("structure", ["neuron", "layer"])
def test_any_module_can_be_random(structure):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.RNN(2, 3, batch_first=True), nn.Linear(3, 1)

        def forward(self, x):
            return self.out(self.cell(x)[0][:, -1])

    torch.manual_seed(0)
    net = Recurrent()
    data = double(12, 5, 2).float(), double(12, 1, seed=1).float()
    q = variational(net, data, F.mse_loss, structure=structure, epochs=2, batch_size=6, draws=2, generator=seeded(0))
    assert len(q) == sum(p.numel() for p in net.parameters())
    assert q.neurons("cell").cov.shape == (3, 5, 5) and math.isfinite(q.report["elbo"])
    groups = variational(net, data, F.mse_loss, family="block", epochs=0).blocks
    assert sorted({b.index.shape[1] for b in groups}) == [1, 2, 3]


# a stack of posteriors


@pytest.mark.parametrize("family", ["full", "diagonal", "low_rank"])
def test_members_do_not_depend_on_their_neighbours(family, monkeypatch):
    monkeypatch.setattr(descent, "DRAWN_AT_ONCE", 200)  # so that the normals run out on the way
    data = double(40, 3), double(40, 2, seed=4)
    few, many = (
        variational_ensemble(
            perceptron(), data, F.mse_loss, n, family=family, epochs=3, batch_size=16, generator=seeded(7)
        )
        for n in (2, 4)
    )
    for a, b in zip(few, many):
        close(a.mean, b.mean, rtol=1e-9, atol=1e-12)
        close(a.cov(), b.cov(), rtol=1e-9, atol=1e-15)
        close(a.report["elbo"], b.report["elbo"], rtol=1e-9)
    assert (few[0].mean - few[1].mean).abs().max() > 1e-6
    assert len(many[3].report["history"]) == 3


def test_members_see_their_own_examples():
    x, y = regression(n=80)
    rows = torch.stack([torch.arange(50), torch.arange(30, 80)])
    start = train_ensemble(linear(3, 1), (x, y), F.mse_loss, 2, epochs=1, generator=seeded(0))
    options = {
        "noise": NOISE,
        "prior_precision": PRECISION,
        "batch_size": None,
        "epochs": 1000,
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
    }
    found = variational_ensemble(start, (x, y), F.mse_loss, 2, resample=rows, **options)
    for q, index in zip(found, rows):
        cov, mean = exact(x[index], y[index])
        assert (q.cov() - cov).norm() < 1e-4 * cov.norm()
        close(q.mean, mean[:, 0], rtol=0, atol=1e-4)
        assert q.report["n"] == 50
    apart = torch.cat([y[:40], y[40:] + 3])
    options |= {"resample": torch.arange(80).view(2, 40)}
    a, b = variational_ensemble(start, (x, apart), F.mse_loss, 2, **(options | {"epochs": 300, "batch_size": 20}))
    close(b.mean[3] - a.mean[3], 3.0, rtol=0.1)


def test_nothing_is_changed_in_place():
    net, data = perceptron(), (double(40, 3), double(40, 2, seed=4))
    state, kept, stream = copy.deepcopy(net.state_dict()), [t.clone() for t in data], torch.get_rng_state()
    net.train()
    variational(net, data, F.mse_loss, epochs=2, generator=seeded(0))
    assert net.training and all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert all(map(torch.equal, kept, data)) and torch.equal(stream, torch.get_rng_state())


def test_saved_posteriors_predict_alike(tmp_path):
    x, y = regression()
    q = variational(linear(3, 1), (x, y), F.mse_loss, epochs=2, generator=seeded(0))
    q.save(tmp_path / "q.safetensors")
    again = GaussianPosterior.load(tmp_path / "q.safetensors", linear(3, 1))
    for a, b in zip(predict(q, x, generator=seeded(1)), predict(again, x, generator=seeded(1))):
        close(a, b, rtol=1e-12)


# prediction and calibration


def test_prediction_has_the_moments_of_the_linear_model():
    x, y = regression()
    q = variational(linear(3, 1), (x, y), F.mse_loss, noise=NOISE, prior_precision=PRECISION, **EXACT)
    cov, mean = exact(x, y)
    z = F.pad(x, (0, 1), value=1.0)
    found = predict(q, x, size=20_000, generator=seeded(0))
    close(found.mean, z @ mean, rtol=0, atol=0.01)
    close(found.variance[:, 0], NOISE + (z @ cov * z).sum(1), rtol=0.01)
    close(
        found.variance - predict(q, x, size=20_000, noise=0.0, generator=seeded(0)).variance, NOISE * torch.ones(60, 1)
    )


def test_prediction_is_an_average_and_not_the_mean_network():
    ensemble = Ensemble.of([linear(2, 3, seed) for seed in range(3)])
    x = double(5, 2, seed=9)
    close(
        predict(ensemble, x, likelihood="categorical"),
        torch.stack([m(x).softmax(1) for m in ensemble]).mean(0).detach(),
    )
    outs = torch.stack([m(x) for m in ensemble]).detach()
    found = predict(ensemble, x, likelihood="gaussian", noise=0.5)
    close(found.mean, outs.mean(0))
    close(found.variance, 0.5 + outs.var(0))
    q = random_posterior(linear(2, 3))
    at_mean = q.model()(x).softmax(1).detach()
    assert (predict(q, x, likelihood="categorical", size=500, generator=seeded(0)) - at_mean).abs().max() > 0.05


def test_calibration_of_a_regression():
    truth = double(100_000)
    found = calibration(Prediction(torch.zeros(100_000), torch.ones(100_000)), truth)
    close(found["coverage"], 0.95, rtol=0, atol=0.003)
    close(found["nll"], 0.5 * math.log(2 * math.pi) + 0.5, rtol=0.01)
    close(found["rmse"], 1.0, rtol=0.01)
    narrow = calibration((torch.zeros(100_000), 0.25 * torch.ones(100_000)), truth, level=0.6826895)
    close(narrow["coverage"], 0.3829249, rtol=0, atol=0.005)
    close(narrow["nll"], 0.5 * math.log(2 * math.pi / 4) + 2 * truth.square().mean(), rtol=1e-5)


def test_calibration_of_classes():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]], dtype=torch.float64)
    found = calibration(p, torch.tensor([0, 1, 1, 0]))
    close(found["accuracy"], 0.5)
    close(found["nll"], -(math.log(0.9) + math.log(0.1) + math.log(0.7) + math.log(0.4)) / 4)
    close(found["ece"], (2 * abs(0.5 - 0.9) + abs(1 - 0.7) + abs(0 - 0.6)) / 4)
    close(calibration(p, torch.tensor([0, 1, 1, 0]), bins=1)["ece"], abs(0.5 - 0.775))
    sure = calibration(torch.eye(3), torch.tensor([0, 1, 2]))
    assert sure == {"nll": 0.0, "accuracy": 1.0, "ece": 0.0}


def test_columns_of_a_neuron():
    index = torch.tensor([[0, 1, 2, 6], [3, 4, 5, 7]])
    assert [c.tolist() for c in columns_of(index, [6, 2], None)] == [[0, 1, 2], [3]]
    assert [c.tolist() for c in columns_of(index, [6, 2], 3)] == [[0, 1, 2], [3]]


# what is refused


GOOD = {"epochs": 1, "batch_size": None}


@pytest.mark.parametrize(
    "options,words",
    [
        ({"family": "funny"}, "family must be one of full"),
        ({"structure": "diagonal"}, "structure must be one of neuron"),
        ({"layers": "7"}, "is no layer with parameters"),
        ({"layers": "1"}, "is no layer with parameters"),
        ({"family": "low_rank", "rank": 9}, "rank must be at most 4"),
        ({"rank": 2}, "rank belongs to"),
        ({"blocks": 2}, "blocks belongs to"),
        ({"family": "block", "blocks": (2, 7)}, "blocks must sum to 4"),
        ({"family": "block", "blocks": 0}, "blocks must"),
        ({"prior_precision": 0.0}, "prior_precision must be a positive number"),
        ({"prior_precision": math.nan}, "prior_precision must be a positive number"),
        ({"prior": "wide"}, "prior must be a GaussianPosterior"),
        ({"noise": -1.0}, "noise must be a positive number"),
        ({"kl_weight": -1.0}, "kl_weight must be"),
        ({"init_scale": 0.0}, "init_scale must be"),
        ({"draws": 0}, "draws must be a whole number"),
        ({"epochs": -1}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"optimizer": torch.optim.LBFGS, "batch_size": 5}, "LBFGS needs the same examples"),
        ({"resample": torch.tensor([[99]])}, "resample must be"),
        ({"seeds": [1, 2]}, "seeds must be 1"),
        ({"optimizer": partial(torch.optim.SGD, lr=1e30), "epochs": 5}, "training diverged"),
    ],
    ids=str,
)
def test_bad_options_are_named(options, words):
    data = double(12, 3), double(12, 2, seed=4)
    with pytest.raises(ValueError, match=words):
        variational_ensemble(perceptron(), data, F.mse_loss, 1, **(GOOD | options))


def test_bad_data_and_models_are_named():
    net, x, y = perceptron(), double(12, 3), double(12, 2, seed=4)
    holed = x.clone()
    holed[3, 1] = math.nan
    norm = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    cases = [
        (net, (holed, y), F.mse_loss, "finite"),
        (net, (x, y[:5]), F.mse_loss, "as many targets"),
        (net, (x[:, :2], y), F.mse_loss, "does not fit"),
        (net, (x, y), nn.MSELoss(reduction="sum"), "mean over the batch"),
        (nn.Tanh(), (x, y), F.mse_loss, "no parameters"),
        (Ensemble.of([net, net]), (x, y), F.mse_loss, "n_models = 1, got 2"),
    ]
    for model, data, loss, words in cases:
        with pytest.raises(ValueError, match=words):
            variational(model, data, loss, **GOOD)
    with pytest.raises(ValueError, match="noise belongs to a squared error"):
        variational(net, (x, torch.zeros(12).long()), F.cross_entropy, noise=1.0, **GOOD)
    with pytest.raises(ValueError, match=r"targets must have the shape of the outputs, .*\(8,\)"):
        variational(net, (x, y[:, 0]), F.mse_loss, **GOOD)
    with pytest.raises(ValueError, match="LBFGS mixes parameters"):
        variational_ensemble(net, (x, y), F.mse_loss, 2, optimizer=torch.optim.LBFGS, **GOOD)
    variational(norm, (x, y), F.mse_loss, **GOOD)  # in evaluation mode, as all of it


def test_bad_priors_are_named():
    net, x, y = perceptron(), double(12, 3), double(12, 2, seed=4)
    full = random_posterior(net)
    other = random_posterior(perceptron(sizes=(3, 5, 2)))
    swapped = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(3, 4)).double()
    flat = GaussianPosterior(net, full.mean, [Block(full.index[None], torch.ones(len(full), len(full)).double()[None])])
    cases = [
        ({"prior": other}, "prior must have the parameters of the model in their order"),
        ({"prior": random_posterior(swapped)}, "in their order"),
        ({"prior": full, "prior_precision": 1.0}, "prior_precision goes with prior=None"),
        ({"prior": full.marginal(["2"])}, "prior has no variance for 0.weight, 0.bias"),
        ({"prior": flat}, "prior is singular in 0.weight"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            variational(net, (x, y), F.mse_loss, **GOOD, **options)
    found = variational(net, (x, y), F.mse_loss, prior=full.marginal(["2"]), layers=["2"], **GOOD)
    close(found.report["kl"], dense_kl(found, full))
    with pytest.raises(ValueError, match="no random parameters"):
        kl_divergence(GaussianPosterior(net, full.mean, []))


def test_bad_predictions_are_named():
    q, x = random_posterior(linear(2, 3)), double(4, 2)
    one = Ensemble.of([linear(2, 3)])
    p, t = torch.full((4, 2), 0.5), torch.tensor([0, 1, 0, 1])
    m, v, y = torch.zeros(4), torch.ones(4), torch.zeros(4)
    cases = [
        (lambda: predict(q, x), "likelihood must be one of gaussian, categorical, got None"),
        (lambda: predict(q, x, likelihood="gaussian"), "noise must be the variance"),
        (lambda: predict(q, x, likelihood="gaussian", noise=-1.0), "noise must be the variance"),
        (lambda: predict(q, x, likelihood="categorical", noise=1.0), "noise belongs to a regression"),
        (lambda: predict(q, x[:0], likelihood="categorical"), "x must be"),
        (lambda: predict(q, x * math.nan, likelihood="categorical"), "x must be"),
        (lambda: predict(q, x, likelihood="categorical", size=1), "size must be a whole number"),
        (lambda: predict(one, x, likelihood="categorical"), "at least two members"),
        (lambda: predict(random_posterior(linear(2, 1)), x, likelihood="categorical"), "C of at least 2"),
        (lambda: calibration(p * 2, t), "sum to one"),
        (lambda: calibration(p, t + 1), "classes from 0 to 1"),
        (lambda: calibration(p, t[:2]), "targets must be 4 classes"),
        (lambda: calibration(p, t, bins=0), "bins must be a whole number"),
        (lambda: calibration((m, v, v), y), "got 3 things"),
        (lambda: calibration((m, v), y[:2]), "one shape"),
        (lambda: calibration((m, 0 * v), y), "variances positive"),
        (lambda: calibration((m, v), y, level=1.5), "level must"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()


def test_a_transformer_of_torch_is_trained():
    torch.manual_seed(0)
    block = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), nn.Flatten(), nn.Linear(12, 1))
    x, y = torch.randn(20, 3, 4, generator=seeded(0)), torch.randn(20, 1, generator=seeded(1))
    fast = torch.backends.mha.get_fastpath_enabled()
    report = variational(block, (x, y), F.mse_loss, epochs=2, generator=seeded(2)).report
    assert math.isfinite(report["elbo"]) and torch.backends.mha.get_fastpath_enabled() == fast


def test_what_cannot_predict_is_told():
    for given in (nn.Linear(1, 1), torch.zeros(3, 1)):
        with pytest.raises(ValueError, match=f"posterior must be a GaussianPosterior .*, got {type(given).__name__}"):
            predict(given, torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"4 classes from 0 to 1, got torch.int64 of shape .*, from 1 to 2"):
        calibration(torch.full((4, 2), 0.5), torch.tensor([1, 2, 1, 2]))


# several inputs


class Sum(nn.Module):
    """Takes two inputs, whose sum another network reads, and gives its output in a dictionary."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, a, b):
        return {"all": self.net(a + b), "none": a[:, :0]}


def likelihood(out, target):
    square = (out["all"] - torch.cat(target, -1)).square().sum(-1)
    return square.mean() + math.log(math.pi)  # of noise one half and two numbers


def plain_likelihood(out, target):
    return (out - target).square().sum(-1).mean() + math.log(math.pi)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs_and_targets_are_as_if_packed(kind, batched, monkeypatch):
    x, y, half = double(30, 3), double(30, 2, seed=4), double(30, 3, seed=5)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), *perceptron())  # drawn by weights, not by outputs
    inputs = {"b": half, "a": x - half} if kind is dict else [x - half, half]
    options = {"epochs": 4, "batch_size": 8, "draws": 3, "layers": None}
    if not batched:
        monkeypatch.setattr(networks, "vmap", refuse)
    ours, theirs = (
        variational_ensemble(*call, 2, generator=seeded(3), **options)
        for call in ((Sum(net), (inputs, y.split(1, 1)), likelihood), (net, (x, y), plain_likelihood))
    )
    for a, b in zip(ours, theirs):
        close(a.mean, b.mean, rtol=1e-9, atol=1e-12)
        close(a.cov(), b.cov(), rtol=1e-9, atol=1e-15)
        close(a.report["elbo"], b.report["elbo"], rtol=1e-9)


def refuse(*_, **__):
    raise RuntimeError("no batching rule")


@pytest.mark.parametrize("call", [variational, variational_ensemble])
def test_a_misspelt_option_is_named_with_the_function_called(call):
    with pytest.raises(TypeError, match=rf"^{call.__name__}\(\) got an unexpected keyword argument 'epohcs'"):
        call(
            perceptron(),
            (double(5, 3), double(5, 2)),
            F.mse_loss,
            *([1] if call is variational_ensemble else []),
            epohcs=3,
        )
