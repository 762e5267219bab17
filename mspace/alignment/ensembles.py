"""Alignment of an ensemble of networks, or of draws of one layer, and whether it succeeded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..training.ensemble import Ensemble
from .procrustes import gauge, mean_of, medoid, procrustes, residual
from .wiring import Link, State, plain, read, write

__all__ = ["align_networks", "align_samples", "diagnose", "finite", "member"]

CLOSE = 0.5  # of the distance between unrelated networks: a matched one further off is another network


def diagnose(
    before: Sequence[State],
    after: Sequence[State],
    reference: State | None,
    target: State | None,
    links: Sequence[Link],
) -> dict[str, Tensor]:
    """Residuals before (to the reference) and after (to the target, in its gauge); warns if most stay large."""
    left = _residuals(after, target, links)
    aligned = left < CLOSE
    if 2 * int(aligned.sum()) < len(after):
        warnings.warn(
            f"{int((~aligned).sum())} of {len(after)} members are not near the reference in any order or basis of their "
            "units: they are different networks; start them from the same weights, or compare what they compute",
            stacklevel=4,
        )
    return {"residual_before": _residuals(before, reference, links), "residual_after": left, "aligned": aligned}


def _residuals(states: Sequence[State], target: State | None, links: Sequence[Link]) -> Tensor:
    n, targets = len(states), [target or states[0]] * len(states)
    if target is None and n > 1:  # of a mean that it takes part in, a member is never far
        mean = mean_of(states)
        targets = [{k: (n * mean[k] - s[k]) / (n - 1) for k in s} for s in states]
    return torch.tensor([residual(s, t, links) for s, t in zip(states, targets)], dtype=torch.float64)


def member(to, n: int) -> int:
    """The number of a member, checked."""
    if isinstance(to, bool) or not isinstance(to, int) or not -n <= to < n:
        raise ValueError(f"to must be a reference or the number of one of {n} members, got {to!r}")
    return to


def finite(state: State, name: str) -> State:
    """The state as it came; diverged members are refused by name."""
    if not all(torch.isfinite(t).all() for t in state.values()):
        raise ValueError(f"{name} has weights that are not finite: leave it out, as by Ensemble.keep")
    return state


def align_networks(ensemble: Ensemble, to, links: Sequence[Link], *, sweeps: int) -> Ensemble:
    """A new ensemble of the same functions, with plain weights in place of parametrized ones; see `align`."""
    members = [plain(model, links) for model in ensemble]
    states = [finite(read(model, links), f"member {i}") for i, model in enumerate(members)]
    reference = _reference(to, states, links)
    target = None if reference is None else gauge(reference, links)
    aligned = procrustes([gauge(s, links) for s in states], links, target, sweeps)
    stacked = Ensemble.of(members)
    return replace(
        stacked,
        parameters=write(dict(stacked.parameters), aligned, links),
        report={**ensemble.report, **diagnose(states, aligned, reference, target, links)},
    )


def _reference(to, states: Sequence[State], links: Sequence[Link]) -> State | None:
    if to is None:
        return None
    if not isinstance(to, nn.Module):
        return states[member(to, len(states))]
    try:
        reference = finite(read(plain(to, links), links), "to")
    except AttributeError as why:
        raise ValueError(f"to must have the architecture of the ensemble, got a network where {why}") from why
    shapes, ours = ({k: tuple(v.shape) for k, v in s.items()} for s in (reference, states[0]))
    if shapes != ours:
        raise ValueError(f"to must have the architecture of the ensemble, {ours}, got {shapes}")
    return reference


KEY = "units.weight"  # what is moved are the rows of this: the neurons, or else their coordinates


def align_samples(samples, to, group: str, *, signs: bool, sweeps: int) -> Tensor:
    """Draws (N, m, n) with rows in a common order, or coordinates in a common basis; see `align`."""
    given = torch.as_tensor(samples)
    if given.ndim != 3 or 0 in given.shape or not given.is_floating_point():
        raise ValueError(f"samples must be real and (N, m, n), none of it 0, got {given.dtype} {tuple(given.shape)}")
    if signs and group != "permutation":
        raise ValueError(f"signs goes with the group permutation, got {group!r}, which holds them already")
    draws = given.detach().to("cpu", torch.float64)
    states = [finite({KEY: x if group == "permutation" else x.T}, f"draw {i}") for i, x in enumerate(draws)]
    reference = _reference_of_draws(to, draws, group)
    links = [Link("units", kind="signs" if signs else group)]
    back = None
    if group == "linear":
        roots = [_root(s[KEY], f"draw {i}") for i, s in enumerate(states)]
        white = [{KEY: torch.linalg.solve(r, s[KEY])} for r, s in zip(roots, states)]
        back = roots[medoid(white, links)] if reference is None else _root(reference[KEY], "to")
        target = None if reference is None else {KEY: torch.linalg.solve(back, reference[KEY])}
        aligned = procrustes(white, links, target, sweeps)
    else:
        target, aligned = reference, procrustes(states, links, reference, sweeps)
    diagnose(states, aligned, reference, target, links)
    units = torch.stack([s[KEY] for s in aligned])
    units = units if back is None else back @ units
    return (units if group == "permutation" else units.mT).contiguous().to(given)


def _reference_of_draws(to, draws: Tensor, group: str) -> State | None:
    if to is None:
        return None
    if isinstance(to, nn.Module):
        raise ValueError(f"to must be a tensor (m, n) or the number of a draw for samples, got {type(to).__name__}")
    chosen = draws[member(to, len(draws))] if isinstance(to, int) else torch.as_tensor(to).detach()
    if chosen.shape != draws.shape[1:]:
        raise ValueError(f"to must be {tuple(draws.shape[1:])} like every draw, got {tuple(chosen.shape)}")
    chosen = chosen.to("cpu", torch.float64)
    return finite({KEY: chosen if group == "permutation" else chosen.T}, "to")


def _root(units: Tensor, name: str) -> Tensor:
    """The symmetric root of the coordinates' second moments: dividing by it leaves no freedom but rotations."""
    axes, stretch, _ = torch.linalg.svd(units, full_matrices=False)
    if axes.shape[1] < len(units) or stretch[-1] <= 1e-10 * stretch[0]:
        raise ValueError(
            f"{name} must have as many independent neurons as coordinates for the group linear, got {tuple(units.T.shape)}: "
            "use the group orthogonal"
        )
    return (axes * stretch / units.shape[1] ** 0.5) @ axes.T
