"""What a finite ensemble adds to distances: neurons estimated from few draws look further apart than they are."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..checks import as_tensor, check_int
from ..neurons import NeuronDistribution
from ..threads import small
from .metric import Metric
from .wasserstein import wasserstein2

__all__ = ["debiased", "split_half"]


def debiased(
    samples, metric: Metric = wasserstein2, *, n_splits: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """Costs of a metric, such as squared distances, without what estimation from N draws adds to them, (m, m).

    Two neurons of one law N(mu, I) in R^n come out with squared Wasserstein distances near
    2n / N + n (n + 1) / (2 (N - 1)) instead of zero: for N = 100 that is 0.12 in R^3 and 2.5 in R^20. The excess goes
    as 1 / N, so half of the draws show twice of it, and the difference can be taken off. For the Euclidean metric
    that is exactly unbiased, for others to the first order in 1 / N; that neurons of one network vary together
    is accounted for. Neurons that are alike get values around zero, negative ones among them.

    Args:
        samples: (N, m, n) draws, such as ``ensemble.samples(layer)``, the networks on axis 0
        n_splits: into halves, over which the correction is averaged
    """
    x = _draws(samples, 4)
    with small(x.shape[2]):
        full = metric.cost(NeuronDistribution.from_samples(x))
        apart = torch.zeros_like(full)
        for pair in _halves(len(x), n_splits, generator):
            for part in pair:
                apart += len(part) / len(x) * metric.cost(NeuronDistribution.from_samples(x[part]))
    return 2 * full - apart / n_splits


def split_half(
    samples, metric: Metric = wasserstein2, *, n_splits: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """Distances of every neuron, known from one half of the draws, to every neuron from the other, (n_splits, m, m).

    The diagonal is how far a neuron is from itself: whatever is nearer is no different. Distances between neurons
    that do not exceed it (they are beside it, at the same number of draws) say nothing.

    Args:
        samples: (N, m, n) draws, the networks on axis 0
    """
    x = _draws(samples, 4)
    pairs = (
        (NeuronDistribution.from_samples(x[part]) for part in pair) for pair in _halves(len(x), n_splits, generator)
    )
    with small(x.shape[2]):
        return torch.stack([metric(*pair) for pair in pairs])


def _halves(count: int, n_splits: int, generator) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(check_int(n_splits, "n_splits", 1)):
        order = torch.randperm(count, generator=generator)
        yield order[: count // 2], order[count // 2 :]


def _draws(samples, least: int) -> Tensor:
    x = as_tensor(samples, "samples").detach().to("cpu", torch.float64)
    if x.ndim != 3 or len(x) < least or 0 in x.shape:
        raise ValueError(f"samples must be (N, m, n) with N >= {least} draws, got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        gone = sorted({int(i) for i in (~torch.isfinite(x)).nonzero()[:, 0]})
        raise ValueError(f"samples must be finite, draws {gone[:5]} are not: leave those draws out")
    return x
