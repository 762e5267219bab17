"""How sure a forecast by components is, from what the components leave over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..series.trajectories import _whole
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
    if sorted(indices) != list(range(len(indices))):
        raise ValueError(f"group must be the leading components, such as range({len(indices)}), got {indices}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    signal = ssa.reconstruct(indices)
    if not isinstance(signal, Tensor) or signal.ndim > 1:
        raise ValueError("ssa must be of one series (T,): ask for each series by itself")
    steps, size = _whole(steps, "steps", 1), len(signal)
    block = max(1, round(size ** (1 / 3) + 0.5)) if block is None else _whole(block, "block", 1)
    residual = torch.from_numpy(ssa._hankel.parts[0]) - signal
    draws = []
    for _ in progress(range(_whole(n_resamples, "n_resamples", 2))):
        starts = torch.randint(size, (-(-(size + steps) // block),), generator=generator)
        dealt = residual[(starts[:, None] + torch.arange(block)).flatten()[: size + steps] % size]
        again = SSA.of(signal + dealt[:size], ssa.window, rank=len(indices))
        draws.append(again.forecast(steps, None, method) + dealt[size:])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return torch.stack(draws).quantile(tails, dim=0)
