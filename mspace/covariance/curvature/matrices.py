"""The mean second derivative of the loss: exact, or by Gauss and Newton without the network's own curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...training import Data, Loss
from .moments import Grams
from .piecewise import Piecewise
from .problem import LARGEST, Plan, Problem
from .rows import rows_of
from .units import by_units

__all__ = ["Curvature", "hessian"]

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
    problem = Problem.of(model, data, loss, layers)
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
