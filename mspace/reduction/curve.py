"""Quality against size: what a network stores, what an output costs, counted exactly, and the score for each size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ..checks import check_int
from .compression import compress
from .passes import answer, resting, take
from .reductions import Reduction
from .shared import SharedRows
from .wires import rows_of

__all__ = ["Cost", "Point", "cost", "tradeoff"]


@dataclass(frozen=True)
class Cost:
    """What a network stores and computes.

    Attributes:
        parameters: numbers stored, each tensor once: parameters, and statistics of normalisations
        indices: whole numbers stored beside them, which output reads which row
        operations: multiply-adds of dense layers and convolutions for one example, None if not asked
    """

    parameters: int
    indices: int
    operations: int | None = None


class Point(NamedTuple):
    """A network of the curve: neurons in the layer, numbers stored in all of it, its score, indices beside them."""

    n_neurons: int
    n_parameters: int
    score: float
    n_indices: int = 0


def cost(model: nn.Module, inputs=None) -> Cost:
    """Count what a network stores; with inputs (N, ...) also the multiply-adds of one example.

    Counted are Linear, Conv1d, Conv2d and `SharedRows`; recurrent layers and the products inside an attention are not.
    """
    state = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, torch.Tensor)}
    floats = sum(t.numel() for t in state.values() if t.is_floating_point())
    shared = [m.index for m in model.modules() if isinstance(m, SharedRows) and m.index is not None]
    indices = sum(index.numel() for index in shared if index.any())  # all read the first row: nothing to look up
    return Cost(floats, indices, None if inputs is None else _operations(model, take(inputs, slice(0, 1))))


def _operations(model: nn.Module, one) -> int:
    counts = []

    def count(module, _given, output):
        if isinstance(module, SharedRows):
            counts.append(output.numel() * module.multiplications)
        else:
            counts.append(output.numel() * module.weight[0].numel())

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, SharedRows)
    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    try:
        with resting(model), torch.no_grad():
            answer(model, one)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)


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
