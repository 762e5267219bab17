"""Networks that compute the same with their units renamed, brought to common names before they are averaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor, nn

from ..checks import as_tensor, check_choice
from ..network.connections import HiddenUnits
from ..training.ensemble import Ensemble
from .matching import gauge, match_all, mean_of, medoid, residual
from .wiring import State, hidden_of, plain, read, write

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
) -> Ensemble: ...


@overload
def align(
    ensemble_or_samples: Tensor,
    to: int | Tensor | None = None,
    *,
    group: str = "permutation",
    signs: bool = False,
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
    check_choice(group, "group", GROUPS)
    if not isinstance(signs, bool):
        raise ValueError(f"signs must be True or False, got {signs!r}")
    if not isinstance(ensemble_or_samples, Ensemble):
        if any(given is not None for given in (layer, feeds, activation)):
            raise ValueError("layer, feeds and activation are for an Ensemble; draws have rows and coordinates only")
        return _align_samples(ensemble_or_samples, to, group, signs=signs)
    if signs:
        raise ValueError("signs is for draws: in an Ensemble the activation decides whether units may change sign")
    hidden = hidden_of(ensemble_or_samples.template, group, layer, feeds, activation)
    return _align_networks(ensemble_or_samples, to, hidden)


CLOSE = 0.5  # of the distance between unrelated networks: a matched one further off is another network


def _diagnose(
    before: Sequence[State],
    after: Sequence[State],
    reference: State | None,
    target: State | None,
    hidden: Sequence[HiddenUnits],
) -> dict[str, Tensor]:
    """Return residuals before (to the reference) and after (to the target, in its gauge); warn if most stay large."""
    left = _residuals(after, target, hidden)
    aligned = left < CLOSE
    if 2 * int(aligned.sum()) < len(after):
        warnings.warn(
            f"{int((~aligned).sum())} of {len(after)} members are not near the reference in any order or basis of their "
            "units: they are different networks; start them from the same weights, or compare what they compute",
            stacklevel=4,
        )
    return {"residual_before": _residuals(before, reference, hidden), "residual_after": left, "aligned": aligned}


def _residuals(states: Sequence[State], target: State | None, hidden: Sequence[HiddenUnits]) -> Tensor:
    n, targets = len(states), [target or states[0]] * len(states)
    if target is None and n > 1:  # of a mean that it takes part in, a member is never far
        mean = mean_of(states)
        targets = [{k: (n * mean[k] - s[k]) / (n - 1) for k in s} for s in states]
    return torch.tensor([residual(s, t, hidden) for s, t in zip(states, targets)], dtype=torch.float64)


def _member(to, n: int) -> int:
    """Return the index of a member, checked."""
    if isinstance(to, bool) or not isinstance(to, int) or not -n <= to < n:
        raise ValueError(f"to must be a reference or the number of one of {n} members, got {to!r}")
    return to


def _finite(state: State, name: str) -> State:
    """Return the state as it came, or refuse a diverged member by name."""
    if not all(torch.isfinite(t).all() for t in state.values()):
        raise ValueError(f"{name} has weights that are not finite: leave it out, as by Ensemble.keep")
    return state


def _align_networks(ensemble: Ensemble, to, hidden: Sequence[HiddenUnits]) -> Ensemble:
    """Return a new ensemble of the same functions, with plain weights in place of parametrized ones; see `align`."""
    members = [plain(model, hidden) for model in ensemble]
    states = [_finite(read(model, hidden), f"member {i}") for i, model in enumerate(members)]
    reference = _reference(to, states, hidden)
    target = None if reference is None else gauge(reference, hidden)
    aligned = match_all([gauge(s, hidden) for s in states], hidden, target)
    stacked = Ensemble.of(members)
    return replace(
        stacked,
        parameters=write(dict(stacked.parameters), aligned, hidden),
        report={**ensemble.report, **_diagnose(states, aligned, reference, target, hidden)},
    )


def _reference(to, states: Sequence[State], hidden: Sequence[HiddenUnits]) -> State | None:
    if to is None:
        return None
    if not isinstance(to, nn.Module):
        return states[_member(to, len(states))]
    try:
        reference = _finite(read(plain(to, hidden), hidden), "to")
    except AttributeError as why:
        raise ValueError(f"to must have the architecture of the ensemble, got a network where {why}") from why
    shapes, ours = ({k: tuple(v.shape) for k, v in s.items()} for s in (reference, states[0]))
    if shapes != ours:
        raise ValueError(f"to must have the architecture of the ensemble, {ours}, got {shapes}")
    return reference


KEY = "units.weight"  # what is moved are the rows of this: the neurons, or else their coordinates


def _align_samples(samples, to, group: str, *, signs: bool) -> Tensor:
    """Return draws (N, m, n) with rows in a common order, or coordinates in a common basis; see `align`."""
    given = as_tensor(samples, "ensemble_or_samples")
    if given.ndim != 3 or 0 in given.shape or not given.is_floating_point():
        raise ValueError(f"samples must be real and (N, m, n), none of it 0, got {given.dtype} {tuple(given.shape)}")
    if signs and group != "permutation":
        raise ValueError(f"signs goes with the group permutation, got {group!r}, which holds them already")
    draws = given.detach().to("cpu", torch.float64)
    states = [_finite({KEY: x if group == "permutation" else x.T}, f"draw {i}") for i, x in enumerate(draws)]
    reference = _reference_of_draws(to, draws, group)
    hidden = [HiddenUnits("units", None, kind="signs" if signs else group)]
    back = None
    if group == "linear":
        roots = [_root(s[KEY], f"draw {i}") for i, s in enumerate(states)]
        white = [{KEY: torch.linalg.solve(r, s[KEY])} for r, s in zip(roots, states)]
        back = roots[medoid(white, hidden)] if reference is None else _root(reference[KEY], "to")
        target = None if reference is None else {KEY: torch.linalg.solve(back, reference[KEY])}
        aligned = match_all(white, hidden, target)
    else:
        target, aligned = reference, match_all(states, hidden, reference)
    _diagnose(states, aligned, reference, target, hidden)
    units = torch.stack([s[KEY] for s in aligned])
    units = units if back is None else back @ units
    return (units if group == "permutation" else units.mT).contiguous().to(given)


def _reference_of_draws(to, draws: Tensor, group: str) -> State | None:
    if to is None:
        return None
    if isinstance(to, nn.Module):
        raise ValueError(f"to must be a tensor (m, n) or the number of a draw for samples, got {type(to).__name__}")
    chosen = draws[_member(to, len(draws))] if isinstance(to, int) else torch.as_tensor(to).detach()
    if chosen.shape != draws.shape[1:]:
        raise ValueError(f"to must be {tuple(draws.shape[1:])} like every draw, got {tuple(chosen.shape)}")
    chosen = chosen.to("cpu", torch.float64)
    return _finite({KEY: chosen if group == "permutation" else chosen.T}, "to")


def _root(units: Tensor, name: str) -> Tensor:
    """Return the symmetric root of the coordinates' second moments: dividing by it leaves no freedom but rotations."""
    axes, stretch, _ = torch.linalg.svd(units, full_matrices=False)
    if axes.shape[1] < len(units) or stretch[-1] <= 1e-10 * stretch[0]:
        raise ValueError(
            f"{name} must have as many independent neurons as coordinates for the group linear, got {tuple(units.T.shape)}: "
            "use the group orthogonal"
        )
    return (axes * stretch / units.shape[1] ** 0.5) @ axes.T
