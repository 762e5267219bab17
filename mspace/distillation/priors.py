"""Priors made of a teacher's posterior that say less than it does."""

from __future__ import annotations

import math
from numbers import Real

import torch

from ..covariance.posterior import Block, GaussianPosterior
from .places import must_be_posterior

__all__ = ["mean_only", "temper"]


def temper(posterior: GaussianPosterior, rho: float, *, prior_precision: float = 1.0) -> GaussianPosterior:
    """The teacher's posterior to the power `rho` times the broad prior to the power ``1 - rho``, normalised.

    If the posterior is that of n examples under N(0, 1 / prior_precision), this is the one where each counts `rho` times
    (a power prior, Ibrahim and Chen 2000): precisions are ``rho P + (1 - rho) prior_precision``. A student that sees the
    teacher's own examples again, with the whole posterior for a prior, counts them twice.

    Args:
        posterior: a teacher's, in the student's shape or before
        rho: from 0, the broad prior, to 1, the posterior; choose it on held-out data, and report it
        prior_precision: of the broad prior, that of the teacher's training
    """
    must_be_posterior(posterior)
    rho, precision = _share(rho), _positive(prior_precision)
    mean, blocks = posterior.mean.clone(), []
    for block in posterior.blocks:
        power, axes = torch.linalg.eigh(block.cov)
        power = power.clamp(min=0)
        both = rho + (1 - rho) * precision * power  # times the precision of the posterior
        if rho == 0:
            cov, pull = torch.full_like(power, 1 / precision), torch.zeros_like(power)
        else:
            cov, pull = power / both, rho / both
        mean[block.index] = ((axes * pull[:, None]) @ (axes.mT @ mean[block.index][..., None])).squeeze(-1)
        blocks.append(Block(block.index, _symmetric(axes @ (cov[..., None] * axes.mT))))
    report = dict(posterior.report) | {"rho": rho, "prior_precision": precision}
    return GaussianPosterior(posterior.template, mean, tuple(blocks), report)


def mean_only(posterior: GaussianPosterior, *, prior_precision: float = 1.0) -> GaussianPosterior:
    """The teacher's mean with a variance of ``1 / prior_precision`` for every random parameter, independently."""
    must_be_posterior(posterior)
    variance = 1 / _positive(prior_precision)
    index = posterior.index[:, None]
    blocks = (Block(index, torch.full((len(index), 1, 1), variance, dtype=torch.float64)),) if len(index) else ()
    return GaussianPosterior(posterior.template, posterior.mean, blocks, dict(posterior.report))


def _share(rho) -> float:
    if isinstance(rho, bool) or not isinstance(rho, Real) or not 0 <= rho <= 1:
        raise ValueError(f"rho must be a share from 0 (nothing of the teacher) to 1 (all of it), got {rho!r}")
    return float(rho)


def _positive(precision) -> float:
    if isinstance(precision, bool) or not isinstance(precision, Real) or not 0 < precision < math.inf:
        raise ValueError(f"prior_precision must be a positive number, got {precision!r}")
    return float(precision)


def _symmetric(cov):
    return (cov + cov.mT) / 2
