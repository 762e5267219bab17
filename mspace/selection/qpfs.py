"""Choose relevant neurons that do not repeat each other: quadratic programming feature selection.

Rodriguez-Lujan, Huerta, Elkan and Santa Cruz (2010); for several targets Isachenko and Strijov (2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._linalg import check_psd
from ..checks import check_finite, check_fraction, check_int, check_real
from .simplex import minimum, saddle

__all__ = ["qpfs", "qpfs_targets", "select"]

WAY_OUT = "square the correlations, which makes them semidefinite"
DIGITS = 9  # of the largest relevance, and of a weight; beyond these neurons are equal


def qpfs(similarity, relevance, *, alpha: float | None = None) -> Tensor:
    """Return weights on the simplex, (m,), large for what is relevant and not similar to other things that are.

    The minimum of ``(1 - alpha) z.T Q z - alpha b.T z`` over z >= 0 that sum to one, exact to 1e-12. Exact duplicates share
    their weight equally, so a threshold may keep both or drop both: see `select`.

    Args:
        similarity: Q (m, m), not negative, positive semidefinite, such as squared correlations or `neuron_similarity`
        relevance: b (m,), not negative, in any unit if `alpha` is None
        alpha: from 0, similarity alone, to 1, relevance alone. By default such that both terms have the same mean,
            ``mean(Q) / (mean(Q) + mean(b))``; zero if nothing is relevant.
    """
    q, b = _pair(similarity, relevance)
    alpha = _balanced(q, b) if alpha is None else check_real(alpha, "alpha", 0, 1, "[]")
    return minimum(2 * (1 - alpha) * q, alpha * b)


def qpfs_targets(similarity, relevance, target_similarity) -> tuple[Tensor, Tensor]:
    """Return weights of features and of targets, (m,) and (r,), each on its simplex, when there are several targets.

    With x, y the weights, Q, P the similarities and B the relevance, the minimum over x of the maximum over y of
    ``a1 x.T Q x - a2 x.T B y - a3 y.T P y``, which prefers targets that are predicted worst; the numbers a are such that
    the terms have the same mean. With a single target it is `qpfs`, which with ``B.sum(1)`` weighs all targets alike.

    Args:
        similarity: Q (m, m), as in `qpfs`
        relevance: B (m, r), of each feature to each target, not negative
        target_similarity: P (r, r)
    """
    q, b = _similarity(similarity, "similarity"), _relevance(relevance, "(m, r)")
    p = _similarity(target_similarity, "target_similarity")
    m, r = b.shape
    if (len(q), len(p)) != (m, r):
        raise ValueError(f"relevance must be (m, r) for {len(q)} features and {len(p)} targets, got {m, r}")
    weights = torch.stack([p.mean() * b.mean(), q.mean() * p.mean(), q.mean() * b.mean()])
    if not (weights > 0).all():
        raise ValueError("similarities and relevance must not be all zero, whose terms cannot be balanced")
    first, second, third = (weights / weights.sum()).tolist()
    matrix = torch.cat([torch.cat([2 * first * q, -second * b], 1), torch.cat([second * b.T, 2 * third * p], 1)])
    try:
        z = saddle(matrix, torch.zeros(m + r, dtype=torch.float64), (torch.arange(m + r) >= m).long())
    except RuntimeError as why:
        raise ValueError("similarity is too close to singular: add 1e-3 to its diagonal") from why
    return z[:m], z[m:]


def select(similarity, relevance, k: int, *, alpha: float | None = None, duplicate: float = 0.99) -> Tensor:
    """Return the k to keep, (k,), best first: duplicates put aside, then by their weights in `qpfs`.

    Of those that are more similar than `duplicate` only the most relevant takes part. Those without weight follow by how
    little the objective would rise with them, duplicates come last. What differs by rounding alone is a tie, and of ties
    the first in number comes first.

    Args:
        similarity: (m, m) with ones on the diagonal
        relevance, alpha: as in `qpfs`
        k: from 1 to m
        duplicate: a similarity between 0 and 1
    """
    q, b = _pair(similarity, relevance)
    k, duplicate = check_int(k, "k", 1, len(b)), check_fraction(duplicate, "duplicate")
    first, second = [], []
    ranked = (b / b.max().clamp(min=torch.finfo(b.dtype).tiny)).round(decimals=DIGITS)
    for i in ranked.argsort(descending=True, stable=True).tolist():
        (second if first and q[i, first].max() > duplicate else first).append(i)
    own, b_own = q[first][:, first], b[first]
    z = qpfs(own, b_own, alpha=alpha)
    alpha = _balanced(own, b_own) if alpha is None else alpha
    slope = 2 * (1 - alpha) * own @ z - alpha * b_own
    order = sorted(range(len(first)), key=lambda i: (-round(float(z[i]), DIGITS), round(float(slope[i]), DIGITS)))
    return torch.tensor([first[i] for i in order] + second)[:k]


def _pair(similarity, relevance) -> tuple[Tensor, Tensor]:
    q, b = _similarity(similarity, "similarity"), _relevance(relevance, "(m,)")
    if len(q) != len(b):
        raise ValueError(f"similarity and relevance must be (m, m) and (m,), got {tuple(q.shape)} and {tuple(b.shape)}")
    return q, b


def _similarity(value, name: str) -> Tensor:
    return _nonnegative(check_psd(value, name, WAY_OUT), name)


def _relevance(value, shape: str) -> Tensor:
    return _nonnegative(check_finite(value, "relevance", shape), "relevance")


def _nonnegative(value: Tensor, name: str) -> Tensor:
    if (value < 0).any():
        raise ValueError(f"{name} must not be negative, got {value.min():.3g}: take absolute or squared correlations")
    return value


def _balanced(q: Tensor, b: Tensor) -> float:
    """Return the alpha that gives both terms the same mean."""
    return float(q.mean() / (q.mean() + b.mean())) if b.any() else 0.0
