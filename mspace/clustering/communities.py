"""Communities: groups of neurons nearer to each other than chance would have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..checks import as_tensor, check_callable, check_generator, check_int, seeded
from ..training import member_seeds
from .stability import Stability, as_labels

__all__ = ["Communities", "as_distances", "communities", "gaussian_cloud", "modularity", "neighbor_graph"]

ROUNDING = 1e-5  # of the largest distance: roots of rounding on a diagonal come to that

RUNS = 3  # of Louvain, of which the best counts, for the data and for the null model alike
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Communities:
    """A partition of neurons, and whether to believe it.

    Attributes:
        labels: (m,), the largest community is 0
        modularity: of the partition, from -1/2 to 1
        z_score: how many standard deviations it lies above those of the null model; below 2 it is nothing
        p_value: share of the null model that reaches it, at least 1 / (n_null + 1)
        null_modularity: (n_null,)
        graph: (m, m), weights of the edges
        components: (m,), the connected parts of the graph; no community extends over two
        stability: of the partition, where resampled distances were given, else None
    """

    labels: Tensor
    modularity: float
    z_score: float
    p_value: float
    null_modularity: Tensor
    graph: Tensor
    components: Tensor
    stability: Stability | None = None

    def stable(self, level: float = 0.8) -> list[int]:
        """Labels of the communities whose pairs were found together again in more than a share of `level`."""
        if self.stability is None:
            raise ValueError("stability is not known: give communities `resampled` distances")
        return (self.stability.within > level).nonzero()[:, 0].tolist()


def communities(
    distances,
    *,
    neighbors: int | None = None,
    mutual: bool = False,
    resolution: float = 1.0,
    n_null: int = 100,
    null: Callable[[torch.Generator], object] | None = None,
    resampled: Iterable = (),
    generator: torch.Generator | None = None,
) -> Communities:
    """Communities of the graph of nearest neighbors, by modularity (Louvain, Blondel et al. 2008), with controls.

    Any graph has communities, that of a single Gaussian cloud too. So the same is done with distances that have no
    structure: by default of Gaussian clouds with as large axes as the neurons have when they are drawn as points
    (classical scaling; parts of the distances that are not Euclidean are lost).

    Args:
        distances: (m, m) of m >= 3 neurons
        neighbors: of each neuron; by default m / 4, up to 10. Communities smaller than that are not seen, and with few of
            them the null model has as large a modularity as anything
        mutual: whether both must be neighbors of each other, which may cut the graph in parts, or one is enough
        resolution: larger values give smaller communities
        n_null: how many structureless distances
        null: generator -> distances (m, m), another null model, such as those of networks before they were trained
        resampled: distances (m, m) of resampled ensembles, for the stability, such as
            ``map(wasserstein2, resampled(samples))``

    Raises:
        ValueError: for less than three neurons, or what are not distances.
    """
    d = as_distances(distances, least=3)
    k = _neighbors(neighbors, len(d))
    if not isinstance(resolution, (int, float)) or not 0 < resolution < math.inf:
        raise ValueError(f"resolution must be a positive number, got {resolution!r}")
    if not isinstance(resampled, Iterable):
        raise ValueError(f"resampled must be distances one after another, got {resampled!r}: put one in a list")
    others = [_alike(r, f"resampled[{i}]", len(d)) for i, r in enumerate(resampled)]
    draw = _gaussian(d) if null is None else check_callable(null, "null", "of a generator that returns distances")
    n_null = check_int(n_null, "n_null", 2)
    first, second, third = member_seeds(3, generator)
    seeds = member_seeds(n_null, seeded(second))

    def found(distances: Tensor, seed: int) -> tuple[Tensor, float]:
        return _louvain(_graph(distances, k, mutual), resolution, seed)

    labels, value = found(d, first)
    empty = ((_alike(draw(seeded(seed)), "null(generator)", len(d)), seed) for seed in seeds)
    values = torch.tensor([found(*each)[1] for each in empty], dtype=torch.float64)
    again = [found(r, seed)[0] for r, seed in zip(others, member_seeds(len(others), seeded(third)))]
    graph = _graph(d, k, mutual)
    return Communities(
        labels,
        value,
        _z_score(value, values),
        (1 + int((values >= value - 1e-12).sum())) / (1 + n_null),
        values,
        graph,
        torch.from_numpy(connected_components(graph.numpy())[1].astype(np.int64)),
        Stability.of(labels, again) if again else None,
    )


def neighbor_graph(distances, neighbors: int | None = None, *, mutual: bool = False) -> Tensor:
    """Weights (m, m) of edges between nearest neighbors, exp(-d^2 / (s_i s_j)), zero elsewhere.

    The scale s_i of a neuron is the distance to the last of its neighbors (Zelnik-Manor and Perona 2004), so dense
    and sparse regions count alike. Arguments as in `communities`.
    """
    d = as_distances(distances, least=3)
    return _graph(d, _neighbors(neighbors, len(d)), mutual)


def modularity(graph, labels, *, resolution: float = 1.0) -> float:
    """How much more weight lies inside communities than degrees alone would put there (Newman and Girvan 2004).

    Q is the sum over pairs inside of A_ij - resolution k_i k_j / 2w, over 2w, the sum of all weights; 0 for a graph
    without edges.
    """
    a = as_tensor(graph, "graph").double()
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not len(a) or not ((a >= 0) & (a == a.T) & (a < math.inf)).all():
        raise ValueError(f"graph must be (m, m), symmetric, finite and at least zero, got shape {tuple(a.shape)}")
    labels = as_labels(labels, "labels", len(a))
    degree, total = a.sum(1), a.sum()
    inside = labels[:, None] == labels
    return float(((a - resolution * torch.outer(degree, degree) / total) * inside).sum() / total) if total > 0 else 0.0


def _alike(distances, name: str, m: int) -> Tensor:
    d = as_distances(distances, name)
    if len(d) != m:
        raise ValueError(f"{name} must be distances of the same {m} neurons, got {len(d)}")
    return d


def _neighbors(given: int | None, m: int) -> int:
    return max(2, min(10, m // 4)) if given is None else check_int(given, "neighbors", 1, m - 1)


def _graph(d: Tensor, k: int, mutual: bool) -> Tensor:
    far, near = d.clone().fill_diagonal_(torch.inf).topk(k, largest=False)
    chosen = torch.zeros_like(d, dtype=torch.bool).scatter_(1, near, True)
    chosen = chosen & chosen.T if mutual else chosen | chosen.T
    unit = d.max().clamp(min=torch.finfo(d.dtype).tiny)  # squares stay in range
    scale = torch.outer(far[:, -1] / unit, far[:, -1] / unit)
    weight = torch.where(d > 0, torch.exp(-((d / unit) ** 2) / scale), 1.0)  # twins have scale zero and weight one
    return torch.where(chosen, weight, 0.0)


def _louvain(graph: Tensor, resolution: float, seed: int) -> tuple[Tensor, float]:
    """Labels, the largest community first, and their modularity: the best of a few runs."""
    import networkx as nx

    network = nx.from_numpy_array(graph.numpy())
    best = (torch.zeros(len(graph), dtype=torch.int64), -math.inf)
    for run in range(RUNS):
        parts = nx.community.louvain_communities(network, resolution=resolution, seed=seed % 2**32 + run)
        labels = torch.empty(len(graph), dtype=torch.int64)
        for label, part in enumerate(sorted(parts, key=lambda p: (-len(p), min(p)))):
            labels[list(part)] = label
        value = modularity(graph, labels, resolution=resolution)
        best = max(best, (labels, value), key=lambda found: found[1])
    return best


def _gaussian(d: Tensor) -> Callable[[torch.Generator], Tensor]:
    """Distances in clouds whose singular values are those of the neurons as points (classical scaling)."""
    center = torch.eye(len(d), dtype=d.dtype) - 1 / len(d)
    unit = d.max().clamp(min=torch.finfo(d.dtype).tiny)  # the graph knows no unit, and squares stay in range
    power = torch.linalg.eigvalsh(-center @ (d / unit) ** 2 @ center / 2)
    size = power[power > len(d) * EPS * power.abs().max()].sqrt()

    def draw(generator: torch.Generator) -> Tensor:
        points = gaussian_cloud(len(d), size, generator)
        return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")

    return draw


def _z_score(value: float, null: Tensor) -> float:
    above, spread = value - float(null.mean()), float(null.std())
    if abs(above) <= 1e-9:
        return 0.0
    return above / spread if spread > 1e-9 else math.copysign(math.inf, above)


def as_distances(distances, name: str = "distances", least: int = 1) -> Tensor:
    """Return the distances (m, m) inside one population, float64: finite, at least zero, symmetric, zero on the diagonal."""
    d = as_tensor(distances, name).detach().to("cpu", torch.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) < least:
        raise ValueError(
            f"{name} must be (m, m) between all of m >= {least} neurons, got shape {tuple(d.shape)}: metric(neurons) is"
        )
    bad = ~torch.isfinite(d) | (d < 0)
    if bad.any():
        i, j = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must be finite and at least zero, got {int(bad.sum())} that are not, the first {float(d[i, j])} "
            f"at {(i, j)}: are covariances singular, or distances debiased? leave such neurons out, or clamp at zero"
        )
    room = ROUNDING * d.max()
    if ((d - d.T).abs() > room).any():
        raise ValueError(f"{name} must be symmetric, got a matrix that is not: take (distances + distances.T) / 2")
    if (d.diagonal() > room).any():
        raise ValueError(
            f"{name} must be zero on the diagonal, got {float(d.diagonal().max()):.3g}: are they similarities?"
        )
    return ((d + d.T) / 2).fill_diagonal_(0.0)


def gaussian_cloud(m: int, size: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw centred points (m, r) whose singular values are `size` (r,), in all other respects random.

    That is the law of a centred Gaussian cloud given its singular values: its left singular vectors have no
    preferred direction. So comparing data with such clouds is an exact test of "they are one Gaussian".
    """
    z = torch.randn(m, len(size), generator=check_generator(generator), dtype=torch.float64)
    basis, upper = torch.linalg.qr(z - z.mean(0))
    return basis * (upper.diagonal().sign() * size)
