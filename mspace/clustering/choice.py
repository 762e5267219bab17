"""How many clusters: what speaks for each number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..checks import as_tensor, check_int, seeded
from ..metrics import Metric
from ..neurons import NeuronDistribution
from ..tables import TextTable
from ..training import member_seeds
from .kmeans import KMeans, require_metric
from .null import structureless
from .stability import Stability, resampled

__all__ = ["Choice", "choose_k"]

STABLE = 0.9


@dataclass(frozen=True, eq=False)
class Choice:
    """Four opinions about the number of clusters, each with its preference; they need not agree.

    Attributes:
        sizes: (K,), the numbers of clusters tried, ascending
        labels: (K, m), the clusters of each
        inertia: (K,)
        silhouette: (K,), how much nearer neurons are to their own cluster than to the next, from -1 to 1; nan
            where it is not defined, at k = 1 and k = m (Rousseeuw 1987)
        gap, gap_error: (K,), how much smaller the log inertia is than that of populations without structure
            (Tibshirani, Walther and Hastie 2001)
        stability, stability_error: (K,), mean adjusted Rand index to clusters of resampled ensembles; nan at k = 1
            and k = m, where it cannot fail
        loss, loss_error: (K,), what the user's function gave, and the standard error over its parts; nan where
            nothing was given
    """

    sizes: Tensor
    labels: Tensor
    inertia: Tensor
    silhouette: Tensor
    gap: Tensor
    gap_error: Tensor
    stability: Tensor
    stability_error: Tensor
    loss: Tensor
    loss_error: Tensor

    @property
    def by_loss(self) -> int | None:
        """The smallest k whose loss is within one standard error of the least; None without a loss."""
        if self.loss.isnan().all():
            return None
        best = int(self.loss.argmin())
        return self._first(self.loss <= self.loss[best] + self.loss_error[best].nan_to_num())

    @property
    def by_stability(self) -> int | None:
        """The largest k found again with a mean adjusted Rand index of 0.9 or more; None where none is.

        Neurons that hardly vary over the ensemble give the same clusters again whether these mean anything or not.
        """
        stable = self.sizes[self.stability >= STABLE]
        return int(stable[-1]) if len(stable) else None

    @property
    def by_silhouette(self) -> int | None:
        """The k of the largest silhouette."""
        return None if self.silhouette.isnan().all() else int(self.sizes[self.silhouette.nan_to_num(-1).argmax()])

    @property
    def by_gap(self) -> int | None:
        """The smallest k whose gap the next one does not exceed by a standard error; None where all grow."""
        return self._first(self.gap[:-1] >= self.gap[1:] - self.gap_error[1:])

    def _first(self, good: Tensor) -> int | None:
        return int(self.sizes[int(good.nonzero()[0])]) if good.any() else None

    def table(self) -> TextTable:
        """A row for each number of clusters."""
        names = ("inertia", "silhouette", "gap", "stability", "loss")
        columns = [getattr(self, name).tolist() for name in names]
        rows = [[str(int(k)), *(f"{v:.3g}" for v in row)] for k, *row in zip(self.sizes, *columns)]
        return TextTable(("clusters", *names), rows)


def choose_k(
    samples,
    sizes: Sequence[int],
    *,
    metric: Metric,
    loss: Callable[[Tensor], object] | None = None,
    n_resamples: int = 20,
    n_null: int = 20,
    n_init: int = 10,
    generator: torch.Generator | None = None,
) -> Choice:
    """Cluster the neurons of an ensemble by `KMeans` into each of several numbers of clusters, and judge them.

    Args:
        samples: (N, m, n) draws, such as ``ensemble.samples(layer)``, the networks on axis 0
        sizes: the numbers of clusters, each up to m
        loss: labels (m,) -> what the network loses once these are merged, a number or one for each part of the
            validation data; the one opinion that knows what clusters are for
        n_resamples: ensembles drawn anew, for the stability
        n_null: populations without structure, for the gap
        n_init: starts of each `KMeans`
    """
    require_metric(metric)
    neurons = NeuronDistribution.from_samples(as_tensor(samples, "samples"))
    sizes = sorted({check_int(k, "sizes", 1, len(neurons)) for k in sizes})
    if not sizes:
        raise ValueError("sizes must name at least one number of clusters, got none")
    first, second, third = member_seeds(3, generator)
    again = list(resampled(samples, n_resamples, generator=seeded(first)))
    seeds = member_seeds(check_int(n_null, "n_null", 2), seeded(second))
    empty = [structureless(neurons, seeded(seed)) for seed in seeds]

    def found(k: int, p: NeuronDistribution) -> KMeans:
        return KMeans(k, metric=metric, n_init=n_init, generator=seeded(third)).fit(p)

    distances, rows = metric(neurons), []
    for k in sizes:
        best, defined = found(k, neurons), 1 < k < len(neurons)
        ari = Stability.of(best.labels_, (found(k, p).labels_ for p in again)).ari.tolist() if defined else [math.nan]
        rows.append(
            (
                best.inertia_,
                _silhouette(distances, best.labels_) if defined else math.nan,
                *_gap(best.inertia_, [found(k, p).inertia_ for p in empty]),
                *_mean(ari),
                *_mean([math.nan] if loss is None else _losses(loss(best.labels_.clone()))),
                best.labels_,
            )
        )
    *columns, labels = zip(*rows)
    columns = (torch.tensor(column, dtype=torch.float64) for column in columns)
    return Choice(torch.tensor(sizes), torch.stack(labels), *columns)


def _gap(inertia: float, null: list[float]) -> tuple[float, float]:
    """With its standard error, which holds that of the simulation; nan where there is nothing left to explain."""
    if min(inertia, *null) <= 0:
        return math.nan, math.nan
    logs = np.log(null)
    return logs.mean() - math.log(inertia), logs.std(ddof=1) * math.sqrt(1 + 1 / len(logs))


def _mean(values: list[float]) -> tuple[float, float]:
    """With its standard error, nan for a single value."""
    return np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _losses(values) -> list[float]:
    values = np.atleast_1d(as_tensor(values, "loss(labels)").detach().numpy())
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"loss must give a finite number or several, got {values.tolist()}")
    return values.tolist()


def _silhouette(distances: Tensor, labels: Tensor) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(distances.numpy(), labels.numpy(), metric="precomputed"))
