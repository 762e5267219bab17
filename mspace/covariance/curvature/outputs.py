"""A loss as a function of the network's answer to one example: its slope, and a root of its second derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap

__all__ = ["OutputLoss", "each"]


class OutputLoss:
    """The loss of single examples by their answers.

    Attributes:
        kind: "mse" or "cross_entropy", whose derivatives are known, or None
        count: numbers of an answer
    """

    def __init__(self, loss: Callable, out: Tensor, targets: Tensor):
        """By a few answers, and all targets."""
        self.loss, self.count, self.kind = loss, out[0].numel(), _kind(loss, out, targets)

    def slope(self, out: Tensor, target: Tensor) -> Tensor:
        """The gradient of each example's loss, (c, ...) as the answers."""
        if self.kind == "mse":
            return (out - target).mul_(2 / self.count)
        if self.kind == "cross_entropy":
            return torch.softmax(out, 1).scatter_add_(1, target[:, None], -out.new_ones(len(out), 1))
        return each(grad(self._one), out, target)

    def roots(self, out: Tensor, target: Tensor) -> Iterator[Tensor]:
        """Tensors (c, ...) as the answers, whose outer products sum up to each example's second derivative.

        Where a loss is not convex in the answer, only the part of it that is.
        """
        count = self.count
        if self.kind == "mse":
            for i in range(count):
                root = torch.zeros_like(out)
                root.view(len(out), -1)[:, i] = math.sqrt(2 / count)
                yield root
        elif self.kind == "cross_entropy":
            share = torch.softmax(out, 1)  # diag(s) - s s.T is the square of (e_i - s) sqrt(s_i), summed
            for i in range(count):
                root = -share.clone()
                root[:, i] += 1
                yield root.mul_(share[:, i : i + 1].sqrt())
        else:
            curved = each(jacrev(grad(self._one)), out, target).reshape(len(out), count, count)
            power, axes = torch.linalg.eigh((curved + curved.mT) / 2)
            for i in range(count):
                yield (axes[:, :, i] * power[:, i : i + 1].clamp(min=0).sqrt()).view_as(out)

    def _one(self, out: Tensor, target: Tensor) -> Tensor:
        return self.loss(out[None], target[None])


def each(function: Callable, *batches: Tensor) -> Tensor:
    """A function of one example for all of them; one after another where torch has no rule to batch it."""
    try:
        return vmap(function)(*batches)
    except RuntimeError:
        return torch.stack([function(*one) for one in zip(*batches)])


def _kind(loss: Callable, out: Tensor, target: Tensor) -> str | None:
    squared = loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean")
    if squared and out.shape[1:] == target.shape[1:]:
        return "mse"
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
    entropy = loss is F.cross_entropy or (plain and loss.label_smoothing == 0 and loss.ignore_index == -100)
    classes = out.ndim == 2 and target.ndim == 1 and not target.is_floating_point()
    if entropy and classes and target.min() < 0:
        raise ValueError(f"targets must be classes from 0 on, got {int(target.min())}: cut those examples out")
    return "cross_entropy" if entropy and classes else None
