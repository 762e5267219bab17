"""The Gauss-Newton matrix of dense layers with many outputs, at a cost that does not grow with them.

A root of the output's curvature comes back to unit k as d_k, and to its weights as d_k a, with a what enters it. Summed
over roots, an example gives the weights of units k and m the block ``(sum of d_k d_m) a b.T``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem
from .rows import Dense, rows_of

__all__ = ["by_units"]

HELD = 1 << 18  # numbers of a piece: what a processor holds nearby
WRITTEN = 40  # products that cost as much as a number written


def by_units(problem: Problem) -> Tensor | None:
    """The mean of J.T H J over examples, (p, p); None where going through the outputs one by one is the shorter way."""
    net = rows_of(problem)
    if not isinstance(net, Dense):
        return None
    numbers = list(range(net.first, len(net.layers)))
    shapes = [net.named[f"{net.layers[i][0]}.weight"].shape for i in numbers]
    if (problem.outputs.count - 1) * problem.size <= WRITTEN * sum(units for units, _ in shapes):
        return None
    starts = torch.tensor([0] + [units * (width + 1) for units, width in shapes]).cumsum(0).tolist()
    total = torch.zeros(starts[-1], starts[-1], dtype=torch.float64)
    for x, y, _ in problem.pieces(max(16, HELD // starts[-1])):
        out = net.at(x)
        entered = [torch.cat([net.values[i], x.new_ones(len(x), 1)], 1) for i in numbers]
        back = torch.stack([_joined(net, root) for root in problem.outputs.roots(out, y)], 1)
        _add(total, starts, entered, back.mT @ back)
    order = _order(net, problem, numbers)
    return (total.triu() + total.triu(1).T)[order[:, None], order] / len(problem)


def _add(total: Tensor, starts: list[int], entered: list[Tensor], shared: Tensor) -> None:
    """What some examples give to the columns from each unit's own on; shared is (c, units, units)."""
    right = shared.new_empty(len(shared), len(total))
    unit = 0
    for layer, a in enumerate(entered):
        width = a.shape[1]
        for row in range(starts[layer], starts[layer + 1], width):
            at = unit  # the first unit of those whose columns come next
            for b, start, stop in zip(entered[layer:], [row, *starts[layer + 1 :]], starts[layer + 1 :]):
                count = (stop - start) // b.shape[1]
                part = right[:, start:stop].unflatten(1, (count, -1))
                torch.mul(shared[:, unit, at : at + count, None], b[:, None, :], out=part)
                at += count
            total[row : row + width, row:].addmm_(a.T, right[:, row:])
            unit += 1


def _joined(net: Dense, root: Tensor) -> Tensor:
    """What comes back to all units, (c, units), from the first random layer on."""
    return torch.cat([d for _, d in net.back(root)][::-1], 1)


def _order(net: Dense, problem: Problem, numbers: list[int]) -> Tensor:
    """Where each random parameter stands when a unit's weights and its bias follow each other, (p,)."""
    found, at = {}, 0
    for i in numbers:
        name = net.layers[i][0]
        units, width = net.named[f"{name}.weight"].shape
        place = torch.arange(at, at + units * (width + 1)).view(units, width + 1)
        found[f"{name}.weight"], found[f"{name}.bias"] = place[:, :-1].reshape(-1), place[:, -1]
        at += place.numel()
    return torch.cat([found[k] for k in problem.free])
