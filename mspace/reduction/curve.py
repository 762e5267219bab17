"""Quality against size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from ..checks import check_int
from .compression import compress
from .cost import cost
from .factors import Reduction
from .wires import rows_of

__all__ = ["Point", "tradeoff"]


class Point(NamedTuple):
    """A network of the curve: neurons in the layer, numbers stored in all of it, its score, indices beside them."""

    n_neurons: int
    n_parameters: int
    score: float
    n_indices: int = 0


def tradeoff(
    model: nn.Module,
    layer: str | Sequence[str],
    reduce: Callable,
    sizes: Sequence[int],
    score: Callable[[nn.Module], float],
    *,
    feeds: str | Sequence[str] | None = None,
    calibration=None,
    finetune: Callable[[nn.Module], nn.Module] | None = None,
    **options,
) -> list[Point]:
    """Compress a layer to each of `sizes`, and score what comes out.

    Args:
        reduce: (rows (m, n+1), k) -> a `Reduction`, or a finished network, which is then scored as it is; such as
            ``lambda rows, k: merge(rows, KMeans(k, metric=wasserstein2).fit_predict(neurons))``, or
            ``lambda rows, k: shrink(model, layer, k, feeds=feeds, calibration=x)``
        sizes: numbers of neurons, each from 1 to m
        score: of a network on data held out, such as its accuracy
        feeds, calibration, options: as in `compress`
        finetune: (network) -> network, trained on
    """
    rows = rows_of(model, layer, norm=options.get("norm"))
    sizes = [check_int(k, "sizes", 1, len(rows)) for k in sizes]
    points = []
    for k in sizes:
        small = reduce(rows, k)
        if isinstance(small, Reduction):
            small = compress(model, layer, small, feeds, calibration=calibration, **options)
        if finetune is not None and isinstance(small, nn.Module):
            small = finetune(small)
        if not isinstance(small, nn.Module):
            raise ValueError(
                f"reduce must give a Reduction or a network, and finetune a network, got {type(small).__name__}"
            )
        size = cost(small)
        points.append(Point(k, size.parameters, float(score(small)), size.indices))
    return points
