"""A posterior without some neurons, or without a layer (the paper's algorithm 1, step 4; Grabovoy and Strijov 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..checks import check_indices, check_int
from ..network.connections import sequences
from ..network.modules import copied, is_parametrized
from ..network.parameters import positions
from ..network.surgery import Units, exchange, units_of
from ..posterior.gaussian import GaussianPosterior
from .carry import carried, distance, must_be_posterior

__all__ = ["drop_layer", "drop_neurons"]


def drop_neurons(
    posterior: GaussianPosterior,
    layer: str | Sequence[str],
    feeds: str | Sequence[str],
    keep: int | Sequence[int] | Tensor,
    *,
    through: str | Sequence[str] | None = None,
) -> GaussianPosterior:
    """Return the posterior of a network in which a layer has only the units `keep`.

    A unit whose outgoing weights are zero is not there. So the posterior is **conditioned** on the outgoing weights of
    the other units being zero, which moves every weight that correlates with them, and their incoming rows with their
    biases, which then touch nothing, are **marginalised**. If the posterior is exact and the prior was independent, the
    result is the exact posterior of the smaller network. Parameters without variance are zeroed or left out, no more.
    The order inside a layer does not matter. Of two layers in a row begin with the later one: the rows of its units are
    free then, and less has to be zero.

    Args:
        posterior: of the large network
        layer: name of the layer that makes the units, Linear or convolution; several for a gated block
        feeds: name of the layer that reads them, or names
        keep: indices of the units that stay, in the order they shall have, or a mask (m,); or how many, then those whose
            outgoing weights are furthest from zero, each unit for itself (Wald's statistic, the price of its going)
        through: what stands between and has parameters for each unit alone: batch normalisations, convolutions in
            groups. An `nn.Sequential` shows it; else name it: temporal filters of an `EEGNet` pass through
            ``["norm1", "spatial", "norm2", "separable"]`` to "pointwise", and those in turn through "norm3" to "dense".

    Returns:
        a posterior whose template is the smaller network, its parameters in the order of ``named_parameters``; report
        "distance" is the squared Mahalanobis distance of the zeros, near "dof" where zero was likely
    """
    must_be_posterior(posterior)
    units = units_of(posterior.template, layer, feeds, through)
    keep = _furthest(posterior, units, keep) if isinstance(keep, int) else check_indices(keep, "keep", units.size)
    gone = (~torch.isin(torch.arange(units.size), keep)).nonzero().flatten()
    student, places = units.only(keep)
    if not len(gone):
        return carried(posterior, student, places, distance=0.0, dof=0)
    at = units.columns(gone).sort().values
    far, dof = distance(posterior, at, torch.zeros(len(at), dtype=torch.float64))
    given = posterior.condition(at, 0.0)
    return carried(given, student, places, distance=far, dof=dof)


def drop_layer(posterior: GaussianPosterior, layer: str, *, farthest: float = 10.0) -> GaussianPosterior:
    """Return the posterior of a network without a layer: conditioned on its weight being the identity and its bias zero.

    That leaves the activations on either side one after the other, so the second must change nothing after the first:
    ReLU does not, LeakyReLU and tanh do. A trained layer is usually far from the identity, and then the shift of all
    other weights is extrapolation in the tail of a Gaussian. The limit on the distance tells such a case only where the
    posterior is narrow: under a wide one the identity may be near and the student of no use, so look at its outputs.

    Args:
        posterior: of the large network, whose layers stand in an `nn.Sequential`
        layer: a square Linear, or a convolution that can be the identity
        farthest: how many times the number of its random parameters the squared Mahalanobis distance of the identity
            may be; its expectation under the posterior is once. `math.inf` insists.

    Returns:
        a posterior whose template has `nn.Identity` in the place of the layer and of the activation behind it, so that
        other names stay; its report holds "distance" and "dof"

    Raises:
        ValueError: if the activation is not idempotent, or the identity too far: `compose_layers` then multiplies the
            layer with the one that reads it
    """
    must_be_posterior(posterior)
    model = posterior.template
    before, after = _neighbours(model, layer)
    identity = _identity(model, layer)
    _must_repeat(before, after, identity, layer)
    at = positions(model, layer)
    goal = torch.cat([p.detach().reshape(-1) for p in identity.parameters()])
    far, dof = distance(posterior, at, goal)
    if dof < len(at):
        raise ValueError(
            f"layer {layer!r} has parameters without variance, which cannot be conditioned on others' values"
        )
    if not far <= farthest * dof:
        raise ValueError(
            f"layer {layer!r} is far from the identity: the squared Mahalanobis distance is {far:.3g} with {dof} degrees "
            f"of freedom, above {farthest:g} times; use compose_layers(posterior, {layer!r}, feeds, inputs), or "
            "farthest=math.inf to insist"
        )
    given = posterior.condition(at, goal)
    student = copied(model)
    exchange(student, layer, nn.Identity())
    if after is not None:
        exchange(student, after[0], nn.Identity())
    rest = (~torch.isin(torch.arange(len(posterior.mean)), at)).nonzero().flatten()
    return carried(given, student, rest, distance=far, dof=dof)


def _furthest(posterior: GaussianPosterior, units: Units, k: int) -> Tensor:
    """Return the k units whose outgoing weights are least likely to be zero, ascending."""
    k = check_int(k, "keep", 1, units.size)
    columns = [units.columns(torch.tensor([u])) for u in range(units.size)]
    worth = [distance(posterior, at, torch.zeros(len(at), dtype=torch.float64))[0] for at in columns]
    return torch.tensor(worth).argsort(descending=True, stable=True)[:k].sort().values


def _neighbours(model: nn.Module, layer: str):
    """Return modules without parameters before a layer, and the one behind it, by name, in its `nn.Sequential`."""
    for leaves in sequences(model, layer) if layer else ():
        names = [n for n, _ in leaves]
        if layer in names:
            i, before = names.index(layer), []
            while (j := i - 1 - len(before)) >= 0 and not any(True for _ in leaves[j][1].parameters()):
                before.insert(0, leaves[j][1])
            after = leaves[i + 1] if i + 1 < len(leaves) else None
            return before, None if after is None or any(True for _ in after[1].parameters()) else after
    raise ValueError(f"layer must stand in an nn.Sequential, which shows what is around it, got {layer!r}")


def _identity(model: nn.Module, layer: str) -> nn.Module:
    """Return a copy of the layer that is the identity."""
    module = copied(model.get_submodule(layer)).double()
    if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        raise ValueError(f"layer {layer!r} must be Linear, Conv1d or Conv2d, got {type(module).__name__}")
    if is_parametrized(module):
        raise ValueError(
            f"layer {layer!r} must have weights that are parameters, got some that are made from others: "
            "remove_parametrizations, prune.remove or remove_weight_norm first"
        )
    weight = module.weight
    if weight.shape[0] != weight.shape[1] or getattr(module, "groups", 1) != 1:
        raise ValueError(
            f"layer {layer!r} must be square to be the identity, got {tuple(weight.shape)}: drop neurons before or after "
            "it until it is"
        )
    with torch.no_grad():
        nn.init.eye_(weight) if isinstance(module, nn.Linear) else nn.init.dirac_(weight)
        if module.bias is not None:
            module.bias.zero_()
    return module


def _must_repeat(before, after, identity: nn.Module, layer: str) -> None:
    """Refuse an activation behind a layer that is the identity if it changes anything: the network is another then."""
    n = identity.weight.shape[1]
    shape = (64, n, *(2 * k + 5 for k in identity.weight.shape[2:]))
    z = torch.linspace(-4, 4, math.prod(shape), dtype=torch.float64).reshape(shape)
    try:
        first = nn.Sequential(*map(copied, before)).eval()(z)
        through = identity(first)
        second = through if after is None else copied(after[1]).eval()(through)
        same = first.shape == second.shape and torch.allclose(first, second, atol=1e-12)
    except RuntimeError:
        same = False
    if not same:
        names = [type(m).__name__ for m in before], None if after is None else type(after[1]).__name__
        raise ValueError(
            f"layer {layer!r} cannot be the identity unseen: {names[1]} behind it changes what {names[0] or 'the input'} "
            f"before it gives; only an idempotent activation, as ReLU, allows it: use compose_layers(posterior, {layer!r}, "
            "feeds, inputs)"
        )
