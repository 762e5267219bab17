"""Choose relevant neurons that do not repeat each other: quadratic programming feature selection.

Rodriguez-Lujan, Huerta, Elkan and Santa Cruz (2010); for several targets Isachenko and Strijov (2022).
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from ..checks import check_fraction, check_int
from .arrays import finite, semidefinite
from .simplex import equilibrium

__all__ = ["qpfs", "qpfs_targets", "select"]

WAY_OUT = "square the correlations, which makes them semidefinite, or take shift=True, which draws weights to equality"
TARGETS = ("aggregate", "symmetric", "asymmetric", "minmax")
DIGITS = 9  # of the largest relevance, and of a weight; beyond these neurons are equal


def qpfs(similarity, relevance, *, alpha: float | None = None, shift: bool = False) -> Tensor:
    """Weights on the simplex, (m,), that are large for what is relevant and not similar to other things that are.

    The minimum of ``(1 - alpha) z.T Q z - alpha b.T z`` over z >= 0 that sum to one, exact to 1e-12. Exact duplicates share
    their weight equally, so a threshold may keep both or drop both: see `select`.

    Args:
        similarity: Q (m, m), not negative, positive semidefinite, such as squared correlations or `neuron_similarity`
        relevance: b (m,), not negative, in any unit if `alpha` is None
        alpha: from 0, similarity alone, to 1, relevance alone. By default such that both terms have the same mean,
            ``mean(Q) / (mean(Q) + mean(b))``; zero if nothing is relevant.
        shift: take the smallest eigenvalue off the diagonal of a Q that is not semidefinite. That changes the minimum.
    """
    q, b = _similarity(similarity, "similarity", shift), _relevance(relevance, "(m,)")
    if len(q) != len(b):
        raise ValueError(f"similarity and relevance must be (m, m) and (m,), got {tuple(q.shape)} and {tuple(b.shape)}")
    if alpha is None:
        alpha = float(q.mean() / (q.mean() + b.mean())) if b.any() else 0.0
    elif not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be None or lie from 0 to 1, got {alpha!r}")
    return equilibrium(2 * (1 - alpha) * q, alpha * b)


def qpfs_targets(
    similarity,
    relevance,
    target_similarity,
    *,
    by: str = "symmetric",
    balance: tuple[float, float, float] | None = None,
    shift: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weights of features and of targets, (m,) and (r,), each on its simplex, when there are several targets.

    With x, y the weights, Q, P the similarities, B the relevance and a the balance:

    * "aggregate": `qpfs` with the sum of B over targets; every target weighs the same
    * "symmetric": the minimum of ``a1 x.T Q x - a2 x.T B y + a3 y.T P y``: prefers targets that can be predicted
    * "asymmetric": the same plus ``a2 c.T y``, c the largest of each column of B, so that such targets win less
    * "minmax": the minimum over x of the maximum over y of ``a1 x.T Q x - a2 x.T B y - a3 y.T P y``: prefers targets that
      are predicted worst

    With a single target all are equal to `qpfs`.

    Args:
        similarity: Q (m, m), as in `qpfs`
        relevance: B (m, r), of each feature to each target, not negative
        target_similarity: P (r, r)
        by: as above
        balance: three numbers not below zero; by default the terms have the same mean. Not for "aggregate".
        shift: as in `qpfs`; of "symmetric" and "asymmetric" the whole program has to be semidefinite

    Raises:
        ValueError: where the program is not convex
    """
    if by not in TARGETS:
        raise ValueError(f"by must be one of {', '.join(TARGETS)}, got {by!r}")
    q, b = _similarity(similarity, "similarity", shift), _relevance(relevance, "(m, r)")
    p = _similarity(target_similarity, "target_similarity", shift)
    (m, r), sizes = b.shape, (len(q), len(p))
    if sizes != (m, r):
        raise ValueError(
            f"relevance must be (m, r) for similarities of {sizes[0]} features and {sizes[1]} targets, got {m, r}"
        )
    if by == "aggregate":
        if balance is not None:
            raise ValueError(f"balance is not used by='aggregate', got {balance}: leave it out")
        return qpfs(q, b.sum(1)), torch.full((r,), 1 / r, dtype=torch.float64)
    top = b.amax(0) if by == "asymmetric" else torch.zeros(r, dtype=torch.float64)
    first, second, third = _balance(balance, q.mean(), b.mean(), p.mean(), top.mean() if by == "asymmetric" else None)
    linear = torch.cat([torch.zeros(m, dtype=torch.float64), -second * top])
    sign = -1 if by == "minmax" else 1
    matrix = torch.cat(
        [torch.cat([2 * first * q, -second * b], 1), torch.cat([-sign * second * b.T, 2 * third * p], 1)]
    )
    simplex = (torch.arange(m + r) >= m).long()
    if by != "minmax":
        matrix = _convex(matrix, simplex, by, shift)
    try:
        z = equilibrium(matrix, linear, simplex)
    except RuntimeError as why:
        raise ValueError(f"similarity is too close to singular for by={by!r}: add 1e-3 to its diagonal") from why
    return z[:m], z[m:]


def select(similarity, relevance, k: int, *, alpha: float | None = None, duplicate: float = 0.99) -> Tensor:
    """The k to keep, (k,), best first: duplicates put aside, then by their weights in `qpfs`.

    Of those that are more similar than `duplicate` only the most relevant takes part. Those without weight follow by how
    little the objective would rise with them, duplicates come last. What differs by rounding alone is a tie, and of ties
    the first in number comes first.

    Args:
        similarity: (m, m) with ones on the diagonal
        relevance, alpha: as in `qpfs`
        k: from 1 to m
        duplicate: a similarity between 0 and 1
    """
    q, b = _similarity(similarity, "similarity", False), _relevance(relevance, "(m,)")
    if len(q) != len(b):
        raise ValueError(f"similarity and relevance must be (m, m) and (m,), got {tuple(q.shape)} and {tuple(b.shape)}")
    k, duplicate = check_int(k, "k", 1, len(b)), check_fraction(duplicate, "duplicate")
    first, second = [], []
    ranked = (b / b.max().clamp(min=torch.finfo(b.dtype).tiny)).round(decimals=DIGITS)
    for i in ranked.argsort(descending=True, stable=True).tolist():
        (second if first and q[i, first].max() > duplicate else first).append(i)
    own, b_own = q[first][:, first], b[first]
    z = qpfs(own, b_own, alpha=alpha)
    alpha = (float(own.mean() / (own.mean() + b_own.mean())) if b.any() else 0.0) if alpha is None else alpha
    slope = 2 * (1 - alpha) * own @ z - alpha * b_own
    order = sorted(range(len(first)), key=lambda i: (-round(float(z[i]), DIGITS), round(float(slope[i]), DIGITS)))
    return torch.tensor([first[i] for i in order] + second)[:k]


def _similarity(value, name: str, shift: bool) -> Tensor:
    if shift:
        value = finite(value, name, "(m, m)")
        if value.shape[0] == value.shape[1]:
            power = torch.linalg.eigvalsh((value + value.T) / 2)[0]
            value = value - min(float(power), 0.0) * torch.eye(len(value), dtype=torch.float64)
    found = semidefinite(value, name, WAY_OUT)
    if (found < 0).any():
        raise ValueError(f"{name} must not be negative, got {found.min():.3g}: take absolute or squared correlations")
    return found


def _relevance(value, shape: str) -> Tensor:
    found = finite(value, "relevance", shape)
    if (found < 0).any():
        raise ValueError(
            f"relevance must not be negative, got {found.min():.3g}: take absolute or squared correlations"
        )
    return found


def _balance(given, q: Tensor, b: Tensor, p: Tensor, top: Tensor | None) -> tuple[float, float, float]:
    """Three weights, which sum to one, that give the terms the same mean over uniform weights."""
    if given is None:
        if not (q > 0 and b > 0 and p > 0):
            raise ValueError("balance cannot be found when similarities or relevance are all zero: give three numbers")
        found = torch.stack([p * b, q * p, q * (b if top is None else top - b)])
    else:
        found = finite(given, "balance", "(3,)")
        if len(found) != 3 or (found < 0).any() or not found.any():
            raise ValueError(f"balance must be three numbers not below zero, got {given}")
    return tuple((found / found.sum()).tolist())


def _convex(matrix: Tensor, simplex: Tensor, by: str, shift: bool) -> Tensor:
    """Check it, or make it so, along both simplices, whose sums do not change."""
    same = (simplex[:, None] == simplex).double()
    centre = torch.eye(len(matrix), dtype=torch.float64) - same / same.sum(1)
    power = torch.linalg.eigvalsh(centre @ matrix @ centre)
    if power[0] < -1e-8 * power[-1].clamp(min=0):
        if not shift:
            raise ValueError(
                f"by={by!r} is not convex for these similarities and relevance, an eigenvalue is {power[0]:.3g} beside "
                f"{power[-1]:.3g}: take by='minmax', which always is, a smaller second balance=, or shift=True"
            )
        matrix = matrix - power[0] * torch.eye(len(matrix), dtype=torch.float64)
    return matrix
