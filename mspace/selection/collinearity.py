"""Which parameters are entangled: Belsley's diagnostics of collinearity (Belsley, Kuh and Welsch 1980)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._linalg import check_psd, eigh_psd

__all__ = ["Collinearity", "belsley"]


@dataclass(frozen=True, eq=False)
class Collinearity:
    """Components of a precision matrix, the most collinear first.

    Attributes:
        condition_index: (p,), the root of the largest eigenvalue over each, infinite for those that are zero; above 30
            is severe by custom. Squared it is the index of Grabovoy, Bakhteev and Strijov (2019).
        shares: (p, p), in row j how much of each parameter's variance is due to component j; columns add up to one
        components: (p, p), eigenvectors in rows
    """

    condition_index: Tensor
    shares: Tensor
    components: Tensor


def belsley(precision, *, scaled: bool = True) -> Collinearity:
    """Return condition indices and shares of variance from a precision matrix, the inverse of a covariance.

    With eigenvalues l_j and eigenvectors u_j the variance of parameter i is the sum of ``u_ij^2 / l_j``. Two parameters
    or more with large shares in a component of large index are entangled there.

    Args:
        precision: (p, p), positive semidefinite: a Hessian, ``X.T X`` of inputs, or similarities of neurons. Not a
            covariance, whose small eigenvalues are where the data know most.
        scaled: first to unit diagonal, as Belsley asks; then units do not matter
    """
    matrix = check_psd(precision, "precision", "it should be a precision or a Gram matrix")
    if scaled:
        size = matrix.diagonal().clamp(min=0).sqrt()
        if (size == 0).any():
            raise ValueError(
                f"precision must have a positive diagonal, got zero for parameter {int((size == 0).nonzero()[0])}: the data "
                "say nothing about it, leave it out, or take scaled=False"
            )
        matrix = matrix / size[:, None] / size
    eigenvalues, eigenvectors = eigh_psd(matrix, margin=8)
    positive = eigenvalues > 0
    if not positive.any():
        raise ValueError("precision must not be zero")
    index = (eigenvalues[-1] / eigenvalues).sqrt()
    parts = eigenvectors.T.square()
    variance = parts / torch.where(positive, eigenvalues, 1.0)[:, None]
    lost = parts[~positive].sum(0) > 1e-14  # its variance is infinite, and due to these components alone
    variance = torch.where(lost == positive[:, None], 0.0, variance)
    return Collinearity(index, variance / variance.sum(0), eigenvectors.T)
