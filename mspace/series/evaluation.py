"""Rolling-origin evaluation: what a forecaster is worth at every lead time, with its spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .trajectories import _whole, as_recordings

__all__ = ["Skill", "origins", "rolling_origin", "skill_table"]

METRICS = ("mse", "mae", "mase", "r2")


@dataclass(frozen=True)
class Skill:
    """Forecasts from o origins beside what came: predicted and actual (o, steps[, m]).

    Attributes:
        recording, origin: (o,): which recording, and how many of its samples were known
        scale, level: the in-sample error of the seasonal naive forecast (MASE) and the in-sample mean (R2)
    """

    predicted: Tensor
    actual: Tensor
    recording: Tensor
    origin: Tensor
    scale: float
    level: float

    def _parts(self, metric: str) -> tuple[Tensor, Tensor | float]:
        """A metric is a ratio of means over origins: its numerator (o, steps), its denominator."""
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        error, spread = self.predicted - self.actual, self.actual - self.level
        loss = error.abs() if metric in ("mae", "mase") else error**2
        loss, spread = (v.reshape(*v.shape[:2], -1).mean(2) for v in (loss, spread**2))
        return loss, {"mse": 1.0, "mae": 1.0, "mase": self.scale, "r2": spread}[metric]

    def _value(self, metric: str, chosen: Tensor) -> Tensor:
        top, bottom = self._parts(metric)
        top = top[chosen].mean(-2)
        bottom = bottom[chosen].mean(-2) if isinstance(bottom, Tensor) else bottom
        return 1 - top / bottom if metric == "r2" else top / bottom

    def __call__(self, metric: str) -> Tensor:
        """The metric at every lead time, (steps,): mse, mae, mase or r2.

        mase is the error over the in-sample one-period naive error, r2 the gain over the in-sample mean.
        """
        return self._value(metric, torch.arange(len(self.actual)))

    def interval(
        self,
        metric: str,
        *,
        level: float = 0.95,
        block: int | None = None,
        n_resamples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A percentile interval (2, steps) from resampling blocks of neighbouring origins.

        Args:
            block: origins a block; default the cube root of their number, rounded up (Hall, Horowitz and Jing
                1995); where horizons overlap, take at least as many origins as one horizon spans
        """
        values = self._value(metric, self._blocks(block, n_resamples, generator))
        return values.quantile(_tails(level).to(values), dim=0)

    def difference(
        self,
        other: Skill,
        metric: str = "mse",
        *,
        steps: int | None = None,
        level: float = 0.95,
        block: int | None = None,
        n_resamples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """This error less another forecaster's, averaged over the first `steps` leads: (mean, low, high).

        Both saw the same origins, so what made an origin hard cancels, and the interval is narrower than
        those of the two errors. Blocks as in `interval`.
        """
        if not torch.equal(self.actual, other.actual):
            raise ValueError("other must come from the same series, origins and steps")
        chosen = self._blocks(block, n_resamples, generator)
        all_once = torch.arange(len(self.actual))
        gap, draws = (
            (self._value(metric, c) - other._value(metric, c))[..., :steps].mean(-1) for c in (all_once, chosen)
        )
        return torch.cat([gap[None], draws.quantile(_tails(level).to(draws))])

    def _blocks(self, block: int | None, n_resamples: int, generator) -> Tensor:
        n = len(self.actual)
        block = max(1, math.ceil(n ** (1 / 3))) if block is None else _whole(block, "block", 1)
        starts = torch.randint(n, (n_resamples, -(-n // block)), generator=generator)
        return ((starts[..., None] + torch.arange(block)) % n).flatten(1)[:, :n]

    @property
    def runaway(self) -> Tensor:
        """(o,), True where a forecast left the middle of what came by more than ten times its range."""
        low, high = self.actual.min(), self.actual.max()
        far = (self.predicted - (low + high) / 2).abs() > 10 * (high - low)
        return far.flatten(1).any(1)


def skill_table(skills: dict[str, Skill], leads: Sequence[int], metric: str = "mase", **interval) -> str:
    """Errors of several forecasters at some lead times, with intervals, as text for a reader.

    Args:
        leads: lead times in steps, from 1
        interval: options of `Skill.interval`, which also gives the level; randomness is drawn afresh for each
    """
    first = next(iter(skills.values()))
    wrong = [k for k in leads if not 1 <= k <= first.actual.shape[1]]
    if wrong:
        raise ValueError(f"leads must lie between 1 and {first.actual.shape[1]}, got {wrong}")
    width = max(map(len, skills))
    rows = [f"{metric.upper() + ' at lead':{width}}" + "".join(f"  {k:^17}" for k in leads)]
    for name, skill in skills.items():
        value, (low, high) = skill(metric), skill.interval(metric, **interval)
        cells = (f"{value[k - 1]:.2f} [{low[k - 1]:.2f}, {high[k - 1]:.2f}]" for k in leads)
        rows.append(f"{name:{width}}" + "".join(f"  {c:^17}" for c in cells))
    return "\n".join(rows)


def _tails(level: float) -> Tensor:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return torch.tensor([(1 - level) / 2, (1 + level) / 2])


def origins(parts: list[Tensor], steps: int, start: int, every: int) -> list[tuple[int, int]]:
    """Every (recording, samples known) from which `steps` samples can be forecast and compared."""
    every = _whole(every, "every", 1)
    spots = [(i, t) for i, p in enumerate(parts) for t in range(start, len(p) - steps + 1, every)]
    if not spots:
        longest = max(map(len, parts))
        raise ValueError(f"start {start} and steps {steps} leave no origin in series of up to {longest} samples")
    return spots


def rolling_origin(
    forecaster: Callable[[Tensor, int], Tensor],
    series,
    steps: int,
    *,
    start: int,
    every: int | None = None,
    period: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Skill:
    """Ask `forecaster(history, steps)` at many origins of a series, and compare with what came.

    Args:
        series: (T,) or (T, m), or a list of recordings: an origin sees only its own recording's past
        start: samples known at the first origin; every: samples between origins, default `steps`
        period: of the seasonal naive forecast behind MASE; its error is measured before the first origins only

    A trained network enters as ``partial(forecast, model, width=h)``, SSA as a function that decomposes the
    history anew.
    """
    parts = as_recordings(series)
    steps, start, period = _whole(steps, "steps", 1), _whole(start, "start", 1), _whole(period, "period", 1)
    spots = origins(parts, steps, start, steps if every is None else every)
    if start <= period:
        raise ValueError(f"start must exceed the period {period}, got {start}")
    known = [p[:start] for p in parts]
    naive = torch.cat([(p[period:] - p[:-period]).abs().flatten() for p in known]).mean()
    answers = []
    for i, t in progress(spots):
        y = torch.as_tensor(forecaster(parts[i][:t], steps))
        want = (steps, *parts[i].shape[1:])
        if tuple(y.shape) != want:
            raise ValueError(f"forecaster must return {want} for {steps} steps, got shape {tuple(y.shape)}")
        answers.append(y)
    return Skill(
        predicted=torch.stack(answers).to(parts[0].dtype),
        actual=torch.stack([parts[i][t : t + steps] for i, t in spots]),
        recording=torch.tensor([i for i, _ in spots]),
        origin=torch.tensor([t for _, t in spots]),
        scale=float(naive),
        level=float(torch.cat(known).mean()),
    )
