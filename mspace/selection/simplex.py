"""Quadratic programs on a simplex, or on a product of several, solved exactly by finding which weights are zero."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["equilibrium"]

RIDGE, CORNER = 1e-7, 1e-12  # of the size of the matrix: they make the answer unique, and equal entries share
BELOW, SLACK = -1e-10, -1e-13  # a weight and a slope that are negative; the ridge alone tells equal entries apart
REFINED, PATIENCE = 4, 5


def equilibrium(matrix: Tensor, linear: Tensor, simplex: Tensor | None = None) -> Tensor:
    """Weights z >= 0, summing to one on each simplex, where ``F = matrix @ z - linear`` is least on those above zero.

    That is, ``F_i = u`` where z_i > 0 and ``F_i >= u`` where z_i = 0, with a number u for each simplex. For a symmetric
    matrix it is the minimum of ``z.T matrix z / 2 - linear.T z``; with an antisymmetric part it is a saddle point. Of many
    solutions the shortest is taken, so that equal entries share equally.

    All wrong guesses are changed at once, by block principal pivoting (Judice and Pires 1994), which takes some ten rounds
    but may turn in circles for matrices of low rank. Then the solution is followed from a vertex on, whose advantage
    shrinks to zero: it is linear in between changes of one weight.

    Args:
        matrix: (m, m) whose symmetric part has no negative eigenvalues, along the simplices at least
        linear: (m,)
        simplex: (m,), the number of the simplex of each weight, from 0; by default there is one
    """
    simplex = torch.zeros(len(linear), dtype=torch.long) if simplex is None else simplex
    sums = (simplex == torch.arange(int(simplex.max()) + 1)[:, None]).double()
    size = max(float(matrix.diagonal().mean()), float(linear.max() - linear.min()), torch.finfo(linear.dtype).tiny)
    matrix, linear = matrix / size, linear / size
    inside = _by_blocks(matrix, linear, sums)
    inside = _by_path(matrix, linear, sums) if inside is None else inside
    z = _on_face(matrix, linear[:, None], sums, inside, REFINED)[0][:, 0].clamp(min=0)
    return z / ((sums @ z) @ sums)


def _by_blocks(matrix: Tensor, linear: Tensor, sums: Tensor) -> Tensor | None:
    """Which weights are not zero: change all wrong ones until none is, or until that has long not helped."""
    m = len(linear)
    inside, best, patience = torch.ones(m, dtype=torch.bool), m + 1, PATIENCE
    while patience >= 0:
        z, slack = (v[:, 0] for v in _on_face(matrix, linear[:, None], sums, inside))
        wrong = torch.where(inside, z < BELOW, slack < SLACK)
        count = int(wrong.sum())
        if not count:
            return inside
        best, patience = (count, PATIENCE) if count < best else (best, patience - 1)
        inside = inside ^ wrong
    return None


def _by_path(matrix: Tensor, linear: Tensor, sums: Tensor) -> Tensor:
    """The same, following the solution for ``linear + t * start`` from a t where it is a vertex down to zero."""
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
            return inside
        inside[changed] = ~inside[changed]
    raise RuntimeError("the quadratic program did not end, which rounding alone can cause: add to the diagonal")


def _on_face(matrix: Tensor, linear: Tensor, sums: Tensor, inside: Tensor, refined: int = 0) -> tuple[Tensor, Tensor]:
    """The solution when exactly these weights may differ from zero, and by how much F exceeds u elsewhere.

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
    found = torch.linalg.lu_solve(*factors, target)
    for _ in range(refined):  # towards the answer without the ridge
        found = found + torch.linalg.lu_solve(*factors, target - system @ found)
    z = torch.zeros_like(linear)
    z[inside] = found[:-k]
    return z, matrix[:, inside] @ found[:-k] - linear + sums.T @ found[-k:]
