"""The mean second derivative of the loss: exact, or by Gauss and Newton, also where outputs are many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..training import Data, Loss
from .gradients import Dense, Grams, rows_of
from .problem import LARGEST, Plan, Problem
from .relu_exact import Piecewise

__all__ = ["Curvature", "by_units", "hessian"]

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


WORK = 1e10  # examples times parameters squared: what `auto` spends on an exact matrix, some ten seconds
SEEN = 1 << 22  # numbers of inputs and answers of a piece that is differentiated twice


def hessian(
    model: nn.Module, data: Data, loss: Loss, *, layers: str | Sequence[str] | None = None, gauss_newton: bool = False
) -> Tensor:
    """The second derivative of the mean loss of a network in evaluation mode, (p, p), in double precision.

    One hidden layer of ReLUs under `F.mse_loss` has it in closed form; other networks are differentiated twice, row by
    row.

    Args:
        data: inputs and targets; strided views such as `windows` gives are never copied as a whole
        layers: names of layers or parameters, all by default; rows are in the order of ``named_parameters``
        gauss_newton: take J.T H J instead, without the curvature of the network itself
    """
    problem = Problem.of(model, data, loss, layers, curved=gauss_newton)
    plan = Plan.of(model, "full", layers, False, LARGEST)
    found = Curvature(problem, plan.scopes, LARGEST)
    return (found.gauss_newton() if gauss_newton else found.hessian())[0][0]


class Curvature:
    """Both matrices of a network, between the parameters that share a scope, each (k, b, b)."""

    def __init__(self, problem: Problem, scopes: Sequence[Tensor], largest: int):
        self.problem, self.scopes = problem, scopes
        self.fast = Piecewise.of(problem, largest)

    def affordable(self) -> bool:
        """Whether the exact one is no more than seconds away."""
        return self.fast is not None or len(self.problem) * self.problem.size**2 <= WORK

    def hessian(self) -> list[Tensor]:
        """The exact second derivative."""
        return self._cut(self.fast.matrix(exact=True)) if self.fast else self._by_double_backward()

    def gauss_newton(self) -> list[Tensor]:
        """The mean of J.T H J over examples, J the derivative of the answer, H that of the loss: never indefinite."""
        if self.fast:
            return self._cut(self.fast.matrix(exact=False))
        problem, grams = self.problem, Grams(self.scopes)
        whole = len(self.scopes) == 1 and self.scopes[0].shape == (1, problem.size)
        if whole and (found := by_units(problem)) is not None:
            return [found[None]]
        net = rows_of(problem)
        for x, y, _ in problem.pieces(net.chunk):
            out = net.at(x)
            for root in problem.outputs.roots(out, y):
                grams.add(net.rows(root))
        return [total.div_(len(problem)) for total in grams.finish()]

    def _cut(self, whole: Tensor) -> list[Tensor]:
        if len(self.scopes) == 1 and self.scopes[0].shape == (1, len(whole)):
            return [whole[None]]
        return [whole[s[:, :, None], s[:, None, :]] for s in self.scopes]

    def _by_double_backward(self) -> list[Tensor]:
        problem = self.problem
        found = [torch.zeros(*s.shape, s.shape[1], dtype=torch.float64) for s in self.scopes]
        fixed = {**dict(problem.net.named_parameters()), **dict(problem.net.named_buffers())}
        own = {k: fixed[k].detach().clone().requires_grad_() for k in problem.free}
        wide = problem.x[0].numel() + problem.y[0].numel()
        for x, y, _ in problem.pieces(max(1, SEEN // wide)):
            with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                value = problem.loss(functional_call(problem.net, {**fixed, **own}, (x,)), y)
                slopes = torch.autograd.grad(value, own.values(), create_graph=True, materialize_grads=True)
                slope = _flat(slopes)
            if not slope.requires_grad:
                continue
            for scope, total in zip(self.scopes, found):
                for block, matrix in zip(scope, total):
                    for i, unit in enumerate(torch.eye(len(slope), dtype=slope.dtype)[block]):
                        row = torch.autograd.grad(slope, own.values(), unit, retain_graph=True, materialize_grads=True)
                        matrix[i].add_(_flat(row)[block], alpha=len(x) / len(problem))
        return [(t + t.mT) / 2 for t in found]


def _flat(parts) -> Tensor:
    return torch.cat([p.reshape(-1) for p in parts])
