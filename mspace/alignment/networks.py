"""Alignment of an ensemble of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from ..training.ensemble import Ensemble
from .diagnosis import diagnose, finite, member
from .procrustes import gauge, procrustes
from .wiring import Link, State, plain, read, write

__all__ = ["align_networks"]


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
