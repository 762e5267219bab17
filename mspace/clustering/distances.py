"""Clusters from distances alone, for metrics without a barycenter."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from ..checks import as_tensor, check_int

__all__ = ["agglomerative", "as_distances", "k_medoids"]

ROUNDING = 1e-5  # of the largest distance: roots of rounding on a diagonal come to that
LINKAGES = ("average", "complete", "single")


def as_distances(distances, name: str = "distances", least: int = 1) -> Tensor:
    """Distances (m, m) inside one population, float64: finite, at least zero, symmetric, zero on the diagonal."""
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


def k_medoids(distances, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Clusters around k of the neurons, so that distances to these add up to as little as swaps can reach.

    Partitioning around medoids (Kaufman and Rousseeuw 1990): medoids are added one at a time, then the best of all
    swaps is made until none helps. There is no chance in it. Give ``metric.cost(neurons)`` to minimise what `KMeans`
    does.

    Args:
        distances: (m, m)

    Returns:
        labels (m,), and the numbers (k,) of the medoids, each in the cluster of its place
    """
    d = as_distances(distances)
    k = check_int(n_clusters, "n_clusters", 1, len(d))
    medoids = torch.empty(0, dtype=torch.int64)
    nearest = torch.full((len(d),), torch.inf, dtype=d.dtype)
    for _ in range(k):
        total = torch.minimum(nearest[:, None], d).sum(0).index_fill_(0, medoids, torch.inf)
        medoids = torch.cat([medoids, total.argmin()[None]])
        nearest = torch.minimum(nearest, d[:, medoids[-1]])
    while True:
        out, into, change = _best_swap(d, medoids)
        if change >= -1e-12 * d.sum():
            break
        medoids[out] = into
    labels = d[:, medoids].argmin(1)
    labels[medoids] = torch.arange(k)  # twins of a medoid may be medoids too
    return labels, medoids


def _best_swap(d: Tensor, medoids: Tensor) -> tuple[int, int, float]:
    """The medoid to give up, the neuron to take for it, and by how much the sum of distances changes."""
    sorted_, order = d[:, medoids].sort(1)
    first = sorted_[:, :1]
    second = sorted_[:, 1:2] if len(medoids) > 1 else torch.full_like(first, torch.inf)
    near = torch.minimum(first, d)
    own = (order[:, 0] == torch.arange(len(medoids))[:, None]).to(d.dtype)
    change = (near - first).sum(0) + own @ (torch.minimum(second, d) - near)
    best = int(change.argmin())
    return best // len(d), best % len(d), float(change.flatten()[best])


def agglomerative(distances, n_clusters: int, *, linkage: str = "average") -> Tensor:
    """Clusters (m,) made by joining the two nearest ones until k are left (scipy's linkage).

    Args:
        distances: (m, m)
        linkage: what is near: "average", "complete" (the farthest pair) or "single" (the nearest)
    """
    d = as_distances(distances)
    k = check_int(n_clusters, "n_clusters", 1, len(d))
    if linkage not in LINKAGES:
        hint = ": ward is for Euclidean vectors, use KMeans" if linkage == "ward" else ""
        raise ValueError(f"linkage must be one of {', '.join(LINKAGES)}, got {linkage!r}{hint}")
    if len(d) == 1:
        return torch.zeros(1, dtype=torch.int64)
    tree = hierarchy.linkage(squareform(d.numpy(), checks=False), linkage)
    return torch.from_numpy(hierarchy.cut_tree(tree, k)[:, 0].astype(np.int64))
