"""The windows that forecasting networks take and the forecasts they return, checked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import as_series, check_int

__all__ = ["checked", "checked_forecast", "flattened", "holds", "last_samples"]


def holds(condition: Tensor) -> bool | None:
    """Return whether a condition holds; None inside `vmap`, where no value can be read."""
    try:
        return bool(condition)
    except RuntimeError:
        return None


def checked(x: Tensor, channels: int | None, least: int, most: int | None = None) -> Tensor:
    """Return windows (B, width[, m]) of at least `least` samples, finite."""
    shape = f"(B, width{'' if channels is None else f', {channels}'})"
    if x.ndim != (2 if channels is None else 3) or (channels is not None and x.shape[2] != channels):
        raise ValueError(f"windows must be {shape}, got {tuple(x.shape)}: name the number of series by `channels`")
    if x.shape[1] < least or (most is not None and x.shape[1] > most):
        bound = "exactly" if least == most else "at least"
        raise ValueError(f"windows must hold {bound} {least} samples, got {x.shape[1]}")
    if holds(torch.isfinite(x).all()) is False:
        bad = (~torch.isfinite(x)).flatten(1).any(1)
        raise ValueError(
            f"windows must be finite, {int(bad.sum())} are not, the first is {int(bad.nonzero()[0])}: cut them out, "
            "or take an irregular NeuralODE, which passes over what is missing"
        )
    return x


def flattened(x: Tensor) -> Tensor:
    """Return (B, width[, m]) as (B, width * m), the oldest sample first, channels inside."""
    return x.reshape(*x.shape[:1], -1)


def last_samples(model: nn.Module, history, channels: int | None, least: int, width: int | None = None) -> Tensor:
    """Return the end of a history (T[, m]) as a batch of one in the dtype of the model, (1, width[, m])."""
    past = as_series(history, "history", ndim=(1 + (channels is not None),)).unsqueeze(0)
    need = least if width is None else check_int(width, "width", least)
    if past.shape[1] < need:
        raise ValueError(f"history has {past.shape[1]} samples, and the model needs {need}: give a longer one")
    past = past if width is None else past[:, past.shape[1] - width :]
    return checked(past.to(next(model.parameters())), channels, least)


def checked_forecast(y: Tensor) -> Tensor:
    """Return the forecast (steps[, m]) of a batch of one, finite."""
    bad = (~torch.isfinite(y)).transpose(0, 1).flatten(1).any(1)
    if bad.any():
        step = int(bad.nonzero()[0]) + 1
        raise ValueError(f"model returned a non-finite value at step {step} of {y.shape[1]}: it diverged")
    return y[0]
