"""Networks that compute the same with their units renamed, brought to common names before they are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from torch import Tensor, nn

from ..checks import check_int
from ..training.ensemble import Ensemble
from .ensembles import align_networks, align_samples
from .wiring import links_of

__all__ = ["align"]

GROUPS = ("permutation", "orthogonal", "linear")


@overload
def align(
    ensemble_or_samples: Ensemble,
    to: int | nn.Module | None = None,
    *,
    group: str = "permutation",
    layer: str | Sequence[str] | None = None,
    feeds: str | Sequence[str] | None = None,
    activation: nn.Module | Callable[[Tensor], Tensor] | None = None,
    sweeps: int = 20,
) -> Ensemble: ...


@overload
def align(
    ensemble_or_samples: Tensor,
    to: int | Tensor | None = None,
    *,
    group: str = "permutation",
    signs: bool = False,
    sweeps: int = 20,
) -> Tensor: ...


def align(
    ensemble_or_samples: Ensemble | Tensor,
    to: int | nn.Module | Tensor | None = None,
    *,
    group: str = "permutation",
    layer: str | Sequence[str] | None = None,
    feeds: str | Sequence[str] | None = None,
    activation: nn.Module | Callable[[Tensor], Tensor] | None = None,
    signs: bool = False,
    sweeps: int = 20,
) -> Ensemble | Tensor:
    """Remove what a network does not determine about its hidden units, so that "neuron i" means one thing.

    Members of an ensemble compute what they did, with their hidden units in the order, and where the activation
    allows it with the sign, scale or basis, that brings their weights nearest to a reference. With the group
    "permutation" the activation decides what goes with it:

    - ReLU, leaky ReLU: positive scales; incoming [w, b] become unit vectors, outgoing weights make up for it
    - tanh and other odd functions, the identity: signs
    - sigmoid: reflections, made good by the next bias
    - GELU, ELU, softplus, others, and whatever would break an orthonormal layer: nothing

    Identity activations also allow "orthogonal", rotations and reflections of the hidden units, and if the weights
    are unconstrained "linear", any invertible change: the layers around the units are balanced, then rotated. A
    hidden unit of a ReLU or tanh network has none of that, and asking for it is an error.

    Args:
        ensemble_or_samples: an `Ensemble` of dense networks, or draws (N, m, n) of m neurons with n weights. Of
            draws "permutation" reorders the rows, "orthogonal" and "linear" change their coordinates.
        to: the reference, by default the mean of all, found from the medoid (generalised Procrustes). The number
            of a member, a network of the same architecture, or for draws a tensor (m, n); it is brought to unit
            scales or balanced layers like the members
        group: "permutation", "orthogonal" or "linear"
        layer: name, or names, of the hidden layers; needed if the network is neither a sequence of dense layers
            and activations nor names them by a method ``hidden_units()``
        feeds: name, or names, of the layers which these feed, and nothing else
        activation: what stands between them, where it cannot be read off the network
        signs: for draws and permutations, whether rows may change sign
        sweeps: how many times at most the mean is taken anew

    Returns:
        Draws of the shape that came, or an `Ensemble`. Its layers are plain ones: an orthonormal weight is written
        out as the matrix it was times the rotation, so it is as orthonormal and the function is exactly kept, but
        further training would not keep it so; a gain is multiplied into the decoder. Its `report` also holds for
        each member "residual_before" and "residual_after", the distance to the reference (to the mean of the other
        members, if none was given) over that between unrelated networks, and "aligned", whether it fell below half.

    Raises:
        ValueError: if the activation has not that group, or the network's layers are not known.

    Warns:
        UserWarning: if most members cannot be aligned.
    """
    if group not in GROUPS:
        raise ValueError(f"group must be one of {', '.join(GROUPS)}, got {group!r}")
    sweeps = check_int(sweeps, "sweeps", 1)
    if not isinstance(ensemble_or_samples, Ensemble):
        if any(given is not None for given in (layer, feeds, activation)):
            raise ValueError("layer, feeds and activation are for an Ensemble; draws have rows and coordinates only")
        return align_samples(ensemble_or_samples, to, group, signs=signs, sweeps=sweeps)
    if signs:
        raise ValueError("signs is for draws: in an Ensemble the activation decides whether units may change sign")
    links = links_of(ensemble_or_samples.template, group, layer, feeds, activation)
    return align_networks(ensemble_or_samples, to, links, sweeps=sweeps)
