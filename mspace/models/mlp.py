"""Dense layers that are initialised from a generator of one's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..checks import check_generator, check_int

__all__ = ["as_function", "linear", "mlp"]


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
