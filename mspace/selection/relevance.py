"""The relevance of neurons: larger is more relevant, whatever it is measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._linalg import eigh_psd, is_full_rank
from ..checks import check_real
from ..network.parameters import positions
from ..neurons import NeuronDistribution, weight_of
from ..posterior.gradients import rows_of
from ..posterior.problem import Problem
from ..training import Data, Loss
from .second_order import layerwise_relevance, obd, obs, weight_indices

__all__ = ["gradient_covariance", "relevance", "wald"]

EPS = torch.finfo(torch.float64).eps
OUTSIDE = 1e-6  # of the mean: what lies outside the range of a covariance by more is not rounding


def relevance(
    posterior_or_neurons,
    *,
    by: str = "wald",
    layer: str | Sequence[str] | None = None,
    axis: int = 0,
    data: Data | Tensor | None = None,
    loss: Loss | None = None,
    damping: float = 0.0,
) -> Tensor:
    """Return how much each neuron matters, (m,); larger is more relevant.

    ============  ==================================================================  =============================
    `by`          what it is                                                          unit, and what it needs
    ============  ==================================================================  =============================
    "wald"        ``m.T S^-1 m``                                                      chi^2 with n degrees; neurons
    "obs"         rise of the loss without the neuron, its layer refitted: wald / 2   loss; neurons, or a network
    "obd"         the same by the diagonal of the precision, nothing refitted         loss; neurons, or a network
    "layerwise"   error of the layer's own outputs, other inputs refitted             output^2; a network
    "gradient"    trace of the covariance of the gradient over examples               (loss / weight)^2; a network
    "magnitude"   length of the weights                                               weight; either
    ============  ==================================================================  =============================

    The loss is the negative log-posterior, summed over examples, where "obs" and "obd" read it off a covariance, which
    should then be an inverse of its second derivative such as `laplace` gives; and the mean of `loss` over `data`, by
    its Gauss-Newton matrix, where they are given a network and these. So the first is about n times the second.

    Args:
        posterior_or_neurons: a `NeuronDistribution`; anything whose `neurons` gives one, such as a posterior or an
            ensemble, with `layer`; or a network, with `layer`. A posterior with `data` stands for its network.
        layer: name of the layer, as in `weight_of`
        axis: 0 for rows, 1 for columns
        data: inputs and targets; "layerwise" needs no more than inputs
        loss: (output, target) -> mean over the batch
        damping: added to the diagonal of a network's curvature in "obs", "obd" and "layerwise", as weight decay
            ``damping / 2 |w|^2`` would
    """
    if by not in (*OF_NEURONS, *OF_NETWORK):
        raise ValueError(f"by must be one of {', '.join(dict.fromkeys((*OF_NEURONS, *OF_NETWORK)))}, got {by!r}")
    given, damping = posterior_or_neurons, check_real(damping, "damping", 0, ends="[)")
    if by in OF_NEURONS and (data is None or by not in OF_NETWORK):
        if data is not None or loss is not None or damping:
            raise ValueError(f"data, loss and damping are not used by={by!r} with neurons: leave them out")
        if by == "magnitude" and isinstance(given, nn.Module) and layer is not None:
            return weight_of(given, layer, axis=axis).double().norm(dim=1)
        return OF_NEURONS[by](_neurons(given, layer, axis))
    if by == "gradient" and damping:
        raise ValueError("damping is not used by='gradient': leave it out")
    network = given.model() if callable(getattr(given, "model", None)) else given
    if data is None or (loss is None and by != "layerwise") or not isinstance(network, nn.Module) or layer is None:
        need = "" if by == "layerwise" else " and loss="
        raise ValueError(f"by={by!r} needs a network or a posterior, layer=, data={need}, got {type(given).__name__}")
    return OF_NETWORK[by](network, data, loss, layer=layer, axis=axis, damping=damping)


def wald(neurons: NeuronDistribution) -> Tensor:
    """Return Wald's statistic ``m.T S^-1 m`` of the hypothesis that a neuron is zero, (m,); chi^2 with n degrees of freedom.

    For n = 1 the square of mean over standard deviation (Graves 2011), for least squares the squared t statistic. With
    S = H^-1 it is twice the rise of the loss by optimal brain surgeon. A singular covariance is inverted on its range,
    as long as the mean lies there.

    Raises:
        ValueError: where a weight that is not zero has no variance, so that the statistic is infinite
    """
    mean, variance = neurons.mean, neurons.cov.diagonal(dim1=1, dim2=2)
    flat = variance <= (8 * EPS * mean).square()
    scale = torch.where(flat, 1.0, variance.clamp(min=0).sqrt())
    free = (~flat).double()
    scaled = neurons.cov * (free / scale)[:, :, None] * (free / scale)[:, None, :]
    eigenvalues, eigenvectors = eigh_psd(scaled, margin=8)
    kept, target = eigenvalues > 0, free * mean / scale
    along = (eigenvectors.mT @ target[..., None])[..., 0]
    outside = torch.where(kept, 0.0, along).norm(dim=1) > OUTSIDE * target.norm(dim=1)
    certain = outside | (flat & (mean != 0)).any(1)
    if certain.any():
        _refuse_infinite(neurons, certain, kept.sum(1))
    return torch.where(kept, along.square() / torch.where(kept, eigenvalues, 1.0), 0.0).sum(1)


def _refuse_infinite(neurons: NeuronDistribution, certain: Tensor, rank: Tensor) -> None:
    first, still = int(certain.nonzero()[0]), int((certain & (rank == 0)).sum())
    way_out = "draw more networks than weights, or leave out what is known with `marginal`"
    if still:
        way_out = f"{still} never move at all, as dead units do, leave them out, neurons[...]; else {way_out}"
    raise ValueError(
        f"wald is infinite for {int(certain.sum())} of {len(neurons)} neurons, the first is {first}: its mean is not "
        f"zero where its covariance, of rank {int(rank[first])} in R^{neurons.dim}, has no variance: {way_out}; "
        "or use by='magnitude'"
    )


def gradient_covariance(
    model: nn.Module, data: Data, loss: Loss, *, layer: str | Sequence[str], axis: int = 0
) -> Tensor:
    """Return the covariance over examples, two at least, of the gradient by each neuron, (m, n, n), unbiased.

    The limit of the running average over single examples less the mean of their batch, but for its factor
    ``(S - 1) / S`` with batches of S (Grabovoy, Bakhteev and Strijov 2020). A small scatter marks a parameter that is
    settled, and a dead unit too: freeze by it, prune by `wald` or `obs`.
    """
    place, wanted = weight_indices(model, layer, axis), positions(model, layer)
    problem = Problem.of(model, data, loss, layer)
    if len(problem) < 2:
        raise ValueError(f"data must hold at least two examples for a covariance, got {len(problem)}")
    index = torch.searchsorted(wanted, place)
    net, center, total, outer = rows_of(problem), None, 0.0, 0.0
    for x, y, _ in problem.pieces(net.chunk):
        rows = net.rows(problem.outputs.slope(net.at(x), y))
        center = rows.mean(0) if center is None else center  # near the mean, so that no digits are lost
        rows = (rows - center)[:, index].transpose(0, 1)
        total, outer = total + rows.sum(1), outer + rows.mT @ rows
    return (outer - total[:, :, None] * total[:, None, :] / len(problem)) / (len(problem) - 1)


def _gradient(model: nn.Module, data: Data, loss: Loss, *, layer, axis: int, damping: float) -> Tensor:
    return gradient_covariance(model, data, loss, layer=layer, axis=axis).diagonal(dim1=1, dim2=2).sum(1)


def _layerwise(model: nn.Module, data, loss, *, layer, axis: int, damping: float) -> Tensor:
    inputs = data[0] if isinstance(data, (tuple, list)) and len(data) else data
    return layerwise_relevance(model, inputs, layer=layer, axis=axis, damping=damping)


def _neurons(given, layer, axis: int) -> NeuronDistribution:
    if isinstance(given, NeuronDistribution):
        if layer is not None or axis != 0:
            raise ValueError(
                f"layer and axis go with a posterior, got {layer!r} and {axis} with neurons: leave them out"
            )
        return given
    if not callable(getattr(given, "neurons", None)) or layer is None:
        raise ValueError(
            f"posterior_or_neurons must be neurons, a posterior with layer=, or a network with layer= and data=, got "
            f"{type(given).__name__}"
        )
    return given.neurons(layer, axis=axis)


def _obd(neurons: NeuronDistribution) -> Tensor:
    if not is_full_rank(neurons.cov).all():
        raise ValueError("neurons must have covariances of full rank for by='obd', got singular ones: use by='wald'")
    precision = torch.cholesky_inverse(torch.linalg.cholesky(neurons.cov)).diagonal(dim1=1, dim2=2)
    return (precision * neurons.mean.square()).sum(1) / 2


OF_NEURONS: dict[str, Callable[[NeuronDistribution], Tensor]] = {
    "wald": wald,
    "obs": lambda neurons: wald(neurons) / 2,
    "obd": _obd,
    "magnitude": lambda neurons: neurons.mean.norm(dim=1),
}
OF_NETWORK: dict[str, Callable[..., Tensor]] = {"obs": obs, "obd": obd, "layerwise": _layerwise, "gradient": _gradient}
