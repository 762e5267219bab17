"""Least squares from a layer's inputs to its outputs, with a ridge chosen on inputs held out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..network.hooks import batches, evaluation_mode, hold_out, seen
from ..network.weights import patches, targets

__all__ = ["Moments", "fit_layer", "moments_of"]

RIDGES = tuple(10.0**p for p in range(-8, 2))  # of the variance of a feature


@dataclass(frozen=True)
class Moments:
    """Sums of products of ones, features z (p) and targets y (o) over rows: enough for any least squares.

    Attributes:
        square: (1 + p + o, 1 + p + o); its corner is the number of rows
        size: p
    """

    square: Tensor
    size: int

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.square + other.square, self.size)

    def parts(self, bias: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Per row: E zz^T, E zy^T, E yy^T's trace, and means of z and y; with a bias all about the means."""
        s, p = self.square / self.square[0, 0], self.size
        z, y = s[0, 1 : p + 1], s[0, p + 1 :]
        gram, cross, own = s[1 : p + 1, 1 : p + 1], s[1 : p + 1, p + 1 :], s.diagonal()[p + 1 :].sum()
        if bias:
            return gram - torch.outer(z, z), cross - torch.outer(z, y), own - y @ y, z, y
        return gram, cross, own, torch.zeros_like(z), torch.zeros_like(y)

    def error(self, theta: Tensor, bias: Tensor | None) -> float:
        """Return the mean square of y - theta^T z - bias, summed over the outputs."""
        gram, cross, own, z, y = self.parts(bias is not None)
        fit = own - 2 * (theta * cross).sum() + (theta * (gram @ theta)).sum()
        return float(fit + (0.0 if bias is None else (y - theta.T @ z - bias).square().sum()))


def moments_of(student: nn.Module, teacher: nn.Module, name: str, inputs) -> Moments:
    """Return those of a layer's inputs in the student, and its outputs in the teacher."""
    reader, total, size = student.get_submodule(name), torch.zeros(()), 0
    with evaluation_mode(student, teacher), torch.no_grad():
        for part in batches(inputs):
            wanted = seen(teacher, [name], part)[name]
            z = wanted.input if student is teacher else seen(student, [name], part)[name].input
            z, y = patches(reader, z), targets(reader, wanted.output)
            both = torch.cat([torch.ones(len(z), 1, dtype=z.dtype, device=z.device), z, y], 1)
            total, size = total + (both.T @ both).cpu(), z.shape[1]
    return Moments(total, size)


def fit_layer(
    student: nn.Module, teacher: nn.Module, name: str, inputs, start: Tensor, ridge: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return weights (p, o) and a bias (o,), where the layer has one, by which it gives the teacher's outputs.

    Minimises E|y - theta^T z - b|^2 + ridge |D (theta - start)|^2, D the standard deviations of z, so that the scale
    of a feature does not matter. Without `ridge` it is chosen among powers of ten by the error on a fifth of the
    inputs, infinity (the start itself) among them, and then everything is fitted anew with it.
    """
    bias = student.get_submodule(name).bias is not None
    part, rest = hold_out(inputs) if ridge is None else (inputs, None)
    moments = moments_of(student, teacher, name, part)
    if rest is not None:
        held, solve = moments_of(student, teacher, name, rest), _solver(moments, start, bias)
        ridge = min((*RIDGES, torch.inf), key=lambda r: held.error(*solve(r)))
        moments = moments + held
    return _solver(moments, start, bias)(RIDGES[0] if ridge is None else ridge)


def _solver(moments: Moments, start: Tensor, bias: bool):
    """Return the function from a ridge to weights and bias; the matrix is decomposed once for all ridges."""
    gram, cross, _, z, y = moments.parts(bias)
    spread = gram.diagonal().clamp(min=0).sqrt()
    idle = spread <= 1e-12 * spread.max()
    inverse = torch.where(idle, 0.0, 1 / spread.clamp(min=torch.finfo(spread.dtype).tiny))
    eigenvalues, eigenvectors = torch.linalg.eigh(inverse[:, None] * gram * inverse)
    rest = eigenvectors.T @ (inverse[:, None] * (cross - gram @ start))
    eigenvalues = eigenvalues.clamp(min=0)
    sound = eigenvalues > len(eigenvalues) * 1e-15 * eigenvalues[-1]

    def solve(ridge: float) -> tuple[Tensor, Tensor | None]:
        theta = start
        if ridge < torch.inf:
            gain = torch.where(sound, 1 / (eigenvalues + ridge).clamp(min=1e-300), 0.0)
            theta = start + inverse[:, None] * (eigenvectors @ (gain[:, None] * rest))
        return theta, (y - theta.T @ z if bias else None)

    return solve
