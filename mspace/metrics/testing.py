"""Are two neurons equal? A paired test for all pairs, with the false discoveries among them held down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import chdtrc, fdtrc
from torch import Tensor

from ..checks import check_fraction
from ..threads import small
from .bias import _draws

__all__ = ["MergeTest", "merge_test"]

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class MergeTest:
    """The hypothesis that two neurons are equal, for every pair.

    Attributes:
        statistic: (m, m), Hotelling's T^2, or the squared Mahalanobis distance for single networks
        p_value: (m, m), one on the diagonal
        adjusted: (m, m), after Benjamini and Hochberg (1995) over the m (m - 1) / 2 pairs
    """

    statistic: Tensor
    p_value: Tensor
    adjusted: Tensor

    def equal(self, level: float = 0.05) -> Tensor:
        """Pairs (m, m) that are not told apart; of those that are, a share of `level` is expected to be wrong."""
        return self.adjusted > check_fraction(level, "level")


def merge_test(samples, *, single: bool = False) -> MergeTest:
    """Test for every pair of neurons whether they are equal, by their difference in each network.

    The differences D_s of N networks have a mean D and a covariance S, which holds that neurons of one network vary
    together. With T^2 = N D^T S^-1 D, (N - n) / (n (N - 1)) T^2 has the law F(n, N - n) if the expected difference is
    zero (Hotelling 1931). Not being told apart is no proof of being equal: more draws tell more pairs apart.

    Args:
        samples: (N, m, n) draws of m neurons with n weights, N > n, the networks on axis 0 and aligned
        single: ask whether zero is a likely difference within one network, D^T S^-1 D against chi^2 with n degrees
            of freedom, instead of whether the mean difference is zero. This does not change with N.

    Raises:
        ValueError: if there are no more draws than weights.
    """
    x = _draws(samples, 2)
    count, _, n = x.shape
    if count <= n:
        raise ValueError(
            f"samples must hold more draws than weights, got {count} of neurons in R^{n}: train at least {n + 1} "
            "networks, or test some of the coordinates, samples[..., coords]"
        )
    with small(x.shape[2]):
        distance, rank = _mahalanobis(x)
    if single:
        statistic, p_value = distance, chdtrc(rank.numpy(), distance.numpy())
    else:
        statistic = count * distance
        share = torch.where(statistic == 0, 0.0, statistic * (count - rank) / (rank * (count - 1)))
        p_value = fdtrc(rank.numpy(), (count - rank).numpy(), share.numpy())
    p_value = torch.as_tensor(p_value, dtype=torch.float64)
    return MergeTest(statistic, p_value, _false_discovery(p_value))


def _mahalanobis(x: Tensor) -> tuple[Tensor, Tensor]:
    """D^T S^-1 D (m, m) and the rank of S; infinite where D leaves the range of S."""
    count, m, n = x.shape
    mean, centred = x.mean(0), x - x.mean(0)
    found, rank = torch.zeros(m, m, dtype=torch.float64), torch.ones(m, m, dtype=torch.float64)
    for i in range(m - 1):
        gap = centred[:, i, None] - centred[:, i + 1 :]
        cov = torch.einsum("smi,smj->mij", gap, gap) / (count - 1)
        power, axes = torch.linalg.eigh(cov)
        size = x[:, [i]].square().mean((0, 1)).sum() + x[:, i + 1 :].square().mean(0).sum(1)  # rounding is part of it
        real = power > n * EPS * torch.maximum(power[:, -1:], EPS * size[:, None])
        along = (axes.mT @ (mean[i] - mean[i + 1 :])[..., None])[..., 0]
        inside = torch.where(real, along**2 / power, 0.0).sum(1)
        outside = torch.where(real, 0.0, along).square().sum(1) > (1e3 * EPS) ** 2 * size
        found[i, i + 1 :] = torch.where(outside, torch.inf, inside)
        rank[i, i + 1 :] = real.sum(1).clamp(min=1)
    return found + found.T, torch.maximum(rank, rank.T)


def _false_discovery(p_value: Tensor) -> Tensor:
    from scipy.stats import false_discovery_control

    adjusted = np.ones(p_value.shape)
    pairs = np.triu_indices(len(p_value), 1)
    if len(pairs[0]):
        adjusted[pairs] = false_discovery_control(p_value.numpy()[pairs])
    return torch.from_numpy(np.minimum(adjusted, adjusted.T))
