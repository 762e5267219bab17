"""Linear algebra of symmetric positive semidefinite matrices, float64, in batches (..., n, n)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_finite
from .threads import small

__all__ = ["check_psd", "eigh_psd", "factor_psd", "gaussian_kl", "is_full_rank", "root_psd"]

NEGATIVE = 1e-8  # of the largest eigenvalue: below minus that a matrix is no covariance, above it rounding


def eigh_psd(matrix: Tensor, margin: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (..., n), ascending, and eigenvectors in columns; eigenvalues of the size of rounding are zero.

    Args:
        margin: multiple of n eps times the largest eigenvalue that counts as rounding
    """
    with small(matrix.shape[-1]):
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    rounding = margin * matrix.shape[-1] * torch.finfo(matrix.dtype).eps * eigenvalues[..., -1:]
    return torch.where(eigenvalues > rounding, eigenvalues, 0.0), eigenvectors


def root_psd(matrix: Tensor) -> Tensor:
    """Return the symmetric square root: unlike other factors it does not depend on the basis of equal eigenvalues."""
    with small(matrix.shape[-1]):
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    return (eigenvectors * eigenvalues.clamp(min=0).sqrt()[..., None, :]) @ eigenvectors.mT


def factor_psd(matrix: Tensor) -> Tensor:
    """Return F (..., n, n) with F F^T the matrix: eigenvectors times roots of eigenvalues, smallest first."""
    with small(matrix.shape[-1]):
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
    return eigenvectors * eigenvalues.clamp(min=0).sqrt()[..., None, :]


def is_full_rank(matrix: Tensor) -> Tensor:
    """Return whether each matrix has all its eigenvalues above rounding, (...,)."""
    with small(matrix.shape[-1]):
        eigenvalues = torch.linalg.eigvalsh(matrix)
    return eigenvalues[..., 0] > matrix.shape[-1] * torch.finfo(matrix.dtype).eps * eigenvalues[..., -1]


def check_psd(value, name: str, way_out: str) -> Tensor:
    """Return a symmetric matrix (m, m) without negative eigenvalues, beyond rounding, or refuse what is none."""
    matrix = check_finite(value, name, "(m, m)")
    if matrix.shape[0] != matrix.shape[1] or (matrix - matrix.T).abs().max() > 1e-6 * matrix.abs().max():
        raise ValueError(f"{name} must be a symmetric matrix, got shape {tuple(matrix.shape)}: symmetrise it first")
    matrix = (matrix + matrix.T) / 2
    with small(len(matrix)):
        eigenvalues = torch.linalg.eigvalsh(matrix)
    low, high = eigenvalues[0], eigenvalues[-1]
    if low < -NEGATIVE * high.clamp(min=0) - torch.finfo(matrix.dtype).tiny:
        raise ValueError(
            f"{name} must be positive semidefinite, got the eigenvalue {low:.3g} beside {high:.3g}: {way_out}"
        )
    return matrix


def gaussian_kl(mean: Tensor, cov: Tensor, prior_mean: Tensor, prior_cov: Tensor) -> Tensor:
    """Return KL(N(mean, cov) || N(prior_mean, prior_cov)) in nats, (...,): batches broadcast, full rank is required."""
    own, theirs = torch.linalg.cholesky(cov), torch.linalg.cholesky(prior_cov)
    own, theirs = torch.broadcast_tensors(own, theirs)
    spread = torch.linalg.solve_triangular(theirs, own, upper=False).square().sum((-2, -1))
    step = torch.linalg.solve_triangular(theirs, (mean - prior_mean)[..., None], upper=False).square().sum((-2, -1))
    log_root = [root.diagonal(dim1=-2, dim2=-1).log().sum(-1) for root in (theirs, own)]
    return ((spread + step - mean.shape[-1]) / 2 + log_root[0] - log_root[1]).clamp(min=0)
