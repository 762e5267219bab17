"""What a metric is here: a distance between Gaussian neurons, and the barycenter that belongs to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..checks import as_tensor
from ..neurons import NeuronDistribution
from ..threads import small

__all__ = ["Metric", "checked", "normalised"]


@dataclass(frozen=True, eq=False)
class Metric:
    """A distance and the barycenter that minimises the weighted sum of its powers, kept together.

    A metric of one's own is two functions::

        def distance(p, q):                  # two NeuronDistributions of one dimension; q is p inside a population
            return torch.cdist(p.mean, q.mean, p=1)            # (m, k)

        def center(p, weights, start):       # weights (k, m), rows add to one; start: k neurons to begin at, or None
            return NeuronDistribution(weights @ p.mean, torch.einsum("km,mij->kij", weights, p.cov))

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

    def __repr__(self) -> str:
        return self.name

    def __call__(self, p: NeuronDistribution, q: NeuronDistribution | None = None) -> Tensor:
        """Distances (m, k) between all neurons of p and of q, or (m, m) inside p.

        Raises:
            ValueError: for anything but populations of one dimension, or if the distance is not defined for them.
        """
        p, q = checked(p, q)
        with small(p.dim):
            found = torch.as_tensor(self.distance(p, q))
        if found.shape != (len(p), len(q)) or not (found >= 0).all():
            raise ValueError(
                f"{self.name} must give {(len(p), len(q))} distances of at least zero, got {tuple(found.shape)}"
                f"{' with NaN or negative values' if found.shape == (len(p), len(q)) else ''}: mend its `distance`"
            )
        return found

    def cost(self, p: NeuronDistribution, q: NeuronDistribution | None = None) -> Tensor:
        """What the barycenter minimises the weighted sum of, (m, k): ``distance ** power``."""
        return self(p, q) ** self.power

    def barycenter(
        self, neurons: NeuronDistribution, labels=None, *, weights=None, start: NeuronDistribution | None = None
    ) -> NeuronDistribution:
        """The centers of all clusters at once, a population of k neurons; one center of all without labels.

        Args:
            labels: (m,), the cluster of each neuron, every number from 0 to k - 1 among them
            weights: (m,), what each neuron counts, or (k, m), what it counts for each of k centers; equal by
                default. Only their ratios matter.
            start: k neurons near the centers, such as the ones before the labels changed; saves iterations

        Raises:
            ValueError: for labels that leave a cluster empty, weights that are negative or all zero, or if the
                metric has no barycenter of such neurons.
        """
        checked(neurons, None, "neurons")
        if self.center is None:
            raise ValueError(f"{self.name} has no barycenter: give its Metric a `center`, or use wasserstein2")
        matrix = normalised(len(neurons), labels, weights)
        if start is not None:
            checked(neurons, start, "neurons", "start")
            if len(start) != len(matrix):
                raise ValueError(f"start must hold a neuron for each of the {len(matrix)} centers, got {len(start)}")
        with small(neurons.dim):
            return self.center(neurons, matrix, start)


def checked(p, q=None, *names: str) -> tuple[NeuronDistribution, NeuronDistribution]:
    """Two populations of one dimension; p itself for q where none is given."""
    names = (*names, *("p", "q")[len(names) :])
    for value, name in ((p, names[0]), (p if q is None else q, names[1])):
        if not isinstance(value, NeuronDistribution):
            raise ValueError(
                f"{name} must be a NeuronDistribution, got {type(value).__name__}: make one with "
                "NeuronDistribution(mean, cov), or from_samples(draws)"
            )
    q = p if q is None else q
    if p.dim != q.dim:
        raise ValueError(
            f"{names[0]} and {names[1]} must have one dimension, got R^{p.dim} and R^{q.dim}: take the common "
            "coordinates with `marginal`"
        )
    return p, q


def normalised(m: int, labels=None, weights=None) -> Tensor:
    """Labels, weights or both as one matrix (k, m) whose rows add to one."""
    given = torch.ones(m, dtype=torch.float64) if weights is None else as_tensor(weights, "weights").detach().double()
    if given.ndim not in (1, 2) or given.shape[-1] != m or given.numel() == 0:
        raise ValueError(f"weights must be ({m},) or (k, {m}), a number for each neuron, got {tuple(given.shape)}")
    if not (torch.isfinite(given) & (given >= 0)).all():
        raise ValueError("weights must be finite and at least zero, got others: leave such neurons out")
    if labels is not None:
        if given.ndim == 2:
            raise ValueError(f"weights must be ({m},) where labels say which center is meant, got {tuple(given.shape)}")
        given = given * one_hot(labels, m)
    given = torch.atleast_2d(given)
    total = given.sum(1, keepdim=True)
    if not ((total > 0) & torch.isfinite(total)).all():
        empty = (~(total > 0)).flatten().nonzero().flatten().tolist()
        raise ValueError(f"weights must have a positive, finite sum for each center, got none for {empty[:5]}")
    return given / total


def one_hot(labels, m: int) -> Tensor:
    """(k, m), one where the neuron of the column has the label of the row."""
    found = np.asarray(labels)
    if found.shape != (m,) or found.dtype.kind not in "iuf" or not (found == np.floor(found)).all() or found.min() < 0:
        raise ValueError(f"labels must be ({m},) whole numbers from 0, one for each neuron, got {labels!r:.80}")
    counts = np.bincount(found.astype(np.int64))
    if not counts.all():
        empty = np.flatnonzero(counts == 0).tolist()
        raise ValueError(
            f"labels must use every number from 0 to {len(counts) - 1}, got none of {empty[:5]}: number them anew "
            "with torch.unique(labels, return_inverse=True)"
        )
    return torch.from_numpy(found.astype(np.int64) == np.arange(len(counts))[:, None]).double()
