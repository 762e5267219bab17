"""Rolling-origin evaluation: what a forecaster is worth at every lead time, with its spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import (
    as_recordings,
    as_tensor,
    check_callable,
    check_fraction,
    check_generator,
    check_int,
    check_progress,
)

__all__ = ["Skill", "deal_blocks", "origins", "percentiles", "rolling_origin"]

METRICS = ("mse", "mae", "mase", "r2")


@dataclass(frozen=True, eq=False)
class Skill:
    """Forecasts from o origins beside what came: predicted and actual (o, steps[, m]).

    Attributes:
        recording: (o,), which recording an origin lies in
        origin: (o,), how many of its samples were known
        scale: (o, 1[, m]), the error of the seasonal naive forecast on what was known first, for MASE
        centre: (o, 1[, m]), the mean of what was known first, for R2
    """

    predicted: Tensor = field(repr=False)
    actual: Tensor = field(repr=False)
    recording: Tensor = field(repr=False)
    origin: Tensor
    scale: Tensor = field(repr=False)
    centre: Tensor = field(repr=False)

    def _parts(self, metric: str) -> tuple[Tensor, Tensor | None]:
        """What a metric averages over origins: a numerator and, for r2, a denominator, (o, steps, m) each."""
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        error, spread = self.predicted - self.actual, None
        if metric == "mase":
            if not (self.scale > 0).all():
                raise ValueError("mase has no scale, the seasonal naive forecast was exact before `start`: use mae")
            error = error / self.scale
        if metric == "r2":
            spread = (self.actual - self.centre) ** 2
            if not (spread.sum(0) > 0).all():
                raise ValueError("r2 has no scale, what came never left the mean: use mse")
        loss = error.abs() if metric in ("mae", "mase") else error**2
        return tuple(None if v is None else v.reshape(*v.shape[:2], -1) for v in (loss, spread))

    def losses(self, metric: str) -> Tensor:
        """Return what the metric averages, (o, steps, m): the squared, absolute or scaled absolute errors."""
        return self._parts(metric)[0]

    def _value(self, metric: str, chosen: Tensor) -> Tensor:
        """The metric over chosen origins (..., o) at every lead, (..., steps): the mean over channels."""
        top, bottom = self._parts(metric)
        top = top[chosen].mean(-3)
        return (top if bottom is None else 1 - top / bottom[chosen].mean(-3)).mean(-1)

    def __call__(self, metric: str) -> Tensor:
        """The metric at every lead time, (steps,): mse, mae, mase or r2, averaged over channels.

        mase is the absolute error over that of the seasonal naive forecast, r2 the share of the squared
        distance to the mean that is explained; scale and mean are those of each channel and recording before
        the first origin.
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
        chosen = deal_blocks(len(self.actual), len(self.actual), n_resamples, block, generator)
        return percentiles(self._value(metric, chosen), level)

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
        """This metric less another forecaster's, averaged over the first `steps` leads: (mean, low, high).

        Both saw the same origins, so what made an origin hard cancels, and the interval is narrower than
        those of the two. Negative is better, but for r2. Blocks as in `interval`.
        """
        if self.actual.shape != other.actual.shape or not torch.equal(self.actual, other.actual):
            raise ValueError("other must come from the same series, origins and steps")
        longest = self.actual.shape[1]
        steps = longest if steps is None else check_int(steps, "steps", 1, longest)
        chosen = deal_blocks(len(self.actual), len(self.actual), n_resamples, block, generator)
        gap, draws = (
            (self._value(metric, c) - other._value(metric, c))[..., :steps].mean(-1)
            for c in (torch.arange(len(self.actual)), chosen)
        )
        return torch.cat([gap[None], percentiles(draws, level)])

    @property
    def runaway(self) -> Tensor:
        """(o,), True where a forecast left the middle of what came by more than ten times its range."""
        low, high = self.actual.amin((0, 1)), self.actual.amax((0, 1))
        near = (self.predicted - (low + high) / 2).abs() <= 10 * (high - low)
        return ~near.flatten(1).all(1)


def deal_blocks(n: int, length: int, n_resamples: int, block: int | None, generator: torch.Generator | None) -> Tensor:
    """Indices below n in circular blocks of neighbours, dealt out anew: (n_resamples, length).

    A block is by default as long as the cube root of n, rounded up.
    """
    block = math.ceil(round(n ** (1 / 3), 6)) if block is None else check_int(block, "block", 1)
    size = check_int(n_resamples, "n_resamples", 2), -(-length // block)
    starts = torch.randint(n, size, generator=check_generator(generator))
    return ((starts[..., None] + torch.arange(block)) % n).flatten(1)[:, :length]


def percentiles(draws: Tensor, level: float) -> Tensor:
    """The middle `level` of draws along the first axis: (2, ...)."""
    level = check_fraction(level, "level")
    return draws.quantile(draws.new_tensor([(1 - level) / 2, (1 + level) / 2]), dim=0)


def origins(parts: list[Tensor], steps: int, start: int, every: int) -> list[tuple[int, int]]:
    """Every (recording, samples known) from which `steps` samples can be forecast and compared."""
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

    A trained network enters as ``partial(forecast, model, width=h)``, SSA as a function that decomposes the
    history anew. Forecasters get a copy of the history.

    Args:
        series: (T,) or (T, m), or a list of recordings: an origin sees only its own recording's past
        start: samples known at the first origin of each recording
        every: samples between origins; default `steps`, so that horizons do not overlap
        period: of the seasonal naive forecast behind MASE, whose error is measured before the first origins
    """
    check_callable(forecaster, "forecaster", "(history, steps) -> forecast, such as partial(forecast, model, width=h)")
    check_progress(progress)
    parts, _ = as_recordings(series)
    parts = [p.detach() for p in parts]
    steps, start, period = check_int(steps, "steps", 1), check_int(start, "start", 1), check_int(period, "period", 1)
    if start <= period:
        raise ValueError(f"start must exceed the period {period}, got {start}")
    spots = origins(parts, steps, start, steps if every is None else check_int(every, "every", 1))
    actual = torch.stack([parts[i][t : t + steps] for i, t in spots])
    answers = [_asked(forecaster, parts[i][:t], steps, i) for i, t in progress(spots)]
    known = [parts[i][:start] for i, _ in spots]
    return Skill(
        predicted=torch.stack(answers),
        actual=actual,
        recording=torch.tensor([i for i, _ in spots]),
        origin=torch.tensor([t for _, t in spots]),
        scale=torch.stack([(k[period:] - k[:-period]).abs().mean(0, keepdim=True) for k in known]),
        centre=torch.stack([k.mean(0, keepdim=True) for k in known]),
    )


def _asked(forecaster, history: Tensor, steps: int, recording: int) -> Tensor:
    y, want = as_tensor(forecaster(history.clone(), steps), "forecast"), (steps, *history.shape[1:])
    y = y.detach().to(history.dtype)
    if tuple(y.shape) != want:
        raise ValueError(f"forecaster must return {want} for {steps} steps, got shape {tuple(y.shape)}")
    if not torch.isfinite(y).all():
        raise ValueError(
            f"forecaster answered with a non-finite value at the origin after {len(history)} samples of recording "
            f"{recording}"
        )
    return y
