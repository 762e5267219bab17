"""Stacks of dense layers, of which derivatives can be written down."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ...training.stacks.layers import dense_layers as stack_layers

__all__ = ["SLOPES", "dense_layers"]

# activation -> gradient by the sum that enters, from the gradient d by the value h that leaves, in place
SLOPES: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    nn.Identity: lambda d, h: d,
    nn.ReLU: lambda d, h: d.mul_(h > 0),
    nn.Tanh: lambda d, h: d.mul_(1 - h * h),
    nn.Sigmoid: lambda d, h: d.mul_(h * (1 - h)),
}


def dense_layers(net: nn.Module) -> list[tuple[str, type]]:
    """The Linear layers of a Sequential, each with the activation after it; none if it holds anything else."""
    return [(layer.name, layer.activation) for layer in stack_layers(net) or ()]
