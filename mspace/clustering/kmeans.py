"""k-means in any metric that knows its barycenter."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ..checks import check_generator, check_int
from ..metrics import Metric
from ..metrics.metric import check_metric
from ..neurons import NeuronDistribution, check_populations
from ..threads import small
from ..training import member_seeds

__all__ = ["KMeans"]

ITERATIONS = 300


class KMeans:
    """Clusters of neurons around the barycenters of a metric (Lloyd 1982; the paper's section 5).

    Neurons go to the nearest center, centers to the barycenters of their neurons, until nobody moves; what falls is
    the inertia, the sum of ``metric.cost`` (for distances, their squares) from neurons to their centers. First centers
    are neurons drawn by that cost, the best of a few draws each (greedy k-means++, Arthur and Vassilvitskii 2007). A
    cluster that loses all its neurons gets the one farthest from its center, so there are always k.

    Args:
        n_clusters: k
        metric: a `Metric` with a barycenter, such as wasserstein2
        n_init: starts, of which the best is kept; all are run at once, and the i-th begins at the same neurons however
            many there are
        start: k neurons to begin at instead, then there is one start
        generator: one number is read from it

    Attributes:
        labels_: (m,), the cluster of each neuron, from 0 to k - 1
        centers_: a population of k neurons
        inertia_: float
        history_: (iterations,), the inertia after each move of the centers; it never rises
    """

    def __init__(
        self,
        n_clusters: int,
        *,
        metric: Metric,
        n_init: int = 10,
        start: NeuronDistribution | None = None,
        generator: torch.Generator | None = None,
    ):
        self.n_clusters = check_int(n_clusters, "n_clusters", 1)
        self.metric = check_metric(metric)
        self.n_init = check_int(n_init, "n_init", 1)
        self.start, self.generator = start, check_generator(generator)
        if metric.center is None:
            raise ValueError(f"{metric} has no barycenter: use `communities` on its distances")
        if start is not None and len(check_populations(start, None, "start")[0]) != self.n_clusters:
            raise ValueError(f"start must hold {self.n_clusters} neurons, as n_clusters says, got {len(start)}")

    def fit(self, neurons: NeuronDistribution) -> KMeans:
        """Find the clusters of m >= k neurons.

        Raises:
            ValueError: for fewer neurons than clusters, or neurons for which the metric is not defined.

        Warns:
            RuntimeWarning: if neurons still move after 300 iterations.
        """
        k, m = self.n_clusters, len(check_populations(neurons, None, "neurons")[0])
        if k > m:
            raise ValueError(f"n_clusters must be at most the number of neurons, got {k} for {m}: ask for fewer")
        with small(neurons.dim):
            if self.start is None:
                cost, first = seeds(neurons, self.metric, k, member_seeds(self.n_init, self.generator))
                begin = neurons[first]
            else:
                cost, begin = costs(self.metric, neurons, self.start), self.start
            labels, mean, cov, history = lloyd(neurons, self.metric, begin, cost.view(-1, k, m))
        best = int(_least(history[-1]))
        self.labels_, self.history_ = labels[best], _shortened(history[:, best])
        self.centers_ = NeuronDistribution(mean[best * k : (best + 1) * k], cov[best * k : (best + 1) * k])
        self.inertia_ = float(self.history_[-1])
        return self

    def predict(self, neurons: NeuronDistribution) -> Tensor:
        """The cluster (m,) whose center is nearest to each of some neurons, perhaps others than those fitted."""
        if not hasattr(self, "centers_"):
            raise ValueError("KMeans has no centers yet: call `fit` first")
        return self.metric(neurons, self.centers_).argmin(1)

    def fit_predict(self, neurons: NeuronDistribution) -> Tensor:
        """The clusters (m,) of the neurons they were found in."""
        return self.fit(neurons).labels_


def costs(metric: Metric, neurons: NeuronDistribution, centers: NeuronDistribution) -> Tensor:
    """What each neuron costs at each center, (k, m)."""
    cost = metric.cost(neurons, centers).T.double().contiguous()
    if not torch.isfinite(cost).all():
        raise ValueError(f"{metric} to the power {metric.power} must be finite, got infinities: rescale the neurons")
    return cost


def seeds(neurons: NeuronDistribution, metric: Metric, k: int, streams: list[int]) -> tuple[Tensor, Tensor]:
    """First centers of every start: what neurons cost there (starts * k, m), and which neurons they are.

    Costs to a neuron are computed once, when it first is a candidate of any start.
    """
    m, trials = len(neurons), 2 + int(math.log(k))
    generators = [torch.Generator().manual_seed(s) for s in streams]
    known, slot = torch.empty(0, m, dtype=torch.float64), torch.full((m,), -1)
    if len(streams) * k * trials > m:  # nearly every neuron will be one, and inside a population half the pairs suffice
        known, slot = costs(metric, neurons, neurons), torch.arange(m)
    nearest = torch.full((len(streams), m), torch.inf, dtype=torch.float64)
    chosen = torch.empty(len(streams), 0, dtype=torch.int64)
    for step in range(k):
        rows = zip(nearest, chosen, generators)
        draws = torch.stack([_candidates(*row, trials if step else 1) for row in rows])  # (starts, trials)
        new = draws[slot[draws] < 0].unique()
        if len(new):
            slot[new] = torch.arange(len(new)) + len(known)
            known = torch.cat([known, costs(metric, neurons, neurons[new])])
        closer = torch.minimum(nearest[:, None], known[slot[draws]])
        best = _least(closer.sum(2))[:, None]  # two neurons that are nearest to each other gain the same
        nearest = closer.take_along_dim(best[..., None], 1)[:, 0]
        chosen = torch.cat([chosen, draws.gather(1, best)], 1)
    return known[slot[chosen.flatten()]], chosen.flatten()


def _candidates(nearest: Tensor, chosen: Tensor, generator: torch.Generator, trials: int) -> Tensor:
    """Neurons drawn by what they cost so far; any not chosen yet where all cost nothing."""
    if not chosen.numel() or not nearest.any():
        nearest = torch.ones_like(nearest).index_fill_(0, chosen, 0.0)
    return torch.multinomial(nearest / nearest.max(), trials, replacement=True, generator=generator)


def lloyd(neurons: NeuronDistribution, metric: Metric, centers: NeuronDistribution, cost: Tensor):
    """Move neurons and centers until nothing does, in all starts at once.

    Only centers whose neurons changed are computed anew, from where they were, and once for starts that agree on them;
    one that would cost its neurons more than before, because a barycenter is found up to rounding, stays.

    Args:
        centers: starts * k of them
        cost: (starts, k, m), what neurons cost there

    Returns:
        labels (starts, m), means and covariances of the centers, inertia (iterations, starts)
    """
    starts, k, m = cost.shape
    mean, cov, cost = centers.mean.clone(), centers.cov.clone(), cost.clone()
    labels, before = cost.argmin(1), torch.zeros(starts * k, m, dtype=torch.bool)
    history = []
    for _ in range(ITERATIONS):
        labels = _assign(cost, labels)
        member = (labels[:, None] == torch.arange(k)[:, None]).view(-1, m)
        moved = (member != before).any(1).nonzero()[:, 0]
        if not len(moved):
            break
        before, inside = member, member[moved].double()
        distinct, which = inside.unique(dim=0, return_inverse=True)  # starts tend to the same clusters
        one = moved[
            torch.full((len(distinct),), len(moved)).scatter_reduce_(0, which, torch.arange(len(moved)), "amin")
        ]
        new = metric.barycenter(neurons, weights=distinct, start=NeuronDistribution(mean[one], cov[one]))
        now, flat = costs(metric, neurons, new)[which], cost.view(-1, m)
        better = (now * inside).sum(1) < (flat[moved] * inside).sum(1)
        at = moved[better]
        mean[at], cov[at], flat[at] = new.mean[which[better]], new.cov[which[better]], now[better]
        history.append(cost.gather(1, labels[:, None]).sum((1, 2)))
    else:
        warnings.warn(
            f"neurons still change clusters after {ITERATIONS} iterations: results are not final", RuntimeWarning
        )
    return labels, mean, cov, torch.stack(history)


def _assign(cost: Tensor, labels: Tensor) -> Tensor:
    """To the nearest center, staying where another is no nearer; then a neuron for every cluster without."""
    least, nearest = cost.min(1)
    paid = cost.gather(1, labels[:, None])[:, 0]
    labels, paid = torch.where(least < paid, nearest, labels), torch.minimum(least, paid)
    size = torch.zeros(cost.shape[:2], dtype=torch.int64).scatter_add_(1, labels, torch.ones_like(labels))
    for start, empty in (size == 0).nonzero().tolist():
        alone = size[start].gather(0, labels[start]) == 1
        far = _least(-paid[start].masked_fill(alone, -1.0))  # two neurons of one cluster are as far from their mean
        size[start, labels[start, far]] -= 1
        size[start, empty], labels[start, far] = 1, empty
    return labels


def _shortened(history: Tensor) -> Tensor:
    """Without the iterations in which other starts went on."""
    changed = (history[1:] != history[:-1]).nonzero()
    return history[: int(changed[-1]) + 2 if len(changed) else 1]


def _least(values: Tensor) -> Tensor:
    """Where the last axis is least; the first place of several that rounding alone tells apart."""
    least = values.min(-1, keepdim=True)[0]
    return (values <= least + 1e-9 * least.abs()).int().argmax(-1)
