"""Tables of forecasting errors, for one forecaster and for several trainings of one.

Of trainings, a `Skill` holds a channel for each, so that its own methods average over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mspace.checks import as_series, check_int
from mspace.series.evaluation import Skill, deal_blocks, percentiles, rolling_origin

from .tables import TextTable, with_error

__all__ = [
    "difference_of_trainings",
    "mean_of_trainings",
    "rolling_origin_of_trainings",
    "skill_table",
    "trainings_table",
]


def skill_table(skills: dict[str, Skill], leads: Sequence[int], metric: str = "mase", **interval) -> TextTable:
    """Tabulate the errors of several forecasters at some lead times, with intervals, for a reader.

    Args:
        leads: lead times in steps, from 1
        interval: options of `Skill.interval`; each forecaster reads from the generator in turn
    """
    if not skills:
        raise ValueError("skills must hold at least one forecaster's Skill")
    steps = min(s.actual.shape[1] for s in skills.values())
    leads = [check_int(k, "leads", 1, steps) for k in leads]
    rows = []
    for name, skill in skills.items():
        value, (low, high) = skill(metric), skill.interval(metric, **interval)
        rows.append([name, *(f"{value[k - 1]:.2f} [{low[k - 1]:.2f}, {high[k - 1]:.2f}]" for k in leads)])
    return TextTable([metric.upper(), *(f"lead {k}" for k in leads)], rows)


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
