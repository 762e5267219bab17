"""Forecasts of several trainings of one model: errors over trainings, intervals over origins.

A `Skill` holds a channel for each training, so that its own methods average over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checks import as_series, check_int
from ..tables import TextTable, with_error
from .evaluation import Skill, deal_blocks, percentiles, rolling_origin

__all__ = ["difference_of_trainings", "mean_of_trainings", "rolling_origin_of_trainings", "trainings_table"]


def rolling_origin_of_trainings(
    forecaster: Callable[[Tensor, int], Tensor], series, steps: int, n_trainings: int, **where
) -> Skill:
    """Ask several trainings at many origins of a series (T,), each in a channel of its own.

    Args:
        forecaster: from (history, steps) to (steps, n_trainings), or to (steps,) where nothing was trained
        where: start, every and period, as in `rolling_origin`
    """
    n, series = check_int(n_trainings, "n_trainings", 2), as_series(series)

    def columns(history, steps):
        return forecaster(history[:, 0], steps).reshape(steps, -1).expand(-1, n)

    return rolling_origin(columns, series[:, None].expand(-1, n), steps, **where)


def mean_of_trainings(values, digits: int = 2) -> str:
    """Write a mean with its standard error over trainings; without one where all are equal, as nothing was trained."""
    values = torch.as_tensor(values)
    return f"{values.mean():.{digits}f}" if values.std() < 1e-9 else with_error(values, digits)


def trainings_table(
    skills: dict[str, Skill], leads: Sequence[int], *, block: int, generator: torch.Generator
) -> TextTable:
    """Tabulate the MASE at some lead times: ± over trainings, 95 % intervals over blocks of origins.

    Args:
        leads: lead times in steps, from 1
        block: origins a block; the same blocks are dealt to all
    """
    state, rows = generator.get_state(), []
    for name, skill in skills.items():
        generator.set_state(state)
        mase, (low, high) = skill.losses("mase").mean(0), skill.interval("mase", block=block, generator=generator)
        cells = (f"{mean_of_trainings(mase[k - 1])} [{low[k - 1]:.2f}, {high[k - 1]:.2f}]" for k in leads)
        rows.append([name, *cells])
    return TextTable(["MASE", *(f"lead {k}" for k in leads)], rows)


def difference_of_trainings(
    skill: Skill, other: Skill, steps: int, *, block: int, origins: torch.Generator, trainings: torch.Generator
) -> Tensor:
    """Compare the MASE over the first `steps` leads: (mean, low, high) of one less the other's.

    The 95 % interval holds origins and trainings, both drawn anew. Training i of one is paired with training i of the
    other.

    Args:
        block: origins a block, drawn from the generator `origins`; trainings are drawn from `trainings`
    """
    gap = (skill.losses("mase") - other.losses("mase"))[:, :steps].mean(1)  # (origins, trainings)
    dealt, n = deal_blocks(len(gap), len(gap), 1000, block, origins), gap.shape[1]
    chosen = torch.randint(n, (1000, n), generator=trainings)
    draws = gap[dealt].mean(1).gather(1, chosen).mean(1)
    return torch.cat([gap.mean()[None], percentiles(draws, 0.95)])
