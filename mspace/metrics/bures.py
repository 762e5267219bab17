"""The covariance part of the Wasserstein distance: factors, pairwise traces, aligned roots."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from . import closed

__all__ = ["Factored", "align_roots", "cross_terms", "gap", "nuclear"]

EPS = torch.finfo(torch.float64).eps
DOUBTFUL = 1e-10  # of the largest eigenvalue: below, its square root has lost too many digits


@dataclass(frozen=True, eq=False)
class Factored:
    """A population with what all its pairs share: eigenvalues that are rounding are exactly zero."""

    mean: Tensor  # (m, n)
    cov: Tensor  # (m, n, n)
    power: Tensor  # (m, n), ascending
    axes: Tensor  # (m, n, n)

    @classmethod
    def of(cls, neurons: NeuronDistribution, unit: float = 1.0) -> Factored:
        """Measured in multiples of `unit`."""
        cov = neurons.cov / unit**2
        power, axes = torch.linalg.eigh(cov)
        rounding = neurons.dim * EPS * power[:, -1:]
        return cls(neurons.mean / unit, cov, torch.where(power > rounding, power, 0.0), axes)

    @cached_property
    def trace(self) -> Tensor:
        return self.power.sum(1)

    @cached_property
    def rank(self) -> Tensor:
        return (self.power > 0).sum(1)

    @cached_property
    def root(self) -> Tensor:
        """F (m, n, r) with F F^T the covariance, r the largest rank there is."""
        r = max(1, int(self.rank.max()))
        return (self.axes * self.power.sqrt()[:, None])[..., -r:]

    @cached_property
    def columns(self) -> Tensor:
        """The factors side by side, (n, m, r)."""
        return self.root.movedim(0, 1).contiguous()

    @cached_property
    def adjugate(self) -> Tensor:
        """Adjugates, (m, n^2); by eigenvalues, so that those of a low rank are exactly zero."""
        others = torch.stack(
            [
                self.power[:, [j for j in range(self.power.shape[1]) if j != i]].prod(1)
                for i in range(self.power.shape[1])
            ],
            1,
        )
        return ((self.axes * others[:, None]) @ self.axes.mT).flatten(1)

    @cached_property
    def minors(self) -> Tensor:
        """All 2 x 2 minors, (m, n^2 (n - 1)^2 / 4), by eigenvalues too."""
        i, j = torch.triu_indices(self.power.shape[1], self.power.shape[1], 1)
        first, second = self.axes[:, i], self.axes[:, j]
        axes = first[..., i] * second[..., j] - first[..., j] * second[..., i]
        return ((axes * (self.power[:, i] * self.power[:, j])[:, None]) @ axes.mT).flatten(1)

    @cached_property
    def root_det(self) -> Tensor:
        return self.power.sqrt().prod(1)

    @cached_property
    def flat(self) -> Tensor:
        return self.cov.flatten(1)


def cross_terms(a: Factored, b: Factored, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
    """tr (S_i^1/2 S_j S_i^1/2)^1/2 for a block of pairs, and where rounding may have spoilt it: `nuclear` knows."""
    n = a.mean.shape[1]
    return closed.FORMS.get(n, _general)(a, b, rows, cols)


def _general(a, b, rows, cols):
    """Singular values of F_i^T F_j, r x r, by their squares: twice as fast, and precise where none is small."""
    blocks = [(f.T @ b.columns[:, cols].flatten(1)).view(f.shape[1], -1, b.root.shape[2]) for f in a.root[rows]]
    cross = torch.stack(blocks).movedim(2, 1)
    cross = cross if cross.shape[2] <= cross.shape[3] else cross.mT
    power = torch.linalg.eigvalsh(cross @ cross.mT).clamp_(min=0)
    least = torch.minimum(a.rank[rows, None], b.rank[cols]).clamp(min=1)
    smallest = power.gather(-1, (power.shape[-1] - least)[..., None])[..., 0]
    sure = power * (power > power.shape[-1] * EPS * power[..., -1:])
    return sure.sqrt().sum(-1), smallest < DOUBTFUL * power[..., -1]


def nuclear(a: Factored, b: Factored, i: Tensor, j: Tensor) -> Tensor:
    """The same for some pairs, slower and to the last digit: the sum of singular values of F_i^T F_j."""
    return torch.linalg.svdvals(a.root[i].mT @ b.root[j]).sum(-1)


def align_roots(f: Tensor, g: Tensor) -> Tensor:
    """G U, (b, n, r): the factors of the same covariances that come nearest to F (polar decomposition)."""
    width = max(f.shape[-1], g.shape[-1])
    f, g = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in (f, g))
    left, _, right = torch.linalg.svd(g.mT @ f)
    return g @ (left @ right)


def gap(a: Factored, b: Factored, i: Tensor, j: Tensor) -> Tensor:
    """tr S_i + tr S_j - 2 tr (...)^1/2 for some pairs as a sum of squares, so that near ones keep their digits."""
    f, g = a.root[i], b.root[j]
    aligned = align_roots(f, g)
    f = torch.nn.functional.pad(f, (0, aligned.shape[-1] - f.shape[-1]))
    found = (f - aligned).square().sum((1, 2))
    return torch.where((a.cov[i] == b.cov[j]).all((1, 2)), 0.0, found)
