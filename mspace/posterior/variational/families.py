"""Families of Gaussians whose covariance is trained: Sigma = S R R^T S, S the scale of every number on its own.

What stands in R is a correlation, of order one whatever the units.
Everything is batched: N posteriors side by side, each of k blocks (neurons) of b numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FAMILIES", "Diagonal", "Full", "LowRank", "columns_of", "squares"]

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
