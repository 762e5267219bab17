"""How sure a forecast by components is, from what the components leave over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..checks import check_fraction, check_int
from ..series.evaluation import deal_blocks, percentiles
from .decomposition import SSA, Group

__all__ = ["forecast_interval"]


def forecast_interval(
    ssa: SSA,
    steps: int,
    group: Group = None,
    *,
    method: str = "recurrent",
    level: float = 0.95,
    n_resamples: int = 200,
    block: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Limits (2, steps) within which the next samples of one series will lie, by a block bootstrap of residuals.

    The residuals of the group's reconstruction are cut into blocks of neighbours, which keep their dependence,
    and dealt out again over past and future; each such past is decomposed and continued anew. The group must be
    the leading components, since others may change places between resamples. Limits are somewhat narrow where
    the components take a part of correlated noise for signal.

    Args:
        block: residuals a block; default the cube root of the series' length, rounded up
    """
    indices = ssa._indices(group)
    if not indices or sorted(indices) != list(range(len(indices))):
        raise ValueError(f"group must be the leading components, such as range({max(1, len(indices))}), got {indices}")
    signal, residual = ssa.reconstruct(indices), ssa.residual(indices)
    if not isinstance(signal, Tensor) or signal.ndim > 1:
        raise ValueError("ssa must be of one series (T,): ask for each series by itself")
    steps, size, level = check_int(steps, "steps", 1), len(signal), check_fraction(level, "level")
    draws = []
    for chosen in progress(deal_blocks(size, size + steps, n_resamples, block, generator)):
        dealt = residual[chosen]
        again = SSA.of(signal + dealt[:size], ssa.window, rank=len(indices))
        draws.append(again.forecast(steps, None, method) + dealt[size:])
    return percentiles(torch.stack(draws), level)
