"""Families of Gaussians whose covariance is trained, and their Kullback-Leibler divergence from Gaussian priors.

Sigma = S R R^T S, with S the scale of every number by itself. In R stands a correlation, of order one whatever the units.
Everything is batched: N posteriors side by side, each of k blocks (neurons) of b numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..._linalg import is_full_rank
from ...checks import check_real
from ..gaussian import Block, GaussianPosterior

__all__ = ["FAMILIES", "Diagonal", "Full", "LowRank", "columns_of", "kl_divergence", "prior_of", "squares"]

SPEED = 10.0  # numbers of order one are kept divided by this, so that a rate that suits weights moves them in time
FAMILIES = ("full", "diagonal", "low_rank", "block")


def squares(t: Tensor) -> Tensor:
    """The sum of squares of every member, (N, ...) to (N,): the norm has a shorter gradient than squares have."""
    norm = torch.linalg.vector_norm(t.flatten(1), dim=1)
    return norm * norm


class Diagonal:
    """Every number by itself; its root is taken to be the variance, (N, k, b)."""

    def __init__(self, start: Tensor):
        self.log = (start.log() / SPEED).requires_grad_()
        self.normals = start.shape[2]  # how many standard normals a draw of one block takes

    def leaves(self) -> list[Tensor]:
        """What is trained."""
        return [self.log]

    def root(self) -> Tensor:
        """A square root of the covariance, in the form that the other methods take."""
        return torch.exp(2 * SPEED * self.log)

    @staticmethod
    def shift(root: Tensor, z: Tensor) -> Tensor:
        """Standard normals (N, S, k, normals) as draws of the covariance about zero, (N, S, k, b)."""
        return root.sqrt()[:, None] * z

    @staticmethod
    def variance(root: Tensor, x: Tensor) -> Tensor:
        """``x^T Sigma x`` of every block for inputs (N, B, b), (N, B, k)."""
        return torch.bmm(x * x, root.mT)

    @staticmethod
    def total(root: Tensor, x: Tensor) -> Tensor:
        """The sum of `variance` over inputs and blocks, (N,), without its parts."""
        return ((x * x).sum(1) * root.sum(1)).sum(1)

    @staticmethod
    def trace(root: Tensor, precision: Tensor | float) -> Tensor:
        """The trace of a precision times the covariance, (N,); the precision one number, or its diagonal (k, b)."""
        return (precision * root).sum((1, 2)) if isinstance(precision, Tensor) else precision * root.sum((1, 2))

    def logdet(self, root: Tensor) -> Tensor:
        """Of the covariances of all blocks together, (N,)."""
        return 2 * SPEED * self.log.sum((1, 2))

    def cov(self) -> Tensor:
        """(N, k, b, b), float64."""
        return self.root().detach().double().diag_embed()


class Full(Diagonal):
    """Any covariance of a block, or of groups inside it: R is lower triangular with a diagonal of ones.

    Its root is the Cholesky factor ``S R``, (N, k, b, b).
    """

    def __init__(self, start: Tensor, groups: Sequence[Tensor] | None = None):
        super().__init__(start)
        size = start.shape[2]
        self.below = start.new_zeros(*start.shape, size).requires_grad_()
        self.eye, mask = torch.eye(size).to(start), start.new_ones(size, size)
        if groups is not None:
            group = torch.empty(size, dtype=torch.long)
            for i, columns in enumerate(groups):
                group[columns] = i
            mask = (group[:, None] == group).to(start)
        self.mask = SPEED * mask.tril(-1)

    def leaves(self) -> list[Tensor]:
        """What is trained."""
        return [self.log, self.below]

    def root(self) -> Tensor:
        """The Cholesky factor."""
        return torch.exp(SPEED * self.log)[..., None] * torch.addcmul(self.eye, self.below, self.mask)

    @staticmethod
    def shift(root: Tensor, z: Tensor) -> Tensor:
        """As of `Diagonal`."""
        return torch.einsum("nkij,nskj->nski", root, z)

    @staticmethod
    def variance(root: Tensor, x: Tensor) -> Tensor:
        """As of `Diagonal`."""
        parts = torch.einsum("nbj,nkjr->nbkr", x, root)
        return (parts * parts).sum(-1)

    @staticmethod
    def total(root: Tensor, x: Tensor) -> Tensor:
        """As of `Diagonal`."""
        return (torch.bmm(x.mT, x) * torch.einsum("nkir,nkjr->nij", root, root)).sum((1, 2))

    @staticmethod
    def trace(root: Tensor, precision: Tensor | float) -> Tensor:
        """As of `Diagonal`, the precision one number or (k, b, b)."""
        return (
            ((precision @ root) * root).sum((1, 2, 3)) if isinstance(precision, Tensor) else precision * squares(root)
        )

    def cov(self) -> Tensor:
        """(N, k, b, b), float64."""
        root = self.root().detach().double()
        return root @ root.mT


class LowRank(Diagonal):
    """``Sigma = F F^T + diag(d)`` with r columns in F: ``S (I + V V^T) S``. Its root is the pair (d, F)."""

    def __init__(self, start: Tensor, rank: int, streams: Sequence[torch.Generator]):
        super().__init__(start)
        self.normals = start.shape[2] + rank
        shape = (*start.shape[1:], rank)  # at zero the gradient is zero, so it starts beside it
        drawn = torch.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in streams])
        self.factor = (0.1 / SPEED * drawn).to(start).requires_grad_()

    def leaves(self) -> list[Tensor]:
        """What is trained."""
        return [self.log, self.factor]

    def root(self) -> tuple[Tensor, Tensor]:
        """Variances (N, k, b) and F (N, k, b, r)."""
        scale = torch.exp(SPEED * self.log)
        return scale * scale, (SPEED * scale)[..., None] * self.factor

    @staticmethod
    def shift(root: tuple[Tensor, Tensor], z: Tensor) -> Tensor:
        """As of `Diagonal`."""
        own, common = z.split([root[1].shape[2], root[1].shape[3]], dim=3)
        return Diagonal.shift(root[0], own) + Full.shift(root[1], common)

    @staticmethod
    def variance(root: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """As of `Diagonal`."""
        return Diagonal.variance(root[0], x) + Full.variance(root[1], x)

    @staticmethod
    def total(root: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """As of `Diagonal`."""
        return Diagonal.total(root[0], x) + Full.total(root[1], x)

    @staticmethod
    def trace(root: tuple[Tensor, Tensor], precision: Tensor | float) -> Tensor:
        """As of `Diagonal`, the precision one number or (k, b, b)."""
        own = precision.diagonal(dim1=1, dim2=2) if isinstance(precision, Tensor) else precision
        return Diagonal.trace(root[0], own) + Full.trace(root[1], precision)

    def logdet(self, root: tuple[Tensor, Tensor]) -> Tensor:
        """By the matrix determinant lemma, in the r dimensions of F."""
        eye = torch.eye(self.factor.shape[3]).to(self.factor)
        return super().logdet(root) + torch.logdet(eye + SPEED**2 * self.factor.mT @ self.factor).sum(1)

    def cov(self) -> Tensor:
        """(N, k, b, b), float64."""
        own, factor = (r.detach().double() for r in self.root())
        return own.diag_embed() + factor @ factor.mT


def columns_of(index: Tensor, sizes: Sequence[int], blocks: int | Sequence[int] | None) -> list[Tensor]:
    """The groups of numbers inside a block that correlate, as columns of index (k, b).

    Args:
        sizes: of the parameters of the network, in order
        blocks: how many consecutive numbers make a group, or a number for each group; by default a group for the
            part of each parameter
    """
    b = index.shape[1]
    if blocks is None:
        ends = torch.tensor(sizes).cumsum(0)
        part = torch.searchsorted(ends, index[0], right=True)
        return [(part == i).nonzero().flatten() for i in part.unique()]
    if not isinstance(blocks, int) and sum(blocks) != b:
        raise ValueError(f"blocks must sum to {b}, the parameters of a neuron with its bias, got {list(blocks)}")
    return list(torch.arange(b).split(blocks if isinstance(blocks, int) else list(blocks)))


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
    against = prior_of(prior, prior_precision, posterior.template, indices, False, posterior.mean)
    roots = [b.root()[None] for b in posterior.blocks]
    logdet = sum(torch.linalg.eigvalsh(b.cov).clamp(min=0).log().sum() for b in posterior.blocks)
    trace = sum(Full.trace(r, against.weight(i)) for i, r in enumerate(roots))
    away = against.distance([posterior.mean[i][None] for i in indices])
    return float(trace + away - against.size + against.logdet - logdet) / 2


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
