"""Geodesics of the Fisher information between Gaussians.

Seen from the standard Gaussian, another one N(m, S) is the matrix G = M diag(S^-1, 1, S) M^T of size 2n + 1, with
M = [[I, 0, 0], [m^T, 1, 0], [A - m m^T / 2, -m, I]] and any antisymmetric A; the distance is the least of
(sum of log^2 eigenvalues / 4)^1/2 over A, and the powers of G at that A run along the geodesic (compare Eriksen 1987,
Calvo and Oller 1991).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["arrive", "length", "nearest", "velocity"]

ROUNDING, STEPS = 1e-14, 100


def length(g: Tensor) -> Tensor:
    """The distance (b,) that a matrix G stands for."""
    return _half_square(g).sqrt()


def velocity(g: Tensor) -> tuple[Tensor, Tensor]:
    """How mean (b, n) and covariance (b, n, n) begin to change on the way that reaches G after one unit of time."""
    n = g.shape[-1] // 2
    log = _logarithm(g)[0]
    return log[:, :n, n], -log[:, :n, :n]


def arrive(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance after one unit of time, from the standard Gaussian with such a velocity."""
    b, n = mean.shape
    log = torch.zeros(b, 2 * n + 1, 2 * n + 1, dtype=mean.dtype)
    log[:, :n, :n], log[:, n + 1 :, n + 1 :] = -cov, cov
    log[:, :n, n] = log[:, n, :n] = mean
    log[:, n + 1 :, n] = log[:, n, n + 1 :] = -mean
    g = torch.matrix_exp(log)
    there = torch.linalg.inv(g[:, :n, :n])
    return (there @ g[:, :n, n, None])[..., 0], (there + there.mT) / 2


def nearest(mean: Tensor, cov: Tensor) -> Tensor:
    """G (b, 2n + 1, 2n + 1) at the A that is nearest to the identity: damped Newton steps, all pairs at once."""
    free = _antisymmetric(mean.shape[1])
    g = _block_matrix(mean, cov)
    if not len(free):
        return g
    value = _half_square(g)
    active, found = torch.arange(len(g)), g.clone()
    for _ in range(STEPS):
        gradient, hessian = _derivatives(g, free)
        power, axes = torch.linalg.eigh(hessian)
        along = (axes.mT @ gradient[..., None])[..., 0] / torch.maximum(
            power.abs(), 1e-10 * power.abs().amax(1, keepdim=True) + 1e-30
        )
        step = -(axes @ along[..., None])[..., 0]
        before, (g, value) = value, _descend(g, value, step, (gradient * step).sum(1), free)
        found[active] = g
        moving = before - value > ROUNDING * before
        if not moving.any():
            break
        active, g, value = active[moving], g[moving], value[moving]
    return found


def _descend(g, value, step, slope, free) -> tuple[Tensor, Tensor]:
    """Half the step where the whole one does not go down enough."""
    share = torch.ones(len(g), 1, dtype=g.dtype)
    for _ in range(30):
        new = _turned(g, torch.einsum("bd,dij->bij", share * step, free))
        reached = _half_square(new)
        enough = reached <= value + 1e-4 * share[:, 0] * slope + 1e-15 * value
        if enough.all():
            break
        share = torch.where(enough[:, None], share, share / 2)
    return torch.where(enough[:, None, None], new, g), torch.where(enough, reached, value)


def _antisymmetric(n: int) -> Tensor:
    i, j = torch.triu_indices(n, n, 1)
    basis = torch.zeros(len(i), n, n, dtype=torch.float64)
    d = torch.arange(len(i))
    basis[d, i, j], basis[d, j, i] = 1.0, -1.0
    return basis


def _block_matrix(mean: Tensor, cov: Tensor) -> Tensor:
    b, n = mean.shape
    m = torch.eye(2 * n + 1, dtype=mean.dtype).repeat(b, 1, 1)
    m[:, n, :n], m[:, n + 1 :, n] = mean, -mean
    m[:, n + 1 :, :n] = -mean[:, :, None] * mean[:, None] / 2
    middle = torch.zeros_like(m)
    middle[:, :n, :n], middle[:, n, n], middle[:, n + 1 :, n + 1 :] = torch.linalg.inv(cov), 1.0, cov
    return m @ middle @ m.mT


def _turned(g: Tensor, a: Tensor) -> Tensor:
    """G at A + a, from G at A."""
    n = a.shape[-1]
    left = torch.eye(2 * n + 1, dtype=g.dtype).repeat(len(g), 1, 1)
    left[:, n + 1 :, :n] = a
    return left @ g @ left.mT


def _log_eigen(g: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms (b, n) of the eigenvalues above one, and all eigenvectors in their order; the rest mirrors them."""
    n = g.shape[-1] // 2
    power, axes = torch.linalg.eigh((g + g.mT) / 2)
    return power[:, n + 1 :].clamp(min=1).log(), axes


def _half_square(g: Tensor) -> Tensor:
    return _log_eigen(g)[0].square().sum(1) / 2


def _logarithm(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log G, with logarithms (b, 2n + 1) and eigenvectors: exchanging its outer blocks changes its sign."""
    n = g.shape[-1] // 2
    logs, axes = _log_eigen(g)
    top = axes[..., n + 1 :]
    swapped = torch.cat([top[:, n + 1 :], top[:, n : n + 1], top[:, :n]], 1)
    outer = (top * logs[:, None]) @ top.mT - (swapped * logs[:, None]) @ swapped.mT
    return outer, torch.cat([-logs.flip(1), torch.zeros_like(logs[:, :1]), logs], 1), axes


def _derivatives(g: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (b, d) and Hessian (b, d, d) of sum log^2 / 4 in the coordinates of A.

    d log G follows from divided differences of the logarithm between eigenvalues (Daleckii and Krein).
    """
    n = free.shape[-1]
    log, logs, axes = _logarithm(g)
    gradient = torch.einsum("bij,dji->bd", log[:, :n, n + 1 :], free)
    # E G + G E^T, E = free in the lower corner, in the basis of eigenvectors
    e = axes[:, None, n + 1 :].mT @ free @ axes[:, None, :n]
    gap = (logs[:, :, None] - logs[:, None]) / 2
    # (E e^l + (e^l) E^T) (l_i - l_j) / (e^l_i - e^l_j), written so that nothing overflows
    ratio = torch.where(gap.abs() < 1e-4, 1 - gap**2 / 6, gap / torch.sinh(gap))
    weight = ratio * torch.exp(-gap)
    change = e * weight[:, None] + (e * weight[:, None]).mT
    hessian = torch.einsum("bdij,bfji->bdf", change, e)
    return gradient, (hessian + hessian.mT) / 2
