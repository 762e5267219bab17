"""Wasserstein barycenters of all clusters at once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from .bures import Factored

__all__ = ["members_of", "wasserstein_center"]

TOLERANCE, ITERATIONS, STILL = 1e-10, 1000, 1e-6
RISKY = 1e-5  # of the largest eigenvalue: below, rounding would show above the tolerance


def wasserstein_center(p: NeuronDistribution, weights: Tensor, start: NeuronDistribution | None) -> NeuronDistribution:
    """Means of the means, and covariances by the fixed point of Alvarez-Esteban et al. (2016).

    Its step S <- S^-1/2 (sum of w_i (S^1/2 S_i S^1/2)^1/2)^2 S^-1/2 is taken on a factor X of S = X X^T, where it
    reads X <- sum of w_i F_i U_i: the factors of the members, turned to lie nearest to X. That needs no inverse, so
    singular covariances are welcome, and factors may be narrow. Steps are extrapolated (Nesterov), and restart where
    they go uphill, until X changes by less than 1e-10 of itself.
    """
    mean = weights @ p.mean
    if not torch.triu(p.cov, 1).any():  # these commute: the standard deviations are averaged
        return NeuronDistribution(mean, torch.diag_embed((weights @ p.cov.diagonal(dim1=1, dim2=2).sqrt()) ** 2))
    first = torch.einsum("km,mij->kij", weights, p.cov) if start is None else start.cov
    power, axes = torch.linalg.eigh(first)
    root = _fixed_point(Factored.of(p).root, weights, axes * power.clamp(min=0).sqrt()[:, None])
    return NeuronDistribution(mean, root @ root.mT)


def _fixed_point(factors: Tensor, weights: Tensor, root: Tensor) -> Tensor:
    found, active = root.clone(), torch.arange(len(root))
    before, ahead, pace = root, root, torch.ones(len(root), 1, 1, dtype=root.dtype)
    center, member, weight = members_of(weights)
    for _ in range(ITERATIONS):
        new = _average(factors[member], ahead, center, weight)
        found[active] = new
        change = (new - before).norm(dim=(1, 2)) / new.norm(dim=(1, 2)).clamp(min=torch.finfo(new.dtype).tiny)
        moving = change > TOLERANCE
        if not moving.any():
            return found
        uphill = ((ahead - new) * (new - before)).sum((1, 2), keepdim=True) > 0
        pace = torch.where(uphill, 1.0, pace)
        faster = (1 + (1 + 4 * pace**2).sqrt()) / 2
        ahead = new + (pace - 1) / faster * (new - before)
        kept = moving[center]
        center, member, weight = (moving.cumsum(0) - 1)[center[kept]], member[kept], weight[kept]
        active, before, ahead, pace = active[moving], new[moving], ahead[moving], faster[moving]
    if (change > STILL).any():
        warnings.warn(
            f"{int((change > STILL).sum())} of {len(root)} barycenters still move after {ITERATIONS} iterations, by "
            f"{float(change.max()):.1e} of themselves: their covariances are far from each other and nearly singular",
            RuntimeWarning,
        )
    return found


def _average(factors: Tensor, root: Tensor, center: Tensor, weight: Tensor) -> Tensor:
    """Means of the factors, each turned to lie nearest to the root of its center."""
    turned = factors @ _polar(factors.mT @ root[center])
    return torch.zeros_like(root).index_add_(0, center, weight[:, None, None] * turned)


def _polar(cross: Tensor) -> Tensor:
    """The orthonormal rows nearest to those of (b, r, R), r <= R: by squares, twice as fast, where these are safe."""
    power, axes = torch.linalg.eigh(cross @ cross.mT)
    found = (axes / power.clamp(min=torch.finfo(power.dtype).tiny).sqrt()[:, None]) @ (axes.mT @ cross)
    risky = ~(power[:, 0] > RISKY * power[:, -1])
    if risky.any():
        left, _, right = torch.linalg.svd(cross[risky], full_matrices=False)
        found[risky] = left @ right
    return found


def members_of(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs that count: numbers of center and member, and the weight."""
    center, member = weights.nonzero(as_tuple=True)
    return center, member, weights[center, member]
