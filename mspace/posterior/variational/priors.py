"""Gaussian priors and the Kullback-Leibler divergence from a Gaussian to them, in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..._linalg import is_full_rank
from ...checks import check_real
from ..gaussian import Block, GaussianPosterior
from .families import Full, squares

__all__ = ["Given", "Isotropic", "kl_divergence", "prior_of"]


class Isotropic:
    """Every parameter N(0, 1 / precision) by itself."""

    def __init__(self, indices: Sequence[Tensor], precision: float):
        self.precision, self.size = precision, sum(i.numel() for i in indices)
        self.logdet = -self.size * math.log(precision)

    def weight(self, i: int) -> float:
        """Return the precision inside the blocks of group i."""
        return self.precision

    def distance(self, means: Sequence[Tensor]) -> Tensor:
        """Return the squared Mahalanobis distance of means (N, k, b) of all groups from the prior's, (N,)."""
        return self.precision * sum(squares(m) for m in means)


class Given:
    """Another posterior, of which only the parameters that are random here are looked at (its marginal).

    Only precisions inside the blocks of the family enter the trace, so they are gathered once.
    """

    def __init__(self, indices: Sequence[Tensor], prior: GaussianPosterior, diagonal: bool, like: Tensor):
        order = torch.cat([i.reshape(-1) for i in indices])
        self.size = len(order)
        _must_cover(prior, order)
        prior = prior.marginal(order.sort().values)
        place = torch.empty_like(prior.mean, dtype=torch.long)
        place[order] = torch.arange(self.size)
        self.mean, self.logdet, self.whiten = prior.mean[order].to(like), 0.0, []
        precisions = []
        for block in prior.blocks:
            root = _root(block, prior)
            self.logdet += 2 * float(root.diagonal(dim1=1, dim2=2).log().sum())
            white = torch.linalg.solve_triangular(root, torch.eye(root.shape[1]).double(), upper=False)
            precisions.append(Block(block.index, white.mT @ white))
            self.whiten.append((place[block.index], white.to(like)))
        inverse = GaussianPosterior(prior.template, prior.mean, precisions)
        if diagonal:
            every = torch.cat([v.reshape(-1) for v in inverse.variance().values()])
            self.weights = [every[i].to(like) for i in indices]
        else:
            self.weights = [torch.stack([inverse.cov(row) for row in i]).to(like) for i in indices]

    def weight(self, i: int) -> Tensor:
        """Return the precision inside the blocks of group i, (k, b, b), or (k, b) for a diagonal family."""
        return self.weights[i]

    def distance(self, means: Sequence[Tensor]) -> Tensor:
        """Return the squared Mahalanobis distance of means (N, k, b) of all groups from the prior's, (N,)."""
        away = torch.cat([m.flatten(1) for m in means], 1) - self.mean
        return sum(squares(white @ away[:, at, None]) for at, white in self.whiten)


def prior_of(prior, precision, template, indices, diagonal: bool, like: Tensor) -> Isotropic | Given:
    """Return the prior that was asked for; indices (k, b) are those of the random groups."""
    if prior is None:
        return Isotropic(indices, check_real(1.0 if precision is None else precision, "prior_precision"))
    if not isinstance(prior, GaussianPosterior):
        raise ValueError(f"prior must be a GaussianPosterior or None, got {type(prior).__name__}")
    if precision is not None:
        raise ValueError(f"prior_precision goes with prior=None only, got {precision} beside a prior: leave one out")
    theirs, ours = ([(k, tuple(p.shape)) for k, p in m.named_parameters()] for m in (prior.template, template))
    if theirs != ours:
        raise ValueError(f"prior must have the parameters of the model in their order, {ours}, got {theirs}")
    return Given(indices, prior, diagonal, like)


def kl_divergence(posterior: GaussianPosterior, prior: GaussianPosterior | None = None, *, prior_precision=None):
    """Return KL(posterior || prior) in nats over the parameters that are random in `posterior`, a float.

    Args:
        prior: of the same parameters; if None, N(0, 1 / prior_precision) for each, by default with precision 1

    Raises:
        ValueError: where the prior has no variance; a `posterior` without variance somewhere is infinitely far
    """
    if not posterior.blocks:
        raise ValueError("posterior has no random parameters, so there is nothing to compare")
    indices = [b.index for b in posterior.blocks]
    prior = prior_of(prior, prior_precision, posterior.template, indices, False, posterior.mean)
    roots = [b.root()[None] for b in posterior.blocks]
    logdet = sum(torch.linalg.eigvalsh(b.cov).clamp(min=0).log().sum() for b in posterior.blocks)
    trace = sum(Full.trace(r, prior.weight(i)) for i, r in enumerate(roots))
    away = prior.distance([posterior.mean[i][None] for i in indices])
    return float(trace + away - prior.size + prior.logdet - logdet) / 2


def _must_cover(prior: GaussianPosterior, order: Tensor) -> None:
    known = torch.ones_like(prior.mean)
    known[prior.index] = 0
    wanted = torch.zeros_like(prior.mean)
    wanted[order] = 1
    names = [k for k, v in prior.named(known * wanted).items() if v.any()]
    if names:
        raise ValueError(
            f"prior has no variance for {', '.join(names)}: name the random ones in layers=, or take a prior over these"
        )


def _root(block: Block, prior: GaussianPosterior) -> Tensor:
    """Return the Cholesky factors, or refuse a singular prior."""
    bad = ~is_full_rank(block.cov)
    if bad.any():
        at = torch.zeros_like(prior.mean)
        at[block.index[bad][0]] = 1
        names = ", ".join(k for k, v in prior.named(at).items() if v.any())
        raise ValueError(
            f"prior is singular in {names}, so every posterior is infinitely far from it: damp it, or leave those "
            "parameters out of layers="
        )
    return torch.linalg.cholesky(block.cov)
