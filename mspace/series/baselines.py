"""Forecasts that any model must beat before it is worth a word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from .trajectories import _whole, as_series, windows

__all__ = ["persistence", "ridge_ar", "seasonal_naive"]


def seasonal_naive(period: int) -> Callable[[Tensor, int], Tensor]:
    """A forecaster (history, steps) -> (steps,) that repeats the last `period` samples."""
    period = _whole(period, "period", 1)

    def forecaster(history, steps: int) -> Tensor:
        history = as_series(history, "history")
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
        penalty: of the squared weights against the summed squares; None chooses it on a grid of powers of ten
            by generalised cross-validation of standardised windows, 0.0 is ordinary least squares
    """
    from sklearn.linear_model import Ridge, RidgeCV  # here, so that `import mspace` stays light

    if penalty is not None and not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be None or a finite number >= 0, got {penalty}")
    x, y = windows(series, width, horizon=_whole(horizon, "horizon", 1))
    shape = y.shape[1:]
    a, b = (v.reshape(len(v), -1).double().numpy() for v in (x, y))
    scale = a.std() or 1.0
    fit = RidgeCV(np.logspace(-4, 4, 17)) if penalty is None else Ridge(penalty / scale**2, solver="svd")
    fit.fit(a / scale, b)
    linear = nn.Linear(a.shape[1], b.shape[1], dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(fit.coef_.reshape(b.shape[1], -1) / scale))
        linear.bias.copy_(torch.as_tensor(fit.intercept_))
    return linear if len(shape) == 1 else nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, shape))
