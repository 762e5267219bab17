"""Quality against size: what a network stores, counted exactly, and its score for each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..checks import check_callable, check_int
from ..network.connections import rows_of
from .compression import compress
from .reductions import Reduction
from .shared import SharedRows

__all__ = ["Cost", "Point", "cost", "tradeoff"]


class Cost(NamedTuple):
    """What a network stores: numbers, each tensor once, and beside them indices, which output reads which row."""

    parameters: int
    indices: int


class Point(NamedTuple):
    """A network of the curve: neurons in the layer, numbers stored in all of it, its score, indices beside them."""

    n_neurons: int
    n_parameters: int
    score: float
    n_indices: int = 0


def cost(model: nn.Module) -> Cost:
    """Count what a network stores: its parameters and statistics of normalisations, and the indices of `SharedRows`."""
    state = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, torch.Tensor)}
    floats = sum(t.numel() for t in state.values() if t.is_floating_point())
    shared = [m.index for m in model.modules() if isinstance(m, SharedRows) and m.index is not None]
    return Cost(floats, sum(i.numel() for i in shared if i.any()))  # all read the first row: nothing to look up


def tradeoff(
    model: nn.Module,
    layer: str | Sequence[str],
    reduce: Callable,
    sizes: Sequence[int],
    score: Callable[[nn.Module], float],
    *,
    feeds: str | Sequence[str] | None = None,
    calibration=None,
    norm: str | Sequence[str] | None = None,
    finetune: Callable[[nn.Module], nn.Module] | None = None,
) -> list[Point]:
    """Compress a layer to each of `sizes`, and score the result.

    Args:
        reduce: (rows (m, n+1), k) -> a `Reduction`, or a finished network, which is then scored as it is; such as
            ``lambda rows, k: merge(rows, KMeans(k, metric=wasserstein2).fit_predict(neurons))``, or
            ``lambda rows, k: shrink(model, layer, k, feeds=feeds, calibration=x)``
        sizes: numbers of neurons, each from 1 to m
        score: of a network on data held out, such as its accuracy
        feeds, calibration, norm: as in `compress`; a `reduce` that calls `compress` itself may take other options
        finetune: (network) -> network, trained on
    """
    check_callable(reduce, "reduce", "(rows, k) -> a Reduction, such as one that calls merge")
    check_callable(score, "score", "of a network, such as its accuracy on data held out")
    if finetune is not None:
        check_callable(finetune, "finetune", "(network) -> network, or None")
    rows = rows_of(model, layer, norm=norm)
    sizes = [check_int(k, "sizes", 1, len(rows)) for k in sizes]
    points = []
    for k in sizes:
        small = reduce(rows, k)
        if isinstance(small, Reduction):
            small = compress(model, layer, small, feeds, calibration=calibration, norm=norm)
        if finetune is not None and isinstance(small, nn.Module):
            small = finetune(small)
        if not isinstance(small, nn.Module):
            raise ValueError(
                f"reduce must give a Reduction or a network, and finetune a network, got {type(small).__name__}"
            )
        size = cost(small)
        points.append(Point(k, size.parameters, float(score(small)), size.indices))
    return points
