"""Forecasts: a model's free run, and the simple forecasters that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import as_series, check_int, check_real
from ..threads import small
from .trajectories import dominant_period, windows

__all__ = ["forecast", "persistence", "ridge_ar", "seasonal_naive"]


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

    if penalty is not None:
        check_real(penalty, "penalty", ends="[)")
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


def forecast(
    model: Callable,
    history,
    steps: int,
    *,
    width: int | None = None,
    batched: bool = False,
    differentiable: bool = False,
) -> Tensor:
    """Continue a history by `steps` samples: (T,) -> (steps,), (T, m) -> (steps, m).

    The model maps a batch of windows (B, width[, m]) to the p samples that follow, (B, p[, m]), as it was
    trained on ``windows(series, width, horizon=p)``. If p >= steps its answer is cut, a direct forecast;
    otherwise answers are appended to the history and it is asked again, a recursive one. Histories are turned
    into the floating point type of the model's parameters.

    Args:
        width: how many last samples the model sees; default the whole history, slid along
        batched: history is (B, T[, m]), the answer (B, steps[, m]): many origins at once
        differentiable: keep the graph, to train on the free run itself

    Raises:
        ValueError: when the model answers in the wrong shape, or runs away to infinity, naming the step.
    """
    steps = check_int(steps, "steps", 1)
    past = as_series(history, "history", ndim=(2, 3) if batched else (1, 2))
    past = past if batched else past.unsqueeze(0)
    width = past.shape[1] if width is None else check_int(width, "width", 1)
    if width > past.shape[1]:
        raise ValueError(f"history has {past.shape[1]} samples, but the model's width is {width}: give a longer one")
    window, made, future = past[:, past.shape[1] - width :].to(_dtype(model, past)), 0, []
    with _evaluating(model), torch.set_grad_enabled(differentiable):
        while made < steps:
            y = _answer(model, window)[:, : steps - made]
            broken = (~torch.isfinite(y)).transpose(0, 1).flatten(1).any(1)
            if broken.any():
                step = made + int(broken.nonzero()[0]) + 1
                raise ValueError(f"model answered with a non-finite value at step {step} of {steps}: it diverged")
            window = torch.cat([window, y.to(window)], 1)[:, -width:]
            made += y.shape[1]
            future.append(y)
    future = torch.cat(future, 1)
    return future if batched else future[0]


def _dtype(model, past: Tensor) -> torch.dtype:
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), past.dtype)


@contextmanager
def _evaluating(model) -> Iterator[None]:
    """Dropout and batch normalisation at rest, and as they were afterwards."""
    training = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _answer(model: Callable, window: Tensor) -> Tensor:
    """The model's horizon (B, p[, m]) for windows (B, h[, m]); (B,) and (B, m) count as one step."""
    y = model(window.clone())  # a network may write into what it is given
    real = isinstance(y, Tensor) and not y.is_complex()
    if not real or y.ndim == 0 or y.ndim > window.ndim or len(y) != len(window):
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"model must map a batch of windows {tuple(window.shape)} to horizons (B, p), or (B, p, m) for m "
            f"series, got {got}"
        )
    came = tuple(y.shape)
    y = y.unsqueeze(1) if y.ndim < window.ndim else y
    if y.shape[1] == 0 or y.shape[2:] != window.shape[2:]:
        raise ValueError(
            f"model must answer windows {tuple(window.shape)} by (B, p) + {tuple(window.shape[2:])}, in the channels of its "
            f"input, got {came}"
        )
    return y
