"""What a quadratic loss rises by when weights are taken out: optimal brain surgeon, for single weights and neurons.

Near a minimum w the loss is ``delta.T H delta / 2`` above it. Optimal brain damage (LeCun, Denker and Solla 1990) keeps
the diagonal of H and lets nothing else move; optimal brain surgeon (Hassibi and Stork 1993) lets all other weights make
up for the loss. With a covariance H^-1 the second is half of Wald's statistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..covariance.curvature import hessian as curvature_of
from ..covariance.curvature.problem import LARGEST, Problem
from ..covariance.curvature.rows import rows_of
from ..covariance.layout import flatten, positions
from ..covariance.reading import Reader
from ..training import Data, Loss
from .arrays import finite, indices, semidefinite, spectrum

__all__ = ["Quadratic", "group_obs", "group_obs_update", "obd", "obs", "places"]

CURVATURES = ("gauss_newton", "hessian")
WAY_OUT = "train on, take the Gauss-Newton matrix, or add a multiple of the identity"
NULL = 1e-7  # what is left of a unit vector without curvature inside a group, and is rounding


class Quadratic:
    """``delta.T H delta / 2`` for a semidefinite H (p, p), which may be singular."""

    def __init__(self, hessian, name: str = "hessian"):
        found = semidefinite(hessian, name, WAY_OUT)
        diagonal = found.diagonal().clamp(min=0)
        self.scale = torch.where(diagonal > 0, diagonal.sqrt(), 1.0)  # the rank does not depend on units then
        power, axes, positive = spectrum(found / self.scale[:, None] / self.scale)
        kept = axes[:, positive]
        self.inverse, self.null = (kept / power[positive]) @ kept.T, axes[:, ~positive]

    def __len__(self) -> int:
        return len(self.scale)

    def schur(self, index: Tensor) -> Tensor:
        """S (k, k): the least of the quadratic with ``delta[index] = d``, over all other deltas, is ``d.T S d / 2``.

        That is the inverse of a block of the inverse; where H is singular, what null vectors reach costs nothing.
        """
        basis = self._paid(index)
        inner = torch.linalg.inv(basis.T @ self.inverse[index][:, index] @ basis)
        return self.scale[index, None] * (basis @ inner @ basis.T) * self.scale[index]

    def follow(self, index: Tensor, moved: Tensor) -> Tensor:
        """The delta (..., p) that attains it when ``delta[index] = moved``, (..., k); the shortest if there are many."""
        moved, basis = moved * self.scale[index], self._paid(index)
        inner = basis.T @ self.inverse[index][:, index] @ basis
        found = torch.linalg.solve(inner, (moved @ basis).mT if moved.ndim > 1 else moved @ basis)
        found = (found.mT if moved.ndim > 1 else found) @ basis.T @ self.inverse[index]
        if self.null.shape[1]:
            rest = moved - found[..., index]
            found = found + rest @ torch.linalg.pinv(self.null[index], rtol=NULL).T @ self.null.T
        return found / self.scale

    def _paid(self, index: Tensor) -> Tensor:
        """A basis (k, b) of the changes of a group that no change of the others makes up for."""
        if not self.null.shape[1]:
            return torch.eye(len(index), dtype=torch.float64)
        axes, size, _ = torch.linalg.svd(self.null[index])
        return axes[:, int((size > NULL).sum()) :]


def group_obs(weights, hessian, groups=None) -> Tensor:
    """The rise of a quadratic loss when a group of weights is zero and all other weights are refitted.

    ``w_I.T ([H^-1]_II)^-1 w_I / 2``, exact if the loss is quadratic and `weights` its minimum; for a singular Hessian by
    the Schur complement, to which the formula then tends.

    Args:
        weights: (p,), at the minimum
        hessian: (p, p), second derivatives of the loss there, positive semidefinite
        groups: numbers of weights, one sequence for each group, such as (m, n) for m neurons; by default every weight is
            a group

    Returns:
        (m,), in units of the loss
    """
    weights, quadratic, groups = _checked(weights, hessian, groups)
    return torch.stack([weights[g] @ quadratic.schur(g) @ weights[g] / 2 for g in groups])


def group_obs_update(weights, hessian, remove) -> Tensor:
    """The weights (p,) after those in `remove` are zero and the others have moved to make up for it.

    ``w - [H^-1]_{:,I} ([H^-1]_II)^-1 w_I``: the refit of a quadratic loss, and the mean of a Gaussian posterior with
    covariance H^-1 under the condition that the removed weights are zero.

    Args:
        weights, hessian: as in `group_obs`
        remove: numbers of weights
    """
    weights, quadratic, (index,) = _checked(weights, hessian, [remove])
    found = weights + quadratic.follow(index, -weights[index])
    found[index] = 0.0
    return found


def obd(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    layer: str | Sequence[str],
    axis: int = 0,
    curvature: str = "gauss_newton",
) -> Tensor:
    """The rise of the loss when a neuron is zero, by the diagonal of the second derivative alone, (m,).

    The sum over its weights of ``h w^2 / 2`` (LeCun, Denker and Solla 1990).

    Args:
        data, loss: of which the second derivative is taken
        layer, axis: the neurons, as in `weight_of`
        curvature: "gauss_newton", never negative, or "hessian", the exact one, under which a weight may be worse than none
    """
    place, wanted = places(model, layer, axis), positions(model, layer)
    if _checked_curvature(curvature) == "hessian":
        _fits(wanted, layer)
        found = curvature_of(model, data, loss, layers=layer).diagonal()
    else:
        found = _gauss_newton_diagonal(Problem.of(model, data, loss, layer))
    return (found[torch.searchsorted(wanted, place)] * flatten(model)[place].square()).sum(1) / 2


def obs(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    layer: str | Sequence[str],
    axis: int = 0,
    layers: str | Sequence[str] | None = None,
    curvature: str = "gauss_newton",
    damping: float = 0.0,
) -> Tensor:
    """The rise of the loss when a neuron is zero and other weights make up for it, (m,); see `group_obs`.

    Args:
        data, loss: of which the second derivative is taken
        layer, axis: the neurons, as in `weight_of`
        layers: whose parameters make up for a neuron, by default those of `layer`. It is rarely wise to add the next
            layer: incoming weights of a ReLU can shrink for free as its outgoing ones grow, so to second order every one
            of its neurons seems to be worth nothing.
        curvature: "gauss_newton", or "hessian", which is refused where it is indefinite
        damping: added to the diagonal, as weight decay ``damping / 2 |w|^2`` would
    """
    if not 0 <= damping < float("inf"):
        raise ValueError(f"damping must be a finite number of at least 0, got {damping}")
    place, layers = places(model, layer, axis), layer if layers is None else layers
    wanted = positions(model, layers)
    if not torch.isin(place, wanted).all():
        raise ValueError(f"layers must hold the neurons of layer {layer!r} too, got {layers!r}: add it")
    _fits(wanted, layers)
    exact = _checked_curvature(curvature) == "hessian"
    found = curvature_of(model, data, loss, layers=layers, gauss_newton=not exact)
    found.diagonal().add_(damping)
    return group_obs(flatten(model)[wanted], found, torch.searchsorted(wanted, place))


def _checked(weights, hessian, groups) -> tuple[Tensor, Quadratic, list[Tensor]]:
    weights, quadratic = finite(weights, "weights", "(p,)"), Quadratic(hessian)
    if len(weights) != len(quadratic):
        raise ValueError(f"weights and hessian must be (p,) and (p, p), got {len(weights)} and {len(quadratic)}")
    groups = torch.arange(len(weights))[:, None] if groups is None else groups
    return weights, quadratic, [indices(g, "groups", len(weights)) for g in groups]


def places(model: nn.Module, layer, axis: int) -> Tensor:
    """Which parameter each weight of each neuron is, (m, n)."""
    found = Reader(model, layer, axis).places()
    if found is None:
        raise ValueError(
            f"layer {layer!r} is made from parameters by a parametrization: use by='wald' with a posterior, whose "
            "`neurons` sees through it, or remove the parametrization"
        )
    return found


def _gauss_newton_diagonal(problem: Problem) -> Tensor:
    net, total = rows_of(problem), torch.zeros(problem.size, dtype=torch.float64)
    for x, y, _ in problem.pieces(net.chunk):
        for root in problem.outputs.roots(net.at(x), y):
            total += net.rows(root).square().sum(0)
    return total / len(problem)


def _checked_curvature(curvature: str) -> str:
    if curvature not in CURVATURES:
        raise ValueError(f"curvature must be one of {', '.join(CURVATURES)}, got {curvature!r}")
    return curvature


def _fits(wanted: Tensor, layers) -> None:
    if len(wanted) > LARGEST:
        raise ValueError(
            f"layers {layers!r} have {len(wanted)} parameters, whose matrix would be wider than {LARGEST}: use by='obd' "
            "with curvature='gauss_newton', by='layerwise', or by='wald' with a posterior made of blocks"
        )
