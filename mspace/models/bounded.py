"""Layers that start and are bounded as those of Keras, in which EEGNet and HTNet were written."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BoundedConv2d", "BoundedLinear", "Conv2d", "Linear", "released", "same"]


class Conv2d(nn.Conv2d):
    """A convolution without bias that starts by Glorot's rule, uniform, with Keras' count of what comes in and out."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, groups: int = 1, generator=None):
        self._generator = generator
        super().__init__(inputs, outputs, kernel, groups=groups, bias=False)
        self._generator = None  # a start drawn later, as in torch, comes from the global stream

    def reset_parameters(self) -> None:
        _glorot(self.weight, self.in_channels, self.out_channels // self.groups, self._generator)


class Linear(nn.Linear):
    """A dense layer that starts by Glorot's rule, uniform, its bias at zero."""

    def __init__(self, inputs: int, outputs: int, *, generator=None):
        self._generator = generator
        super().__init__(inputs, outputs)
        self._generator = None

    def reset_parameters(self) -> None:
        _glorot(self.weight, self.in_features, self.out_features, self._generator)
        nn.init.zeros_(self.bias)


class _Bounded(nn.Module):
    """A layer whose every row has at most the norm `bound`: `weight` is computed from `free`, which has no bound.

    Keras projects after each step. Here the step itself cannot leave the ball, so any optimiser will do. No class is
    made on the way, as `torch.nn.utils.parametrize` does, so the module can be pickled and copied.
    """

    def __init__(self, plain: nn.Module, bound: float):
        super().__init__()
        if not 0 < bound < math.inf:
            raise ValueError(f"max_norm must hold positive numbers, or be None, got {bound!r}")
        self.bound = float(bound)
        self.free = nn.Parameter(plain.weight.detach().clone())

    @property
    def weight(self) -> Tensor:
        norm = self.free.flatten(1).norm(dim=1).clamp(min=self.bound)  # inside the ball nothing is done
        return self.free * (self.bound / norm).reshape(-1, *[1] * (self.free.ndim - 1))


class BoundedConv2d(_Bounded):
    """`Conv2d` with filters of norm at most `bound`."""

    def __init__(self, plain: Conv2d, bound: float):
        super().__init__(plain, bound)
        self.in_channels, self.out_channels, self.groups = plain.in_channels, plain.out_channels, plain.groups
        self.kernel_size = plain.kernel_size

    def reset_parameters(self) -> None:
        _glorot(self.free, self.in_channels, self.out_channels // self.groups, None)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, groups=self.groups)

    def plain(self) -> Conv2d:
        layer = Conv2d(
            self.in_channels, self.out_channels, self.kernel_size, groups=self.groups, generator=torch.Generator()
        )
        return _holding(layer, self.weight)


class BoundedLinear(_Bounded):
    """`Linear` with rows of norm at most `bound`; the bias has no bound."""

    def __init__(self, plain: Linear, bound: float):
        super().__init__(plain, bound)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.bias = nn.Parameter(plain.bias.detach().clone())

    def reset_parameters(self) -> None:
        _glorot(self.free, self.in_features, self.out_features, None)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def plain(self) -> Linear:
        layer = _holding(Linear(self.in_features, self.out_features, generator=torch.Generator()), self.weight)
        layer.bias.data = self.bias.detach().clone()
        return layer


def released(model: nn.Module) -> None:
    """Put plain layers with the same weights in place of the bounded ones, in this module itself."""
    for name, layer in model.named_children():
        if isinstance(layer, _Bounded):
            setattr(model, name, layer.plain())


def same(x: Tensor, kernel: int) -> Tensor:
    """Zeros around the last axis, so that a convolution keeps its length: (kernel - 1) // 2 of them before."""
    before = (kernel - 1) // 2
    return F.pad(x, (before, kernel - 1 - before))


def _glorot(weight: Tensor, inputs: int, outputs: int, generator) -> None:
    receptive = math.prod(weight.shape[2:])
    bound = math.sqrt(6 / (receptive * (inputs + outputs)))
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)


def _holding(layer: nn.Module, weight: Tensor) -> nn.Module:
    layer = layer.to(weight)
    layer.weight.data = weight.detach().clone()
    return layer
