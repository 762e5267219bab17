"""Distances against closed forms and POT, the laws they promise, and barycenters that no nudge improves."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mspace.metrics import (
    Metric,
    debiased,
    euclidean,
    fisher_rao,
    functional,
    geodesic,
    hellinger,
    jeffreys,
    merge_test,
    split_half,
    wasserstein2,
)
from mspace.metrics.fisher_rao import fisher_rao_bounds
from mspace.metrics.information import kullback_leibler
from mspace.neurons import NeuronDistribution

EVERY = [euclidean, wasserstein2, jeffreys, hellinger, fisher_rao]
DENSITY = [jeffreys, hellinger, fisher_rao]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def population(m=6, n=3, rank=None, seed=0, floor=0.0):
    """m Gaussians in R^n with covariances of a given rank; `floor` keeps them well conditioned."""
    factor = noise(m, n, rank or n, seed=seed + 1)
    return NeuronDistribution(noise(m, n, seed=seed), factor @ factor.mT + floor * torch.eye(n))


def gaussians(means, covs):
    return NeuronDistribution(torch.tensor(means).double(), torch.tensor(covs).double())


def close(a, b, atol=1e-12):
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return torch.allclose(a, b.expand_as(a), rtol=0, atol=atol)


def by_definition(p, q):
    """W2 from the singular values of S_i^1/2 S_j^1/2, a pair at a time."""

    def root(cov):
        power, axes = np.linalg.eigh(cov)
        power[power < len(cov) * 2.3e-16 * power[-1]] = 0
        return (axes * np.sqrt(power)) @ axes.T

    found = np.empty((len(p), len(q)))
    for i in range(len(p)):
        for j in range(len(q)):
            a, b = p.cov[i].numpy(), q.cov[j].numpy()
            shared = np.linalg.svd(root(a) @ root(b), compute_uv=False).sum()
            gap = np.square(p.mean[i].numpy() - q.mean[j].numpy()).sum()
            found[i, j] = math.sqrt(max(gap + np.trace(a) + np.trace(b) - 2 * shared, 0))
    return torch.from_numpy(found)


# -- Wasserstein: values ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 20])
def test_wasserstein_agrees_with_pot(n):
    ot = pytest.importorskip("ot")
    p, q = population(7, n, floor=0.1), population(5, n, seed=5, floor=0.1)
    pairs = [[(p.mean[i], q.mean[j], p.cov[i], q.cov[j]) for j in range(5)] for i in range(7)]
    expected = [[float(ot.gaussian.bures_wasserstein_distance(*x)) for x in row] for row in pairs]
    assert close(wasserstein2(p, q), torch.tensor(expected, dtype=torch.float64), 1e-10)


@pytest.mark.parametrize(
    ("n", "rank"), [(1, 1), (2, 2), (2, 1), (3, 3), (3, 2), (3, 1), (4, 2), (9, 9), (9, 1), (60, 5)]
)
def test_wasserstein_is_its_definition_at_every_rank(n, rank):
    p, q = population(9, n, rank), population(8, n, rank, seed=7)
    assert close(wasserstein2(p, q), by_definition(p, q), 1e-10)
    assert close(wasserstein2(p), by_definition(p, p), 1e-6)  # the definition loses half of its digits at zero
    mixed = population(8, n, seed=9)
    assert close(wasserstein2(p, mixed), by_definition(p, mixed), 1e-10), "a singular beside a regular one"
    assert close(wasserstein2(mixed, p), by_definition(mixed, p), 1e-10)


def test_wasserstein_of_a_mixed_population():
    """Ranks from nothing to full in one population, whatever the path it takes."""
    for n in (2, 3, 5):
        parts = [population(2, n, rank, seed=rank) for rank in range(1, n + 1)]
        cov = torch.cat([torch.zeros(2, n, n, dtype=torch.float64), *(x.cov for x in parts)])
        p = NeuronDistribution(noise(len(cov), n), cov)
        off = ~torch.eye(len(p), dtype=torch.bool)
        assert close(wasserstein2(p)[off], by_definition(p, p)[off], 1e-10)


def test_wasserstein_in_one_dimension():
    """(mu - nu)^2 + (sigma - tau)^2."""
    p = gaussians([[1.0], [4.0], [0.0]], [[[4.0]], [[9.0]], [[0.0]]])
    squared = [[0, 9 + 1, 1 + 4], [10, 0, 16 + 9], [5, 25, 0]]
    assert close(wasserstein2(p) ** 2, squared, 1e-12)


def test_wasserstein_is_no_square():
    p = gaussians([[0.0, 0.0], [3.0, 4.0]], [torch.eye(2).tolist()] * 2)
    assert close(wasserstein2(p)[0, 1], 5.0) and close(wasserstein2.cost(p)[0, 1], 25.0)


@pytest.mark.parametrize("n", [3, 5])
def test_commuting_covariances(n):
    """diag(1, 4, 9) and diag(4, 1, 0): (1-2)^2 + (2-1)^2 + (3-0)^2 = 11, in any basis."""
    pad = [0.0] * (n - 3)
    powers = torch.tensor([[1.0, 4.0, 9.0, *pad], [4.0, 1.0, 0.0, *pad]], dtype=torch.float64)
    for axes in (torch.eye(n, dtype=torch.float64), torch.linalg.qr(noise(n, n)).Q):
        p = NeuronDistribution(torch.zeros(2, n), axes @ torch.diag_embed(powers) @ axes.T)
        assert close(wasserstein2(p)[0, 1], math.sqrt(11), 1e-12)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_rank_one_covariances(n):
    """Of unit vectors a and b: 2 - 2 |a b|; orthogonal ones too, where the traces of products are rounding."""
    axes = torch.linalg.qr(noise(n, n, seed=3)).Q
    for cosine in (0.0, 1e-9, 1e-4, 0.3, -0.7, 1.0):
        b = cosine * axes[:, 0] + math.sqrt(1 - cosine**2) * axes[:, 1]
        both = torch.stack([axes[:, 0], b])
        p = NeuronDistribution(torch.zeros(2, n), both[:, :, None] * both[:, None])
        assert close(wasserstein2(p)[0, 1], math.sqrt(2 - 2 * abs(cosine)), 2e-12)


@pytest.mark.parametrize("n", [3, 4, 6])
@pytest.mark.parametrize("cosine", [0.0, 1e-9, 1e-7, 1e-5, 1e-3, 0.5])
def test_planes_that_meet_in_a_line(n, cosine):
    """Projectors on planes at an angle: 4 - 2 (1 + cosine); where it is right, rounding must not be rooted."""
    for seed in range(10):
        axes = torch.linalg.qr(noise(n, n, seed=seed)).Q
        tilted = cosine * axes[:, 1] + math.sqrt(1 - cosine**2) * axes[:, 2]
        planes = [torch.stack([axes[:, 0], other], 1) for other in (axes[:, 1], tilted)]
        p = NeuronDistribution(torch.zeros(2, n), torch.stack([plane @ plane.T for plane in planes]))
        assert close(wasserstein2(p)[0, 1], math.sqrt(2 - 2 * cosine), 2e-12)


def test_ranks_beside_each_other():
    """Zero eigenvalues of the narrower one of a pair are no small ones."""
    p = [population(40, 8, rank, seed=rank) for rank in (1, 6, 3)]
    all_ranks = NeuronDistribution(torch.cat([x.mean for x in p]), torch.cat([x.cov for x in p]))
    off = ~torch.eye(120, dtype=torch.bool)
    assert close(wasserstein2(all_ranks)[off], by_definition(all_ranks, all_ranks)[off], 1e-11)


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("step", [1e-4, 1e-9, 1e-13])
def test_near_neurons_keep_their_digits(n, step):
    """Scaling by (1 + step)^2 moves a Gaussian by step times the root of its trace, which a difference would lose."""
    p = population(4, n, floor=1.0)
    q = NeuronDistribution(p.mean, p.cov * (1 + step) ** 2)
    moved = wasserstein2(p, q).diagonal()
    expected = step * p.cov.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    assert torch.allclose(moved, expected, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-60, 1e-8, 1e8, 1e60])
def test_units_do_not_matter(scale):
    for n in (1, 2, 3, 4):
        p, q = population(4, n), population(3, n, 1, seed=4)
        p2, q2 = (NeuronDistribution(x.mean * scale, x.cov * scale**2) for x in (p, q))
        assert torch.allclose(wasserstein2(p2, q2) / scale, wasserstein2(p, q), rtol=1e-10)


def test_diagonal_covariances_are_points():
    """(mean, standard deviations) in Euclidean space; so are all distances of a mean field posterior."""
    deviation = noise(5, 12, seed=1).abs()
    p = NeuronDistribution(noise(5, 12), torch.diag_embed(deviation**2))
    assert close(wasserstein2(p), torch.cdist(*[torch.cat([p.mean, deviation], 1)] * 2), 1e-10)
    axes = torch.linalg.qr(noise(12, 12, seed=3)).Q
    turned = NeuronDistribution(p.mean @ axes.T, axes @ p.cov @ axes.T)
    assert close(wasserstein2(turned), wasserstein2(p), 1e-10), "the general way agrees"


@pytest.mark.parametrize(("m", "n", "rank"), [(300, 3, 3), (23, 3, 1), (40, 5, 5), (40, 30, 3)])
def test_blocks_make_no_difference(m, n, rank, monkeypatch):
    import mspace.metrics.wasserstein as module

    p, q = population(m, n, rank), population(7, n, rank, seed=3)
    inside, across = wasserstein2(p), wasserstein2(p, q)
    assert torch.equal(inside, inside.T) and not inside.diagonal().any()
    few = wasserstein2(p[-5:], p[:9])
    assert close(few, inside[-5:, :9], 1e-9)
    monkeypatch.setattr(module, "BLOCK", 50)
    monkeypatch.setattr(module, "NUMBERS", 50)
    assert close(wasserstein2(p), inside, 1e-11) and close(wasserstein2(p, q), across, 1e-11)


def test_memory_of_many_neurons():
    """2000 neurons in R^10 within 1 GB of memory, the interpreter and torch included."""
    code = """
import resource, torch
from mspace.metrics import wasserstein2
from mspace.neurons import NeuronDistribution
torch.set_num_threads(1)
f = torch.randn(2000, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
thin, full = (NeuronDistribution(torch.zeros(2000, 10), g @ g.mT) for g in (f[..., :2], f))
assert wasserstein2(thin).shape == (2000, 2000) and wasserstein2(full[:100], full).shape == (100, 2000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30))
""".replace("import resource", "import resource, sys")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0


# -- other distances: values ------------------------------------------------------------------------


def divergence(p, q, i, j):
    """Kullback-Leibler, by the textbook."""
    a, b, d = p.cov[i], q.cov[j], q.mean[j] - p.mean[i]
    inverse = torch.linalg.inv(b)
    return 0.5 * (torch.trace(inverse @ a) + d @ inverse @ d - len(d) + torch.logdet(b) - torch.logdet(a))


def test_euclidean_is_the_distance_of_means():
    p, q = population(4), population(3, seed=9)
    assert close(euclidean(p, q), torch.linalg.norm(p.mean[:, None] - q.mean, dim=2))


def test_jeffreys_is_both_divergences():
    p, q = population(4), population(3, seed=9)
    one_way = torch.tensor([[divergence(p, q, i, j) for j in range(3)] for i in range(4)])
    assert torch.allclose(kullback_leibler(p, q), one_way, rtol=1e-9) and kullback_leibler(p).diagonal().max() < 1e-12
    both = [[divergence(p, q, i, j) + divergence(q, p, j, i) for j in range(3)] for i in range(4)]
    assert torch.allclose(jeffreys(p, q), torch.tensor(both, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(jeffreys(p), jeffreys(p, NeuronDistribution(p.mean, p.cov)), rtol=1e-9)


def test_hellinger_is_the_integral():
    p = gaussians([[0.0], [1.5]], [[[1.0]], [[3.0]]])
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    one, two = (torch.distributions.Normal(m, v.sqrt()).log_prob(x).exp() for m, v in zip(p.mean, p.cov[:, 0]))
    squared = torch.trapezoid((one.sqrt() - two.sqrt()) ** 2, x) / 2
    assert close(hellinger(p)[0, 1], squared.sqrt(), 1e-10)


def test_hellinger_in_many_dimensions_factors():
    """Independent coordinates multiply affinities."""
    cov, other = torch.tensor([1.0, 2.0, 5.0]).double(), torch.tensor([3.0, 0.5, 5.0]).double()
    mean = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, -1.0]]).double()
    axes = torch.linalg.qr(noise(3, 3)).Q
    p = NeuronDistribution(mean @ axes.T, axes @ torch.diag_embed(torch.stack([cov, other])) @ axes.T)
    affinity = 1.0
    for k in range(3):
        one = gaussians(mean[:, [k]].tolist(), [[[float(cov[k])]], [[float(other[k])]]])
        affinity *= 1 - float(hellinger(one)[0, 1]) ** 2
    assert close(hellinger(p)[0, 1], math.sqrt(1 - affinity), 1e-12)


def test_fisher_rao_on_the_line():
    p = gaussians([[1.0], [3.0]], [[[4.0]], [[0.25]]])
    low, high = fisher_rao_bounds(p)
    assert close(fisher_rao(p)[0, 1], 2.5540, 5e-5)
    assert close(low[0, 1], 2.5123, 5e-5) and close(high[0, 1], 3.9410, 5e-5)
    step = ((1 - 3) ** 2 / 2 + (2 - 0.5) ** 2) / (2 * 2 * 0.5)
    assert close(fisher_rao(p)[0, 1], math.sqrt(2) * math.acosh(1 + step), 1e-13)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_fisher_rao_of_equal_means(n):
    p = population(4, n, floor=0.1)
    p = NeuronDistribution(torch.ones(4, n), p.cov)
    power = torch.linalg.eigvals(torch.linalg.solve(p.cov[0], p.cov[1])).real
    assert close(fisher_rao(p)[0, 1], (power.log() ** 2).sum().div(2).sqrt(), 1e-9)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_fisher_rao_of_equal_covariances(n):
    """sqrt 2 arccosh (1 + Mahalanobis / 4): the closed form, and up to R^5 also what is found without it."""
    p = population(4, n, floor=0.1)
    shared = NeuronDistribution(p.mean, p.cov[:1].expand(4, n, n))
    far = p.mean[0] - p.mean[1]
    expected = math.sqrt(2) * torch.acosh(1 + far @ torch.linalg.solve(p.cov[0], far) / 4)
    assert close(fisher_rao(shared)[0, 1], expected, 1e-10)
    if n <= 5:
        mixed = NeuronDistribution(p.mean, torch.cat([shared.cov[:2], p.cov[2:]]))
        assert close(fisher_rao(mixed)[0, 1], expected, 1e-7)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_fisher_rao_is_the_length_of_its_geodesic(n):
    """The path leads from one Gaussian to the other, and its length by the Fisher information is the distance."""
    from mspace.metrics.fisher_rao import arrive, nearest, velocity

    p = population(2, n, floor=0.5)
    lower = torch.linalg.cholesky(p.cov[0])
    white = torch.linalg.inv(lower)
    mean, cov = white @ (p.mean[1] - p.mean[0]), white @ p.cov[1] @ white.T
    drift, growth = velocity(nearest(mean[None], cov[None]))
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    path = [torch.cat(x) for x in zip(*(arrive(s * drift, s * growth) for s in t))]
    assert close(path[0][-1], mean, 1e-6) and close(path[1][-1], cov, 1e-6)
    dm, dc = (x.diff(dim=0) for x in path)
    inverse = torch.linalg.inv((path[1][1:] + path[1][:-1]) / 2)
    squared = torch.einsum("ti,tij,tj->t", dm, inverse, dm) + torch.einsum(
        "tij,tjk,tkl,tli->t", inverse, dc, inverse, dc
    ).div(2)
    assert close(squared.sqrt().sum(), fisher_rao(p)[0, 1], 2e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_fisher_rao_lies_between_its_bounds(n):
    p = population(8, n, floor=0.05)
    low, high = fisher_rao_bounds(p)
    exact, off = fisher_rao(p), ~torch.eye(8, dtype=torch.bool)
    assert (low[off] < exact[off] + 1e-10).all() and (exact[off] < high[off]).all()
    assert (low[off] < exact[off] - 1e-3).any(), "the bound is no equality"


def test_fisher_rao_says_when_it_is_a_bound():
    p = population(4, 6, floor=0.1)
    with pytest.warns(UserWarning, match=r"in R\^6 fisher_rao gives a lower bound"):
        assert torch.equal(fisher_rao(p), fisher_rao_bounds(p)[0])


def test_functional_euclidean_is_what_neurons_compute():
    x = noise(500, 4, seed=2) * torch.tensor([1.0, 10.0, 0.1, 3.0])
    p = population(5, 4)
    out = x @ p.mean.T
    expected = (out[:, :, None] - out[:, None]).square().mean(0).sqrt()
    assert close(functional(x.T @ x / len(x), euclidean)(p), expected, 1e-10)


def test_functional_wasserstein_does_not_see_the_units_of_inputs():
    x, units = noise(200, 3, seed=2), torch.tensor([1.0, 100.0, 0.01]).double()
    p = population(5, 3)
    rescaled = NeuronDistribution(p.mean / units, p.cov / units[:, None] / units)
    moment = x.T @ x / len(x)
    assert close(functional(moment)(p), functional(moment * units[:, None] * units)(rescaled), 1e-9)
    assert close(functional(torch.eye(3))(p), wasserstein2(p), 1e-12)
    assert functional(moment).name == "functional wasserstein2"


def test_functional_barycenters_come_back_as_weights():
    p, labels = population(6, 3, floor=0.2), [0, 0, 0, 1, 1, 1]
    identity = functional(torch.eye(3)).barycenter(p, labels)
    plain = wasserstein2.barycenter(p, labels)
    assert close(identity.mean, plain.mean) and close(identity.cov, plain.cov, 1e-8)
    root = noise(3, 3, seed=5)
    found = functional(root @ root.T).barycenter(p, labels)
    seen = NeuronDistribution(p.mean @ root, root.T @ p.cov @ root)
    direct = wasserstein2.barycenter(seen, labels)
    assert close(found.mean @ root, direct.mean, 1e-10) and close(root.T @ found.cov @ root, direct.cov, 1e-8)


def test_functional_ignores_where_the_data_never_go():
    p = population(4, 3)
    moment = torch.diag(torch.tensor([1.0, 4.0, 0.0]))
    seen = p.marginal([0, 1])
    scaled = NeuronDistribution(seen.mean * torch.tensor([1.0, 2.0]), seen.cov * torch.tensor([[1.0, 2], [2, 4]]))
    assert close(functional(moment)(p), wasserstein2(scaled), 1e-12)
    assert not functional(moment).barycenter(p).mean[:, 2].any()


# -- laws -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_symmetric_and_zero_at_home(metric, n):
    p, q = population(6, n, floor=0.1), population(4, n, seed=3, floor=0.1)
    inside = metric(p)
    assert inside.dtype == torch.float64 and inside.shape == (6, 6)
    assert torch.equal(inside, inside.T) and not inside.diagonal().any()
    assert (inside[~torch.eye(6, dtype=torch.bool)] > 1e-3).all()
    assert close(metric(p, q), metric(q, p).T, 1e-8) and metric(p, q).shape == (6, 4)
    assert metric(p[:1]).tolist() == [[0.0]]
    copy = metric(p, NeuronDistribution(p.mean, p.cov))
    assert close(copy, inside, 1e-7)
    if metric in (euclidean, wasserstein2, jeffreys):
        assert not copy.diagonal().any()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("metric", [euclidean, wasserstein2, hellinger, fisher_rao], ids=str)
def test_triangle_inequality(metric, n):
    """Of metrics; Jeffreys is none, see below."""
    d = metric(population(16, n, floor=0.01))
    assert (d[:, None] <= d[:, :, None] + d[None] + 1e-9).all()


def test_triangle_inequality_of_singular_neurons():
    parts = [population(8, 4, rank, seed=rank) for rank in (1, 2, 3, 4)]
    p = NeuronDistribution(torch.cat([x.mean for x in parts]), torch.cat([x.cov for x in parts]))
    d = wasserstein2(p)
    assert (d[:, None] <= d[:, :, None] + d[None] + 1e-9).all()


def test_jeffreys_is_no_metric():
    p = gaussians([[0.0], [1.0], [2.0]], [[[1.0]]] * 3)
    d = jeffreys(p)
    assert d[0, 2] > d[0, 1] + d[1, 2] + 1 and jeffreys.power == 1 and torch.equal(jeffreys.cost(p), d)


@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_rigid_motions_change_nothing(metric):
    """Euclid and Wasserstein: rotations and shifts. The others: every affine map, since densities change alike."""
    p = population(5, 3, floor=0.2)
    change = torch.linalg.qr(noise(3, 3)).Q if metric in (euclidean, wasserstein2) else noise(3, 3, seed=4)
    moved = NeuronDistribution(p.mean @ change.T + 2, change @ p.cov @ change.T)
    assert close(metric(moved), metric(p), 1e-8)


def test_wasserstein_has_units():
    p = population(5, 3)
    assert close(wasserstein2(NeuronDistribution(3 * p.mean, 9 * p.cov)), 3 * wasserstein2(p), 1e-10)


# -- barycenters ------------------------------------------------------------------------------------


def total(metric, center, p, weights):
    return float((torch.as_tensor(weights).double() * metric.cost(center, p)[0]).sum())


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("metric", [wasserstein2, *DENSITY], ids=str)
def test_no_nudge_improves_a_barycenter(metric, n):
    p, weights = population(4, n, floor=0.5), torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    p = NeuronDistribution(p.mean / 2, p.cov)
    center = metric.barycenter(p, weights=weights)
    least = total(metric, center, p, weights)
    for seed in range(12):
        for size in (1e-1, 1e-3):
            step = noise(n, n, seed=seed) * size
            mean = center.mean + noise(1, n, seed=seed + 50) * size
            for other in (NeuronDistribution(mean, center.cov), NeuronDistribution(center.mean, _bent(center, step))):
                assert total(metric, other, p, weights) > least - 1e-12
    assert (
        total(
            metric, NeuronDistribution(weights[None] @ p.mean, (weights @ p.cov.flatten(1)).view(1, n, n)), p, weights
        )
        > least + 1e-5
    ), "the arithmetic mean is worse"


def _bent(center, step):
    bend = torch.eye(len(step)).double() + step
    return bend @ center.cov @ bend.T


@pytest.mark.parametrize("metric", [wasserstein2, *DENSITY], ids=str)
def test_barycenters_in_one_dimension_by_brute_force(metric):
    p, weights = gaussians([[0.0], [1.0], [0.5]], [[[1.0]], [[2.0]], [[0.3]]]), [0.5, 0.25, 0.25]

    def objective(x):
        return total(metric, gaussians([[x[0]]], [[[math.exp(x[1])]]]), p, weights)

    best = minimize(objective, [0.3, 0.1], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    center = metric.barycenter(p, weights=weights)
    assert close(center.mean[0, 0], best.x[0], 1e-5) and close(center.cov[0, 0, 0], math.exp(best.x[1]), 1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 5), (3, 8), (10, 20)])
def test_wasserstein_barycenter_agrees_with_pot(n, m):
    ot = pytest.importorskip("ot")
    p, weights = population(m, n, floor=0.05), noise(m).abs()
    mean, cov = ot.gaussian.bures_wasserstein_barycenter(
        p.mean.numpy(), p.cov.numpy(), weights=(weights / weights.sum()).numpy(), eps=1e-12
    )
    found = wasserstein2.barycenter(p, weights=weights)
    assert close(found.mean[0], mean, 1e-12) and close(found.cov[0], cov, 1e-8)


def test_wasserstein_barycenter_is_the_fixed_point():
    p = population(6, 4)
    cov = wasserstein2.barycenter(p).cov[0].numpy()
    power, axes = np.linalg.eigh(cov)
    root, inverse = ((axes * power**s) @ axes.T for s in (0.5, -0.5))

    def half(a):
        w, u = np.linalg.eigh(a)
        return (u * np.sqrt(np.maximum(w, 0))) @ u.T

    inner = sum(half(root @ c.numpy() @ root) for c in p.cov) / 6
    assert np.abs(inverse @ inner @ inner @ inverse - cov).max() < 1e-9 * np.abs(cov).max()


@pytest.mark.parametrize("turned", [False, True])
def test_barycenter_of_commuting_covariances_averages_deviations(turned):
    deviation = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]]).double()
    axes = torch.linalg.qr(noise(3, 3)).Q if turned else torch.eye(3).double()
    p = NeuronDistribution(torch.zeros(2, 3), axes @ torch.diag_embed(deviation**2) @ axes.T)
    found = wasserstein2.barycenter(p, weights=[3.0, 1.0])
    expected = (torch.tensor([0.75, 0.25]).double() @ deviation) ** 2
    assert close(found.cov[0], axes @ expected.diag() @ axes.T, 1e-9)


def test_barycenter_of_singular_covariances():
    """Of a a^T and b b^T with a b > 0 it is that of (a + b) / 2; directions no member has stay empty."""
    a, b = torch.tensor([1.0, 0.2, 0.0]).double(), torch.tensor([0.3, 1.0, 0.0]).double()
    p = NeuronDistribution(torch.zeros(2, 3), torch.stack([a[:, None] * a, b[:, None] * b]))
    middle = (a + b) / 2
    assert close(wasserstein2.barycenter(p).cov[0], middle[:, None] * middle, 1e-8)
    nothing = NeuronDistribution(noise(3, 2), torch.zeros(3, 2, 2))
    assert not wasserstein2.barycenter(nothing).cov.any()


def test_barycenter_of_nearly_singular_covariances():
    """Commuting ones, whose deviations lie seven digits apart: the small ones are averaged as well as the large."""
    deviation = torch.tensor([[1.0, 1e-4, 1e-7], [2.0, 3e-4, 4e-7], [3.0, 1e-4, 2e-7]]).double()
    axes = torch.linalg.qr(noise(3, 3)).Q
    p = NeuronDistribution(torch.zeros(3, 3), axes @ torch.diag_embed(deviation**2) @ axes.T)
    found = axes.T @ wasserstein2.barycenter(p).cov[0] @ axes
    assert torch.allclose(found.diagonal().sqrt(), deviation.mean(0), rtol=1e-3)


@pytest.mark.parametrize(("n", "rank"), [(10, 3), (40, 6)])
def test_barycenter_of_low_rank_covariances_is_optimal(n, rank):
    p = population(5, n, rank)
    center = wasserstein2.barycenter(p)
    least = float(wasserstein2.cost(center, p).mean())
    for seed in range(10):
        other = NeuronDistribution(center.mean, _bent(center, 1e-2 * noise(n, n, seed=seed)))
        assert float(wasserstein2.cost(other, p).mean()) > least


@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_all_clusters_at_once(metric):
    p = population(9, 2, floor=0.3)
    labels = torch.tensor([0, 2, 1, 0, 2, 1, 1, 0, 1])
    weights = noise(9, seed=8).abs()
    together = metric.barycenter(p, labels, weights=weights)
    assert len(together) == 3
    for k in range(3):
        alone = metric.barycenter(p[labels == k], weights=weights[labels == k])
        assert close(together[k].mean, alone.mean, 1e-6) and close(together[k].cov, alone.cov, 1e-6)
    matrix = torch.stack([(labels == k) * weights for k in range(3)])
    spread = metric.barycenter(p, weights=matrix)
    assert close(spread.mean, together.mean, 1e-9) and close(spread.cov, together.cov, 1e-9)


@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_barycenter_of_one_is_itself(metric):
    p = population(3, 2, floor=0.3)
    found = metric.barycenter(p, [2, 0, 1])
    assert close(found.mean, p.mean[[1, 2, 0]], 1e-8) and close(found.cov, p.cov[[1, 2, 0]], 1e-8)
    twins = metric.barycenter(p[[0, 0, 0]])
    assert close(twins.mean, p.mean[:1], 1e-8) and close(twins.cov, p.cov[:1], 1e-8)


@pytest.mark.parametrize("metric", [wasserstein2, *DENSITY], ids=str)
def test_a_start_changes_the_way_and_not_the_goal(metric):
    p, labels = population(8, 2, floor=0.3), [0, 1] * 4
    cold = metric.barycenter(p, labels)
    warm = metric.barycenter(p, labels, start=population(2, 2, seed=5, floor=0.3))
    assert close(warm.mean, cold.mean, 1e-6) and close(warm.cov, cold.cov, 1e-6)


def test_a_start_saves_iterations(monkeypatch):
    import mspace.metrics.wasserstein as module

    steps, average = [], module._average
    monkeypatch.setattr(module, "_average", lambda *args: steps.append(1) or average(*args))
    p = population(8, 3)
    cold = wasserstein2.barycenter(p)
    first = len(steps)
    wasserstein2.barycenter(p, start=cold)
    assert len(steps) - first <= 2 < first


def test_extrapolation_saves_iterations(monkeypatch):
    import mspace.metrics.wasserstein as module

    steps, average = [], module._average
    monkeypatch.setattr(module, "_average", lambda *args: steps.append(1) or average(*args))
    wasserstein2.barycenter(population(8, 10, 3))
    assert len(steps) < 250, "773 without it, and it must restart"


def test_a_flat_start_is_left():
    p = population(5, 3, floor=0.3)
    flat = NeuronDistribution(torch.zeros(1, 3), torch.diag(torch.tensor([1.0, 0.0, 0.0]))[None])
    assert close(wasserstein2.barycenter(p, start=flat).cov, wasserstein2.barycenter(p).cov, 1e-7)


def test_barycenters_that_do_not_settle_are_said(monkeypatch):
    import mspace.metrics.wasserstein as module

    monkeypatch.setattr(module, "ITERATIONS", 3)
    with pytest.warns(RuntimeWarning, match="1 of 1 barycenters still move after 3 iterations"):
        wasserstein2.barycenter(population(5, 6, 2))


# -- geodesic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rank", "other"), [(1, 1, 1), (3, 3, 3), (3, 1, 3), (3, 3, 1), (5, 2, 2)])
def test_geodesic_is_the_shortest_way(n, rank, other):
    p, q = population(4, n, rank), population(4, n, other, seed=6)
    far = wasserstein2(p, q).diagonal()
    for t in (0.0, 0.25, 0.5, 1.0):
        at = geodesic(p, q, t)
        assert close(wasserstein2(p, at).diagonal(), t * far, 1e-6)
        assert close(wasserstein2(at, q).diagonal(), (1 - t) * far, 1e-6)


def test_geodesic_ends_and_middle():
    p, q = population(3, 3), population(3, 3, seed=6)
    assert close(geodesic(p, q, 0).cov, p.cov, 1e-10) and close(geodesic(p, q, 1).cov, q.cov, 1e-10)
    middle = geodesic(p[0], q[0], 0.5)
    both = NeuronDistribution(torch.cat([p.mean[:1], q.mean[:1]]), torch.cat([p.cov[:1], q.cov[:1]]))
    center = wasserstein2.barycenter(both)
    assert close(middle.mean, center.mean) and close(middle.cov, center.cov, 1e-8)


# -- bias and tests ---------------------------------------------------------------------------------


def test_bias_of_neurons_of_one_law():
    """E |m_1 - m_2|^2 = 2n/N, E Bures^2 near n(n+1) / (2(N-1)); without it both are around zero."""
    n, count, m = 10, 100, 60
    x = noise(count, m, n)
    p, off = NeuronDistribution.from_samples(x), ~torch.eye(m, dtype=torch.bool)
    mean = euclidean.cost(p)[off].mean()
    bures = wasserstein2.cost(p)[off].mean() - mean
    assert abs(mean / 0.2 - 1) < 0.2 and abs(bures / 0.556 - 1) < 0.15
    assert abs(debiased(x, euclidean, generator=seeded())[off].mean()) < 0.04
    assert abs(debiased(x, n_splits=5, generator=seeded())[off].mean()) < 0.1


@pytest.mark.parametrize("count", [40, 41])
def test_euclidean_is_debiased_exactly(count):
    """The average over all halves is |D|^2 - tr S_D / N; neurons that vary together are no trouble."""
    shared = noise(count, 1, 3, seed=2)
    x = shared + 0.3 * noise(count, 4, 3) + noise(4, 3, seed=4)
    found = debiased(x, euclidean, n_splits=4000 if count < 41 else 1000, generator=seeded())
    gap = x[:, :, None] - x[:, None]
    expected = gap.mean(0).square().sum(-1) - gap.var(0).sum(-1) / count
    assert torch.equal(found, found.T) and not found.diagonal().any()
    assert close(found, expected, 0.002)


def test_debiased_finds_a_true_distance():
    x = noise(30, 200, 2)
    x[:, 100:, 0] *= 2  # Bures^2 = 1
    found = debiased(x, generator=seeded())[:100, 100:].mean()
    naive = wasserstein2.cost(NeuronDistribution.from_samples(x))[:100, 100:].mean()
    assert abs(found - 1) < 0.12 < 0.2 < naive - 1


def test_split_half_is_the_null():
    x = noise(80, 5, 3)
    x[:, 4] += 5
    found = split_half(x, n_splits=7, generator=seeded())
    assert found.shape == (7, 5, 5)
    null = found.diagonal(dim1=1, dim2=2)
    other = found[:, 4, :4]
    assert null.max() < other.min() / 5
    assert abs(found[:, :4, :4].mean() / null[:, :4].mean() - 1) < 0.15, "neurons of one law are as far as from oneself"
    order = torch.randperm(80, generator=seeded())
    one, two = (NeuronDistribution.from_samples(x[part]) for part in (order[:40], order[40:]))
    assert close(found[0], wasserstein2(one, two))


def test_bias_belongs_to_the_generator():
    x, state = noise(10, 3, 2), torch.get_rng_state()
    for call in (debiased, split_half):
        one = call(x, n_splits=2, generator=seeded(1))
        assert torch.equal(one, call(x, n_splits=2, generator=seeded(1)))
        assert not torch.equal(one, call(x, n_splits=2, generator=seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


def test_hotelling_in_one_dimension_is_the_paired_t_test():
    from scipy.stats import ttest_rel

    x = noise(20, 3, 1)
    x[:, 1] = x[:, 0] + 0.5 * x[:, 1] + 0.3
    found = merge_test(x)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        t = ttest_rel(x[:, i, 0], x[:, j, 0])
        assert close(found.statistic[i, j], t.statistic**2, 1e-9) and close(found.p_value[j, i], t.pvalue, 1e-10)


def test_hotelling_by_the_formula():
    from scipy.stats import chi2, f

    x = noise(30, 2, 4) + noise(30, 1, 4, seed=1)
    gap = (x[:, 0] - x[:, 1]).numpy()
    single = gap.mean(0) @ np.linalg.solve(np.cov(gap.T), gap.mean(0))
    found = merge_test(x)
    assert close(found.statistic[0, 1], 30 * single, 1e-9)
    assert close(found.p_value[0, 1], f.sf(30 * single * 26 / (4 * 29), 4, 26), 1e-10)
    within = merge_test(x, single=True)
    assert close(within.statistic[0, 1], single, 1e-10) and close(within.p_value[0, 1], chi2.sf(single, 4), 1e-10)


def test_merge_test_holds_its_level_and_has_power():
    p_value = torch.stack([merge_test(noise(25, 2, 3, seed=s)).p_value[0, 1] for s in range(400)])
    assert abs(float((p_value < 0.1).double().mean()) - 0.1) < 4 * math.sqrt(0.09 / 400)
    x = noise(50, 6, 3)
    x[:, 3:] += 1.5
    equal = merge_test(x).equal()
    truth = (torch.arange(6) < 3)[:, None] == (torch.arange(6) < 3)
    assert not equal[~truth].any() and equal[truth].double().mean() > 0.8 and equal.diagonal().all()


def test_false_discoveries_are_those_of_benjamini_and_hochberg():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    x = noise(30, 5, 2)
    x[:, 4] += 0.5
    found = merge_test(x)
    i, j = torch.triu_indices(5, 5, 1)
    expected = multitest.multipletests(found.p_value[i, j].numpy(), method="fdr_bh")[1]
    assert close(found.adjusted[i, j], expected) and torch.equal(found.adjusted, found.adjusted.T)


def test_merge_test_of_copies_and_constants():
    x = noise(10, 2, 2)
    x = torch.cat([x, x[:, :1], x[:, :1] + 1], 1)
    found = merge_test(x)
    assert found.statistic[0, 2] == 0 and found.p_value[0, 2] == 1 and found.adjusted[0, 2] == 1
    assert found.statistic[0, 3] == math.inf and found.p_value[0, 3] == 0
    assert not merge_test(noise(10, 1, 2)).statistic.any()


# -- the door ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [*EVERY, functional(torch.eye(3))], ids=str)
def test_only_populations_of_one_dimension(metric):
    p = population()
    with pytest.raises(ValueError, match="p must be a NeuronDistribution, got Tensor: make one"):
        metric(p.mean)
    with pytest.raises(ValueError, match="q must be a NeuronDistribution, got list"):
        metric(p, [1.0])
    with pytest.raises(ValueError, match=r"p and q must have one dimension, got R\^3 and R\^2: take the common"):
        metric(p, population(n=2))
    with pytest.raises(ValueError, match="neurons must be a NeuronDistribution"):
        metric.barycenter(p.mean)


@pytest.mark.parametrize("metric", DENSITY, ids=str)
def test_singular_covariances_are_refused_with_a_way_out(metric):
    p = population(4, 3)
    flat = NeuronDistribution(p.mean, torch.cat([p.cov[:2], population(2, 3, 2).cov]))
    said = f"{metric} needs covariances of full rank, got 2 of 4 singular, the first of neuron 2: use wasserstein2"
    for call in (
        lambda: metric(flat),
        lambda: metric(p, flat),
        lambda: metric(flat, p),
        lambda: metric.barycenter(flat),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(ValueError, match="fisher_rao_bounds needs covariances of full rank"):
        fisher_rao_bounds(flat)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, -1.0, 1.0], "at least zero"),
        ([1.0, math.nan, 1.0], "finite"),
        ([0.0, 0.0, 0.0], "positive, finite sum"),
        ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], r"none for \[1\]"),
        ([1.0, 1.0], r"weights must be \(3,\) or \(k, 3\)"),
        ([], r"weights must be \(3,\)"),
        (["a", "b", "c"], "weights must be an array of real numbers"),
    ],
)
def test_wrong_weights(weights, said):
    with pytest.raises(ValueError, match=said):
        wasserstein2.barycenter(population(3), weights=weights)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 2, 2], r"every number from 0 .* got \[0, 2\]: number them anew"),
        ([0, -1, 1], r"every number from 0 .* got \[-1, 0, 1\]: number them anew"),
        ([0, 1], "labels must be 3 integers"),
        ([0, 0.5, 1], "labels must be 3 integers"),
        (["a", "b", "c"], "labels must be 3 integers"),
        ([[0], [1], [2]], "labels must be 3 integers"),
    ],
)
def test_wrong_labels(labels, said):
    with pytest.raises(ValueError, match=said):
        wasserstein2.barycenter(population(3), labels)


def test_other_wrong_arguments():
    p = population(4)
    with pytest.raises(ValueError, match=r"weights must be \(4,\) where labels say"):
        wasserstein2.barycenter(p, [0, 0, 1, 1], weights=torch.ones(2, 4))
    with pytest.raises(ValueError, match="weights must have a positive, finite sum for each center, got none for"):
        wasserstein2.barycenter(p, [0, 0, 1, 1], weights=[1.0, 1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="start must hold a neuron for each of the 2 centers, got 4"):
        wasserstein2.barycenter(p, [0, 0, 1, 1], start=p)
    with pytest.raises(ValueError, match="neurons and start must have one dimension"):
        wasserstein2.barycenter(p, start=population(1, 2))
    with pytest.raises(ValueError, match=r"t must be a number .* got 1\.5"):
        geodesic(p, p, 1.5)
    with pytest.raises(ValueError, match="t must be a number"):
        geodesic(p, p, torch.linspace(0, 1, 3))
    with pytest.raises(ValueError, match="p and q must hold as many neurons, got 4 and 3"):
        geodesic(p, p[:3], 0.5)
    with pytest.raises(ValueError, match=r"fisher_rao has barycenters up to R\^5, got R\^6: use jeffreys"):
        fisher_rao.barycenter(population(3, 6, floor=0.1))


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (torch.ones(3), r"moment must be \(n, n\) and not empty, got shape \(3,\)"),
        (torch.full((3, 3), math.nan), "moment must be finite"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "moment must be symmetric"),
        (torch.zeros(3, 3), "moment must not be zero"),
        (-torch.eye(3), "moment must be positive semidefinite"),
    ],
    ids=["vector", "nan", "asymmetric", "zero", "negative"],
)
def test_wrong_moments(moment, said):
    with pytest.raises(ValueError, match=said):
        functional(moment)


def test_moment_of_another_dimension():
    with pytest.raises(ValueError, match=r"moment is \(4, 4\), and neurons lie in R\^3: is the bias"):
        functional(torch.eye(4))(population())


@pytest.mark.parametrize("call", [debiased, split_half, merge_test])
def test_wrong_samples(call):
    with pytest.raises(ValueError, match=r"samples must be \(N, m, n\) with N >= \d draws, got shape \(5, 3\)"):
        call(torch.zeros(5, 3))
    bad = noise(6, 2, 2)
    bad[4, 0, 0] = math.inf
    with pytest.raises(ValueError, match=r"samples must be finite, draws \[4\] are not"):
        call(bad)


def test_too_few_draws():
    with pytest.raises(ValueError, match=r"samples must hold more draws than weights, got 5 of neurons in R\^5: train"):
        merge_test(noise(5, 2, 5))
    with pytest.raises(ValueError, match="N >= 4 draws"):
        debiased(noise(3, 2, 2))
    with pytest.raises(ValueError, match="n_splits must be a whole number"):
        split_half(noise(8, 2, 2), n_splits=0)
    with pytest.raises(ValueError, match="level must be a number"):
        merge_test(noise(8, 2, 2)).equal(2)


# -- a metric of one's own --------------------------------------------------------------------------


def test_a_metric_of_ones_own():
    def distance(p, q):
        return torch.cdist(p.mean, q.mean, p=1)

    def center(p, weights, start):
        return NeuronDistribution(weights @ p.mean, torch.einsum("km,mij->kij", weights, p.cov))

    manhattan, p = Metric(distance, center, name="manhattan"), population(4)
    assert close(manhattan(p)[0, 1], (p.mean[0] - p.mean[1]).abs().sum())
    assert close(manhattan.barycenter(p, [0, 0, 1, 1]).mean, (p.mean[::2] + p.mean[1::2]) / 2)
    assert str(manhattan) == "manhattan" and manhattan.power == 2
    assert close(functional(4 * torch.eye(3), manhattan)(p), 2 * manhattan(p), 1e-10)
    with pytest.raises(ValueError, match="manhattan has no barycenter: give its Metric a `center`"):
        Metric(distance, name="manhattan").barycenter(p)
    with pytest.raises(ValueError, match=r"broken must give \(4, 4\) distances of at least zero, got \(4,\): correct"):
        Metric(lambda p, q: p.mean[:, 0], name="broken")(p)
    with pytest.raises(ValueError, match="with NaN or negative values"):
        Metric(lambda p, q: distance(p, q) - 1, name="broken")(p)


@pytest.mark.parametrize("metric", EVERY, ids=str)
def test_arguments_are_left_alone(metric):
    p, start = population(4, 2, floor=0.1), population(2, 2, seed=3, floor=0.1)
    before = [x.clone() for x in (p.mean, p.cov, start.mean, start.cov)]
    metric(p), metric(p, start), metric.barycenter(p, [0, 1, 0, 1], start=start)
    assert all(torch.equal(a, b) for a, b in zip(before, (p.mean, p.cov, start.mean, start.cov)))


MASKED = np.ma.masked_array(np.ones((6, 2, 2)), True)
NO_NUMBERS = ["a", None, [[["b"]]], torch.ones(6, 2, 2, dtype=torch.complex64), MASKED, {}]


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=lambda bad: f"{bad!s:.20}")
def test_what_is_no_array_of_numbers_is_refused(bad):
    for call in (debiased, split_half, merge_test):
        with pytest.raises(ValueError, match="samples must"):
            call(bad)
    with pytest.raises(ValueError, match="moment must"):
        functional(bad)
    with pytest.raises(ValueError, match="t must be a number"):
        geodesic(population(), population(), bad)
    if bad is not None:  # which is the default
        with pytest.raises(ValueError, match="weights must"):
            euclidean.barycenter(population(), weights=bad)
        with pytest.raises(ValueError, match="labels must"):
            euclidean.barycenter(population(), bad)
        with pytest.raises(ValueError, match="start must be a NeuronDistribution"):
            euclidean.barycenter(population(), start=bad)
        with pytest.raises(ValueError, match="q must be a NeuronDistribution"):
            euclidean(population(), bad)


@pytest.mark.parametrize("metric", ["wasserstein2", wasserstein2.distance, None, Metric])
def test_a_metric_is_an_object(metric):
    draws = noise(8, 3, 2)
    for call, given in ((functional, torch.eye(2)), (debiased, draws), (split_half, draws)):
        with pytest.raises(ValueError, match="metric must be a Metric, got"):
            call(given, metric)


def test_a_metric_of_ones_own_that_is_wrong():
    p = population(4)
    for metric, said in (
        (lambda: Metric("distance"), "distance must be a function"),
        (lambda: Metric(euclidean.distance, "center"), "center must be a function"),
        (lambda: Metric(euclidean.distance, power=0), "power must be a positive number"),
        (lambda: Metric(lambda p, q: None, name="mine")(p), "what mine returns must be an array of real numbers"),
        (lambda: Metric(len, lambda p, w, s: p, name="mine").barycenter(p), "mine must give 1 centers, got 4"),
        (lambda: Metric(len, lambda p, w, s: p.mean, name="mine").barycenter(p), "of mine returns must be a Neuron"),
    ):
        with pytest.raises(ValueError, match=said):
            metric()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_are_whole_numbers_of_any_type(kind):
    labels = np.array([1, 0, 1, 0], dtype=kind)
    assert torch.equal(euclidean.barycenter(population(4), labels).mean[0], population(4).mean[[1, 3]].mean(0))


@pytest.mark.parametrize("n", [2, 7])
def test_means_that_no_digit_tells_apart_are_told(n):
    """Of squares such as 1e16 no digit is left for what stands beside them; a bound is no infinity."""
    p = NeuronDistribution(torch.eye(2, n) * 1e9, torch.diag_embed(1 + noise(2, n).abs()))
    with pytest.warns(RuntimeWarning, match=r"1 pairs of means lie more than 1e\+07 standard deviations apart"):
        low, high = fisher_rao_bounds(p)
    assert low.isfinite().all() and (low <= high).all()
    if n == 2:
        with pytest.warns(RuntimeWarning, match="known to few digits"):
            fisher_rao(p)


def test_units_of_inputs_do_not_matter_however_far_apart():
    """Of features such as bytes and shares, whose squares lie sixteen and more orders of magnitude apart."""
    units = torch.tensor([1e9, 1.0, 1e-6], dtype=torch.float64)
    x, p = noise(50, 3), population(4)
    moment = x.T @ x / len(x)
    scaled = NeuronDistribution(p.mean / units, p.cov / units / units[:, None])
    seen = functional(moment, euclidean)(p)
    assert torch.allclose(functional(moment * units * units[:, None], euclidean)(scaled), seen, rtol=1e-9)
    center = functional(moment * units * units[:, None], euclidean).barycenter(scaled)
    assert torch.allclose(center.mean * units, p.mean.mean(0), rtol=1e-9)
    draws = noise(20, 4, 3, seed=2)
    assert torch.allclose(merge_test(draws / units).statistic, merge_test(draws).statistic, rtol=1e-9)
