"""Histories at their own level: what is seen is brought to mean zero and variance one, and the answer brought back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import as_series, as_tensor, check_int
from .trajectories import windows

__all__ = ["normalized_windows", "standardize", "with_instance_norm"]

Forecaster = Callable[[Tensor, int], Tensor]  # (history, steps) -> (steps[, m])


def standardize(history: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation along an axis, which stays with length one; where nothing moves the latter is one."""
    history = as_tensor(history, "history")
    scale = history.std(dim, keepdim=True)
    rounding = 10 * torch.finfo(history.dtype).eps * history.abs().amax(dim, keepdim=True)
    return history.mean(dim, keepdim=True), torch.where(scale > rounding, scale, torch.ones_like(scale))


def normalized_windows(series, width: int, *, horizon: int, every: int = 1) -> tuple[Tensor, Tensor]:
    """One in `every` of the windows, each shifted and scaled by what is seen of it: (n, width[, m]), (n, horizon[, m]).

    The horizon is scaled with its history, whose mean and variance become zero and one, so a recording that is louder
    or lies higher costs a model nothing. `with_instance_norm` is the same for forecasts.

    Args:
        series: (T,) or (T, m), or a list of recordings, as in `windows`
    """
    width, every = check_int(width, "width", 2), check_int(every, "every", 1)
    x, y = (v[::every] for v in windows(series, width, horizon=check_int(horizon, "horizon", 1)))
    centre, scale = standardize(x, dim=1)
    return (x - centre) / scale, (y - centre) / scale


def with_instance_norm(forecaster: Forecaster, width: int) -> Forecaster:
    """A forecaster that sees the last `width` samples, shifted and scaled by themselves, and whose answer is undone."""
    width = check_int(width, "width", 2)

    def scaled(history, steps: int) -> Tensor:
        history = as_series(history, "history")
        if len(history) < width:
            raise ValueError(f"history has {len(history)} samples, and width asks for {width}: give a longer one")
        seen = history[-width:]
        centre, scale = standardize(seen, dim=0)
        answer = forecaster((seen - centre) / scale, steps)
        return answer * scale.to(answer) + centre.to(answer)

    return scaled
