"""Communities that were planted, networkx where it can, and a null model that says no where there is nothing."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from mspace.clustering import communities, modularity, resampled
from mspace.clustering.communities import _gaussian as null_clouds
from mspace.clustering.communities import gaussian_cloud, neighbor_graph
from mspace.metrics import wasserstein2
from mspace.neurons import NeuronDistribution


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def points(m=30, n=3, seed=0):
    x = noise(m, n, seed=seed)
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def planted(m=30, groups=3, apart=8.0, seed=0, draws=40):
    """Draws of neurons around the corners of a simplex, and which corner."""
    label = torch.arange(m) % groups
    center = apart * torch.eye(groups, 3).double()[label] + 0.5 * noise(m, 3, seed=seed)
    return center + 0.5 * noise(draws, m, 3, seed=seed + 1), label


def same(a, b):
    return adjusted_rand_score(torch.as_tensor(a), torch.as_tensor(b)) == 1


def sets(labels):
    return [set(np.flatnonzero(labels == label)) for label in np.unique(labels)]


@pytest.mark.parametrize("apart", [4.0, 8.0])
def test_planted_communities(apart):
    x, label = planted(apart=apart)
    d = wasserstein2(NeuronDistribution.from_samples(x))
    found = communities(d, n_null=40, generator=seeded())
    assert same(found.labels, label) and found.z_score > 4 and found.p_value == 1 / 41
    # three parts of a third of the weight each, hardly an edge between: 1 - 1/3
    assert abs(found.modularity - 2 / 3) < 0.01
    graph = nx.from_numpy_array(found.graph.numpy())
    assert math.isclose(found.modularity, nx.community.modularity(graph, sets(found.labels.numpy())), rel_tol=1e-9)
    assert torch.equal(found.graph, neighbor_graph(d)) and found.stability is None


def test_communities_of_covariances():
    label = torch.arange(30) % 3
    root = torch.diag_embed(torch.full((3, 3), 0.3) + 2 * torch.eye(3))[label] + 0.1 * noise(30, 3, 3)
    p = NeuronDistribution(torch.zeros(30, 3), root @ root.mT)

    def one_cloud(generator):
        """Distances of neurons whose roots are one Gaussian cloud with the mean and covariance of these."""
        vectors = root.flatten(1)
        _, size, axes = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
        drawn = (vectors.mean(0) + gaussian_cloud(30, size, generator) @ axes).reshape(root.shape)
        return wasserstein2(NeuronDistribution(p.mean, drawn @ drawn.mT))

    for null in (None, one_cloud):
        found = communities(wasserstein2(p), n_null=30, null=null, generator=seeded())
        assert same(found.labels, label) and found.z_score > 3


def test_a_single_cloud_has_communities_and_the_null_model_denies_them():
    found = [communities(points(30, 3, seed=s), n_null=20, generator=seeded(s)) for s in range(30)]
    z = torch.tensor([f.z_score for f in found])
    p = torch.tensor([f.p_value for f in found])
    assert min(f.modularity for f in found) > 0.15  # what would be reported without a null model
    assert (z < 2).double().mean() >= 0.9 and abs(z.mean()) < 0.5 and 0.7 < z.std() < 1.4
    assert (p <= 0.2).double().mean() < 0.4 and p.min() > 0 and p.max() <= 1


def test_the_null_model_has_the_shape_of_the_cloud():
    """A needle has a larger modularity than a ball, with no more structure."""
    x = noise(40, 3) * torch.tensor([30.0, 1, 1])
    needle = torch.cdist(x, x)
    shaped = communities(needle, n_null=30, generator=seeded())
    ball = communities(
        needle, n_null=30, null=lambda g: points(40, 3, int(g.initial_seed() % 1000)), generator=seeded()
    )
    assert abs(shaped.z_score) < 2 and ball.z_score > shaped.z_score + 2
    assert shaped.null_modularity.mean() > ball.null_modularity.mean() + 0.05


def test_null_distances_have_the_axes_of_the_data():
    """Classical scaling of both gives the same eigenvalues, in units of the largest distance of the data."""
    d = points(12, 3)

    def axes(distances):
        center = torch.eye(12).double() - 1 / 12
        return torch.linalg.eigvalsh(-center @ distances**2 @ center / 2)

    draws = [null_clouds(d)(seeded(s)) for s in range(3)]
    assert all(torch.allclose(axes(x), axes(d) / d.max() ** 2, atol=1e-12) for x in draws)
    assert not torch.allclose(draws[0], draws[1], atol=0.1)


def test_scores_are_those_of_the_null_modularity():
    d = points()
    found = communities(d, n_null=20, generator=seeded(3))
    null = found.null_modularity
    assert null.shape == (20,) and null.std() > 0
    assert math.isclose(found.z_score, (found.modularity - null.mean()) / null.std(), rel_tol=1e-9)
    assert math.isclose(found.p_value, (1 + int((null >= found.modularity).sum())) / 21)
    one = communities(d, n_null=5, null=lambda g: d, generator=seeded(3))
    assert abs(one.z_score) < 1e3 and one.p_value > 0.1
    large = points(80)
    runs = communities(large, n_null=8, null=lambda g: large, generator=seeded())
    assert len(runs.null_modularity.unique()) > 1  # the order in which Louvain goes is drawn anew


def test_stability_over_resampled_ensembles():
    x, label = planted()
    d = wasserstein2(NeuronDistribution.from_samples(x))
    again = [wasserstein2(p) for p in resampled(x, 8, generator=seeded(1))]
    found = communities(d, n_null=5, resampled=iter(again), generator=seeded())
    assert same(found.stability.reference, label) and found.stability.ari.tolist() == [1] * 8
    assert found.stable() == [0, 1, 2] and (found.stability.within == 1).all()
    void = [points(seed=s) for s in range(8)]
    shaky = communities(d, n_null=5, resampled=void, generator=seeded())
    assert shaky.stable() == [] and shaky.stability.ari.abs().mean() < 0.2
    assert shaky.stable(0.0) == [0, 1, 2]
    with pytest.raises(ValueError, match="stability is not known"):
        communities(d, n_null=2, generator=seeded()).stable()


def test_the_largest_community_comes_first():
    x = torch.cat([noise(4, 2, seed=1), noise(12, 2, seed=2) + 40, noise(7, 2, seed=3) - 40])
    found = communities(torch.cdist(x, x), neighbors=4, resolution=0.2, n_null=3, generator=seeded())
    assert found.labels.tolist() == [2] * 4 + [0] * 12 + [1] * 7
    finer = communities(torch.cdist(x, x), neighbors=4, resolution=3.0, n_null=3, generator=seeded())
    assert finer.labels.max() > 2 and finer.labels.bincount().diff().max() <= 0


def test_disconnected_graphs_are_reported():
    x = torch.cat([noise(6, 2), noise(5, 2, seed=1) + 1e3])
    found = communities(torch.cdist(x, x), neighbors=3, n_null=4, generator=seeded())
    assert found.components.tolist() == [0] * 6 + [1] * 5
    assert not (found.labels[:6, None] == found.labels[6:]).any()
    lonely = torch.cat([noise(8, 2), torch.tensor([[1e3, 0.0]])])
    alone = communities(torch.cdist(lonely, lonely), neighbors=2, mutual=True, n_null=4, generator=seeded())
    assert alone.graph[8].sum() == 0 and (alone.labels == alone.labels[8]).sum() == 1
    assert (alone.components == alone.components[8]).sum() == 1


def test_twins_and_the_smallest_graphs():
    for d in (torch.zeros(6, 6), torch.ones(5, 5) - torch.eye(5), points(3)):
        found = communities(d, n_null=4, generator=seeded())
        assert math.isfinite(found.modularity) and not math.isnan(found.z_score) and 0 < found.p_value <= 1
    same_place = communities(torch.zeros(6, 6), n_null=4, generator=seeded())
    assert same_place.z_score == 0 and same_place.p_value == 1
    x = torch.tensor([0.0, 0, 0, 0, 9, 9, 9, 9])[:, None]
    assert same(communities(torch.cdist(x, x), neighbors=2, n_null=3, generator=seeded()).labels, [0] * 4 + [1] * 4)


def test_results_depend_on_the_generator_alone():
    d, state = points(40), torch.get_rng_state()
    before = d.clone()
    a, b = (communities(d, n_null=6, generator=seeded(2)) for _ in range(2))
    assert torch.equal(a.labels, b.labels) and torch.equal(a.null_modularity, b.null_modularity)
    more = communities(d, n_null=9, generator=seeded(2))
    assert torch.equal(more.null_modularity[:6], a.null_modularity) and torch.equal(more.labels, a.labels)
    other = communities(d, n_null=6, generator=seeded(3))
    assert not torch.equal(other.null_modularity, a.null_modularity)
    assert torch.equal(d, before) and torch.equal(torch.get_rng_state(), state)


def test_units_do_not_matter():
    d = points(25)
    a, *others = (communities(d * s, n_null=5, generator=seeded()) for s in (1, 1e-170, 1e150))
    for b in others:
        assert torch.equal(a.labels, b.labels) and math.isclose(a.z_score, b.z_score, rel_tol=1e-6)


# the graph


def test_edges_join_nearest_neighbors():
    d = torch.cdist(*2 * [torch.tensor([0.0, 1, 3, 7])[:, None]]).double()
    # the nearest: 0 -> 1, 1 -> 0, 3 -> 1, 7 -> 3, at distances 1, 1, 2, 4, which are also the scales
    graph = neighbor_graph(d, 1)
    expected = torch.zeros(4, 4).double()
    expected[0, 1], expected[1, 2], expected[2, 3] = math.exp(-1), math.exp(-2), math.exp(-2)
    assert torch.allclose(graph, expected + expected.T, rtol=1e-12, atol=0)
    mutual = neighbor_graph(d, 1, mutual=True)
    assert mutual[0, 1] == graph[0, 1] and mutual.count_nonzero() == 2
    two = neighbor_graph(d, 2)  # the scales are now 3, 2, 3, 6
    assert math.isclose(two[0, 2], math.exp(-9 / 9)) and math.isclose(two[2, 3], math.exp(-16 / 18))
    assert two[0, 3] == 0 and math.isclose(two[1, 3], math.exp(-36 / 12))


def test_how_many_neighbors_by_default():
    for m, k in ((3, 2), (9, 2), (30, 7), (100, 10)):
        d = points(m, 2)
        assert torch.equal(neighbor_graph(d), neighbor_graph(d, k))
        degree = neighbor_graph(d, mutual=True).count_nonzero(1)
        assert degree.max() <= k and neighbor_graph(d).count_nonzero(1).min() >= k


@pytest.mark.parametrize("resolution", [0.5, 1.0, 2.0])
def test_modularity_is_that_of_networkx(resolution):
    graph = neighbor_graph(points(20))
    labels = torch.randint(4, (20,), generator=seeded())
    expected = nx.community.modularity(nx.from_numpy_array(graph.numpy()), sets(labels.numpy()), resolution=resolution)
    assert math.isclose(modularity(graph, labels, resolution=resolution), expected, rel_tol=1e-12)


def test_laws_of_modularity():
    graph, labels = neighbor_graph(points(20)), torch.arange(20) % 3
    order = torch.randperm(20, generator=seeded())
    assert math.isclose(modularity(graph[order][:, order], labels[order]), modularity(graph, labels), rel_tol=1e-12)
    assert abs(modularity(graph, torch.zeros(20).long())) < 1e-15
    assert modularity(7 * graph, labels) == pytest.approx(modularity(graph, labels), rel=1e-12)
    assert modularity(torch.zeros(4, 4), [0, 1, 2, 3]) == 0
    pairs = torch.block_diag(*3 * [torch.ones(2, 2) - torch.eye(2)])
    assert math.isclose(modularity(pairs, [0, 0, 1, 1, 2, 2]), 2 / 3) and modularity(pairs, range(6)) < 0


def test_bad_calls():
    d = points(6)
    hole = d.clone()
    hole[1, 2] = torch.nan
    for call, said in (
        (lambda: communities(hole), "distances must be finite and at least zero, got 1"),
        (lambda: communities(-d), "distances must be finite and at least zero"),
        (lambda: communities(d[:3]), r"distances must be \(m, m\)"),
        (lambda: communities(torch.triu(d)), "distances must be symmetric"),
        (lambda: communities(torch.exp(-d)), "are they similarities"),
        (lambda: communities(torch.zeros(1, 1)), "of m >= 3 neurons, got shape"),
        (lambda: communities(points(2)), "of m >= 3 neurons"),
        (lambda: communities(d, neighbors=6), "neighbors must be a whole number from 1 to 5, got 6"),
        (lambda: communities(d, neighbors=0), "neighbors must be a whole number from 1 to 5, got 0"),
        (lambda: communities(d, n_null=1), "n_null must be a whole number of at least 2"),
        (lambda: communities(d, resolution=0), "resolution must be a positive number, got 0"),
        (lambda: communities(d, resolution=math.nan), "resolution must be a positive number"),
        (lambda: communities(d, resolution="1"), "resolution must be a positive number"),
        (lambda: communities(d, resampled=[d, hole]), r"resampled\[1\] must be finite"),
        (lambda: communities(d, resampled=[points(5)]), "of the same 6 neurons, got 5"),
        (lambda: communities(d, null=lambda g: hole), r"null\(generator\) must be finite"),
        (lambda: communities(d, null=lambda g: points(5)), "of the same 6 neurons, got 5"),
        (lambda: neighbor_graph(d, 9), "neighbors must be a whole number"),
        (lambda: modularity(d[:2], [0, 1]), r"graph must be \(m, m\)"),
        (lambda: modularity(hole, range(6)), "graph must be .* finite"),
        (lambda: modularity(d, [0, 1]), r"labels must be whole numbers \(6,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, -1, 1, 1], r"labels must be at least 0, got 1 below.*leave them out"),
        (["a", "b", "a", "b"], r"labels must be whole numbers \(4,\).*np\.unique"),
        ([[0, 1], [0]], r"labels must be whole numbers \(4,\)"),
        ([0.0, 1.0, 0.0, 1.0], r"labels must be whole numbers \(4,\)"),
        (None, r"labels must be whole numbers \(4,\)"),
    ],
)
def test_labels_are_numbers_of_clusters(labels, says):
    with pytest.raises(ValueError, match=says):
        modularity(torch.ones(4, 4), labels)


@pytest.mark.parametrize(
    ("option", "value"), [("resampled", 5), ("null", 5), ("generator", 3), ("resolution", math.nan)]
)
def test_options_of_another_type_are_named(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        communities(1 - torch.eye(5), **{option: value})
