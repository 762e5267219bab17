"""Forecasts that any model must beat before it is worth a word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import as_series, check_int
from ..threads import small
from .trajectories import dominant_period, windows

__all__ = ["persistence", "ridge_ar", "seasonal_naive"]


def seasonal_naive(period: int | None = None) -> Callable[[Tensor, int], Tensor]:
    """A forecaster (history, steps) -> (steps,) that repeats the last period.

    Args:
        period: in samples; None finds it in the history of each forecast by `dominant_period`, so that a pace
            which changed since other recordings were made is not held against the baseline
    """
    fixed = None if period is None else check_int(period, "period", 1)

    def forecaster(history, steps: int) -> Tensor:
        history, steps = as_series(history, "history"), check_int(steps, "steps", 1)
        period = dominant_period(history) if fixed is None else fixed
        if len(history) < period:
            raise ValueError(f"history has {len(history)} samples, fewer than the period {period}")
        return history[len(history) - period + torch.arange(steps) % period]

    return forecaster


def persistence(history, steps: int) -> Tensor:
    """Tomorrow as today: the last sample, repeated."""
    return seasonal_naive(1)(history, steps)


def ridge_ar(series, width: int, *, horizon: int = 1, penalty: float | None = None) -> nn.Module:
    """A linear autoregression with an intercept, (B, width[, m]) -> (B, horizon[, m]), as a torch module.

    Args:
        penalty: of the squared weights against the summed squares, 0.0 is ordinary least squares; None brings
            every channel to unit variance and chooses the penalty there, of 17 from 1e-4 to 1e4, by leaving one
            window out, which is generous where windows overlap
    """
    from sklearn.linear_model import Ridge, RidgeCV  # here, so that `import mspace` stays light

    if penalty is not None and not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be None or a finite number >= 0, got {penalty}")
    x, y = windows(series, width, horizon=check_int(horizon, "horizon", 1))
    if len(x) < 2:
        raise ValueError(
            f"series gives {len(x)} window of {width} and {horizon} samples, and two are needed: shorten them"
        )
    dtype, shape = x.dtype, y.shape[1:]
    scale = _scales(x) if penalty is None else x.new_ones(x.shape[2:])
    a, b = ((v.detach() / scale).double().flatten(1).numpy() for v in (x, y))
    fit = RidgeCV(np.logspace(-4, 4, 17)) if penalty is None else Ridge(penalty, solver="svd")
    with small(a.shape[1]):
        fit.fit(a, b)
    into, out = (scale.expand(s).flatten().double() for s in (x.shape[1:], shape))
    linear = nn.Linear(a.shape[1], b.shape[1], dtype=dtype)
    with torch.no_grad():
        weight = torch.from_numpy(fit.coef_.reshape(len(out), -1))
        linear.weight.copy_(weight * (out[:, None] / into))
        linear.bias.copy_(torch.as_tensor(fit.intercept_) * out)
    return linear if len(shape) == 1 else nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, shape))


def _scales(x: Tensor) -> Tensor:
    """The standard deviation of every channel, one where it does not move: () or (m,)."""
    peak = x.detach().abs().amax((0, 1))
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))  # so that squares neither vanish nor overflow
    spread = (x.detach() / peak).std((0, 1)) * peak
    return torch.where(spread > 0, spread, torch.ones_like(spread))
