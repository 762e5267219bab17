"""What a loss rises by when weights are taken out: optimal brain damage and surgeon, for single weights and neurons.

Near a minimum w the loss is ``delta.T H delta / 2`` above it. Optimal brain damage (LeCun, Denker and Solla 1990) keeps
the diagonal of H and lets nothing else move; optimal brain surgeon (Hassibi and Stork 1993) lets all other weights make
up for the loss. With a covariance H^-1 the second is half of Wald's statistic. Layer by layer (Dong, Chen and Pan 2017)
the loss is the error of a layer's own outputs, and H the second moment of its inputs, the same for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._linalg import check_psd, eigh_psd
from ..checks import check_finite, check_indices, check_real
from ..network.hooks import evaluation_mode, seen
from ..network.modules import copied, find_module
from ..network.parameters import Reader, flatten, positions
from ..network.weights import weight_of
from ..posterior import hessian
from ..posterior.gradients import rows_of
from ..posterior.problem import LARGEST, Problem
from ..training import Data, Loss

__all__ = [
    "Quadratic", "group_obs", "group_obs_update", "layer_inputs", "layerwise_relevance", "obd", "obs", "weight_indices",
]  # fmt: skip

WAY_OUT = "train on, take the Gauss-Newton matrix, or add a multiple of the identity"
NULL = 1e-7  # what is left of a unit vector without curvature inside a group, and is rounding


class Quadratic:
    """``delta.T H delta / 2`` for a semidefinite H (p, p), which may be singular."""

    def __init__(self, matrix, name: str = "hessian"):
        h = check_psd(matrix, name, WAY_OUT)
        diagonal = h.diagonal().clamp(min=0)
        self.scale = torch.where(diagonal > 0, diagonal.sqrt(), 1.0)  # the rank does not depend on units then
        eigenvalues, eigenvectors = eigh_psd(h / self.scale[:, None] / self.scale, margin=8)
        kept = eigenvectors[:, eigenvalues > 0]
        self.inverse, self.null = (kept / eigenvalues[eigenvalues > 0]) @ kept.T, eigenvectors[:, eigenvalues == 0]

    def __len__(self) -> int:
        return len(self.scale)

    def schur(self, index: Tensor) -> Tensor:
        """Return S (k, k): the least of the quadratic with ``delta[index] = d``, over all other deltas, is ``d.T S d / 2``.

        That is the inverse of a block of the inverse; where H is singular, what null vectors reach costs nothing.
        """
        basis = self._paid(index)
        inner = torch.linalg.inv(basis.T @ self.inverse[index][:, index] @ basis)
        return self.scale[index, None] * (basis @ inner @ basis.T) * self.scale[index]

    def follow(self, index: Tensor, moved: Tensor) -> Tensor:
        """Return the delta (p,) that attains it when ``delta[index] = moved``; the shortest if there are many."""
        moved, basis = moved * self.scale[index], self._paid(index)
        inner = basis.T @ self.inverse[index][:, index] @ basis
        delta = torch.linalg.solve(inner, moved @ basis) @ basis.T @ self.inverse[index]
        if self.null.shape[1]:
            rest = moved - delta[index]
            delta = delta + rest @ torch.linalg.pinv(self.null[index], rtol=NULL).T @ self.null.T
        return delta / self.scale

    def _paid(self, index: Tensor) -> Tensor:
        """Return a basis (k, b) of the changes of a group that no change of the others makes up for."""
        if not self.null.shape[1]:
            return torch.eye(len(index), dtype=torch.float64)
        vectors, size, _ = torch.linalg.svd(self.null[index])
        return vectors[:, int((size > NULL).sum()) :]


def group_obs(weights, hessian, groups=None) -> Tensor:
    """Return the rise of a quadratic loss, (m,), when a group of weights is zero and all other weights are refitted.

    ``w_I.T ([H^-1]_II)^-1 w_I / 2``, exact if the loss is quadratic and `weights` its minimum; for a singular Hessian by
    the Schur complement, to which the formula then tends.

    Args:
        weights: (p,), at the minimum
        hessian: (p, p), second derivatives of the loss there, positive semidefinite
        groups: indices of weights, one sequence for each group, such as (m, n) for m neurons; by default every weight is
            a group
    """
    weights, quadratic, groups = _checked(weights, hessian, groups)
    return torch.stack([weights[g] @ quadratic.schur(g) @ weights[g] / 2 for g in groups])


def group_obs_update(weights, hessian, remove) -> Tensor:
    """Return the weights (p,) after those in `remove` are zero and the others have moved to make up for it.

    ``w - [H^-1]_{:,I} ([H^-1]_II)^-1 w_I``: the refit of a quadratic loss, and the mean of a Gaussian posterior with
    covariance H^-1 under the condition that the removed weights are zero.

    Args:
        weights, hessian: as in `group_obs`
        remove: indices of weights
    """
    weights, quadratic, (index,) = _checked(weights, hessian, [remove])
    moved = weights + quadratic.follow(index, -weights[index])
    moved[index] = 0.0
    return moved


def obd(model: nn.Module, data: Data, loss: Loss, *, layer: str | Sequence[str], axis: int, damping: float) -> Tensor:
    """Return the rise of the loss when a neuron is zero, by the diagonal of the Gauss-Newton matrix alone, (m,).

    The sum over its weights of ``h w^2 / 2`` (LeCun, Denker and Solla 1990); arguments as in `relevance`.
    """
    place, wanted = weight_indices(model, layer, axis), positions(model, layer)
    problem = Problem.of(model, data, loss, layer)
    net, total = rows_of(problem), torch.zeros(problem.size, dtype=torch.float64)
    for x, y, _ in problem.pieces(net.chunk):
        for root in problem.outputs.roots(net.at(x), y):
            total += net.rows(root).square().sum(0)
    diagonal = total / len(problem) + damping
    return (diagonal[torch.searchsorted(wanted, place)] * flatten(model)[place].square()).sum(1) / 2


def obs(model: nn.Module, data: Data, loss: Loss, *, layer: str | Sequence[str], axis: int, damping: float) -> Tensor:
    """Return the rise of the loss when a neuron is zero and the rest of the layer makes up for it, (m,).

    By `group_obs` with the Gauss-Newton matrix of the layer. The next layer is rightly held: incoming weights of a ReLU
    can shrink for free as its outgoing ones grow, so to second order every neuron would seem to be worth nothing.
    """
    place, wanted = weight_indices(model, layer, axis), positions(model, layer)
    if len(wanted) > LARGEST:
        raise ValueError(
            f"layer {layer!r} has {len(wanted)} parameters, whose matrix would be wider than {LARGEST}: use by='obd', "
            "by='layerwise', or by='wald' with a posterior made of blocks"
        )
    matrix = hessian(model, data, loss, layers=layer, gauss_newton=True)
    matrix.diagonal().add_(damping)
    return group_obs(flatten(model)[wanted], matrix, torch.searchsorted(wanted, place))


def layerwise_relevance(model: nn.Module, inputs: Tensor, *, layer: str, axis: int = 0, damping: float = 0.0) -> Tensor:
    """Return what the outputs of a linear layer lose without a neuron, half the mean square summed over outputs, (m,).

    Args:
        inputs: of the network, (N, ...), calibration examples
        layer: name of an `nn.Linear`
        axis: 0, the rows: nothing makes up for a row, so that is half the mean square of its output, without the bias; 1,
            the columns: the units that enter the layer, for which the others and the bias make up
        damping: added to the diagonal of the second moment, as a ridge
    """
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 (rows) or 1 (columns), got {axis}")
    damping = check_real(damping, "damping", 0, ends="[)")
    entered = layer_inputs(model, inputs, layer)
    linear = model.get_submodule(layer)
    weight = weight_of(model, layer).to("cpu", torch.float64)
    if axis == 0:
        return (entered @ weight.T).square().mean(0) / 2
    if linear.bias is not None:
        entered = torch.cat([entered, torch.ones(len(entered), 1, dtype=torch.float64)], 1)
    moment = entered.T @ entered / len(entered)
    moment.diagonal().add_(damping)
    quadratic = Quadratic(moment, "inputs")
    units = torch.stack([quadratic.schur(torch.tensor([q]))[0, 0] for q in range(linear.in_features)])
    return (weight.square() * units / 2).sum(0)


def layer_inputs(model: nn.Module, inputs: Tensor, layer: str) -> Tensor:
    """Return the inputs of a linear layer in a pass through the network, (N', n), float64; other axes are examples too."""
    find_module(model, layer, "layer", nn.Linear)
    if not isinstance(inputs, Tensor) or not inputs.ndim or not len(inputs):
        came = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs must be a tensor of examples (N, ...), got {came}")
    net = copied(model).to("cpu", torch.float64)
    with evaluation_mode(net), torch.no_grad():
        try:
            passed = seen(net, [layer], inputs.to("cpu", torch.float64) if inputs.is_floating_point() else inputs.cpu())
        except (RuntimeError, IndexError, TypeError) as why:
            raise ValueError(f"inputs {tuple(inputs.shape)} do not fit the model: {why}") from why
    entered = passed[layer].input.flatten(0, -2)
    if not torch.isfinite(entered).all():
        raise ValueError(f"inputs must be finite, got NaN or infinity where they enter layer {layer!r}: cut those out")
    return entered


def weight_indices(model: nn.Module, layer: str | Sequence[str], axis: int) -> Tensor:
    """Return which parameter each weight of each neuron is, (m, n)."""
    indices = Reader(model, layer, axis).places()
    if indices is None:
        raise ValueError(
            f"layer {layer!r} is made from parameters by a parametrization: use by='wald' with a posterior, whose "
            "`neurons` sees through it, or remove the parametrization"
        )
    return indices


def _checked(weights, hessian, groups) -> tuple[Tensor, Quadratic, list[Tensor]]:
    weights, quadratic = check_finite(weights, "weights", "(p,)"), Quadratic(hessian)
    if len(weights) != len(quadratic):
        raise ValueError(f"weights and hessian must be (p,) and (p, p), got {len(weights)} and {len(quadratic)}")
    groups = torch.arange(len(weights))[:, None] if groups is None else groups
    return weights, quadratic, [check_indices(g, "groups", len(weights)) for g in groups]
