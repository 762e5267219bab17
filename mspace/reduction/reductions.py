"""What every reduction is: the rows of a layer as combinations of fewer rows, rows = expand @ kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._linalg import factor_psd
from ..checks import check_finite, check_indices, check_int, check_labels
from ..network.symmetry import symmetry_of

__all__ = ["Reduction", "compose", "harmonics", "low_rank", "merge", "prune"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """Neurons of a layer written with fewer: ``rows = expand @ kept``, nearly; float64 on the CPU.

    Merging, pruning and composing differ in `expand` alone: groups, a selection, a selection with the dropped neurons
    as combinations of those kept.

    Attributes:
        kept: (k, n+1), the neurons that stay, the bias last
        expand: (m, k)
        formula: whether `expand` follows from m and k alone, and need not be stored
    """

    kept: Tensor
    expand: Tensor
    formula: bool = False

    def __post_init__(self):
        kept, expand = check_finite(self.kept, "kept", "(k, n+1)"), check_finite(self.expand, "expand", "(m, k)")
        if expand.shape[1] != len(kept):
            raise ValueError(f"kept must be (k, n+1) and expand (m, k), got {tuple(kept.shape)}, {tuple(expand.shape)}")
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "expand", expand)

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def rows(self) -> Tensor:
        """The neurons as the reduction has them, (m, n+1)."""
        return self.expand @ self.kept

    @property
    def assignment(self) -> Tensor | None:
        """The index of the kept neuron (m,) that stands for each, where it is one alone; None for true combinations."""
        hit = self.expand != 0
        return hit.to(torch.int64).argmax(1) if (hit.sum(1) <= 1).all() else None


def merge(rows, labels, *, activation=None, weights=None) -> Reduction:
    """Merge every cluster of neurons into one, its weighted mean, the bias averaged too.

    With the activation given, neurons are first put into the scale and sign that it leaves free (a unit norm for ReLU,
    one side of the origin for tanh), so that ``relu(2 z)`` and ``relu(z)`` count as the same neuron; `expand` then
    holds the scales and signs, by which outgoing weights are multiplied before they are added.

    Args:
        rows: (m, n+1), as `rows_of` gives them
        labels: (m,) integers, the cluster of each neuron; clusters are numbered by their label
        activation: a module or function that treats units one by one
        weights: (m,) how much each neuron contributes, not negative, such as the squared norm of its outgoing weights
    """
    rows = check_finite(rows, "rows", "(m, n+1)")
    labels = check_labels(labels, "labels", len(rows))
    weights = torch.ones_like(rows[:, 0]) if weights is None else check_finite(weights, "weights", "(m,)")
    if len(weights) != len(rows) or (weights < 0).any():
        raise ValueError(f"weights must be {len(rows)} numbers, not negative, got {len(weights)}")
    free = None if activation is None else symmetry_of(activation)
    size = rows.norm(dim=1) if free is not None and free.scales else torch.ones_like(rows[:, 0])
    share = weights * size**2
    group = torch.nn.functional.one_hot(labels).to(rows)
    share = torch.where((group.T @ share)[labels] > 0, share, 1.0)  # a cluster without weight is averaged plainly
    sign = _signs(rows, labels) if free is not None and free.signs else torch.ones_like(size)
    typical = (group.T @ (share * size)) / (group.T @ share)
    scale = sign * torch.where(typical[labels] > 0, size / typical[labels], 1.0)
    shrunk = torch.where(scale != 0, 1 / scale, 0.0)[:, None] * rows
    kept = (group.T @ (share[:, None] * shrunk)) / (group.T @ share)[:, None]
    return Reduction(kept, group * scale[:, None])


def prune(rows, keep) -> Reduction:
    """Keep some of the neurons, the others gone without a trace.

    Args:
        rows: (m, n+1)
        keep: a mask (m,), or the indices of those kept, in the order in which they are to stand
    """
    rows = check_finite(rows, "rows", "(m, n+1)")
    keep = check_indices(keep, "keep", len(rows))
    return Reduction(rows[keep], torch.eye(len(rows), dtype=rows.dtype)[:, keep])


def compose(rows, keep, *, moment=None) -> Reduction:
    """Keep some of the neurons, the others as the linear combinations of those that are nearest to them.

    Exact for an activation that is linear. For others `compress` refits with calibration inputs, which combines what
    the units give instead of their weights.

    Args:
        rows: (m, n+1)
        keep: a mask (m,) or indices
        moment: (n+1, n+1), E[x x^T] of the layer's inputs with a one appended; combinations are then nearest in their
            outputs, not in their weights
    """
    rows = check_finite(rows, "rows", "(m, n+1)")
    keep = check_indices(keep, "keep", len(rows))
    outputs = rows @ _root(moment, rows.shape[1])
    expand = outputs @ torch.linalg.pinv(outputs[keep], rtol=1e-10)
    expand[keep] = torch.eye(len(keep), dtype=rows.dtype)
    return Reduction(rows[keep], expand)


def low_rank(rows, k: int, *, moment=None) -> Reduction:
    """Take the k combinations of rows that leave least over: a truncated singular value decomposition (Eckart, Young 1936).

    Args:
        rows: (m, n+1)
        k: the rank
        moment: (n+1, n+1) of the inputs with a one appended; what is least is then the error of the outputs
    """
    rows = check_finite(rows, "rows", "(m, n+1)")
    k = check_int(k, "k", 1, min(rows.shape))
    left = torch.linalg.svd(rows @ _root(moment, rows.shape[1]), full_matrices=False)[0][:, :k]
    return Reduction(left.T @ rows, left)


def harmonics(rows, k: int) -> Reduction:
    """Take the k slowest cosines over the index of the row: for outputs that are neighbours in time.

    Rows of a layer whose outputs are a window of a series change slowly from one output to the next. The basis, that
    of the discrete cosine transform (type II), is known by formula and nothing of it is stored.
    """
    rows = check_finite(rows, "rows", "(m, n+1)")
    k = check_int(k, "k", 1, len(rows))
    place = (torch.arange(len(rows), dtype=rows.dtype) + 0.5) / len(rows)
    basis = torch.cos(torch.pi * place[:, None] * torch.arange(k))
    basis = basis / basis.norm(dim=0)
    return Reduction(basis.T @ rows, basis, formula=True)


def _signs(rows: Tensor, labels: Tensor) -> Tensor:
    """Return signs (m,) that turn the rows of each cluster to one side, that of the larger part."""
    sign = torch.ones(len(rows), dtype=rows.dtype)
    for c in range(int(labels.max()) + 1):
        own = labels == c
        along = rows[own] @ torch.linalg.svd(rows[own], full_matrices=False)[2][0]
        along = along if along.sum() >= 0 else -along
        sign[own] = torch.where(along < 0, -1.0, 1.0).to(rows)
    return sign


def _root(moment, n: int) -> Tensor:
    if moment is None:
        return torch.eye(n, dtype=torch.float64)
    moment = check_finite(moment, "moment", "(n+1, n+1)")
    if moment.shape != (n, n):
        raise ValueError(f"moment must be ({n}, {n}), got shape {tuple(moment.shape)}: append a one to x")
    return factor_psd((moment + moment.T) / 2)
