"""Distances that compare densities: they need covariances of full rank, and no unit of measurement.

`kullback_leibler` is the divergence, one way; `jeffreys` adds both ways; `hellinger` is a distance. The divergence of a
whole posterior from a prior is in `mspace.posterior.variational`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._linalg import gaussian_kl
from ..neurons import NeuronDistribution, check_populations
from .metric import Metric
from .wasserstein import members_of

__all__ = ["hellinger", "jeffreys", "kullback_leibler", "require_full_rank", "whiten"]

TOLERANCE, ITERATIONS = 1e-12, 1000


def require_full_rank(name: str, *populations: NeuronDistribution) -> None:
    """Refuse populations of which some neurons have no density, and name the ways out."""
    for p in dict.fromkeys(populations):
        flat = ~p.full_rank
        if flat.any():
            raise ValueError(
                f"{name} needs covariances of full rank, got {int(flat.sum())} of {len(p)} singular, the first of "
                f"neuron {int(flat.nonzero()[0])}: use wasserstein2, draw more than {p.dim} models, take fewer "
                "coordinates with `marginal`, bring inputs to one scale, or add a multiple of the identity to `cov`"
            )


def whiten(p: NeuronDistribution) -> Tensor:
    """Return L^-1 (m, n, n), where L L^T is the covariance."""
    lower = torch.linalg.cholesky(p.cov)
    return torch.linalg.solve_triangular(lower, torch.eye(p.dim, dtype=lower.dtype).expand_as(lower), upper=False)


def kullback_leibler(p: NeuronDistribution, q: NeuronDistribution | None = None) -> Tensor:
    """Return the Kullback-Leibler divergences KL(p_i || q_j) in nats, (m, k): zero where both are equal, not symmetric.

    Raises:
        ValueError: for covariances that are singular, or populations of different dimensions.
    """
    p, q = check_populations(p, q)
    require_full_rank("kullback_leibler", p, q)
    return torch.stack([gaussian_kl(mean, cov, q.mean, q.cov) for mean, cov in zip(p.mean, p.cov)])


def _jeffreys(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    require_full_rank("jeffreys", p, q)
    white, other = whiten(p), whiten(q)
    precision, precisions = white.mT @ white, other.mT @ other
    result = torch.empty(len(p), len(q), dtype=torch.float64)
    for i in range(len(p)):
        step = q.mean - p.mean[i]
        near = (step @ white[i].T).square().sum(1) + (other @ step[..., None]).square().sum((1, 2))
        # tr P_i S_j + tr P_j S_i - 2n as one trace of differences, which vanishes with them
        spread = ((precision[i] - precisions) * (q.cov - p.cov[i])).sum((1, 2))
        result[i] = (near + spread) / 2
    return (result if q is not p else (result + result.T) / 2).clamp(min=0)


def _jeffreys_center(p: NeuronDistribution, weights: Tensor, start=None) -> NeuronDistribution:
    """Minimise over the mean, then over the covariance, each in closed form, until nothing changes.

    With A the mean precision and B the mean of S_i + (m - m_i)(m - m_i)^T the best covariance solves S A S = B: it
    is the geometric mean of A^-1 and B (Moakher and Batchelor 2006, for equal means).
    """
    require_full_rank("jeffreys", p)
    white = whiten(p)
    precision = white.mT @ white
    a = torch.einsum("km,mij->kij", weights, precision)
    pulled = torch.einsum("km,mij,mj->ki", weights, precision, p.mean)
    average, scatter = weights @ p.mean, p.mean_cov(weights)
    upper = torch.linalg.cholesky(a).mT
    mean, cov = average, torch.zeros_like(scatter)
    for _ in range(ITERATIONS):
        step = p.mean - mean[:, None]
        before, cov = cov, _solve_riccati(upper, scatter + torch.einsum("km,kmi,kmj->kij", weights, step, step))
        inverse = torch.linalg.inv(cov)
        mean = torch.linalg.solve(a + inverse, pulled + (inverse @ average[..., None])[..., 0])
        if _settled(cov, before):
            break
    return NeuronDistribution(mean, cov)


def _solve_riccati(upper: Tensor, b: Tensor) -> Tensor:
    """Return S with S A S = B, where A = U^T U: S = U^-1 (U B U^T)^1/2 U^-T."""
    eigenvalues, eigenvectors = torch.linalg.eigh(upper @ b @ upper.mT)
    root = eigenvectors * eigenvalues.clamp(min=0)[..., None, :] ** 0.25
    half = torch.linalg.solve_triangular(upper, root, upper=True)
    return half @ half.mT


def _hellinger(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    require_full_rank("hellinger", p, q)
    volume, volumes = (torch.linalg.cholesky(x.cov).diagonal(dim1=1, dim2=2).log().sum(1) for x in (p, q))
    result = torch.empty(len(p), len(q), dtype=torch.float64)
    for i in range(len(p)):
        lower = torch.linalg.cholesky((p.cov[i] + q.cov) / 2)
        step = torch.linalg.solve_triangular(lower, (q.mean - p.mean[i])[..., None], upper=False)
        larger = lower.diagonal(dim1=1, dim2=2).log().sum(1) - (volume[i] + volumes) / 2
        result[i] = step.square().sum((1, 2)) / 8 + larger
    if q is p:
        result = ((result + result.T) / 2).fill_diagonal_(0.0)
    return (-torch.expm1(-result.clamp(min=0))).sqrt()


def _hellinger_center(p: NeuronDistribution, weights: Tensor, start) -> NeuronDistribution:
    """Maximise the mean affinity, the integral of sqrt(p_i q), as EM would a mixture: it never falls.

    sqrt(p_i q) is a Gaussian again; the moments of these, weighted by their mass, are those of the next q (Nielsen and
    Boltz 2011 have the case of equal masses).
    """
    require_full_rank("hellinger", p)
    white = whiten(p)
    precision = white.mT @ white
    pull = (precision @ p.mean[..., None])[..., 0]
    volume = torch.linalg.slogdet(precision).logabsdet
    center, member, weight = members_of(weights)
    begin = start or NeuronDistribution(weights @ p.mean, p.mean_cov(weights))
    mean, cov = begin.mean, begin.cov
    for _ in range(ITERATIONS):
        inverse = torch.linalg.inv(cov)
        spread = torch.linalg.inv((precision[member] + inverse[center]) / 2)
        middle = (pull[member] + (inverse @ mean[..., None])[center, :, 0]) / 2
        middle = (spread @ middle[..., None])[..., 0]
        apart = p.mean[member] - mean[center]
        # log of the affinity: P_i (P_i + P)^-1 P is the precision of the sum
        far = torch.einsum("bi,bij,bjk,bkl,bl->b", apart, precision[member], spread, inverse[center], apart) / 8
        size = (volume[member] + torch.linalg.slogdet(inverse).logabsdet[center]) / 4 + spread.logdet() / 2 - far
        mass = _softmax(weight.log() + size, center, len(mean))
        before, old = mean, cov
        mean = torch.zeros_like(mean).index_add_(0, center, mass[:, None] * middle)
        off = middle - mean[center]
        moments = spread + off[:, :, None] * off[:, None]
        cov = torch.zeros_like(cov).index_add_(0, center, mass[:, None, None] * moments)
        size = cov.diagonal(dim1=1, dim2=2).sum(1)
        if _settled(cov, old) and ((mean - before).square().sum(1) <= TOLERANCE**2 * size).all():
            break
    return NeuronDistribution(mean, (cov + cov.mT) / 2)


def _softmax(logs: Tensor, center: Tensor, k: int) -> Tensor:
    """Return weights that add to one for each center."""
    top = torch.full((k,), -torch.inf, dtype=logs.dtype).scatter_reduce_(0, center, logs, "amax")
    raw = (logs - top[center]).exp()
    return raw / torch.zeros(k, dtype=logs.dtype).index_add_(0, center, raw)[center]


def _settled(new: Tensor, old: Tensor) -> bool:
    return bool(((new - old).norm(dim=(1, 2)) <= TOLERANCE * new.norm(dim=(1, 2))).all())


jeffreys = Metric(_jeffreys, _jeffreys_center, power=1, name="jeffreys")
hellinger = Metric(_hellinger, _hellinger_center, name="hellinger")
