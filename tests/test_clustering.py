"""Clusters that were planted, laws of Lloyd's algorithm, scikit-learn where it can, and losses computed the slow way."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from torch import nn

from mspace.clustering import (
    KMeans,
    Stability,
    kmeans,
    loss_curve,
    resampled,
)
from mspace.clustering.communities import as_distances, gaussian_cloud
from mspace.clustering.last_layer import QuadraticLoss
from mspace.metrics import Metric, euclidean, fisher_rao, functional, hellinger, jeffreys, wasserstein2
from mspace.neurons import NeuronDistribution

EVERY = [euclidean, wasserstein2, jeffreys, hellinger, functional(torch.diag(torch.tensor([1.0, 4.0, 0.25])))]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def same(a, b):
    return adjusted_rand_score(torch.as_tensor(a), torch.as_tensor(b)) == 1


def population(m=20, n=3, rank=None, seed=0):
    factor = noise(m, n, rank or n + 2, seed=seed + 1)
    return NeuronDistribution(noise(m, n, seed=seed), factor @ factor.mT / n)


def by_covariance(m=30, seed=0):
    """Three groups of one mean, longest along one axis each; every neuron a little different from its group."""
    label = torch.arange(m) % 3
    axes = torch.diag_embed(torch.full((3, 3), 0.3).double() + 2 * torch.eye(3).double())
    root = axes[label] + 0.05 * noise(m, 3, 3, seed=seed)
    return NeuronDistribution(0.1 * noise(m, 3, seed=seed + 1), root @ root.mT), label


def by_mean(m=40, k=4, n=2, apart=6.0, seed=0, spread=1.0):
    label = torch.arange(m) % k
    center = apart * torch.stack([torch.tensor([i % 2, i // 2]).double() for i in range(k)])
    mean = torch.zeros(m, n).double()
    mean[:, :2] = center[label]
    return NeuronDistribution(mean + spread * noise(m, n, seed=seed), 0.1 * torch.eye(n).expand(m, n, n)), label


def ensemble(m=24, k=3, draws=60, apart=6.0, seed=0):
    """Neurons of a group differ less than one can know from so many draws."""
    p, label = by_mean(m, k, apart=apart, seed=seed, spread=0.1)
    return p.mean + noise(draws, m, 2, seed=seed + 1), label


def within(cost, labels):
    return float(cost.gather(1, labels[:, None]).sum())


# k-means


def test_groups_that_differ_in_covariance_alone():
    p, label = by_covariance()
    found = KMeans(3, metric=wasserstein2, generator=seeded()).fit(p)
    assert same(found.labels_, label)
    blind = KMeans(3, metric=euclidean, generator=seeded()).fit_predict(p)
    assert adjusted_rand_score(blind, label) < 0.3


@pytest.mark.parametrize("metric", EVERY[:4], ids=str)
def test_groups_that_differ_in_means(metric):
    p, label = by_mean()
    assert same(KMeans(4, metric=metric, generator=seeded(3)).fit_predict(p), label)


@pytest.mark.parametrize("seed", range(4))
def test_euclidean_is_scikit_learn_from_the_same_start(seed):
    p, k = population(60, 4, seed=seed), 7
    first = torch.randperm(60, generator=seeded(seed))[:k]
    ours = KMeans(k, metric=euclidean, start=p[first]).fit(p)
    theirs = SklearnKMeans(k, init=p.mean[first].numpy(), n_init=1, tol=0, algorithm="lloyd").fit(p.mean.numpy())
    assert torch.equal(ours.labels_, torch.from_numpy(theirs.labels_).long())
    assert math.isclose(ours.inertia_, theirs.inertia_, rel_tol=1e-12)
    assert np.allclose(ours.centers_.mean, theirs.cluster_centers_, atol=1e-12)


def test_seeding_finds_what_scikit_learn_finds_in_twenty_starts():
    p = population(80, 3, seed=5)
    theirs = SklearnKMeans(8, n_init=20, random_state=0).fit(p.mean.numpy()).inertia_
    assert KMeans(8, metric=euclidean, n_init=20, generator=seeded(1)).fit(p).inertia_ <= 1.01 * theirs


def test_equal_covariances_are_ordinary_k_means_and_diagonal_ones_are_vectors():
    p = population(40, 3)
    first = p[[0, 1, 2, 3]]
    for cov, vectors in (
        (p.cov[:1].expand(40, 3, 3), p.mean),
        (
            torch.diag_embed(p.cov.diagonal(dim1=1, dim2=2)),
            torch.cat([p.mean, p.cov.diagonal(dim1=1, dim2=2).sqrt()], 1),
        ),
    ):
        q = NeuronDistribution(p.mean, cov)
        flat = NeuronDistribution(vectors, torch.zeros(40, vectors.shape[1], vectors.shape[1]))
        a = KMeans(4, metric=wasserstein2, start=q[:4]).fit(q)
        b = KMeans(4, metric=euclidean, start=flat[:4]).fit(flat)
        assert torch.equal(a.labels_, b.labels_) and math.isclose(a.inertia_, b.inertia_, rel_tol=1e-7)
    assert len(first) == 4


@pytest.mark.parametrize(
    ("metric", "rank"), [*((m, None) for m in EVERY), (euclidean, 1), (wasserstein2, 1), (EVERY[-1], 1)], ids=str
)
def test_laws_of_lloyd(metric, rank):
    """Nothing can be gained by moving a neuron or a center, and inertia is what it says."""
    p = population(30, 3, rank, seed=2)
    found = KMeans(4, metric=metric, start=p[[0, 0, 0, 1]]).fit(p)
    cost = metric.cost(p, found.centers_)
    assert len(found.history_) > 1 and (found.history_.diff() <= 1e-9).all()
    assert math.isclose(found.inertia_, within(cost, found.labels_), rel_tol=1e-9)
    assert torch.equal(found.labels_, cost.argmin(1)) and torch.equal(found.predict(p), found.labels_)
    again = metric.barycenter(p, found.labels_)
    assert within(metric.cost(p, again), found.labels_) >= found.inertia_ * (1 - 1e-7)
    for nudge in range(5):
        mean = found.centers_.mean + 1e-3 * noise(4, 3, seed=nudge)
        turn = torch.eye(3) + 1e-2 * noise(4, 3, 3, seed=nudge + 9)
        moved = NeuronDistribution(mean, turn @ found.centers_.cov @ turn.mT)
        assert within(metric.cost(p, moved), found.labels_) > found.inertia_ * (1 - 1e-9)


def test_centers_are_barycenters_and_beat_arithmetic_means():
    p = population(24, 3, seed=8)
    arithmetic = Metric(wasserstein2.distance, euclidean.center, name="arithmetic")
    sound, published = (KMeans(3, metric=m, start=p[:3]).fit(p) for m in (wasserstein2, arithmetic))
    assert sound.inertia_ < 0.99 * published.inertia_
    assert (published.history_.diff() <= 0).all()
    expected = wasserstein2.barycenter(p, sound.labels_)
    assert torch.allclose(sound.centers_.cov, expected.cov, atol=1e-7)
    assert torch.allclose(sound.centers_.mean, expected.mean, atol=1e-12)


def test_a_center_that_would_cost_more_stays():
    """A barycenter that is none cannot make inertia rise."""
    wrong = Metric(
        euclidean.distance, lambda p, w, start: NeuronDistribution(w @ p.mean + 1, w.new_zeros(len(w), 3, 3))
    )
    p = population(20, 3)
    found = KMeans(3, metric=wrong, start=p[:3]).fit(p)
    begin = float(wrong.cost(p, p[:3]).amin(1).sum())
    assert (found.history_.diff() <= 0).all() and found.inertia_ <= begin
    assert math.isclose(found.inertia_, within(wrong.cost(p, found.centers_), found.labels_), rel_tol=1e-12)


def test_cost_has_the_power_of_the_metric():
    """Medians minimise the sum of distances: with power 1 an outlier does not pull."""

    def median(p, weights, start):
        chosen = [p.mean[w > 0].sort(0).values for w in weights]
        return NeuronDistribution(
            torch.stack([c[(len(c) - 1) // 2] for c in chosen]), weights.new_zeros(len(weights), 1, 1)
        )

    mean = torch.tensor([0.0, 1, 2, 100, 1000, 1001, 1002])[:, None].double()
    p = NeuronDistribution(mean, torch.zeros(7, 1, 1))
    found = KMeans(2, metric=Metric(euclidean.distance, median, power=1), start=p[[0, 4]]).fit(p)
    assert found.labels_.tolist() == [0, 0, 0, 0, 1, 1, 1] and found.inertia_ == 101 + 2
    assert found.centers_.mean.flatten().tolist() == [1, 1001]


def test_order_of_neurons_does_not_matter():
    p = population(30, 3)
    order = torch.randperm(30, generator=seeded(1))
    a, b = (KMeans(4, metric=wasserstein2, start=p[:4]).fit(q) for q in (p, p[order]))
    assert torch.equal(a.labels_[order], b.labels_) and math.isclose(a.inertia_, b.inertia_, rel_tol=1e-9)


def test_rotation_and_shift_do_not_matter():
    p, turn = population(30, 3), torch.linalg.qr(noise(3, 3, seed=7))[0]
    q = NeuronDistribution(p.mean @ turn.T + 5, turn @ p.cov @ turn.T)
    a, b = (KMeans(4, metric=wasserstein2, generator=seeded(2)).fit(x) for x in (p, q))
    assert torch.equal(a.labels_, b.labels_)


def test_one_cluster_has_the_frechet_variance_and_as_many_as_neurons_cost_nothing():
    p = population(9, 3)
    one = KMeans(1, metric=wasserstein2, generator=seeded()).fit(p)
    center = wasserstein2.barycenter(p)
    assert math.isclose(one.inertia_, float(wasserstein2.cost(p, center).sum()), rel_tol=1e-9)
    for n_init in (1, 5):
        every = KMeans(9, metric=wasserstein2, n_init=n_init, generator=seeded()).fit(p)
        assert every.inertia_ == 0 and sorted(every.labels_.tolist()) == list(range(9))
    alone = KMeans(1, metric=wasserstein2, generator=seeded()).fit(p[0])
    assert alone.inertia_ == 0 and alone.labels_.tolist() == [0]


def test_a_cluster_that_loses_its_neurons_gets_the_farthest():
    mean = torch.tensor([0.0, 0.1, 10, 10.1, 10.2, 14])[:, None].double()
    p = NeuronDistribution(mean, torch.full((6, 1, 1), 0.01))
    start = NeuronDistribution(torch.tensor([[0.0], [10.0], [1e6], [2e6]]), torch.full((4, 1, 1), 0.01))
    found = KMeans(4, metric=wasserstein2, start=start).fit(p)
    assert len(found.labels_.unique()) == 4 and found.labels_[5] == 2 and found.inertia_ < 0.1
    assert (found.history_.diff() <= 0).all()
    expected = KMeans(3, metric=wasserstein2, start=start[:3]).fit(p)
    assert expected.labels_.tolist() == [0, 0, 1, 1, 1, 2]


def test_twins_fill_as_many_clusters_as_are_asked_for():
    p = NeuronDistribution(torch.zeros(6, 2), torch.eye(2).expand(6, 2, 2))
    for k in (1, 3, 6):
        found = KMeans(k, metric=wasserstein2, generator=seeded()).fit(p)
        assert len(found.labels_.unique()) == k and found.inertia_ == 0
    pairs = NeuronDistribution(torch.tensor([[0.0], [0], [5], [5]]), torch.zeros(4, 1, 1))
    assert same(KMeans(2, metric=euclidean, n_init=1, generator=seeded()).fit_predict(pairs), [0, 0, 1, 1])


def test_neurons_stay_where_another_center_is_no_nearer():
    """So twins do not go round in circles."""
    labels = torch.tensor([[0, 1, 1, 0]])
    assert torch.equal(kmeans._assign(torch.ones(1, 2, 4), labels), labels)
    nearer = torch.tensor([[[1.0, 0.5, 1, 1], [1, 1, 1, 0.5]]])
    assert kmeans._assign(nearer, labels).tolist() == [[0, 0, 1, 1]]


def test_metrics_in_single_precision_are_taken():
    rough = Metric(lambda p, q: euclidean.distance(p, q).float(), euclidean.center)
    p, label = by_mean()
    assert same(KMeans(4, metric=rough, generator=seeded(3)).fit_predict(p), label)


def test_a_generator_decides_and_starts_do_not_depend_on_how_many_follow():
    p = population(50, 3)
    a, b = (KMeans(6, metric=euclidean, n_init=1, generator=seeded(5)).fit(p) for _ in range(2))
    assert torch.equal(a.labels_, b.labels_) and a.inertia_ == b.inertia_
    others = {KMeans(6, metric=euclidean, n_init=1, generator=seeded(s)).fit(p).inertia_ for s in range(8)}
    assert len(others) > 2
    _, few = kmeans.seeds(p, euclidean, 6, [11, 12])
    _, many = kmeans.seeds(p, euclidean, 6, [11, 12, 13, 14])
    assert torch.equal(few, many[:12])
    best = [KMeans(6, metric=euclidean, n_init=n, generator=seeded(5)).fit(p).inertia_ for n in (1, 3, 9, 20)]
    assert best == sorted(best, reverse=True) and best[-1] < best[0]


def test_all_starts_at_once_are_the_starts_one_by_one():
    p, k, starts = population(40, 3), 5, [3, 4, 5, 6]
    cost, first = kmeans.seeds(p, wasserstein2, k, starts)
    assert torch.allclose(cost, wasserstein2.cost(p, p[first]).T, atol=1e-12)
    labels, mean, _, history = kmeans.lloyd(p, wasserstein2, p[first], cost.view(4, k, -1))
    for i, own in enumerate(first.view(4, k)):
        alone = KMeans(k, metric=wasserstein2, start=p[own]).fit(p)
        assert torch.equal(alone.labels_, labels[i])
        assert math.isclose(alone.inertia_, float(history[-1, i]), rel_tol=1e-8)
        assert torch.allclose(alone.centers_.mean, mean[i * k : (i + 1) * k], atol=1e-9)


def test_seeds_are_drawn_by_cost():
    """Two tight groups far apart: the second seed lies in the other one; the best of several draws is taken."""
    mean = torch.cat([noise(30, 2, seed=1) * 0.01, 100 + noise(3, 2, seed=2) * 0.01])
    p = NeuronDistribution(mean, torch.zeros(33, 2, 2))
    _, first = kmeans.seeds(p, euclidean, 2, list(range(40)))
    assert ((first.view(40, 2) < 30).sum(1) == 1).all()
    assert 20 < (first.view(40, 2)[:, 0] < 30).sum() < 40  # the first one anywhere
    q = population(60, 2, seed=4)
    cost, _ = kmeans.seeds(q, euclidean, 5, list(range(60)))
    plain = torch.stack(
        [euclidean.cost(q, q[torch.randperm(60, generator=seeded(s))[:5]]).amin(1).sum() for s in range(60)]
    )
    assert cost.view(60, 5, 60).amin(1).sum(1).mean() < 0.75 * plain.mean()


def test_seeds_do_not_hang_on_rounding():
    """Of two neurons that are nearest to each other, either lowers the cost by the same."""
    mean = noise(128, 4)
    turned = torch.linalg.qr(noise(4, 4, seed=1))[0] @ mean.T
    one, other = (NeuronDistribution(x, torch.zeros(128, 4, 4).double()) for x in (mean, turned.T.contiguous()))
    for k in (60, 110):
        found = [kmeans.seeds(p, euclidean, k, list(range(10)))[1] for p in (one, other)]
        assert torch.equal(*found)


def test_neurons_and_start_are_left_alone():
    p = population(20, 3)
    mean, cov, start = p.mean.clone(), p.cov.clone(), p[:3]
    state = torch.get_rng_state()
    KMeans(3, metric=wasserstein2, start=start).fit(p)
    KMeans(3, metric=wasserstein2, generator=seeded()).fit(p)
    assert torch.equal(p.mean, mean) and torch.equal(p.cov, cov) and torch.equal(start.mean, mean[:3])
    assert torch.equal(torch.get_rng_state(), state)


def test_new_neurons_go_to_the_nearest_center():
    p, label = by_mean(40, 4)
    fitted = KMeans(4, metric=wasserstein2, generator=seeded()).fit(p[:20])
    assert same(fitted.predict(p[20:]), label[20:])
    with pytest.raises(ValueError, match="call `fit` first"):
        KMeans(4, metric=wasserstein2).predict(p)


def test_fisher_rao_clusters_too():
    p, label = by_covariance(9)
    assert same(KMeans(3, metric=fisher_rao, n_init=2, generator=seeded()).fit_predict(p), label)


def test_unfinished_work_is_said(monkeypatch):
    monkeypatch.setattr(kmeans, "ITERATIONS", 1)
    p = population(50, 2)
    with pytest.warns(RuntimeWarning, match="still change clusters after 1 iterations"):
        KMeans(5, metric=euclidean, generator=seeded()).fit(p)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: KMeans(0, metric=euclidean), "n_clusters must be a whole number of at least 1, got 0"),
        (lambda: KMeans(2.5, metric=euclidean), "n_clusters must be a whole number"),
        (lambda: KMeans(2, metric=euclidean, n_init=0), "n_init must be a whole number of at least 1"),
        (lambda: KMeans(2, metric="wasserstein2"), "metric must be a Metric, got 'wasserstein2'"),
        (lambda: KMeans(2, metric=wasserstein2.distance), "metric must be a Metric, got <function"),
        (
            lambda: KMeans(2, metric=Metric(euclidean.distance, name="bare")),
            "bare has no barycenter: use `communities`",
        ),
        (
            lambda: KMeans(2, metric=euclidean, start=population(3)),
            "start must hold 2 neurons, as n_clusters says, got 3",
        ),
        (lambda: KMeans(2, metric=euclidean, start=[0, 1]), "start must be a NeuronDistribution, got list"),
        (lambda: KMeans(5, metric=euclidean).fit(population(4)), "at most the number of neurons, got 5 for 4"),
        (lambda: KMeans(2, metric=euclidean).fit(noise(5, 3)), "neurons must be a NeuronDistribution, got Tensor"),
        (lambda: KMeans(2, metric=jeffreys).fit(population(5, rank=1)), "jeffreys needs covariances of full rank"),
        (lambda: KMeans(2, metric=euclidean, start=population(2, 4)).fit(population(5)), "must have one dimension"),
        (
            lambda: KMeans(
                2, metric=Metric(lambda p, q: torch.full((len(p), len(q)), torch.inf), euclidean.center)
            ).fit(population(5)),
            "must be finite, got infinities: rescale",
        ),
    ],
)
def test_bad_calls_of_k_means(make, said):
    with pytest.raises(ValueError, match=said):
        make()


# distances alone


def distances(m=12, seed=0):
    return wasserstein2(population(m, 3, seed=seed))


def test_distances_are_cleaned_and_not_changed():
    d = distances(5)
    rough = d + 1e-9 * noise(5, 5).abs()
    before = rough.clone()
    clean = as_distances(rough)
    assert torch.equal(rough, before) and torch.equal(clean, clean.T) and (clean.diagonal() == 0).all()
    assert torch.allclose(clean, d, atol=1e-8) and as_distances(d.float().numpy()).dtype == torch.float64


def test_bad_distances():
    d = distances(5)

    def spoilt(i, j, value):
        e = d.clone()
        e[i, j] = value
        return e

    for bad, said in (
        (spoilt(1, 2, torch.nan), r"finite and at least zero, got 1 that are not, the first nan at \(1, 2\)"),
        (spoilt(1, 2, torch.inf), r"got 1 that are not, the first inf"),
        (spoilt(1, 2, -1.0), r"the first -1.0 at \(1, 2\): .* clamp at zero"),
        (spoilt(1, 2, 50.0), "must be symmetric"),
        (spoilt(3, 3, 1.0), "must be zero on the diagonal, got 1: are they similarities"),
        (d[:4], r"must be \(m, m\) .* got shape \(4, 5\)"),
        (torch.zeros(0, 0), r"of m >= 1 neurons, got shape \(0, 0\)"),
        (population(5), "distances must be an array of real numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            as_distances(bad)


# null populations


def test_clouds_have_their_singular_values_and_no_direction():
    size = torch.tensor([5.0, 2.0, 0.5]).double()
    points = torch.stack([gaussian_cloud(12, size, seeded(s)) for s in range(400)])
    assert torch.allclose(torch.linalg.svdvals(points), size.expand(400, 3)) and points.mean(1).abs().max() < 1e-12
    second = torch.einsum("smi,smj->ij", points, points) / 400
    assert torch.allclose(second, torch.diag(size**2), atol=1e-9)
    each = points[:, :, 0].square().mean(0)  # no neuron is preferred
    assert (each / each.mean() - 1).abs().max() < 0.25 and points[:, 0, 0].mean().abs() < 0.3
    assert gaussian_cloud(4, torch.empty(0).double(), seeded()).shape == (4, 0)


# stability


def test_indices_of_stability():
    reference = torch.tensor([0, 0, 1, 1])
    found = Stability.of(reference, [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    together = torch.tensor([[4, 3, 2, 0], [3, 4, 1, 1], [2, 1, 4, 2], [0, 1, 2, 4]]) / 4
    assert torch.equal(found.together, together.double())
    assert found.within.tolist() == [0.75, 0.5]
    assert math.isclose(found.ambiguous, 5 / 6)
    partitions = found.partitions.numpy()
    assert found.ari.tolist() == [adjusted_rand_score(reference, p) for p in partitions] and found.ari[1] == 1
    assert found.ami.tolist() == [adjusted_mutual_info_score(reference, p) for p in partitions]
    pairs = [adjusted_rand_score(a, b) for a, b in itertools.combinations(partitions, 2)]
    assert math.isclose(found.pairwise, sum(pairs) / 6)
    single = Stability.of([0, 1, 1], [[0, 1, 1]])
    assert single.within.isnan().tolist() == [True, False] and math.isnan(single.pairwise) and single.ambiguous == 0


def test_resampled_ensembles():
    x, _ = ensemble(draws=200)
    found = list(resampled(x, 300, generator=seeded(1)))
    spread = torch.stack([p.mean for p in found]).var(0)
    assert torch.allclose(spread, x.var(0) / 200, rtol=0.35) and len(found) == 300
    full = NeuronDistribution.from_samples(x)
    assert torch.allclose(torch.stack([p.cov for p in found]).mean(0), full.cov, atol=0.02)
    few = list(resampled(x, 3, generator=seeded(1)))
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(few, found))
    joint = found[0].mean - full.mean  # networks are drawn whole: what is common to all neurons stays common
    shared = x[:, :1, :1].expand(-1, 3, 2)
    moved = next(resampled(shared, 1, generator=seeded(1))).mean
    assert (moved == moved[0, 0]).all() and joint.abs().max() > 0


def test_stability_of_groups_and_of_none():
    x, label = ensemble()

    def cluster(p):
        return KMeans(3, metric=wasserstein2, n_init=3, generator=seeded()).fit_predict(p)

    sound = Stability.of(label, map(cluster, resampled(x, 10, generator=seeded(2))))
    assert sound.ari.min() == 1 and sound.ambiguous == 0 and (sound.within == 1).all()
    void = 0.4 * noise(60, 24, 2, seed=5)
    chance = Stability.of(label, map(cluster, resampled(void, 10, generator=seeded(2))))
    assert chance.ari.abs().mean() < 0.2 and chance.ambiguous > 0.5


def test_bad_labels_and_draws():
    for partitions, said in (
        ([], "partitions must be at least one, got none"),
        ([[0, 1]], r"partitions\[0\] must be whole numbers \(3,\)"),
        ([[0, 1, 1], [0.5, 1, 1]], r"partitions\[1\] must be whole numbers"),
        ([[[0, 1, 1]]], "must be whole numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            Stability.of([0, 1, 1], partitions)
    for labels in ([], [[0]], ["a"]):
        with pytest.raises(ValueError, match="reference must be whole numbers"):
            Stability.of(labels, [[0]])
    with pytest.raises(ValueError, match="samples must be finite"):
        resampled(torch.full((3, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="n_resamples must be a whole number"):
        resampled(noise(3, 2, 2), 0)


# how many


# the loss of a last layer


def network(bias=True, dtype=torch.float64):
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 6, bias=bias)).to(dtype)
    torch.set_rng_state(torch_state)
    return net


def data(count=50):
    return noise(count, 5), noise(count, 6, seed=1)


def merged_loss(net, x, y, labels, bias):
    """The slow way: average the rows of a copy, and evaluate."""
    net = nn.Sequential(*net).eval()
    weight = net[3].weight.detach().clone()
    offset = None if net[3].bias is None else net[3].bias.detach().clone()
    for label in labels.unique():
        weight[labels == label] = weight[labels == label].mean(0)
        if offset is not None and bias:
            offset[labels == label] = offset[labels == label].mean(0)
    with torch.no_grad():
        return float(nn.functional.mse_loss(nn.functional.linear(net[:3](x), weight, offset), y))


@pytest.mark.parametrize("layer_bias", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_curve_is_the_loss_of_the_merged_network(layer_bias, bias):
    net, (x, y) = network(layer_bias).requires_grad_(False), data()
    y = net.eval()(x) + 0.1 * y
    partitions = [
        torch.zeros(6).long(),
        torch.tensor([0, 1, 0, 1, 2, 2]),
        torch.arange(6),
        torch.tensor([7, 3, 3, 3, 7, 9]),
    ]
    expected = [merged_loss(net, x, y, p, bias) for p in partitions]
    for chunk in (7, 1024):
        found = loss_curve(net, "3", (x, y), partitions, bias=bias, chunk=chunk)
        assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert found[2] < found[0]


def test_the_network_is_left_alone_and_dropout_rests():
    net, (x, y) = network(), data()
    net.train()
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    a, b = (loss_curve(net, "3", (x, y), [[0, 0, 1, 1, 2, 2]]) for _ in range(2))
    assert torch.equal(a, b) and net.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()) and not net[3]._forward_hooks


def test_quadratic_loss_of_any_rows():
    net, (x, y) = network().requires_grad_(False), data()
    loss = QuadraticLoss.of(net, "3", (x, y))
    net.eval()
    assert math.isclose(loss(loss.rows), float(((net(x) - y) ** 2).mean()), rel_tol=1e-12)
    rows = noise(2, 3, 6, 5, seed=4)
    a = torch.cat([net[:3](x), torch.ones(50, 1)], 1).detach()
    assert torch.allclose(loss(rows), ((a @ rows.mT - y) ** 2).mean((-2, -1)), rtol=1e-12)
    best = torch.linalg.lstsq(a, y).solution.T
    assert loss(best) < loss(loss.rows) and (loss(best + 1e-3 * rows[0]) > loss(best)).all()
    perfect = QuadraticLoss.of(net, "3", (x, net(x).detach()))
    assert 0 <= perfect(perfect.rows) < 1e-14


def test_a_sequence_as_output_counts_every_element():
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 6)).double().requires_grad_(False)
    x, y = noise(8, 3, 5), noise(8, 3, 6, seed=1)
    loss = QuadraticLoss.of(net, "2", (x, y), chunk=3)
    assert loss.count == 24 and math.isclose(loss(loss.rows), float(((net(x) - y) ** 2).mean()), rel_tol=1e-12)


def test_single_precision_networks():
    net, (x, y) = network(dtype=torch.float32), data()
    found = loss_curve(net, "3", (x.float(), y.float()), [[0, 0, 1, 1, 2, 2]])
    slow = merged_loss(net, x.float(), y.float(), torch.tensor([0, 0, 1, 1, 2, 2]), True)
    assert found.dtype == torch.float64 and math.isclose(found, slow, rel_tol=1e-5)


def test_bad_calls_of_the_curve():
    net, (x, y) = network(), data()
    part = [[0, 0, 1, 1, 2, 2]]
    twice = nn.Sequential(net[3], nn.Linear(6, 4).double(), net[3])
    for call, said in (
        (lambda: loss_curve(net, "0", (x, y), part), "layer must be the last of the model and used once, '0' is not"),
        (lambda: loss_curve(net, "2", (x, y), part), r"layer must name a module of the network \(Linear: .*\), got '2'"),
        (lambda: loss_curve(net, "9", (x, y), part), "got '9'"),
        (lambda: loss_curve(twice, "0", (noise(5, 4), noise(5, 6)), part), "used once"),
        (lambda: loss_curve(net, "3", (x, y[:9]), part), "as many inputs as targets, and some, got 50 and 9"),
        (lambda: loss_curve(net, "3", (x[:0], y[:0]), part), "and some, got 0 and 0"),
        (lambda: loss_curve(net, "3", (x, y[:, :1]), part), r"targets must be shaped as the output, got \(50, 1\)"),
        (lambda: loss_curve(net, "3", (x, y.log()), part), "data must be finite"),
        (lambda: loss_curve(net, "3", (x.log(), y), part), "data must be finite"),
        (lambda: loss_curve(net, "3", (x, y), []), "partitions must be at least one, got none"),
        (lambda: loss_curve(net, "3", (x, y), [[0, 1]]), r"partitions\[0\] must be whole numbers \(6,\)"),
        (lambda: loss_curve(net, "3", (x, y), part, chunk=0), "chunk must be a whole number"),
        (lambda: QuadraticLoss.of(net, "3", (x, y))(noise(6, 4)), r"rows must be \(..., 6, 5\), got \(6, 4\)"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=said):
                call()
