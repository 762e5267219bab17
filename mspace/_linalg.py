"""Linear algebra of symmetric positive semidefinite matrices, float64, in batches (..., n, n)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_finite
from .threads import small

NEGATIVE = 1e-8  # of the largest eigenvalue: below minus that a matrix is no covariance, above it rounding
ESTIMATED = 1e-3  # of the largest entry or eigenvalue: what an iterative estimate of a covariance may be off
CHEAP = 64  # rows, above which eigenvalues take longer than a check may
NUMBERS = 1 << 22  # held at once in a check
EPS = torch.finfo(torch.float64).eps


def eigh_psd(matrix: Tensor, margin: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (..., n), ascending, zero where they are rounding, and eigenvectors in columns.

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
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name} must be a symmetric matrix, got shape {tuple(matrix.shape)}: symmetrise it first")
    matrix = _symmetric(matrix[None], name)
    with small(matrix.shape[1]):
        eigenvalues = torch.linalg.eigvalsh(matrix)
    _refuse_negative(eigenvalues, name, way_out, NEGATIVE)
    return matrix[0]


def check_semidefinite(matrices: Tensor, name: str) -> None:
    """Refuse matrices (b, n, n) that are no covariances by more than a thousandth of their size, as estimates may be.

    Large ones, whose eigenvalues take long, are judged by their 2 x 2 minors, a few rows at a time.
    """
    n, variances = matrices.shape[1], matrices.diagonal(dim1=1, dim2=2)
    bound = (variances + ESTIMATED * variances.amax(1)[:, None]).clamp(min=0).sqrt()
    step = max(1, NUMBERS // (len(matrices) * n))
    for rows in (slice(i, i + step) for i in range(0, n, step)):
        part = matrices[:, rows]
        if ((part - matrices[:, :, rows].mT).abs() > ESTIMATED * variances.abs().amax(1)[:, None, None]).any():
            raise ValueError(f"{name} must be symmetric, got one that is not: symmetrise it first")
        if (part.abs() > bound[:, rows, None] * bound[:, None]).any():
            raise ValueError(f"{name} must be positive semidefinite, got covariances above what the variances allow")
    if n <= CHEAP:
        _refuse_negative(torch.linalg.eigvalsh(matrices), name, "project it first", ESTIMATED)


def clean_psd(matrices: Tensor, name: str, way_out: str, eps: float = EPS) -> Tensor:
    """Return matrices (b, n, n) symmetrised, their eigenvalues that are rounding set to zero, or refuse what are none.

    Args:
        eps: the precision in which the matrices were computed
    """
    n, result = matrices.shape[1], torch.empty_like(matrices)
    step = max(1, NUMBERS // n**2)
    for start in range(0, len(matrices), step):
        part = slice(start, start + step)
        result[part] = _cleaned(_symmetric(matrices[part], name), name, way_out, max(NEGATIVE, n * eps), start)
    return result


def _cleaned(matrices: Tensor, name: str, way_out: str, share: float, start: int) -> Tensor:
    n = matrices.shape[1]
    with small(n):
        bound = matrices.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]  # at least the largest eigenvalue
        if not torch.linalg.cholesky_ex(matrices - 10 * n * EPS * bound * torch.eye(n, dtype=bound.dtype)).info.any():
            return matrices  # no eigenvalue is rounding
        eigenvalues, eigenvectors = torch.linalg.eigh(matrices)
    _refuse_negative(eigenvalues, name, way_out, share, start)
    # A negative eigenvalue shows how large the rounding is: positive ones of that size are nothing else.
    floor = torch.maximum(n * EPS * eigenvalues[:, -1:].clamp(min=0), -2 * eigenvalues[:, :1])
    rounding = eigenvalues < floor
    rebuilt = eigenvectors @ (torch.where(rounding, 0.0, eigenvalues)[..., None] * eigenvectors.mT)
    return torch.where(rounding.any(1)[:, None, None], (rebuilt + rebuilt.mT) / 2, matrices)  # others keep their bits


def _symmetric(matrices: Tensor, name: str) -> Tensor:
    size = matrices.abs().amax((1, 2))
    if ((matrices - matrices.mT).abs().amax((1, 2)) > 1e-6 * size).any():
        raise ValueError(
            f"{name} must be symmetric, got a matrix that is not: symmetrise it, or is it a factor of the covariance?"
        )
    return (matrices + matrices.mT) / 2


def _refuse_negative(eigenvalues: Tensor, name: str, way_out: str, share: float, start: int | None = None) -> None:
    """Refuse eigenvalues (b, n) below minus `share` of the largest; `start` is the index of the first matrix."""
    largest = eigenvalues[:, -1:].clamp(min=0)
    if (eigenvalues < -share * largest - torch.finfo(eigenvalues.dtype).tiny).any():
        worst = int((eigenvalues[:, 0] / largest[:, 0].clamp(min=1e-300)).argmin())
        low, high = eigenvalues[worst, 0], eigenvalues[worst, -1]
        where = "" if start is None else f" of matrix {start + worst}"
        raise ValueError(
            f"{name} must be positive semidefinite, got the eigenvalue {low:.3g} beside {high:.3g}{where}: {way_out}"
        )


def units_of(squares: Tensor) -> Tensor:
    """Return a unit for each of n coordinates, near the roots of these squares; all one where none is hidden by others.

    Sums of squares that lie more than 1e8 apart are compared in units of each. Powers of two change no digit.
    """
    positive = squares > 0
    if not positive.any() or squares[positive].min() > 1e-8 * squares.max():
        return torch.ones_like(squares)
    return torch.where(positive, torch.exp2((torch.where(positive, squares, 1.0).log2() / 2).round()), 1.0)


def row_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distances (m, k) between rows, without the matrix product in which near ones lose digits."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def gaussian_kl(mean: Tensor, cov: Tensor, prior_mean: Tensor, prior_cov: Tensor) -> Tensor:
    """Return KL(N(mean, cov) || N(prior_mean, prior_cov)) in nats, (...,): batches broadcast, full rank is required."""
    own, theirs = torch.linalg.cholesky(cov), torch.linalg.cholesky(prior_cov)
    own, theirs = torch.broadcast_tensors(own, theirs)
    spread = torch.linalg.solve_triangular(theirs, own, upper=False).square().sum((-2, -1))
    step = torch.linalg.solve_triangular(theirs, (mean - prior_mean)[..., None], upper=False).square().sum((-2, -1))
    log_root = [root.diagonal(dim1=-2, dim2=-1).log().sum(-1) for root in (theirs, own)]
    return ((spread + step - mean.shape[-1]) / 2 + log_root[0] - log_root[1]).clamp(min=0)
