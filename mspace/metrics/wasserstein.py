"""The 2-Wasserstein distance between Gaussian neurons, and the straight line it draws between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from . import closed
from .barycenters import wasserstein_center
from .bures import Factored, align_roots, cross_terms, gap, nuclear
from .metric import Metric, checked

__all__ = ["geodesic", "wasserstein2"]

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


wasserstein2 = Metric(_distance, wasserstein_center, name="wasserstein2")


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
