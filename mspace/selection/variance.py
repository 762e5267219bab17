"""Relevance of a neuron by its distribution alone: how far from zero, or from the prior, it is for its spread."""

from __future__ import annotations

import math
from numbers import Real

import torch
from scipy.special import chdtr
from torch import Tensor

from ..neurons import NeuronDistribution
from .arrays import spectrum

__all__ = ["kl", "root_of", "significance", "wald"]

EPS = torch.finfo(torch.float64).eps
OUTSIDE = 1e-6  # of the mean: what lies outside the range of a covariance by more is not rounding


def wald(neurons: NeuronDistribution) -> Tensor:
    """Wald's statistic ``m.T S^-1 m`` of the hypothesis that a neuron is zero, (m,); chi^2 with n degrees of freedom.

    For n = 1 the square of mean over standard deviation (Graves 2011), for least squares the squared t statistic. With
    S = H^-1 it is twice the rise of the loss by optimal brain surgeon. A singular covariance is inverted on its range,
    as long as the mean lies there.

    Raises:
        ValueError: where a weight that is not zero has no variance, so that the statistic is infinite
    """
    return _wald(neurons)[0]


def significance(neurons: NeuronDistribution) -> Tensor:
    """Wald's statistic on a scale from 0 to 1, (m,): one minus its p-value, by as many degrees as S has rank.

    Most neurons of a trained network are as good as 1, so it tells the weak ones apart, not the strong.
    """
    found, rank = _wald(neurons)
    return torch.where(rank > 0, torch.from_numpy(chdtr(rank.clamp(min=1).numpy(), found.numpy())), 0.0)


def _wald(neurons: NeuronDistribution) -> tuple[Tensor, Tensor]:
    """The statistic and the rank of each covariance."""
    mean, variance = neurons.mean, neurons.cov.diagonal(dim1=1, dim2=2)
    flat = variance <= (8 * EPS * mean).square()
    scale = torch.where(flat, 1.0, variance.clamp(min=0).sqrt())
    free = (~flat).double()
    power, axes, kept = spectrum(neurons.cov * (free / scale)[:, :, None] * (free / scale)[:, None, :])
    scaled = free * mean / scale
    along = (axes.mT @ scaled[..., None])[..., 0]
    outside = torch.where(kept, 0.0, along).norm(dim=1) > OUTSIDE * scaled.norm(dim=1)
    certain = outside | (flat & (mean != 0)).any(1)
    if certain.any():
        first, still = int(certain.nonzero()[0]), certain & (kept.sum(1) == 0)
        way_out = "draw more networks than weights, or leave out what is known with `marginal`"
        if still.any():
            way_out = (
                f"{int(still.sum())} never move at all, as dead units do, leave them out, neurons[...]; else {way_out}"
            )
        raise ValueError(
            f"wald is infinite for {int(certain.sum())} of {len(neurons)} neurons, the first is {first}: its mean is not "
            f"zero where its covariance, of rank {int(kept[first].sum())} in R^{neurons.dim}, has no variance: {way_out}; "
            "or use by='magnitude'"
        )
    return torch.where(kept, along.square() / torch.where(kept, power, 1.0), 0.0).sum(1), kept.sum(1)


def kl(
    neurons: NeuronDistribution, prior: NeuronDistribution | None = None, *, prior_precision: float | None = None
) -> Tensor:
    """KL(neuron || prior) in nats, (m,): how much the data had to say about each neuron.

    Args:
        prior: of as many neurons, or of one for all; by default independent weights N(0, 1 / prior_precision)
        prior_precision: by default 1

    Raises:
        ValueError: for singular covariances, from which the divergence is infinite
    """
    if prior is not None and prior_precision is not None:
        raise ValueError(f"prior_precision goes with prior=None, got {prior_precision} beside a prior: leave one out")
    prior = _isotropic(neurons.dim, prior_precision) if prior is None else prior
    if not isinstance(prior, NeuronDistribution) or prior.dim != neurons.dim or len(prior) not in (1, len(neurons)):
        raise ValueError(
            f"prior must be a NeuronDistribution of 1 or {len(neurons)} neurons in R^{neurons.dim}, got {_said(prior)}"
        )
    own, theirs = root_of(neurons, "neurons", "kl"), root_of(prior, "prior", "kl")
    spread = torch.linalg.solve_triangular(theirs, own, upper=False).square().sum((1, 2))
    step = torch.linalg.solve_triangular(theirs, (neurons.mean - prior.mean)[..., None], upper=False)
    volume, volumes = (r.diagonal(dim1=1, dim2=2).log().sum(1) for r in (own, theirs))
    return ((spread + step.square().sum((1, 2)) - neurons.dim) / 2 + volumes - volume).clamp(min=0)


def _isotropic(n: int, precision: float | None) -> NeuronDistribution:
    precision = 1.0 if precision is None else precision
    if not isinstance(precision, Real) or not 0 < precision < math.inf:
        raise ValueError(f"prior_precision must be a positive number, got {precision!r}")
    return NeuronDistribution(torch.zeros(1, n), torch.eye(n)[None].double() / precision)


def root_of(neurons: NeuronDistribution, name: str, by: str) -> Tensor:
    """Cholesky's factors (m, n, n), where there are some."""
    power = torch.linalg.eigvalsh(neurons.cov)
    singular = power[:, 0] <= neurons.dim * EPS * power[:, -1]
    if singular.any():
        raise ValueError(
            f"{name} must have covariances of full rank for by={by!r}, got {int(singular.sum())} of {len(neurons)} "
            f"singular, the first of neuron {int(singular.nonzero()[0])}: draw more networks than weights, or use by='wald'"
        )
    return torch.linalg.cholesky(neurons.cov)


def _said(prior) -> str:
    is_one = isinstance(prior, NeuronDistribution)
    return f"{len(prior)} in R^{prior.dim}" if is_one else type(prior).__name__
