"""What a metric is, a distance and the barycenter that belongs to it; and those that need no density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._linalg import clean_psd, eigh_psd, row_distances, units_of
from ..checks import as_tensor, check_callable, check_finite, check_labels, check_real
from ..neurons import NeuronDistribution, check_populations
from ..threads import small
from .wasserstein import wasserstein_center, wasserstein_distance

__all__ = ["Metric", "check_metric", "euclidean", "functional", "wasserstein2"]


@dataclass(frozen=True, eq=False)
class Metric:
    """Keep together a distance and the barycenter that minimises the weighted sum of its powers.

    A metric of one's own is two functions::

        def distance(p, q):                  # two NeuronDistributions of one dimension; q is p inside a population
            return torch.cdist(p.mean, q.mean, p=1)            # (m, k)

        def center(p, weights, start):       # weights (k, m), rows add to one; start: k neurons to begin at, or None
            return NeuronDistribution(weights @ p.mean, p.mean_cov(weights))

        manhattan = Metric(distance, center, name="manhattan")

    Attributes:
        distance: (p, q) -> (m, k)
        center: (p, weights, start) -> a population of k; None where the metric has no barycenter
        power: the barycenter minimises the weighted sum of ``distance ** power``: 2 for distances, 1 for divergences
            that grow like squares
        name: what it is called in messages and figures
    """

    distance: Callable
    center: Callable | None = None
    power: float = 2
    name: str = "metric"

    def __post_init__(self):
        check_callable(self.distance, "distance", "(p, q) -> (m, k)")
        if self.center is not None:
            check_callable(self.center, "center", "(p, weights, start) -> a population, or None")
        check_real(self.power, "power")

    def __repr__(self) -> str:
        return self.name

    def __call__(self, p: NeuronDistribution, q: NeuronDistribution | None = None) -> Tensor:
        """Return the distances (m, k) between all neurons of p and of q, or (m, m) inside p.

        Raises:
            ValueError: for anything but populations of one dimension, or if the distance is not defined for them.
        """
        p, q = check_populations(p, q)
        with small(p.dim):
            result = as_tensor(self.distance(p, q), f"what {self.name} returns")
        if result.shape != (len(p), len(q)) or not (result >= 0).all():
            raise ValueError(
                f"{self.name} must give {(len(p), len(q))} distances of at least zero, got {tuple(result.shape)}"
                f"{' with NaN or negative values' if result.shape == (len(p), len(q)) else ''}: correct its `distance`"
            )
        return result

    def cost(self, p: NeuronDistribution, q: NeuronDistribution | None = None) -> Tensor:
        """Return ``distance ** power``, (m, k), whose weighted sum the barycenter minimises."""
        return self(p, q) ** self.power

    def barycenter(
        self, neurons: NeuronDistribution, labels=None, *, weights=None, start: NeuronDistribution | None = None
    ) -> NeuronDistribution:
        """Return the centers of all clusters at once, a population of k neurons; one center of all without labels.

        Args:
            labels: (m,), the cluster of each neuron, every number from 0 to k - 1 among them
            weights: (m,), what each neuron counts, or (k, m), what it counts for each of k centers; equal by
                default. Only their ratios matter.
            start: k neurons near the centers, such as the ones before the labels changed; saves iterations

        Raises:
            ValueError: for labels that leave a cluster empty, weights that are negative or all zero, or if the
                metric has no barycenter of such neurons.
        """
        check_populations(neurons, None, "neurons")
        if self.center is None:
            raise ValueError(f"{self.name} has no barycenter: give its Metric a `center`, or use wasserstein2")
        matrix = _weight_matrix(len(neurons), labels, weights)
        if start is not None:
            check_populations(neurons, start, "neurons", "start")
            if len(start) != len(matrix):
                raise ValueError(f"start must hold a neuron for each of the {len(matrix)} centers, got {len(start)}")
        with small(neurons.dim):
            result = self.center(neurons, matrix, start)
        check_populations(neurons, result, "neurons", f"what the `center` of {self.name} returns")
        if len(result) != len(matrix):
            raise ValueError(f"{self.name} must give {len(matrix)} centers, got {len(result)}: correct its `center`")
        return result


def check_metric(value) -> Metric:
    """Return a `Metric`, or refuse what is none."""
    if not isinstance(value, Metric):
        raise ValueError(f"metric must be a Metric, got {value!r:.60}: take one of mspace.metrics, or make one there")
    return value


def _weight_matrix(m: int, labels, weights) -> Tensor:
    """Return labels, weights or both as one matrix (k, m) whose rows add to one."""
    given = torch.ones(m, dtype=torch.float64) if weights is None else as_tensor(weights, "weights").detach().double()
    if given.ndim not in (1, 2) or given.shape[-1] != m or given.numel() == 0:
        raise ValueError(f"weights must be ({m},) or (k, {m}), a number for each neuron, got {tuple(given.shape)}")
    if not (torch.isfinite(given) & (given >= 0)).all():
        raise ValueError("weights must be finite and at least zero, got others: leave such neurons out")
    if labels is not None:
        if given.ndim == 2:
            raise ValueError(f"weights must be ({m},) where labels say which center is meant, got {tuple(given.shape)}")
        given = given * _members(labels, m)
    given = torch.atleast_2d(given)
    total = given.sum(1, keepdim=True)
    if not ((total > 0) & torch.isfinite(total)).all():
        empty = (~(total > 0)).flatten().nonzero().flatten().tolist()
        raise ValueError(f"weights must have a positive, finite sum for each center, got none for {empty[:5]}")
    return given / total


def _members(labels, m: int) -> Tensor:
    """Return (k, m), one where the neuron of the column has the label of the row."""
    clusters = torch.arange(int(check_labels(labels, "labels", m).max()) + 1)
    numbers = torch.as_tensor(labels).detach().cpu().long()
    if not torch.equal(numbers.unique(), clusters):
        raise ValueError(
            f"labels must use every number from 0 to {len(clusters) - 1} for {len(clusters)} clusters, got "
            f"{numbers.unique().tolist()[:9]}: number them anew with torch.unique(labels, return_inverse=True)"
        )
    return (numbers == clusters[:, None]).double()


def _euclidean_distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    return row_distances(p.mean, q.mean)


def _euclidean_center(p: NeuronDistribution, weights: Tensor, start=None) -> NeuronDistribution:
    """Return means of the means; the distance does not see covariances, which are averaged too."""
    return NeuronDistribution(weights @ p.mean, p.mean_cov(weights))


euclidean = Metric(_euclidean_distance, _euclidean_center, name="euclidean")
wasserstein2 = Metric(wasserstein_distance, wasserstein_center, name="wasserstein2")


def functional(moment, metric: Metric = wasserstein2) -> Metric:
    """Return a metric between what linear neurons compute on data, instead of between their weights.

    Neurons are taken to C^1/2 w, where C = E x x^T; then the squared Euclidean distance is the mean of
    (w_1^T x - w_2^T x)^2, and the scale of the inputs no longer matters. Directions in which the data never go
    count nothing. Barycenters come back as weights, the shortest that compute the same (where inputs lie eight or more
    orders of magnitude apart, the shortest in units of theirs).

    Args:
        moment: C (n, n), ``x.T @ x / len(x)`` of the inputs of the layer, with a column of ones if neurons carry
            their bias; not centered
        metric: what to measure with after the change
    """
    metric = check_metric(metric)
    factor, back = _factor(moment)

    def seen(p: NeuronDistribution) -> NeuronDistribution:
        if p.dim != len(factor):
            size = len(factor)
            raise ValueError(f"moment is {(size, size)}, and neurons lie in R^{p.dim}: is the bias in one only?")
        return NeuronDistribution(p.mean @ factor, factor.T @ p.cov @ factor)

    def distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
        return metric(seen(p), None if q is p else seen(q))

    def center(p: NeuronDistribution, weights: Tensor, start: NeuronDistribution | None) -> NeuronDistribution:
        result = metric.barycenter(seen(p), weights=weights, start=None if start is None else seen(start))
        return NeuronDistribution(result.mean @ back, back.T @ result.cov @ back)

    return Metric(distance, center if metric.center else None, metric.power, f"functional {metric.name}")


def _factor(moment) -> tuple[Tensor, Tensor]:
    """Return F (n, r) with F F^T the moment and r its rank, and an inverse of F, (r, n)."""
    matrix = check_finite(moment, "moment", "(n, n)")
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"moment must be (n, n), got {tuple(matrix.shape)}: x.T @ x / len(x) of the inputs x")
    units = units_of(matrix.diagonal())
    (matrix,) = clean_psd((matrix / units / units[:, None])[None], "moment", "x.T @ x / len(x) of the inputs x is")
    eigenvalues, eigenvectors = eigh_psd(matrix)
    kept = eigenvalues > 0
    if not kept.any():
        raise ValueError("moment must not be zero, got zeros: without data there is no distance")
    factor = eigenvectors[:, kept] * eigenvalues[kept].sqrt()
    return units[:, None] * factor, torch.linalg.pinv(factor) / units
