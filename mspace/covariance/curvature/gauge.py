"""Directions in which the parameters of dense layers move and no answer does."""

from __future__ import annotations

from itertools import pairwise, product

import torch
from torch import Tensor, nn

from .layers import dense_layers
from .problem import Problem

__all__ = ["gauge"]


def gauge(problem: Problem) -> Tensor:
    """An orthonormal basis of such directions, (p, g), as far as all parameters they move are random.

    A ReLU passes on the scale of what enters, so a unit's incoming weights may grow as the outgoing ones shrink; without
    an activation the units may turn into each other, and their biases be borne by the next layer. A softmax does not see
    what is added to all of its inputs. In other networks none are known.
    """
    layers = dense_layers(problem.net)
    named = {k: p.detach() for k, p in problem.net.named_parameters()}
    found = [torch.zeros(problem.size, 0, dtype=torch.float64)]
    for (first, activation), (second, _) in pairwise(layers):
        units = range(len(named[f"{first}.weight"]))
        pairs = {nn.ReLU: zip(units, units), nn.Identity: product(units, units)}.get(activation, ())
        for k, m in pairs:  # row k takes from row m, column m gives to column k
            moved = {f"{second}.weight": _at((slice(None), m), -named[f"{second}.weight"][:, k])}
            moved |= {f"{first}.{kind}": _at(k, named[f"{first}.{kind}"][m]) for kind in _kinds(first, named)}
            found.append(_column(problem, named, moved))
        if activation is nn.Identity and {f"{first}.bias", f"{second}.bias"} <= named.keys():
            for k in units:
                moved = {f"{first}.bias": _at(k, 1.0)}
                moved[f"{second}.bias"] = _at(slice(None), -named[f"{second}.weight"][:, k])
                found.append(_column(problem, named, moved))
    if problem.outputs.kind == "cross_entropy" and layers and layers[-1][1] is nn.Identity:
        last = layers[-1][0]
        for j in range(named[f"{last}.weight"].shape[1]):
            found.append(_column(problem, named, {f"{last}.weight": _at((slice(None), j), 1.0)}))
        if f"{last}.bias" in named:
            found.append(_column(problem, named, {f"{last}.bias": _at(slice(None), 1.0)}))
    together = torch.cat(found, 1)
    axes, size, _ = torch.linalg.svd(together / together.norm(dim=0).clamp(min=1e-300), full_matrices=False)
    return axes[:, size > 1e-8]


def _kinds(layer: str, named) -> list[str]:
    return [kind for kind in ("weight", "bias") if f"{layer}.{kind}" in named]


def _at(place, value):
    """What is put where in a parameter that is else zero."""
    return place, value


def _column(problem: Problem, named: dict[str, Tensor], moved: dict) -> Tensor:
    """A direction as a column (p, 1); as none, (p, 0), if it moves parameters that are known."""
    if not moved.keys() <= set(problem.free):
        return torch.zeros(problem.size, 0, dtype=torch.float64)
    parts = {k: torch.zeros_like(named[k]) for k in problem.free}
    for name, (place, value) in moved.items():
        parts[name][place] = value
    return torch.cat([p.reshape(-1) for p in parts.values()])[:, None]
