"""The Wasserstein distance of Gaussians: the Bures metric of covariances, geodesics and barycenters.

The cross term tr (S_i^1/2 S_j S_i^1/2)^1/2 of a pair is the sum s1 of the roots of the eigenvalues of S_i S_j. In two
to four dimensions no pair needs eigenvalues: their symmetric functions e1, e2, ... are inner products of what belongs
to one neuron (Cauchy and Binet), and those of the roots follow from s1^2 = e1 + 2 s2, s2^2 = e2 + 2 s1 s3 - 2 s4,
s3^2 = e3 + 2 s2 s4, s4^2 = e4. As nested roots these have a slope that never vanishes, whatever the ranks, where the
polynomial for s1 has multiple zeros; from above, Newton's steps fall to the solution and double their digits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._linalg import EPS, eigh_psd, factor_psd, row_distances
from ..checks import check_real
from ..neurons import LowRankNeurons, NeuronDistribution, check_populations, check_room

__all__ = ["geodesic", "members_of", "wasserstein_center", "wasserstein_distance"]

TINY = 1e-300
LOST = 1e-6  # of the product of norms: an inner product below has lost too many digits
DOUBTFUL, RISKY = 1e-10, 1e-5  # of the largest eigenvalue: below, the square root has lost too many digits
NEAR = 1e-6  # of the traces: a smaller squared distance is computed without cancellation
BLOCK = 1 << 15  # pairs at once where they cost a few numbers each: stays in cache
NUMBERS = 1 << 22  # numbers held at once where they are matrices: 32 MB
TOLERANCE, ITERATIONS, STILL = 1e-10, 1000, 1e-6


@dataclass(frozen=True, eq=False)
class Factored:
    """Hold a population with what all its pairs share: eigenvalues that are rounding are exactly zero."""

    mean: Tensor  # (m, n)
    cov: Tensor  # (m, n, n), or factors (m, n, r) of covariances that are not made
    eigenvalues: Tensor  # (m, r), ascending
    eigenvectors: Tensor  # (m, n, r), in columns

    @classmethod
    def of(cls, neurons: NeuronDistribution, unit: float = 1.0) -> Factored:
        """Return the population measured in multiples of `unit`."""
        if isinstance(neurons, LowRankNeurons):
            eigenvalues, eigenvectors = neurons.spectrum()
            return cls(neurons.mean / unit, neurons.factor, eigenvalues / unit**2, eigenvectors)
        cov = neurons.cov / unit**2
        return cls(neurons.mean / unit, cov, *eigh_psd(cov))

    @cached_property
    def trace(self) -> Tensor:
        """Return the traces of the covariances, (m,)."""
        return self.eigenvalues.sum(1)

    @cached_property
    def rank(self) -> Tensor:
        """Return the ranks of the covariances, (m,)."""
        return (self.eigenvalues > 0).sum(1)

    @cached_property
    def root(self) -> Tensor:
        """Return F (m, n, r) with F F^T the covariance, r the largest rank there is."""
        r = max(1, int(self.rank.max()))
        return (self.eigenvectors * self.eigenvalues.sqrt()[:, None])[..., -r:]

    @cached_property
    def columns(self) -> Tensor:
        """Return the factors side by side, (n, m, r)."""
        return self.root.movedim(0, 1).contiguous()

    @cached_property
    def adjugate(self) -> Tensor:
        """Return the adjugates, (m, n^2); by eigenvalues, so that those of a low rank are exactly zero."""
        n = self.eigenvalues.shape[1]
        others = torch.stack([self.eigenvalues[:, [j for j in range(n) if j != i]].prod(1) for i in range(n)], 1)
        return ((self.eigenvectors * others[:, None]) @ self.eigenvectors.mT).flatten(1)

    @cached_property
    def minors(self) -> Tensor:
        """Return all 2 x 2 minors, (m, n^2 (n - 1)^2 / 4), by eigenvalues too."""
        i, j = torch.triu_indices(self.eigenvalues.shape[1], self.eigenvalues.shape[1], 1)
        first, second = self.eigenvectors[:, i], self.eigenvectors[:, j]
        vectors = first[..., i] * second[..., j] - first[..., j] * second[..., i]
        return ((vectors * (self.eigenvalues[:, i] * self.eigenvalues[:, j])[:, None]) @ vectors.mT).flatten(1)

    @cached_property
    def root_det(self) -> Tensor:
        """Return the roots of the determinants, (m,)."""
        return self.eigenvalues.sqrt().prod(1)


def _plane(a: Factored, b: Factored, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
    """Return cross terms of a block of pairs, and where rounding may have spoilt them: `_nuclear` computes those.

    By (x + y)^2 = x^2 + y^2 + 2 x y, where x^2, y^2 are the eigenvalues of S_i S_j.
    """
    e1, size = _inner(a.cov[rows].flatten(1), b.cov[cols].flatten(1))
    return (e1 + 2 * a.root_det[rows, None] * b.root_det[cols]).sqrt(), e1 < LOST * size


def _space(a: Factored, b: Factored, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
    e1, size1 = _inner(a.cov[rows].flatten(1), b.cov[cols].flatten(1))
    e2, size2 = _inner(a.adjugate[rows], b.adjugate[cols])
    s3 = a.root_det[rows, None] * b.root_det[cols]
    s2 = torch.addcmul(e2, (3 * e1).sqrt_(), s3, value=2).sqrt_()
    s = torch.sqrt_(e1 + 2 * s2)  # a contraction by nine: a good start
    for _ in range(20):
        s2 = torch.addcmul(e2, s, s3, value=2).sqrt_()
        slope = s - s3 / s2.clamp(min=TINY)
        s, step = _newton_step(s, e1, s2, slope)
        if (step <= 4 * EPS * s).all():
            break
    return s, (e1 < LOST * size1) | (s2.square_() < LOST * size2)


def _four(a: Factored, b: Factored, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
    e1, size1 = _inner(a.cov[rows].flatten(1), b.cov[cols].flatten(1))
    e2, size2 = _inner(a.minors[rows], b.minors[cols])
    e3, size3 = _inner(a.adjugate[rows], b.adjugate[cols])
    s4 = a.root_det[rows, None] * b.root_det[cols]

    def inner_roots(s: Tensor) -> tuple[Tensor, Tensor]:
        s3 = torch.addcmul(e3, s * s - e1, s4).clamp_(min=0).sqrt_()
        return torch.addcmul(e2, s, s3, value=2).sub_(s4, alpha=2).clamp_(min=0).sqrt_(), s3

    s = (4 * e1).sqrt_()
    for _ in range(2):  # a contraction: a good start
        s = torch.sqrt_(e1 + 2 * inner_roots(s)[0])
    s2, s3 = inner_roots(s)
    step = torch.full_like(s, torch.inf)
    for _ in range(28):
        slope = s - (s3 + s * s * s4 / s3.clamp(min=TINY)) / s2.clamp(min=TINY)
        s, step = _newton_step(s, e1, s2, slope)
        if (step <= 4 * EPS * s).all():
            break
        s2, s3 = inner_roots(s)
    lost = (e1 < LOST * size1) | (s2.square_() < LOST * size2) | (s3.square_() < LOST * size3)
    return s, lost | (step > 1e-12 * s)


def _newton_step(s: Tensor, e1: Tensor, s2: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return s after a step towards s^2 = e1 + 2 s2(s), and the size of that step."""
    step = (s * s - e1).sub_(s2, alpha=2).div_(slope.mul_(2).clamp_(min=TINY))
    return s - step, step.abs_()


def _inner(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return inner products of positive semidefinite matrices, and products of their norms, which scale rounding."""
    return (a @ b.T).clamp_(min=0), a.norm(dim=1)[:, None] * b.norm(dim=1)


def _general(a: Factored, b: Factored, rows: slice, cols: slice) -> tuple[Tensor, Tensor]:
    """Return sums of singular values of F_i^T F_j, r x r, by their squares: twice as fast, precise if none is small."""
    blocks = [(f.T @ b.columns[:, cols].flatten(1)).view(f.shape[1], -1, b.root.shape[2]) for f in a.root[rows]]
    cross = torch.stack(blocks).movedim(2, 1)
    cross = cross if cross.shape[2] <= cross.shape[3] else cross.mT
    squares = torch.linalg.eigvalsh(cross @ cross.mT).clamp_(min=0)
    least = torch.minimum(a.rank[rows, None], b.rank[cols]).clamp(min=1)
    smallest = squares.gather(-1, (squares.shape[-1] - least)[..., None])[..., 0]
    sure = squares * (squares > squares.shape[-1] * EPS * squares[..., -1:])
    return sure.sqrt().sum(-1), smallest < DOUBTFUL * squares[..., -1]


FORMS = {2: _plane, 3: _space, 4: _four}  # on the line covariances are diagonal, and are not paired


def _nuclear(a: Factored, b: Factored, i: Tensor, j: Tensor) -> Tensor:
    """Return cross terms of some pairs, slower and to the last digit: the sum of singular values of F_i^T F_j."""
    return torch.linalg.svdvals(a.root[i].mT @ b.root[j]).sum(-1)


def _align_roots(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return F and, of all factors of the same covariances as G, those that come nearest to F, both (b, n, r)."""
    width = max(f.shape[-1], g.shape[-1])
    f, g = (pad(x, (0, width - x.shape[-1])) for x in (f, g))
    left, _, right = torch.linalg.svd(g.mT @ f)  # polar decomposition
    return f, g @ (left @ right)


def _bures_of_near(a: Factored, b: Factored, i: Tensor, j: Tensor) -> Tensor:
    """Return tr S_i + tr S_j - 2 tr (...)^1/2 for some pairs as a sum of squares: near ones keep their digits."""
    f, aligned = _align_roots(a.root[i], b.root[j])
    squared = (f - aligned).square().sum((1, 2))
    if a.cov.shape[1:] == b.cov.shape[1:]:
        squared = torch.where((a.cov[i] == b.cov[j]).all((1, 2)), 0.0, squared)
    return squared


def wasserstein_distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    """Return the distances (m, k) of optimal transport between neurons of p and q; covariances may be singular."""
    inside = q is p
    unit = _unit(p, q)
    if _diagonal(p) and _diagonal(q):  # then it is the Euclidean distance of (mean, standard deviations)
        a, b = (torch.cat([x.mean, x.cov.diagonal(dim1=1, dim2=2).sqrt()], 1) / unit for x in (p, q))
        return row_distances(a, b).mul_(unit)
    a = Factored.of(p, unit)
    b = a if inside else Factored.of(q, unit)
    result = torch.empty(len(p), len(q), dtype=torch.float64)
    for rows, cols in _blocks(a, b, inside):
        block = _block(a, b, rows, cols, inside and rows.start == cols.start).mul_(unit)
        result[rows, cols] = block
        if inside:
            result[cols, rows] = block.T
    return result


def _block(a: Factored, b: Factored, rows: slice, cols: slice, on_diagonal: bool) -> Tensor:
    cross, doubtful = FORMS.get(a.mean.shape[1], _general)(a, b, rows, cols)
    for i, j in _parts(doubtful, a, b):
        cross[i, j] = _nuclear(a, b, i + rows.start, j + cols.start)
    size = a.trace[rows, None] + b.trace[cols]
    apart = row_distances(a.mean[rows], b.mean[cols]).square_()
    squared = cross.mul_(-2).add_(size).add_(apart)
    near = squared < NEAR * size
    if on_diagonal:
        near.fill_diagonal_(False)
    for i, j in _parts(near, a, b):
        squared[i, j] = apart[i, j] + _bures_of_near(a, b, i + rows.start, j + cols.start)
    if on_diagonal:
        corner = squared[:, : len(squared)]
        corner.copy_(torch.triu(corner, 1) + torch.triu(corner, 1).T)
    return squared.clamp_(min=0).sqrt_()


def _blocks(a: Factored, b: Factored, inside: bool) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of pairs that fit in memory; inside one population those on and above the diagonal."""
    m, k, n = len(a.mean), len(b.mean), a.mean.shape[1]
    if n <= max(FORMS):
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


def _parts(chosen: Tensor, a: Factored, b: Factored) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the chosen pairs of a block, as many at once as fit in memory."""
    if chosen.any():
        step = max(1, NUMBERS // (8 * a.root.shape[1] * max(a.root.shape[2], b.root.shape[2])))
        yield from zip(*(index.split(step) for index in chosen.nonzero(as_tuple=True)))


def _diagonal(p: NeuronDistribution) -> bool:
    return not isinstance(p, LowRankNeurons) and not torch.triu(p.cov, 1).any()


def _unit(p: NeuronDistribution, q: NeuronDistribution) -> float:
    """Return a power of two near the largest standard deviation, so that no power of a variance leaves the range."""
    largest = max(float(x.variances.amax()) for x in (p, q))
    return 2.0 ** round(math.log2(largest) / 2) if largest > 0 else 1.0


def geodesic(p: NeuronDistribution, q: NeuronDistribution, t: float) -> NeuronDistribution:
    """Return the neurons at a share t of the way from each neuron of p to the one of q with the same index.

    The shortest way of the Wasserstein distance (McCann 1997): mass moves along straight lines, so that the distance
    from p grows in proportion to t. At t = 1/2 it is the barycenter of the two. Singular covariances are welcome; where
    their ranges are orthogonal there are several shortest ways, and this is one.

    Args:
        t: from 0, which gives p, to 1, which gives q
    """
    check_populations(p, q)
    if len(p) != len(q):
        raise ValueError(f"p and q must hold as many neurons, got {len(p)} and {len(q)}: take p[[i]] and q[[j]]")
    t = check_real(t, "t", 0, 1, "[]")
    f, aligned = _align_roots(Factored.of(p).root, Factored.of(q).root)
    root = (1 - t) * f + t * aligned
    return NeuronDistribution((1 - t) * p.mean + t * q.mean, root @ root.mT)


def wasserstein_center(p: NeuronDistribution, weights: Tensor, start: NeuronDistribution | None) -> NeuronDistribution:
    """Return means of the means, and covariances by the fixed point of Alvarez-Esteban et al. (2016).

    Its step S <- S^-1/2 (sum of w_i (S^1/2 S_i S^1/2)^1/2)^2 S^-1/2 is taken on a factor X of S = X X^T, where it
    reads X <- sum of w_i F_i U_i: the factors of the members, turned to lie nearest to X. That needs no inverse. Steps
    are extrapolated (Nesterov), and restart where they go uphill, until X changes by less than 1e-10 of itself.
    """
    mean = weights @ p.mean
    if _diagonal(p):  # these commute: the standard deviations are averaged
        return NeuronDistribution(mean, torch.diag_embed((weights @ p.cov.diagonal(dim1=1, dim2=2).sqrt()) ** 2))
    check_room(int(weights.count_nonzero()), p.dim, "barycenters", "or the metric euclidean")
    first = p.mean_cov(weights) if start is None else start.cov
    root = _fixed_point(Factored.of(p).root, weights, factor_psd(first))
    return NeuronDistribution(mean, root @ root.mT)


def _fixed_point(factors: Tensor, weights: Tensor, root: Tensor) -> Tensor:
    result, active = root.clone(), torch.arange(len(root))
    before, ahead, pace = root, root, torch.ones(len(root), 1, 1, dtype=root.dtype)
    change = torch.zeros(len(root), dtype=root.dtype)
    center, member, weight = members_of(weights)
    for _ in range(ITERATIONS):
        new = _average(factors[member], ahead, center, weight)
        result[active] = new
        change = (new - before).norm(dim=(1, 2)) / new.norm(dim=(1, 2)).clamp(min=torch.finfo(new.dtype).tiny)
        moving = change > TOLERANCE
        if not moving.any():
            return result
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
    return result


def _average(factors: Tensor, root: Tensor, center: Tensor, weight: Tensor) -> Tensor:
    """Return means of the factors, each turned to lie nearest to the root of its center."""
    turned = factors @ _polar(factors.mT @ root[center])
    return torch.zeros_like(root).index_add_(0, center, weight[:, None, None] * turned)


def _polar(cross: Tensor) -> Tensor:
    """Return the orthonormal rows nearest to those of (b, r, R), r <= R: by squares, twice as fast, where safe."""
    eigenvalues, eigenvectors = torch.linalg.eigh(cross @ cross.mT)
    scaled = eigenvectors / eigenvalues.clamp(min=torch.finfo(eigenvalues.dtype).tiny).sqrt()[:, None]
    result = scaled @ (eigenvectors.mT @ cross)
    risky = ~(eigenvalues[:, 0] > RISKY * eigenvalues[:, -1])
    if risky.any():
        left, _, right = torch.linalg.svd(cross[risky], full_matrices=False)
        result[risky] = left @ right
    return result


def members_of(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs that count: indices of center and member, and the weight."""
    center, member = weights.nonzero(as_tuple=True)
    return center, member, weights[center, member]
