"""Are two neurons different, by draws of both: a test of equality, and distances without the bias of few draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import chdtrc, fdtrc
from torch import Tensor

from .._linalg import EPS, units_of
from ..checks import check_fraction, check_generator, check_int
from ..neurons import NeuronDistribution, check_samples
from ..threads import small
from .metric import Metric, check_metric, wasserstein2

__all__ = ["MergeTest", "debiased", "merge_test", "split_half"]


def debiased(
    samples, metric: Metric = wasserstein2, *, n_splits: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """Return costs of a metric, such as squared distances, without what estimation from N draws adds to them, (m, m).

    Two neurons of one law N(mu, I) in R^n come out with squared Wasserstein distances near
    2n / N + n (n + 1) / (2 (N - 1)) instead of zero: for N = 100 that is 0.12 in R^3 and 2.5 in R^20. The excess goes
    as 1 / N, so half of the draws show twice of it, and the difference can be taken off. For the Euclidean metric
    that is exactly unbiased, for others to the first order in 1 / N; that neurons of one network vary together
    is accounted for. Neurons that are alike get values around zero, negative ones among them.

    Args:
        samples: (N, m, n) draws, such as ``ensemble.samples(layer)``, the networks on axis 0
        n_splits: into halves, over which the correction is averaged
    """
    x, metric = check_samples(samples, 4), check_metric(metric)
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
    """Return distances of every neuron, by one half of the draws, to every neuron by the other, (n_splits, m, m).

    The diagonal is how far a neuron is from itself: whatever is nearer is no different. Distances between neurons
    that do not exceed it (they are beside it, at the same number of draws) say nothing.

    Args:
        samples: (N, m, n) draws, the networks on axis 0
    """
    x, metric = check_samples(samples, 4), check_metric(metric)
    pairs = (
        (NeuronDistribution.from_samples(x[part]) for part in pair) for pair in _halves(len(x), n_splits, generator)
    )
    with small(x.shape[2]):
        return torch.stack([metric(*pair) for pair in pairs])


def _halves(count: int, n_splits: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
    check_generator(generator)
    for _ in range(check_int(n_splits, "n_splits", 1)):
        order = torch.randperm(count, generator=generator)
        yield order[: count // 2], order[count // 2 :]


@dataclass(frozen=True, eq=False)
class MergeTest:
    """Hold the test of the hypothesis that two neurons are equal, for every pair.

    Attributes:
        statistic: (m, m), Hotelling's T^2, or the squared Mahalanobis distance for single networks
        p_value: (m, m), one on the diagonal
        adjusted: (m, m), after Benjamini and Hochberg (1995) over the m (m - 1) / 2 pairs
    """

    statistic: Tensor
    p_value: Tensor
    adjusted: Tensor

    def equal(self, level: float = 0.05) -> Tensor:
        """Return pairs (m, m) that do not differ significantly; of the others a share of `level` may be wrong."""
        return self.adjusted > check_fraction(level, "level")


def merge_test(samples, *, single: bool = False) -> MergeTest:
    """Test for every pair of neurons whether they are equal, by their difference in each network.

    The differences D_s of N networks have a mean D and a covariance S, which holds that neurons of one network vary
    together. With T^2 = N D^T S^-1 D, (N - n) / (n (N - 1)) T^2 has the law F(n, N - n) if the expected difference is
    zero (Hotelling 1931). No significant difference is no proof of being equal: more draws find more.

    Args:
        samples: (N, m, n) draws of m neurons with n weights, N > n, the networks on axis 0 and aligned
        single: ask whether zero is a likely difference within one network, D^T S^-1 D against chi^2 with n degrees
            of freedom, instead of whether the mean difference is zero. This does not change with N.

    Raises:
        ValueError: if there are no more draws than weights.
    """
    x = check_samples(samples, 2)
    count, _, n = x.shape
    if count <= n:
        raise ValueError(
            f"samples must hold more draws than weights, got {count} of neurons in R^{n}: train at least {n + 1} "
            "networks, or test some of the coordinates, samples[..., coords]"
        )
    with small(x.shape[2]):
        distance, rank = _mahalanobis(x / units_of(x.var(0).mean(0)))
    if single:
        statistic, p_value = distance, chdtrc(rank.numpy(), distance.numpy())
    else:
        statistic = count * distance
        share = torch.where(statistic == 0, 0.0, statistic * (count - rank) / (rank * (count - 1)))
        p_value = fdtrc(rank.numpy(), (count - rank).numpy(), share.numpy())
    p_value = torch.as_tensor(p_value, dtype=torch.float64)
    return MergeTest(statistic, p_value, _false_discovery(p_value))


def _mahalanobis(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return D^T S^-1 D (m, m) and the rank of S; infinite where D leaves the range of S."""
    count, m, n = x.shape
    mean, centered = x.mean(0), x - x.mean(0)
    result, rank = torch.zeros(m, m, dtype=torch.float64), torch.ones(m, m, dtype=torch.float64)
    for i in range(m - 1):
        gap = centered[:, i, None] - centered[:, i + 1 :]
        cov = torch.einsum("smi,smj->mij", gap, gap) / (count - 1)
        eigenvalues, eigenvectors = torch.linalg.eigh(cov)
        size = x[:, [i]].square().mean((0, 1)).sum() + x[:, i + 1 :].square().mean(0).sum(1)  # rounding is part of it
        real = eigenvalues > n * EPS * torch.maximum(eigenvalues[:, -1:], EPS * size[:, None])
        along = (eigenvectors.mT @ (mean[i] - mean[i + 1 :])[..., None])[..., 0]
        inside = torch.where(real, along**2 / eigenvalues, 0.0).sum(1)
        outside = torch.where(real, 0.0, along).square().sum(1) > (1e3 * EPS) ** 2 * size
        result[i, i + 1 :] = torch.where(outside, torch.inf, inside)
        rank[i, i + 1 :] = real.sum(1).clamp(min=1)
    return result + result.T, torch.maximum(rank, rank.T)


def _false_discovery(p_value: Tensor) -> Tensor:
    from scipy.stats import false_discovery_control

    adjusted = np.ones(p_value.shape)
    pairs = np.triu_indices(len(p_value), 1)
    if len(pairs[0]):
        adjusted[pairs] = false_discovery_control(p_value.numpy()[pairs])
    return torch.from_numpy(np.minimum(adjusted, adjusted.T))
