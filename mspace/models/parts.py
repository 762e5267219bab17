"""What the example networks share: dense layers, and the windows they take and forecasts they return, checked."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..checks import as_series, check_generator, check_int

__all__ = [
    "as_function",
    "checked",
    "checked_forecast",
    "flattened",
    "holds",
    "last_samples",
    "linear",
    "mlp",
]


def mlp(
    *sizes: int,
    activation: Callable[[], nn.Module] | nn.Module = nn.ReLU,
    bias: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return a perceptron: dense layers with an activation between each two, and none after the last.

    Args:
        sizes: number of inputs, of the units of every hidden layer, of outputs
        activation: what makes the modules between, such as ``nn.ReLU``; a module is copied
        bias: whether the layers have one
        generator: of the initialisation, which is torch's own, uniform within ``1 / sqrt(inputs)``

    Returns:
        an `nn.Sequential` whose layers are called "0", "2", "4", ...
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must be at least those of the inputs and of the outputs, got {sizes}")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_in, n_out, bias=bias, generator=generator), _module(activation)]
    return nn.Sequential(*layers[:-1])


def linear(n_in: int, n_out: int, *, bias: bool = True, generator: torch.Generator | None = None) -> nn.Linear:
    """Return a dense layer initialised as torch's own, from the generator if there is one."""
    n_in = check_int(n_in, "the number of inputs of a layer", 1)
    n_out = check_int(n_out, "the number of outputs of a layer", 1)
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias, dtype=torch.get_default_dtype())
    assert isinstance(layer, nn.Linear)
    check_generator(generator)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
    return layer


def as_function(
    name: str, given: nn.Module | type[nn.Module] | Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor], Tensor]:
    """Return a copy of a module, a module made by its class, a function as it is, or the identity for None."""
    if given is None:
        return nn.Identity()
    if isinstance(given, nn.Module):
        return copy.deepcopy(given)
    if isinstance(given, type) and issubclass(given, nn.Module):
        return given()
    if not callable(given):
        raise ValueError(f"{name} must be a module, its class or a function of a tensor, got {given!r}")
    return given


def _module(activation) -> nn.Module:
    made = copy.deepcopy(activation) if isinstance(activation, nn.Module) else None
    try:
        made = made or activation()
    except TypeError:
        made = None
    if not isinstance(made, nn.Module):
        raise ValueError(f"activation must be a module or make one when called, such as nn.ReLU, got {activation!r}")
    return made


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
