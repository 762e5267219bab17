"""Stacks of dense layers, of which derivatives can be written down."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

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
    found: list[tuple[str, type]] = []
    if type(net) is not nn.Sequential or len(set(net.named_parameters(remove_duplicate=False))) > len(
        list(net.named_parameters())
    ):
        return []  # a layer used twice gets two gradients
    for name, module in net._modules.items():  # named_children() would pass over an activation used twice
        if type(module) is nn.Linear:
            found.append((name, nn.Identity))
        elif type(module) in SLOPES and found and found[-1][1] is nn.Identity:
            found[-1] = (found[-1][0], type(module))
        else:
            return []
    return found
