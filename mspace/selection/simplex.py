"""Quadratic programs on a simplex, or on a product of two, solved exactly by finding which weights are zero."""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor

__all__ = ["minimum", "saddle"]

RIDGE, CORNER = 1e-7, 1e-12  # of the size of the matrix: they make the solution unique, and equal entries share
HEAVY = 1e3  # weight of the equation that weights sum to one, against those of the program
REFINED = 4


def minimum(matrix: Tensor, linear: Tensor) -> Tensor:
    """Return the weights z >= 0 (m,), summing to one, that minimise ``z.T matrix z / 2 - linear.T z``.

    With a Cholesky factor of the matrix that is a least squares problem with non-negative weights and one heavy row for
    their sum. It finds which weights are zero; the others then solve a linear system.

    Args:
        matrix: (m, m), symmetric, positive semidefinite
        linear: (m,)
    """
    matrix, linear = _scaled(matrix, linear)
    root = torch.linalg.cholesky(matrix + RIDGE * torch.eye(len(matrix), dtype=matrix.dtype))
    target = torch.linalg.solve_triangular(root, (linear - linear.max())[:, None], upper=False)[:, 0]
    rows = torch.cat([root.T, torch.full((1, len(matrix)), HEAVY, dtype=matrix.dtype)])
    found = nnls(rows.numpy(), [*target.tolist(), HEAVY], maxiter=100 + 30 * len(matrix))[0]
    return _polished(matrix, linear, torch.ones(1, len(matrix), dtype=matrix.dtype), torch.from_numpy(found) > 0)


def saddle(matrix: Tensor, linear: Tensor, simplex: Tensor) -> Tensor:
    """Return weights z >= 0 (m,), one in sum on each simplex, where ``F = matrix @ z - linear`` is least where z > 0.

    That is, ``F_i = u`` where z_i > 0 and ``F_i >= u`` where z_i = 0, with a number u for each simplex. The solution for
    ``linear + t * start`` is followed from a t where it is a vertex down to zero: it is linear in t between changes of
    one weight.

    Args:
        matrix: (m, m), whose symmetric part is positive semidefinite; an antisymmetric part makes it a saddle point
        linear: (m,)
        simplex: (m,), the index of the simplex of each weight
    """
    matrix, linear = _scaled(matrix, linear)
    sums = (simplex == torch.arange(int(simplex.max()) + 1)[:, None]).double()
    start = torch.where(sums > 0, matrix.diagonal() / 2 - linear, torch.inf).argmin(1)
    vertex = torch.zeros_like(linear)
    vertex[start] = 1.0
    slope = matrix @ vertex - linear
    t = float((slope[start] @ sums - slope).max())
    inside, both = vertex > 0, torch.stack([linear, vertex], 1)
    changed = None
    for _ in range(1000 + 20 * len(linear)):
        z, slack = _on_face(matrix, both, sums, inside)
        at, rate = torch.where(inside[:, None], z, slack).T  # which is at + t * rate, and should not fall below zero
        event = torch.where(rate > 0, -at / torch.where(rate > 0, rate, 1.0), -torch.inf)
        if changed is not None:
            event[changed] = -torch.inf
        changed = int(event.argmax())
        t = min(t, float(event[changed]))
        if t <= 0:
            return _polished(matrix, linear, sums, inside)
        inside[changed] = ~inside[changed]
    raise RuntimeError("the quadratic program did not end, which rounding alone can cause: add to the diagonal")


def _scaled(matrix: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    size = max(float(matrix.diagonal().mean()), float(linear.max() - linear.min()), torch.finfo(linear.dtype).tiny)
    return matrix / size, linear / size


def _polished(matrix: Tensor, linear: Tensor, sums: Tensor, inside: Tensor) -> Tensor:
    """Return the weights (m,) by which of them are not zero."""
    z = _on_face(matrix, linear[:, None], sums, inside, REFINED)[0][:, 0].clamp(min=0)
    return z / ((sums @ z) @ sums)


def _on_face(matrix: Tensor, linear: Tensor, sums: Tensor, inside: Tensor, refined: int = 0) -> tuple[Tensor, Tensor]:
    """Return the solution when exactly these weights may differ from zero, and by how much F exceeds u elsewhere.

    For linear parts (m, c); where c is 2, the second is a direction in which the first moves, and weights sum to zero.
    """
    part, k = sums[:, inside], len(sums)
    own = matrix[inside][:, inside]
    system = torch.cat([torch.cat([own, part.T], 1), torch.cat([part, own.new_zeros(k, k)], 1)])
    ridged = system.clone()
    ridged.diagonal()[:-k] += RIDGE
    ridged.diagonal()[-k:] -= CORNER
    factors = torch.linalg.lu_factor(ridged)
    total = own.new_zeros(k, linear.shape[1])
    total[:, 0] = 1.0
    target = torch.cat([linear[inside], total])
    solution = torch.linalg.lu_solve(*factors, target)
    for _ in range(refined):  # towards the solution without the ridge
        solution = solution + torch.linalg.lu_solve(*factors, target - system @ solution)
    z = torch.zeros_like(linear)
    z[inside] = solution[:-k]
    return z, matrix[:, inside] @ solution[:-k] - linear + sums.T @ solution[-k:]
