"""Order parameters by how much their gradients scatter, and freeze the calm ones (Grabovoy, Bakhteev and Strijov 2020).

A small scatter marks a parameter that is settled, and a dead unit too: freeze by it, prune by `wald` or `obs`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check_int
from ..covariance.curvature.problem import Problem
from ..covariance.curvature.rows import rows_of
from ..covariance.layout import positions, unflatten
from ..training import Data, Loss
from .arrays import finite
from .second_order import places

__all__ = ["freeze_masks", "gradient_covariance"]


def gradient_covariance(
    model: nn.Module, data: Data, loss: Loss, *, layer: str | Sequence[str], axis: int = 0
) -> Tensor:
    """The covariance over examples of the gradient by each neuron, (m, n, n), unbiased.

    The limit of the running average over single examples less the mean of their batch, but for its factor
    ``(S - 1) / S`` with batches of S.

    Args:
        data: at least two examples
        loss: (output, target) -> mean over the batch
        layer, axis: the neurons, as in `weight_of`
    """
    place, wanted = places(model, layer, axis), positions(model, layer)
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


def freeze_masks(
    model: nn.Module, relevance, n_frozen: int, *, layer: str | Sequence[str], axis: int = 0
) -> dict[str, Tensor]:
    """Masks by parameter name: 0 for the `n_frozen` least relevant of a layer, 1 for all others; multiply gradients by them.

    Args:
        relevance: (m,), of neurons, which are frozen as a whole without their bias; or (m, n), of single weights
        n_frozen: how many neurons or weights; of equal ones the first
        layer, axis: the neurons, as in `weight_of`
    """
    place = places(model, layer, axis)
    ndim = np.ndim(relevance)
    scores = finite(relevance, "relevance", "(m, n)" if ndim == 2 else "(m,)")
    if scores.shape != place.shape[:ndim]:
        raise ValueError(
            f"relevance must be {tuple(place.shape[:1])} or {tuple(place.shape)}, got {tuple(scores.shape)}"
        )
    n_frozen = check_int(n_frozen, "n_frozen", 0, scores.numel())
    calm = scores.flatten().argsort(stable=True)[:n_frozen]
    mask = torch.ones(sum(p.numel() for p in model.parameters()))
    mask[place.reshape(scores.numel(), -1)[calm].flatten()] = 0.0
    return unflatten(model, mask)
