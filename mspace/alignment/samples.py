"""Alignment of draws of a layer, of which nothing is known but the numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .diagnosis import diagnose, finite, member
from .procrustes import medoid, procrustes
from .wiring import Link, State

__all__ = ["align_samples"]

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
    reference = _reference(to, draws, group)
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


def _reference(to, draws: Tensor, group: str) -> State | None:
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
