"""What matrices and vectors have to be before a method may have them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import as_tensor

__all__ = ["finite", "indices", "semidefinite", "spectrum"]

NEGATIVE = 1e-8  # of the largest eigenvalue, as for the covariances of neurons


def finite(value, name: str, shape: str) -> Tensor:
    """A finite float64 tensor with as many axes as `shape`, such as "(m, n)", names, none of them empty."""
    found = as_tensor(value, name).detach().to("cpu", torch.float64)
    if found.ndim != len(shape.strip("()").rstrip(",").split(",")) or found.numel() == 0:
        raise ValueError(f"{name} must be {shape} and not empty, got shape {tuple(found.shape)}")
    if not torch.isfinite(found).all():
        raise ValueError(f"{name} must be finite, got {int((~torch.isfinite(found)).sum())} values that are not")
    return found


def semidefinite(value, name: str, way_out: str) -> Tensor:
    """A symmetric matrix without negative eigenvalues, beyond rounding."""
    found = finite(value, name, "(m, m)")
    if found.shape[0] != found.shape[1] or (found - found.T).abs().max() > 1e-6 * found.abs().max():
        raise ValueError(f"{name} must be a symmetric matrix, got shape {tuple(found.shape)}: symmetrise it first")
    found = (found + found.T) / 2
    power = torch.linalg.eigvalsh(found)
    if power[0] < -NEGATIVE * power[-1].clamp(min=0) - torch.finfo(power.dtype).tiny:
        raise ValueError(
            f"{name} must be positive semidefinite, got the eigenvalue {power[0]:.3g} beside {power[-1]:.3g}: {way_out}"
        )
    return found


def spectrum(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues, ascending, eigenvectors in columns, and which values are above zero by more than rounding."""
    power, axes = torch.linalg.eigh(matrix)
    positive = power > 8 * matrix.shape[-1] * torch.finfo(power.dtype).eps * power[..., -1:]
    return power, axes, positive


def indices(value, name: str, count: int) -> Tensor:
    """Different numbers from 0 to count - 1, at least one, or a mask (count,)."""
    found = torch.as_tensor(value)
    if found.dtype == torch.bool and found.shape == (count,):
        found = found.nonzero().flatten()
    whole = found.ndim == 1 and len(found) and not found.is_floating_point() and found.dtype != torch.bool
    if not whole or found.min() < 0 or found.max() >= count or len(found.unique()) < len(found):
        raise ValueError(f"{name} must be different whole numbers from 0 to {count - 1}, got {value}")
    return found.long()
