"""The loss of a network as a function of its last layer, which is a quadratic: data are read once for all layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checks import check_int
from ..network.hooks import recorded
from ..network.modules import copied, find_module
from ..training import Data
from .stability import as_labels

__all__ = ["QuadraticLoss", "loss_curve"]


@dataclass(frozen=True, eq=False)
class QuadraticLoss:
    """The mean squared error of ``a @ rows.T`` from targets y, for any rows, without the data.

    It is (tr R G R^T - 2 tr R C + s) / (N m), with sums over the data in float64, the layer's inputs carrying a
    one for the bias. Errors below 1e-15 of the mean square of the targets are rounding.

    Attributes:
        rows: (m, n), the layer as it is, [weight | bias]
        gram: G (n, n), the sum of a a^T
        cross: C (n, m), the sum of a y^T
        square: s, the sum of y^T y
        count: N, the number of examples
    """

    rows: Tensor
    gram: Tensor
    cross: Tensor
    square: float
    count: int

    @classmethod
    def of(cls, model: nn.Module, layer: str, data: Data, *, chunk: int = 1024) -> QuadraticLoss:
        """Read the data once.

        Args:
            layer: name of the `Linear` module whose output is the model's
            data: inputs and targets, targets shaped as the output
            chunk: examples at a time
        """
        resting = copied(model).eval()
        module = find_module(resting, layer, "layer", nn.Linear)
        x, y = data
        if len(x) != len(y) or not len(x):
            raise ValueError(f"data must be as many inputs as targets, and some, got {len(x)} and {len(y)}")
        weight, biased = module.weight, module.bias is not None
        rows = (torch.cat([weight, module.bias[:, None]], 1) if biased else weight).detach().double()
        gram, cross = rows.new_zeros(2 * rows.shape[1:]), rows.new_zeros(*rows.T.shape)
        square, count, chunk = 0.0, 0, check_int(chunk, "chunk", 1)
        for part, target in zip(x.split(chunk), y.split(chunk)):
            with torch.no_grad(), recorded(module) as seen:
                out = resting(part)
            _check(seen, out, target, layer)
            a, b = seen[0][0].flatten(0, -2).double(), target.flatten(0, -2).double()
            a = torch.cat([a, a.new_ones(len(a), 1)], 1) if biased else a
            gram.addmm_(a.T, a)
            cross.addmm_(a.T, b)
            square, count = square + float(b.flatten() @ b.flatten()), count + len(b)
        if not (torch.isfinite(gram).all() and torch.isfinite(cross).all() and math.isfinite(square)):
            raise ValueError("data must be finite, and the layer's inputs too, got others: fill or cut them out")
        return cls(rows, gram, cross, square, count)

    def __call__(self, rows: Tensor) -> Tensor:
        """The mean squared error for rows (..., m, n), one value for each (...)."""
        rows = torch.as_tensor(rows).detach().double()
        if rows.shape[-2:] != self.rows.shape:
            raise ValueError(f"rows must be (..., {', '.join(map(str, self.rows.shape))}), got {tuple(rows.shape)}")
        quadratic = ((rows @ self.gram - 2 * self.cross.T) * rows).sum((-2, -1))
        return (quadratic + self.square).clamp(min=0) / (self.count * self.rows.shape[0])


def loss_curve(
    model: nn.Module, layer: str, data: Data, partitions: Iterable, *, bias: bool = True, chunk: int = 1024
) -> Tensor:
    """The mean squared error of a network after rows of its last layer are averaged over clusters, (K,).

    The data are read once, then a partition costs as much as one matrix of the layer's size times another, however
    many data there are. A last layer shares rows and does not shrink; for layers inside, compress and evaluate.

    Args:
        layer: name of the `Linear` module whose output is the model's
        data: inputs and targets
        partitions: K labels (m,), a label for each output unit
        bias: whether biases are averaged too; the paper's authors left them

    Example:
        ``loss_curve(net, "2", (x, y), [KMeans(k, metric=wasserstein2).fit_predict(neurons) for k in range(1, 21)])``
    """
    loss = QuadraticLoss.of(model, layer, data, chunk=chunk)
    m = len(loss.rows)
    merged = [_averaged(loss.rows, as_labels(p, f"partitions[{i}]", m)) for i, p in enumerate(partitions)]
    if not merged:
        raise ValueError("partitions must be at least one, got none")
    merged = torch.stack(merged)
    if not bias and find_module(model, layer, "layer", nn.Linear).bias is not None:
        merged[..., -1] = loss.rows[:, -1]
    return loss(merged)


def _averaged(rows: Tensor, labels: Tensor) -> Tensor:
    """Every row replaced by the mean of its cluster."""
    _, labels, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, rows)
    return (sums / counts[:, None])[labels]


def _check(seen: list, out: Tensor, target: Tensor, layer: str) -> None:
    if len(seen) != 1 or not isinstance(out, Tensor) or not (out is seen[0][1] or torch.equal(seen[0][1], out)):
        raise ValueError(f"layer must be the last of the model and used once, {layer!r} is not: compress and evaluate")
    if target.shape != out.shape:
        raise ValueError(f"targets must be shaped as the output, got {tuple(target.shape)} and {tuple(out.shape)}")
