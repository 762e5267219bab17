"""Neurons that go, written as linear compositions of those that stay: ``rows ~ expand @ rows[keep]``."""

from __future__ import annotations

import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from .arrays import finite, indices, semidefinite

__all__ = ["compose_activations", "compose_neurons"]


def compose_neurons(neurons: NeuronDistribution, keep, second_moment=None) -> tuple[Tensor, Tensor]:
    """Every neuron as the linear composition of the kept ones that is nearest in what it answers.

    The coefficients c minimise the mean square of ``(w_j - sum_i c_i w_i).T x`` over inputs x and independent neurons w.
    The spread of the kept ones acts as a ridge, so that uncertain neurons stand in for others less.

    Args:
        keep: numbers of neurons that stay, (k,), or a mask
        second_moment: C (n, n), of the inputs x; by default the identity

    Returns:
        expand (m, k), the identity in the rows that stay; and error (m,), the mean square that is left, zero for those
    """
    if not isinstance(neurons, NeuronDistribution):
        raise ValueError(f"neurons must be a NeuronDistribution, got {type(neurons).__name__}")
    keep, n = indices(keep, "keep", len(neurons)), neurons.dim
    c = torch.eye(n, dtype=torch.float64) if second_moment is None else second_moment
    c = semidefinite(c, "second_moment", "it should be inputs.T @ inputs / N")
    if len(c) != n:
        raise ValueError(f"second_moment must be (n, n) with n = {n}, got {tuple(c.shape)}")
    gram = neurons.mean @ c @ neurons.mean.T
    spread = (neurons.cov * c).sum((1, 2))
    own = gram[keep][:, keep] + spread[keep].diag()
    return _expanded(own, gram[keep], gram.diagonal() + spread, keep)


def compose_activations(activations, keep, *, ridge: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Every neuron's activation as a linear composition, and a constant, of those of the kept ones.

    ``h ~ h[keep] @ expand.T + shift``. So the next layer ``V, b`` becomes ``V @ expand, b + V @ shift``.

    Args:
        activations: (N, m), on calibration inputs
        keep: numbers of neurons that stay, (k,), or a mask
        ridge: added to the diagonal of their covariance

    Returns:
        expand (m, k), the identity in the rows that stay; shift (m,); error (m,), the mean square that is left
    """
    h = finite(activations, "activations", "(N, m)")
    keep = indices(keep, "keep", h.shape[1])
    if not 0 <= ridge < float("inf"):
        raise ValueError(f"ridge must be a finite number of at least 0, got {ridge}")
    mean = h.mean(0)
    cov = (h - mean).T @ (h - mean) / len(h)
    own = cov[keep][:, keep] + ridge * torch.eye(len(keep), dtype=torch.float64)
    expand, _ = _expanded(own, cov[keep], cov.diagonal(), keep)
    error = ((h - mean) - (h - mean)[:, keep] @ expand.T).square().mean(0)
    return expand, mean - expand @ mean[keep], error


def _expanded(own: Tensor, across: Tensor, power: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (m, k) by the normal equations, the shortest if there are many, and the error (m,)."""
    scale = torch.where(own.diagonal() > 0, own.diagonal().clamp(min=0).sqrt(), 1.0)
    inverse = torch.linalg.pinv(own / scale[:, None] / scale, hermitian=True) / scale[:, None] / scale
    expand = (inverse @ across).T
    error = power - 2 * (expand * across.T).sum(1) + ((expand @ own) * expand).sum(1)
    expand[keep], error[keep] = torch.eye(len(keep), dtype=torch.float64), 0.0
    return expand, error.clamp(min=0)
