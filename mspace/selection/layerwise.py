"""Optimal brain surgeon layer by layer: the loss is the error of a layer's own answers (Dong, Chen and Pan 2017).

Its second derivative is the second moment of what enters the layer, the same for all rows; so removing an input unit
with a refit of the others is least squares.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .arrays import finite, indices
from .second_order import Quadratic

__all__ = ["layer_inputs", "layerwise_obs", "layerwise_obs_update", "layerwise_relevance"]


def layerwise_obs(weight, inputs, *, damping: float = 0.0) -> Tensor:
    """Half the mean squared error of a layer's answers when one weight is zero and its row is refitted, (o, n).

    ``w_iq^2 / [P^-1]_qq / 2`` with P the second moment of the inputs. The sum of a column is what it costs to remove an
    input unit from all rows. An input that others make up exactly costs nothing.

    Args:
        weight: (o, n), of a linear layer
        inputs: (N, n), calibration examples of what enters it; a column of ones stands for a bias
        damping: added to the diagonal of P, as a ridge
    """
    weight, quadratic = _checked(weight, inputs, damping)
    unit = torch.stack([quadratic.schur(torch.tensor([q]))[0, 0] for q in range(weight.shape[1])])
    return weight.square() * unit / 2


def layerwise_obs_update(weight, inputs, remove, *, damping: float = 0.0) -> Tensor:
    """The weight (o, n) after input units are removed, their columns zero, and all rows refitted to the old answers.

    Args:
        weight, inputs, damping: as in `layerwise_obs`
        remove: numbers of input units, one or several
    """
    weight, quadratic = _checked(weight, inputs, damping)
    index = indices(remove, "remove", weight.shape[1])
    found = weight + quadratic.follow(index, -weight[:, index])
    found[:, index] = 0.0
    return found


def layerwise_relevance(model: nn.Module, inputs: Tensor, *, layer: str, axis: int = 0, damping: float = 0.0) -> Tensor:
    """What the answers of a linear layer lose without a neuron, half the mean squared error summed over outputs, (m,).

    Args:
        inputs: of the network, (N, ...), calibration examples
        layer: name of an `nn.Linear`
        axis: 0, the rows: nothing makes up for a row, so that is half the mean square of its answer, without the bias; 1,
            the columns: the units that enter the layer, for which the others and the bias make up
        damping: as in `layerwise_obs`
    """
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (rows) or 1 (columns), got {axis}")
    entered = layer_inputs(model, inputs, layer)
    linear = dict(model.named_modules())[layer]
    weight = linear.weight.detach().to("cpu", torch.float64)
    if axis == 0:
        return (entered @ weight.T).square().mean(0) / 2
    if linear.bias is not None:
        entered = torch.cat([entered, torch.ones(len(entered), 1, dtype=torch.float64)], 1)
        weight = torch.cat([weight, linear.bias.detach().to("cpu", torch.float64)[:, None]], 1)
    return layerwise_obs(weight, entered, damping=damping).sum(0)[: linear.in_features]


def layer_inputs(model: nn.Module, inputs: Tensor, layer: str) -> Tensor:
    """What enters a linear layer while the network answers, (N', n), float64; other axes are examples too."""
    if not isinstance(dict(model.named_modules()).get(layer), nn.Linear):
        known = [k for k, m in model.named_modules() if isinstance(m, nn.Linear)]
        raise ValueError(f"layer must name a Linear layer, one of {', '.join(known) or 'none'}, got {layer!r}")
    if not isinstance(inputs, Tensor) or not inputs.ndim or not len(inputs):
        said = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs must be a tensor of examples (N, ...), got {said}")
    net, seen = copy.deepcopy(model).to("cpu", torch.float64).eval(), []
    net.get_submodule(layer).register_forward_pre_hook(lambda _, entered: seen.append(entered[0].flatten(0, -2)))
    with torch.no_grad():
        try:
            net(inputs.to("cpu", torch.float64) if inputs.is_floating_point() else inputs.cpu())
        except (RuntimeError, IndexError, TypeError, ValueError) as why:
            raise ValueError(f"inputs {tuple(inputs.shape)} do not fit the model: {why}") from why
    if not seen:
        raise ValueError(f"layer {layer!r} is not used by the model on these inputs: name one that is")
    found = torch.cat(seen)
    if not torch.isfinite(found).all():
        raise ValueError(f"inputs must be finite, got NaN or infinity where they enter layer {layer!r}: cut those out")
    return found


def _checked(weight, inputs, damping: float) -> tuple[Tensor, Quadratic]:
    weight, inputs = finite(weight, "weight", "(o, n)"), finite(inputs, "inputs", "(N, n)")
    if weight.shape[1] != inputs.shape[1]:
        raise ValueError(
            f"weight (o, n) and inputs (N, n) must agree in n, got {weight.shape[1]} and {inputs.shape[1]}"
        )
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be a finite number of at least 0, got {damping}")
    moment = inputs.T @ inputs / len(inputs)
    moment.diagonal().add_(damping)
    return weight, Quadratic(moment, "inputs")
