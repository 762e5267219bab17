"""The Fisher-Rao distance: the length of the shortest path when steps are measured by the Fisher information."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from .barycenters import members_of
from .geodesics import arrive, length, nearest, velocity
from .information import jeffreys, require_full_rank, whiten
from .metric import Metric, checked

__all__ = ["fisher_rao", "fisher_rao_bounds"]

EXACT = 5  # dimensions: above, n (n - 1) / 2 unknowns a pair are too many
PAIRS = 4096  # at once
TOLERANCE, ITERATIONS = 1e-9, 200


def _distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    require_full_rank("fisher_rao", p, *([] if q is p else [q]))
    if (p.cov == p.cov[:1]).all() and (q.cov == p.cov[:1]).all():
        far = torch.cdist(p.mean @ whiten(p)[0].T, q.mean @ whiten(p)[0].T, compute_mode="donot_use_mm_for_euclid_dist")
        return 2 * math.sqrt(2) * torch.asinh(far / math.sqrt(8))  # sqrt 2 arccosh (1 + far^2 / 4)
    i, j = _pairs(p, q)
    if p.dim > EXACT and not (p.mean[i] == q.mean[j]).all():
        warnings.warn(
            f"in R^{p.dim} fisher_rao gives a lower bound, itself a metric (Calvo and Oller 1990): it is exact up to "
            f"R^{EXACT}, and fisher_rao_bounds has both sides",
            UserWarning,
        )
        return _spread(p, q, i, j, _lower_bound)
    return _spread(p, q, i, j, _exact)


def fisher_rao_bounds(p: NeuronDistribution, q: NeuronDistribution | None = None) -> tuple[Tensor, Tensor]:
    """Below and above the Fisher-Rao distance, (m, k) each, in any dimension.

    The lower one is the distance of Calvo and Oller (1990) between the matrices of second moments, a metric itself; the
    upper one the root of the Jeffreys divergence (Nielsen 2023).
    """
    p, q = checked(p, q)
    require_full_rank("fisher_rao_bounds", p, q)
    i, j = _pairs(p, q)
    return _spread(p, q, i, j, _lower_bound), jeffreys(p, q).sqrt()


def _pairs(p, q) -> tuple[Tensor, Tensor]:
    return tuple(
        torch.triu_indices(len(p), len(p), 1)
        if q is p
        else torch.cartesian_prod(torch.arange(len(p)), torch.arange(len(q))).T
    )


def _spread(p, q, i: Tensor, j: Tensor, kind) -> Tensor:
    """A distance of pairs as a matrix."""
    white = whiten(p)
    found = torch.zeros(len(p), len(q), dtype=torch.float64)
    for at, to in zip(i.split(PAIRS), j.split(PAIRS)):
        found[at, to] = kind(*_seen_from(white[at], p.mean[at], q.mean[to], q.cov[to]))
    return found + found.T if q is p else found


def _seen_from(white: Tensor, origin: Tensor, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance in coordinates in which the other neuron is standard."""
    cov = white @ cov @ white.mT
    return (white @ (mean - origin)[..., None])[..., 0], (cov + cov.mT) / 2


def _lower_bound(mean: Tensor, cov: Tensor) -> Tensor:
    outer = torch.cat([cov + mean[:, :, None] * mean[:, None], mean[:, None]], 1)
    moments = torch.cat([outer, torch.cat([mean, torch.ones_like(mean[:, :1])], 1)[..., None]], 2)
    return torch.linalg.eigvalsh(moments).log().square().sum(1).div(2).sqrt()


def _exact(mean: Tensor, cov: Tensor) -> Tensor:
    if mean.shape[1] == 1:  # 4 artanh of a ratio, which keeps its digits where the paths are short
        deviation = cov[:, 0].sqrt()
        near, far = (mean**2 / 2 + (deviation + sign) ** 2 for sign in (-1, 1))
        return 2 * math.sqrt(2) * torch.atanh((near / far).sqrt())[:, 0]
    distance = torch.linalg.eigvalsh(cov).log().square().sum(1).div(2).sqrt()
    moved = mean.any(1)
    if moved.any():
        distance[moved] = length(nearest(mean[moved], cov[moved]))
    return distance


def _center(p: NeuronDistribution, weights: Tensor, start: NeuronDistribution | None) -> NeuronDistribution:
    """Karcher mean: go along the mean of the velocities that lead to the members, until it vanishes."""
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
    at, way = here, None
    for _ in range(ITERATIONS):
        white = whiten(at)
        g = nearest(*_seen_from(white[center], at.mean[center], p.mean[member], p.cov[member]))
        cost = torch.zeros_like(best).index_add_(0, center, weight * length(g) ** 2)
        new = (at.mean, at.cov, white, *(_total(x, center, weight, len(at)) for x in velocity(g)))
        worse = cost > best * (1 + 1e-12)  # went too far: turn back and take half the step
        way = new if way is None else tuple(_choose(worse, old, x) for old, x in zip(way, new))
        best, share = torch.minimum(cost, best), torch.where(worse[:, None], share / 2, share)
        mean, _, white, drift, growth = way
        size = (drift.square().sum(1) + growth.square().sum((1, 2)) / 2).sqrt() * share[:, 0]
        if (size <= TOLERANCE * (1 + best.sqrt())).all():
            break
        step, spread = arrive(share * drift, share[..., None] * growth)
        back = torch.linalg.inv(white)
        at = NeuronDistribution(mean + (back @ step[..., None])[..., 0], back @ spread @ back.mT)
    return NeuronDistribution(*way[:2])


def _choose(where: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(where.view(-1, *[1] * (a.ndim - 1)), a, b)


def _total(values: Tensor, center: Tensor, weight: Tensor, k: int) -> Tensor:
    weighted = weight.view(-1, *[1] * (values.ndim - 1)) * values
    return torch.zeros(k, *values.shape[1:], dtype=values.dtype).index_add_(0, center, weighted)


fisher_rao = Metric(_distance, _center, name="fisher_rao")
