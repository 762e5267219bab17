"""Which units to keep so that least squares on them predicts the next layer best: one at a time, from either end."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_int
from .least_squares import Moments

__all__ = ["backward_elimination", "forward_selection"]

NOTHING = 1e-10  # of a unit's own variance: what is left of it once the chosen ones predict the rest
TIE = 1e-6  # of the largest gain: with fewer examples than units the last gains are equal, and rounding would rank them


def forward_selection(moments: Moments, units: int, k: int, *, bias: bool = True) -> tuple[Tensor, Tensor]:
    """Add the unit that lowers the error most, k times (orthogonal least squares, Chen, Billings and Luo 1989).

    The criterion is the error after the refit of all weights, which orthogonal matching pursuit only approximates.

    Args:
        moments: of what the units give (units * s features, s places of a unit side by side) and the targets
        units: m, of which k are chosen

    Returns:
        the chosen units (k,) in order, and the share of the targets' variance (k,) that is left after each
    """
    k = check_int(k, "k", 1, units)
    gram, cross, own = _scaled(moments, units, bias)
    chosen, left = [], []
    s = gram.shape[1]
    flat, targets = gram.flatten(0, 1).flatten(1), cross.flatten(0, 1).clone()
    explained = gram.new_zeros(k * s, units * s)  # gram less its Gram matrix is what the chosen ones leave
    own_blocks = gram.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
    taken = torch.zeros(units, dtype=torch.bool)
    total = own.clone()
    for i in range(k):
        root = _roots(own_blocks, NOTHING)
        gain = _gains(targets, root).masked_fill_(taken, -1.0)
        j = int((gain >= (1 - TIE) * gain.max()).nonzero()[0])
        taken[j] = True
        place = slice(j * s, (j + 1) * s)
        push = (flat[:, place] - explained[: i * s].T @ explained[: i * s, place]) @ root[j]
        explained[i * s : (i + 1) * s] = push.T
        targets.addmm_(push, root[j].T @ targets[place], alpha=-1)
        push = push.unflatten(0, (units, s))
        own_blocks -= push @ push.mT
        total = total - gain[j]
        chosen.append(j)
        left.append(total)
    return torch.tensor(chosen), torch.stack(left).clamp(min=0) / own.clamp(min=1e-300)


def backward_elimination(moments: Moments, units: int, k: int, *, bias: bool = True) -> tuple[Tensor, Tensor]:
    """Drop the unit whose loss the others make good best, until k are left: layer-wise OBS on whole units.

    Args and returns as in `forward_selection`; the share left is given for k units and falls backwards from there,
    (units - k + 1,), all units last.
    """
    k = check_int(k, "k", 1, units)
    gram, cross, own = _scaled(moments, units, bias)
    alive = list(range(units))
    inverse, theta = _solved(gram, cross)
    solved, error = units, own - (theta * cross).sum()
    left = [error]
    while len(alive) > k:
        if 4 * len(alive) <= 3 * solved:  # every step takes digits from the inverse, all of them if units are dependent
            inverse, theta = _solved(gram[alive][:, :, alive], cross[alive])
            solved = len(alive)
        blocks = torch.arange(len(alive))
        undo = torch.linalg.inv(inverse[blocks, :, blocks, :])
        price = (theta * (undo @ theta)).sum((1, 2))
        j = int(price.argmin())
        rest = [i for i in range(len(alive)) if i != j]
        column = inverse[:, :, j] @ undo[j]
        error = error + price[j]
        theta = (theta - column @ theta[j])[rest]
        inverse = (inverse - torch.einsum("iab,jcb->iajc", column, inverse[:, :, j]))[rest][:, :, rest]
        alive.pop(j)
        left.append(error)
    return torch.tensor(alive), torch.stack(left[::-1]).clamp(min=0) / own.clamp(min=1e-300)


def _solved(gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse of blocks (m, s, m, s), and least squares by it."""
    flat = gram.reshape(2 * [gram.shape[0] * gram.shape[1]])
    inverse = torch.linalg.inv(flat + 1e-8 * torch.eye(len(flat), dtype=flat.dtype)).reshape(gram.shape)
    return inverse, torch.einsum("iajc,jco->iao", inverse, cross)


def _scaled(moments: Moments, units: int, bias: bool):
    """Return blocks (m, s, m, s) and (m, s, o) of features scaled to a variance of one each, and that of the targets."""
    gram, cross, own, *_ = moments.parts(bias)
    spread = gram.diagonal().clamp(min=0).sqrt()
    idle = spread <= 1e-12 * spread.max()
    scale = torch.where(idle, 0.0, 1 / torch.where(idle, 1.0, spread))
    s = len(gram) // units
    gram = (scale[:, None] * gram * scale).reshape(units, s, units, s)
    return gram, (scale[:, None] * cross).reshape(units, s, -1), own


def _gains(targets: Tensor, root: Tensor) -> Tensor:
    """Return by how much each unit would lower the error, (m,)."""
    if root.shape[1] == 1:
        return (torch.linalg.vector_norm(targets, dim=1) * root[:, 0, 0]).square()
    return (root.mT @ targets.unflatten(0, root.shape[:2])).square().sum((1, 2))


def _roots(blocks: Tensor, floor: float) -> Tensor:
    """Return R with R R^T the pseudoinverse of small covariances (m, s, s), nothing where nothing is left."""
    if blocks.shape[1] == 1:
        return torch.where(blocks > floor, blocks.clamp(min=floor).rsqrt(), 0.0)
    eigenvalues, eigenvectors = torch.linalg.eigh(blocks)
    scale = torch.where(eigenvalues > floor, eigenvalues.clamp(min=floor).rsqrt(), 0.0)
    return eigenvectors * scale[..., None, :]
