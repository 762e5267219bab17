"""The Wasserstein distance of Gaussians: the Bures metric of covariances, geodesics and barycenters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from . import closed
from .metric import Metric, checked

__all__ = [
    "Factored",
    "align_roots",
    "cross_terms",
    "gap",
    "geodesic",
    "members_of",
    "nuclear",
    "wasserstein2",
    "wasserstein_center",
]

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


NEAR = 1e-6  # of the traces: a smaller squared distance is computed without cancellation
BLOCK = 1 << 15  # pairs at once where they cost a few numbers each: stays in cache
NUMBERS = 1 << 22  # numbers held at once where they are matrices: 32 MB


def _distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    inside = q is p
    unit = _unit(p, q)
    if _diagonal(p) and _diagonal(q):  # then it is the Euclidean distance of (mean, standard deviations)
        a, b = (torch.cat([x.mean, x.cov.diagonal(dim1=1, dim2=2).sqrt()], 1) / unit for x in (p, q))
        return _euclid(a, b).mul_(unit)
    a = Factored.of(p, unit)
    b = a if inside else Factored.of(q, unit)
    found = torch.empty(len(p), len(q), dtype=torch.float64)
    for rows, cols in _blocks(a, b, inside):
        block = _block(a, b, rows, cols, inside and rows.start == cols.start).mul_(unit)
        found[rows, cols] = block
        if inside:
            found[cols, rows] = block.T
    return found


def _block(a: Factored, b: Factored, rows: slice, cols: slice, on_diagonal: bool) -> Tensor:
    cross, doubtful = cross_terms(a, b, rows, cols)
    if doubtful.any():
        i, j = doubtful.nonzero(as_tuple=True)
        for part in _parts(len(i), a, b):
            cross[i[part], j[part]] = nuclear(a, b, i[part] + rows.start, j[part] + cols.start)
    size = a.trace[rows, None] + b.trace[cols]
    apart = _euclid(a.mean[rows], b.mean[cols]).square_()
    squared = cross.mul_(-2).add_(size).add_(apart)
    near = squared < NEAR * size
    if on_diagonal:
        near.fill_diagonal_(False)
    if near.any():
        i, j = near.nonzero(as_tuple=True)
        for part in _parts(len(i), a, b):
            squared[i[part], j[part]] = apart[i[part], j[part]] + gap(a, b, i[part] + rows.start, j[part] + cols.start)
    if on_diagonal:
        corner = squared[:, : len(squared)]
        corner.copy_(torch.triu(corner, 1) + torch.triu(corner, 1).T)
    return squared.clamp_(min=0).sqrt_()


def _blocks(a: Factored, b: Factored, inside: bool) -> Iterator[tuple[slice, slice]]:
    """Blocks of pairs that fit in memory; inside one population those on and above the diagonal."""
    m, k, n = len(a.mean), len(b.mean), a.mean.shape[1]
    if n <= closed.LARGEST:
        each, room, flat, least = 1, BLOCK, 4, 1 << 12
    else:
        each, room, flat, least = 3 * a.root.shape[2] * b.root.shape[2], NUMBERS, 16, 0
    start = 0
    while start < m:
        first = start if inside else 0
        width = min(k - first, max(1, room // each))
        height = min(m - start, max(1, room // (each * width)))
        if inside:  # what lies below the diagonal is lost, so blocks on it are flat
            height = 1 if width < k - first else min(height, max(1 + width // flat, least // width))
        for left in range(first, k, width):
            yield slice(start, start + height), slice(left, min(k, left + width))
        start += height


def _parts(size: int, a: Factored, b: Factored) -> Iterator[slice]:
    step = max(1, NUMBERS // (8 * a.root.shape[1] * max(a.root.shape[2], b.root.shape[2])))
    return (slice(i, i + step) for i in range(0, size, step))


def _euclid(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _diagonal(p: NeuronDistribution) -> bool:
    return not torch.triu(p.cov, 1).any()


def _unit(p: NeuronDistribution, q: NeuronDistribution) -> float:
    """A power of two near the largest standard deviation, so that no power of a variance leaves the range."""
    largest = max(float(x.cov.diagonal(dim1=1, dim2=2).amax()) for x in (p, q))
    return 2.0 ** round(math.log2(largest) / 2) if largest > 0 else 1.0


def geodesic(p: NeuronDistribution, q: NeuronDistribution, t: float) -> NeuronDistribution:
    """The neurons at a share t of the way from each neuron of p to the one of q with the same number.

    The shortest way of the Wasserstein distance (McCann 1997): mass moves along straight lines, so that the distance
    from p grows in proportion to t. At t = 1/2 it is the barycenter of the two. Singular covariances are welcome; where
    their ranges are orthogonal there are several shortest ways, and this is one.

    Args:
        t: from 0, which gives p, to 1, which gives q
    """
    checked(p, q)
    if len(p) != len(q):
        raise ValueError(f"p and q must hold as many neurons, got {len(p)} and {len(q)}: take p[[i]] and q[[j]]")
    if not isinstance(t, Real) or not 0 <= t <= 1:
        raise ValueError(f"t must lie between 0 and 1, got {t!r}")
    f, g = Factored.of(p).root, Factored.of(q).root
    aligned = align_roots(f, g)
    f = torch.nn.functional.pad(f, (0, aligned.shape[-1] - f.shape[-1]))
    root = (1 - t) * f + t * aligned
    return NeuronDistribution((1 - t) * p.mean + t * q.mean, root @ root.mT)


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


wasserstein2 = Metric(_distance, wasserstein_center, name="wasserstein2")
