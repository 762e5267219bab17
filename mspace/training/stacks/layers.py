"""Which modules and losses have a gradient by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ACTIVATIONS", "Layer", "dense_layers", "loss_kind"]

aten = torch.ops.aten
# module -> (forward, gradient in place from the activated value)
ACTIVATIONS: dict[type, tuple[Callable, Callable]] = {
    nn.Identity: (lambda z, out: out if out is z else out.copy_(z), lambda d, h: d),
    nn.ReLU: (
        lambda z, out: aten.clamp_min.out(z, 0, out=out),
        lambda d, h: aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
    ),
    nn.Tanh: (torch.tanh, lambda d, h: aten.tanh_backward.grad_input(d, h, grad_input=d)),
    nn.Sigmoid: (torch.sigmoid, lambda d, h: aten.sigmoid_backward.grad_input(d, h, grad_input=d)),
}


class Layer(NamedTuple):
    """A Linear layer and the activation after it."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    activation: type = nn.Identity

    @property
    def narrows(self) -> bool:
        return self.outputs < self.inputs

    @property
    def ones(self) -> bool:
        """Whether its inputs carry a constant one, for the bias."""
        return self.bias and not self.narrows


def dense_layers(template: nn.Module) -> list[Layer] | None:
    """The Linear layers of a Sequential with the activation after each, or None if it is anything else."""
    if type(template) is not nn.Sequential:
        return None
    layers: list[Layer] = []
    if len(list(template.named_parameters(remove_duplicate=False))) > len(list(template.parameters())):
        return None  # a layer or weight used twice gets two gradients
    for name, module in template._modules.items():  # named_children() would pass over an activation used twice
        if type(module) is nn.Linear:
            layers.append(Layer(name, module.in_features, module.out_features, module.bias is not None))
        elif type(module) in ACTIVATIONS and layers and layers[-1].activation is nn.Identity:
            layers[-1] = layers[-1]._replace(activation=type(module))
        else:
            return None
    return layers or None


def loss_kind(loss) -> str | None:
    """Which of the two losses with a gradient by hand this is, with its default options."""
    if loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean"):
        return "mse"
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
    if loss is F.cross_entropy or (plain and loss.label_smoothing == 0 and loss.ignore_index == -100):
        return "cross_entropy"
    return None
