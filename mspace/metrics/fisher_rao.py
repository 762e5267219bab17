"""The Fisher-Rao distance of Gaussians: geodesics of the information metric, and bounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .._linalg import EPS, row_distances
from ..neurons import NeuronDistribution, check_populations
from .information import jeffreys, require_full_rank, whiten
from .metric import Metric
from .wasserstein import members_of

__all__ = ["arrive", "fisher_rao", "fisher_rao_bounds", "nearest", "velocity"]

ROUNDING, STEPS = 1e-14, 100
EXACT = 5  # dimensions: above, n (n - 1) / 2 unknowns a pair are too many
PAIRS = 4096  # at once
FAR = 1e7  # standard deviations: squares of more lose the digits of what stands beside them
TOLERANCE, ITERATIONS = 1e-9, 200


def fisher_rao_bounds(p: NeuronDistribution, q: NeuronDistribution | None = None) -> tuple[Tensor, Tensor]:
    """Return bounds below and above the Fisher-Rao distance, (m, k) each, in any dimension.

    The lower one is the distance of Calvo and Oller (1990) between the matrices of second moments, a metric itself; the
    upper one the root of the Jeffreys divergence (Nielsen 2023).
    """
    p, q = check_populations(p, q)
    require_full_rank("fisher_rao_bounds", p, q)
    return _of_pairs(p, q, _lower_bound), jeffreys(p, q).sqrt()


def _distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    require_full_rank("fisher_rao", p, q)
    if (p.cov == p.cov[:1]).all() and (q.cov == p.cov[:1]).all():
        white = whiten(p)[0].T
        far = row_distances(p.mean @ white, q.mean @ white)
        return 2 * math.sqrt(2) * torch.asinh(far / math.sqrt(8))  # sqrt 2 arccosh (1 + far^2 / 4)
    if p.dim <= EXACT or _one_mean(p, q):
        return _of_pairs(p, q, _exact)
    warnings.warn(
        f"in R^{p.dim} fisher_rao gives a lower bound, itself a metric (Calvo and Oller 1990): it is exact up to "
        f"R^{EXACT}, and fisher_rao_bounds has both sides",
        UserWarning,
    )
    return _of_pairs(p, q, _lower_bound)


def _one_mean(p: NeuronDistribution, q: NeuronDistribution) -> bool:
    return bool((p.mean == p.mean[0]).all() and (q.mean == p.mean[0]).all())


def _of_pairs(p: NeuronDistribution, q: NeuronDistribution, kind: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return a distance (m, k), of which `kind` knows that of Gaussians (b, n) and (b, n, n) from a standard one."""
    if q is p:
        i, j = torch.triu_indices(len(p), len(p), 1)
    else:
        i, j = torch.cartesian_prod(torch.arange(len(p)), torch.arange(len(q))).T
    white = whiten(p)
    result, far = torch.zeros(len(p), len(q), dtype=torch.float64), 0
    for at, to in zip(i.split(PAIRS), j.split(PAIRS)):
        seen = _seen_from(white[at], p.mean[at], q.mean[to], q.cov[to])
        far += int((seen[0].norm(dim=1) > FAR).sum())
        result[at, to] = kind(*seen)
    if far:
        warnings.warn(
            f"{far} pairs of means lie more than {FAR:.0e} standard deviations apart, and their distances are known to "
            "few digits: are variances nothing but rounding? wasserstein2 is sure of such pairs",
            RuntimeWarning,
        )
    return result + result.T if q is p else result


def _seen_from(white: Tensor, origin: Tensor, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance in coordinates in which the other neuron is standard."""
    cov = white @ cov @ white.mT
    return (white @ (mean - origin)[..., None])[..., 0], (cov + cov.mT) / 2


def _lower_bound(mean: Tensor, cov: Tensor) -> Tensor:
    outer = torch.cat([cov + mean[:, :, None] * mean[:, None], mean[:, None]], 1)
    moments = torch.cat([outer, torch.cat([mean, torch.ones_like(mean[:, :1])], 1)[..., None]], 2)
    eigenvalues = torch.linalg.eigvalsh(moments)
    return eigenvalues.clamp(min=EPS * eigenvalues[:, -1:]).log().square().sum(1).div(2).sqrt()


def _exact(mean: Tensor, cov: Tensor) -> Tensor:
    if mean.shape[1] == 1:  # 4 artanh of a ratio, which keeps its digits where the paths are short
        deviation = cov[:, 0].sqrt()
        near, far = (mean**2 / 2 + (deviation + sign) ** 2 for sign in (-1, 1))
        return 2 * math.sqrt(2) * torch.atanh((near / far).sqrt())[:, 0]
    distance = torch.linalg.eigvalsh(cov).log().square().sum(1).div(2).sqrt()
    moved = mean.any(1)
    if moved.any():
        distance[moved] = _half_square(nearest(mean[moved], cov[moved])).sqrt()
    return distance


# A Gaussian N(m, S) is lifted to symmetric matrices G (2n + 1, 2n + 1), one for each antisymmetric A; the Fisher-Rao
# distance from the standard Gaussian is that from the identity to the nearest of them.


def velocity(g: Tensor) -> tuple[Tensor, Tensor]:
    """Return how mean (b, n) and covariance (b, n, n) begin to change on the way that reaches G in one unit of time."""
    n = g.shape[-1] // 2
    log = _logarithm(g)[0]
    return log[:, :n, n], -log[:, :n, :n]


def arrive(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance after one unit of time, from the standard Gaussian with such a velocity."""
    b, n = mean.shape
    log = torch.zeros(b, 2 * n + 1, 2 * n + 1, dtype=mean.dtype)
    log[:, :n, :n], log[:, n + 1 :, n + 1 :] = -cov, cov
    log[:, :n, n] = log[:, n, :n] = mean
    log[:, n + 1 :, n] = log[:, n, n + 1 :] = -mean
    g = torch.matrix_exp(log)
    there = torch.linalg.inv(g[:, :n, :n])
    return (there @ g[:, :n, n, None])[..., 0], (there + there.mT) / 2


def nearest(mean: Tensor, cov: Tensor) -> Tensor:
    """Return G (b, 2n + 1, 2n + 1) at the A that is nearest to the identity: damped Newton steps, all pairs at once."""
    free = _antisymmetric(mean.shape[1])
    g = _block_matrix(mean, cov)
    if not len(free):
        return g
    value = _half_square(g)
    active, result = torch.arange(len(g)), g.clone()
    for _ in range(STEPS):
        gradient, hessian = _derivatives(g, free)
        step = _newton_step(gradient, hessian)
        before, (g, value) = value, _descend(g, value, step, (gradient * step).sum(1), free)
        result[active] = g
        moving = before - value > ROUNDING * before
        if not moving.any():
            break
        active, g, value = active[moving], g[moving], value[moving]
    return result


def _newton_step(gradient: Tensor, hessian: Tensor) -> Tensor:
    """Return steps (b, d) down, also where the Hessian is indefinite."""
    eigenvalues, eigenvectors = torch.linalg.eigh(hessian)
    size = eigenvalues.abs()
    along = (eigenvectors.mT @ gradient[..., None])[..., 0]
    along = along / torch.maximum(size, 1e-10 * size.amax(1, keepdim=True) + 1e-30)
    return -(eigenvectors @ along[..., None])[..., 0]


def _descend(g: Tensor, value: Tensor, step: Tensor, slope: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return G and its value after the step, halved where the whole one does not go down enough."""
    share = torch.full((len(g), 1), 2.0, dtype=g.dtype)  # halved before the first trial too
    new, reached, enough = g, value, torch.zeros(len(g), dtype=torch.bool)
    for _ in range(30):
        share = torch.where(enough[:, None], share, share / 2)
        new = _turned(g, torch.einsum("bd,dij->bij", share * step, free))
        reached = _half_square(new)
        enough = reached <= value + 1e-4 * share[:, 0] * slope + 1e-15 * value
        if enough.all():
            break
    return torch.where(enough[:, None, None], new, g), torch.where(enough, reached, value)


def _antisymmetric(n: int) -> Tensor:
    """Return a basis (n (n - 1) / 2, n, n) of the antisymmetric matrices."""
    i, j = torch.triu_indices(n, n, 1)
    basis = torch.zeros(len(i), n, n, dtype=torch.float64)
    d = torch.arange(len(i))
    basis[d, i, j], basis[d, j, i] = 1.0, -1.0
    return basis


def _block_matrix(mean: Tensor, cov: Tensor) -> Tensor:
    b, n = mean.shape
    m = torch.eye(2 * n + 1, dtype=mean.dtype).repeat(b, 1, 1)
    m[:, n, :n], m[:, n + 1 :, n] = mean, -mean
    m[:, n + 1 :, :n] = -mean[:, :, None] * mean[:, None] / 2
    middle = torch.zeros_like(m)
    middle[:, :n, :n], middle[:, n, n], middle[:, n + 1 :, n + 1 :] = torch.linalg.inv(cov), 1.0, cov
    return m @ middle @ m.mT


def _turned(g: Tensor, a: Tensor) -> Tensor:
    """Return G at A + a, from G at A."""
    n = a.shape[-1]
    left = torch.eye(2 * n + 1, dtype=g.dtype).repeat(len(g), 1, 1)
    left[:, n + 1 :, :n] = a
    return left @ g @ left.mT


def _log_eigen(g: Tensor) -> tuple[Tensor, Tensor]:
    """Return logarithms (b, n) of the eigenvalues above one, which the rest mirrors, and all eigenvectors in order."""
    n = g.shape[-1] // 2
    eigenvalues, eigenvectors = torch.linalg.eigh((g + g.mT) / 2)
    return eigenvalues[:, n + 1 :].clamp(min=1).log(), eigenvectors


def _half_square(g: Tensor) -> Tensor:
    """Return the squared distances (b,) from the identity."""
    return _log_eigen(g)[0].square().sum(1) / 2


def _logarithm(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log G, with logarithms (b, 2n + 1) and eigenvectors: exchanging its outer blocks changes its sign."""
    n = g.shape[-1] // 2
    logs, vectors = _log_eigen(g)
    top = vectors[..., n + 1 :]
    swapped = torch.cat([top[:, n + 1 :], top[:, n : n + 1], top[:, :n]], 1)
    outer = (top * logs[:, None]) @ top.mT - (swapped * logs[:, None]) @ swapped.mT
    return outer, torch.cat([-logs.flip(1), torch.zeros_like(logs[:, :1]), logs], 1), vectors


def _derivatives(g: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradient (b, d) and Hessian (b, d, d) of sum log^2 / 4 in the coordinates of A.

    d log G follows from divided differences of the logarithm between eigenvalues (Daleckii and Krein).
    """
    n = free.shape[-1]
    log, logs, vectors = _logarithm(g)
    gradient = torch.einsum("bij,dji->bd", log[:, :n, n + 1 :], free)
    # E G + G E^T, E = free in the lower corner, in the basis of eigenvectors
    e = vectors[:, None, n + 1 :].mT @ free @ vectors[:, None, :n]
    gap = (logs[:, :, None] - logs[:, None]) / 2
    # (E e^l + (e^l) E^T) (l_i - l_j) / (e^l_i - e^l_j), written so that nothing overflows
    ratio = torch.where(gap.abs() < 1e-4, 1 - gap**2 / 6, gap / torch.sinh(gap))
    weight = ratio * torch.exp(-gap)
    change = e * weight[:, None] + (e * weight[:, None]).mT
    hessian = torch.einsum("bdij,bfji->bdf", change, e)
    return gradient, (hessian + hessian.mT) / 2


def _center(p: NeuronDistribution, weights: Tensor, start: NeuronDistribution | None) -> NeuronDistribution:
    """Return the Karcher mean: go along the mean of the velocities that lead to the members, until it vanishes."""
    require_full_rank("fisher_rao", p)
    if p.dim > EXACT:
        raise ValueError(
            f"fisher_rao has barycenters up to R^{EXACT}, got R^{p.dim}: use jeffreys, which also takes no notice of "
            "units, or wasserstein2"
        )
    center, member, weight = members_of(weights)
    here = jeffreys.barycenter(p, weights=weights) if start is None else start
    require_full_rank("fisher_rao", here)
    share, best = torch.ones(len(here), 1, dtype=torch.float64), torch.full((len(here),), torch.inf).double()
    at, way = (
        here,
        (here.mean, here.cov, here.cov, here.mean, here.cov),
    )  # mean, covariance, whitening, velocity of both
    for _ in range(ITERATIONS):
        white = whiten(at)
        g = nearest(*_seen_from(white[center], at.mean[center], p.mean[member], p.cov[member]))
        cost = torch.zeros_like(best).index_add_(0, center, weight * _half_square(g))
        new = (at.mean, at.cov, white, *(_total(x, center, weight, len(at)) for x in velocity(g)))
        worse = cost > best * (1 + 1e-12)  # went too far: turn back and take half the step
        way = tuple(_choose(worse, old, x) for old, x in zip(way, new))
        best, share = torch.minimum(cost, best), torch.where(worse[:, None], share / 2, share)
        mean, _, white, drift, growth = way
        size = (drift.square().sum(1) + growth.square().sum((1, 2)) / 2).sqrt() * share[:, 0]
        if (size <= TOLERANCE * (1 + best.sqrt())).all():
            break
        step, spread = arrive(share * drift, share[..., None] * growth)
        back = torch.linalg.inv(white)
        at = NeuronDistribution(mean + (back @ step[..., None])[..., 0], back @ spread @ back.mT)
    return NeuronDistribution(way[0], way[1])


def _choose(where: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(where.view(-1, *[1] * (a.ndim - 1)), a, b)


def _total(values: Tensor, center: Tensor, weight: Tensor, k: int) -> Tensor:
    weighted = weight.view(-1, *[1] * (values.ndim - 1)) * values
    return torch.zeros(k, *values.shape[1:], dtype=values.dtype).index_add_(0, center, weighted)


fisher_rao = Metric(_distance, _center, name="fisher_rao")
