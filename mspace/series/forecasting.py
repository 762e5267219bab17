"""Free-running forecasts: a model fed with its own answers (the paper's definition 4 and section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..checks import as_series, check_int

__all__ = ["forecast"]


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
    y = model(window)
    real = isinstance(y, Tensor) and not y.is_complex()
    if not real or y.ndim == 0 or y.ndim > window.ndim or len(y) != len(window):
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"model must map a batch of windows {tuple(window.shape)} to horizons (B, p), or (B, p, m) for m "
            f"series, got {got}"
        )
    y = y.unsqueeze(1) if y.ndim < window.ndim else y
    if y.shape[1] == 0 or y.shape[2:] != window.shape[2:]:
        raise ValueError(f"model must answer in the {window.shape[2:]} channels of its input, got {tuple(y.shape)}")
    return y
