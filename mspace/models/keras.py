"""Layers that start and are padded as those of Keras, in which EEGNet and HTNet were written."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv2d", "Linear", "norm", "same"]


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


def norm(features: int) -> nn.BatchNorm2d:
    """Batch normalisation with Keras' constants: its momentum of 0.99 is one of 0.01 in torch."""
    return nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)


def same(x: Tensor, kernel: int) -> Tensor:
    """Zeros around the last axis, so that a convolution keeps its length: (kernel - 1) // 2 of them before."""
    before = (kernel - 1) // 2
    return F.pad(x, (before, kernel - 1 - before))


def _glorot(weight: Tensor, inputs: int, outputs: int, generator) -> None:
    bound = math.sqrt(6 / (math.prod(weight.shape[2:]) * (inputs + outputs)))
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)
