"""A table divided for learning and testing."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_int
from .tables import Table

__all__ = ["learn_and_test"]


def learn_and_test(
    table: Table, n_learn: int, *, components: int | None = None, generator: torch.Generator | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The rows of a table in random order, the first `n_learn` to learn from and the rest held out.

    Features are centred and brought to unit variance by the learning part alone. Those that are constant there stay at
    zero, give or take the held-out part; so do components in which it has no variance but that of rounding.

    Args:
        n_learn: at least 2, and less than there are rows
        components: how many principal components of the learning part stand for the features; all features if None. The
            largest entry of an axis is positive, for of itself its sign is a matter of rounding

    Returns:
        inputs and targets to learn from, and those held out
    """
    count, width = table.inputs.shape
    n_learn = check_int(n_learn, "n_learn", 2, count - 1)
    order = torch.randperm(count, generator=generator)
    x, y = table.inputs[order], table.targets[order]
    x = x - x[:n_learn].mean(0)
    if components is not None:
        components = check_int(components, "components", 1, min(n_learn - 1, width))
        axes = torch.linalg.svd(x[:n_learn], full_matrices=False)[2][:components]
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        x = x @ (axes * largest.sign()).T
    size = x[:n_learn].std(0)
    nothing = 0.0 if components is None else max(n_learn, width) * torch.finfo(x.dtype).eps * float(size.max())
    x = x / torch.where(size > nothing, size, 1.0)
    return (x[:n_learn], y[:n_learn]), (x[n_learn:], y[n_learn:])
