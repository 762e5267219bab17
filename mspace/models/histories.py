"""What a forecasting network asks of the windows it is given, and of what it answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checks import as_series, check_int

__all__ = ["asked", "checked", "flattened", "last_samples", "settled"]


def asked(condition: Tensor) -> bool | None:
    """Whether a condition holds; None inside `vmap`, which does not let one ask."""
    try:
        return bool(condition)
    except RuntimeError:
        return None


def checked(x: Tensor, channels: int | None, least: int, most: int | None = None) -> Tensor:
    """Windows (B, width[, m]) of at least `least` samples, finite."""
    shape = f"(B, width{'' if channels is None else f', {channels}'})"
    if x.ndim != (2 if channels is None else 3) or (channels is not None and x.shape[2] != channels):
        raise ValueError(f"windows must be {shape}, got {tuple(x.shape)}: name the number of series by `channels`")
    if x.shape[1] < least or (most is not None and x.shape[1] > most):
        bound = "exactly" if least == most else "at least"
        raise ValueError(f"windows must hold {bound} {least} samples, got {x.shape[1]}")
    if asked(torch.isfinite(x).all()) is False:
        gone = (~torch.isfinite(x)).flatten(1).any(1)
        raise ValueError(
            f"windows must be finite, {int(gone.sum())} are not, the first is {int(gone.nonzero()[0])}: cut them out, "
            "or take an irregular NeuralODE, which passes over what is missing"
        )
    return x


def flattened(x: Tensor) -> Tensor:
    """(B, width[, m]) as (B, width * m), the oldest sample first, channels inside."""
    return x.reshape(*x.shape[:1], -1)


def last_samples(
    model: nn.Module, history, channels: int | None, least: int, width: int | None = None, batched: bool = False
) -> Tensor:
    """The end of a history (T[, m]) as a batch in the type of the model, (B, width[, m]), once it is long enough."""
    if channels is None:
        dims = (2,) if batched else (1,)
    else:
        dims = (3,) if batched else (2,)
    past = as_series(history, "history", ndim=dims)
    past = past if batched else past.unsqueeze(0)
    need = least if width is None else check_int(width, "width", least)
    if past.shape[1] < need:
        raise ValueError(f"history has {past.shape[1]} samples, and the model needs {need}: give a longer one")
    past = past if width is None else past[:, past.shape[1] - width :]
    return checked(past.to(next(model.parameters())), channels, least)


def settled(y: Tensor, batched: bool) -> Tensor:
    """A forecast (B, steps[, m]) as it is handed out, refused where it ran away."""
    broken = (~torch.isfinite(y)).transpose(0, 1).flatten(1).any(1)
    if broken.any():
        step = int(broken.nonzero()[0]) + 1
        raise ValueError(f"model answered with a non-finite value at step {step} of {y.shape[1]}: it diverged")
    return y if batched else y[0]
