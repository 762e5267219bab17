"""One door to the relevance of neurons: larger is more relevant, whatever it is measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..neurons import NeuronDistribution, weight_of
from ..training import Data, Loss
from .gradients import gradient_covariance
from .layerwise import layerwise_relevance
from .second_order import obd, obs
from .variance import kl, root_of, significance, wald

__all__ = ["relevance"]

BY_NEURONS = ("wald", "significance", "kl", "obs", "obd", "magnitude")
BY_NETWORK = ("obs", "obd", "gradient", "layerwise", "magnitude")


def relevance(
    posterior_or_neurons,
    *,
    by: str = "wald",
    layer: str | Sequence[str] | None = None,
    axis: int = 0,
    data: Data | Tensor | None = None,
    loss: Loss | None = None,
    **options,
) -> Tensor:
    """How much each neuron matters, (m,); larger is more relevant.

    ==============  ==================================================================  =============================
    `by`            what it is                                                          unit, and what it needs
    ==============  ==================================================================  =============================
    "wald"          ``m.T S^-1 m``                                                      chi^2 with n degrees; neurons
    "significance"  one minus the p-value of that                                       0 to 1; neurons
    "kl"            divergence from `prior` or `prior_precision`                        nats; neurons
    "obs"           rise of the loss without the neuron, all else refitted: wald / 2    loss; neurons, or a network
    "obd"           the same by the diagonal of the precision, nothing refitted         loss; neurons, or a network
    "layerwise"     error of the layer's own answers, other inputs refitted             output^2; a network
    "gradient"      trace of the covariance of the gradient over examples               (loss / weight)^2; a network
    "magnitude"     length of the weights                                               weight; either
    ==============  ==================================================================  =============================

    The loss is the negative log-posterior, summed over examples, where "obs" and "obd" read it off a covariance, which
    should then be an inverse of its second derivative such as `laplace` gives; and the mean of `loss` over `data` where
    they are given a network and these. So the first is about n times the second.

    Args:
        posterior_or_neurons: a `NeuronDistribution`; anything whose `neurons` gives one, such as a posterior or an
            ensemble, with `layer`; or a network, with `layer`. A posterior with `data` stands for its network.
        layer: name of the layer, as in `weight_of`
        axis: 0 for rows, 1 for columns
        data: inputs and targets; "layerwise" needs no more than inputs
        loss: (output, target) -> mean over the batch
        options: of the method: `prior`, `prior_precision` for "kl"; `curvature`, `layers`, `damping` for a network's
            "obs"; `curvature` for "obd"; `damping` for "layerwise"
    """
    if by not in BY_NEURONS + BY_NETWORK:
        known = ", ".join(dict.fromkeys(BY_NEURONS + BY_NETWORK))
        raise ValueError(f"by must be one of {known}, got {by!r}")
    given = posterior_or_neurons
    if by in BY_NETWORK and (data is not None or by not in BY_NEURONS):
        return _of_network(_network(given, by), by, layer, axis, data, loss, options)
    if data is not None or loss is not None:
        raise ValueError(f"data and loss are not used by={by!r} with {type(given).__name__}: leave them out")
    if isinstance(given, nn.Module):
        if by != "magnitude":
            need = "data= and loss=, or a posterior" if by in BY_NETWORK else "a posterior or an ensemble"
            raise ValueError(f"by={by!r} needs more than a network: give {need}")
        _reject(options, by)
        return weight_of(given, _named(layer), axis=axis).double().norm(dim=1)
    return _of_neurons(_neurons(given, layer, axis), by, options)


def _of_neurons(neurons: NeuronDistribution, by: str, options: dict) -> Tensor:
    if by == "kl":
        _reject(options, by, "prior", "prior_precision")
        return kl(neurons, **options)
    _reject(options, by)
    methods: dict[str, Callable] = {"wald": wald, "significance": significance, "obs": lambda n: wald(n) / 2}
    if by in methods:
        return methods[by](neurons)
    if by == "magnitude":
        return neurons.mean.norm(dim=1)
    precision = torch.cholesky_inverse(root_of(neurons, "neurons", by))
    return (precision.diagonal(dim1=1, dim2=2) * neurons.mean.square()).sum(1) / 2


def _of_network(model: nn.Module, by: str, layer, axis: int, data, loss, options: dict) -> Tensor:
    layer = _named(layer)
    if data is None:
        raise ValueError(f"by={by!r} needs data=" + ("" if by == "layerwise" else " and loss="))
    if by == "magnitude":
        raise ValueError("data is not used by='magnitude': leave it out")
    if by == "layerwise":
        _reject(options, by, "damping")
        inputs = data[0] if isinstance(data, (tuple, list)) and len(data) else data
        return layerwise_relevance(model, inputs, layer=layer, axis=axis, **options)
    if loss is None:
        raise ValueError(f"by={by!r} needs loss=, (output, target) -> mean over the batch, beside data=")
    if by == "gradient":
        _reject(options, by)
        return gradient_covariance(model, data, loss, layer=layer, axis=axis).diagonal(dim1=1, dim2=2).sum(1)
    _reject(options, by, "curvature", *(("layers", "damping") if by == "obs" else ()))
    return {"obs": obs, "obd": obd}[by](model, data, loss, layer=layer, axis=axis, **options)


def _network(given, by: str) -> nn.Module:
    """The network itself, or that at the mean of a posterior."""
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, NeuronDistribution) or not callable(getattr(given, "model", None)):
        raise ValueError(f"by={by!r} with data= needs a network or a posterior of one, got {type(given).__name__}")
    return given.model()


def _neurons(given, layer, axis: int) -> NeuronDistribution:
    if isinstance(given, NeuronDistribution):
        if layer is not None or axis != 0:
            raise ValueError(
                f"layer and axis go with a posterior, got {layer!r} and {axis} with neurons: leave them out"
            )
        return given
    if not callable(getattr(given, "neurons", None)):
        raise ValueError(f"posterior_or_neurons must be neurons, a posterior or a network, got {type(given).__name__}")
    return given.neurons(_named(layer), axis=axis)


def _named(layer):
    if layer is None:
        raise ValueError("layer must name the layer whose neurons are meant, got None")
    return layer


def _reject(options: dict, by: str, *known: str) -> None:
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"by={by!r} takes {', '.join(known) or 'no options'}, got {', '.join(unknown)}")
