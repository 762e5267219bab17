"""The inverse of a curvature that may be indefinite or singular, and the directions in which no output moves."""

from __future__ import annotations

from itertools import pairwise, product

import torch
from torch import Tensor, nn

from ..threads import small
from .gradients import dense_layers
from .problem import Problem

__all__ = ["FLOOR", "gauge", "invert", "negatives"]

FLOOR = 1e-4  # of the median positive eigenvalue
EPS = torch.finfo(torch.float64).eps


def negatives(a: Tensor, damping: float) -> int:
    """How many eigenvalues of damped symmetric matrices (k, b, b) are negative beyond rounding, by the law of inertia."""
    size = _norm(a).clamp(min=torch.finfo(a.dtype).tiny)
    diagonal = a.diagonal(dim1=1, dim2=2)
    kept = diagonal.clone()
    diagonal.add_((size * a.shape[1] * EPS)[:, None] + damping)  # for a moment, rather than in a copy
    with small(a.shape[1]):
        factors, pivots, _ = torch.linalg.ldl_factor_ex(a)
    diagonal.copy_(kept)
    pair = pivots < 0  # a pivot of two rows has one eigenvalue of each sign (Bunch and Kaufman 1977)
    single = (factors.diagonal(dim1=1, dim2=2) < 0) & ~pair
    return int(single.sum() + pair.sum() // 2)


def invert(a: Tensor, damping: float | None) -> tuple[Tensor, dict[str, float]]:
    """The inverse of symmetric matrices (k, b, b), made positive where they are not.

    Positive definite ones are inverted as they are. Else, with ``damping=None``, eigenvalues below `FLOOR` times the
    median positive one are raised to that (the thresholded plug-in of Chen et al. 2020). With a number, which is added
    to the diagonal, nothing else is: what stays singular gets the pseudo-inverse, what stays indefinite is refused.

    Returns:
        the inverses, and of the eigenvalues the number "negative", the "rank" (positive ones), "null" (zero to
        rounding), "raised" to the "floor", and the "condition": largest over smallest of those inverted
    """
    if damping:
        a = a.clone()
        a.diagonal(dim1=1, dim2=2).add_(damping)
    with small(a.shape[1]):
        inverse, condition = _inverse_if_definite(a)
    if inverse is not None:
        report = {"negative": 0, "rank": a.shape[0] * a.shape[1], "null": 0, "raised": 0, "floor": 0.0}
        return inverse, report | {"condition": condition}
    with small(a.shape[1]):
        power, axes = torch.linalg.eigh(a)
    rounding = a.shape[1] * EPS * power.abs().amax(1, keepdim=True)
    positive, negative = power > rounding, power < -rounding
    if damping is not None and negative.any():
        raise ValueError(
            f"damping {damping:.3g} leaves the curvature indefinite, its smallest eigenvalue is {float(power.min()):.3g}: "
            f'add at least {float(-power.min()):.3g} more, take curvature="gauss_newton", or leave damping out'
        )
    floor = torch.where(positive, power, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num(0.0) * FLOOR
    low = positive.logical_not() if damping is not None else power < floor
    if damping is not None:
        floor = torch.zeros_like(floor)
    kept = torch.where(low, floor, power)
    weight = torch.where(kept > 0, 1 / kept, 0.0)
    report = {
        "negative": int(negative.sum()),
        "rank": int(positive.sum()),
        "null": int((~positive & ~negative).sum()),
        "raised": int((low & (kept > 0)).sum()),
        "floor": float(floor.max()),
        "condition": float((kept.amax(1) * weight.amax(1)).max()),
    }
    return (axes * weight[:, None, :]) @ axes.mT, report


def _inverse_if_definite(a: Tensor) -> tuple[Tensor | None, float]:
    """By Cholesky's factors, if all matrices are positive definite beyond rounding, whatever the units of their rows."""
    diagonal = a.diagonal(dim1=1, dim2=2)
    if not (diagonal > 0).all():
        return None, 0.0
    inverse, condition = _by_cholesky(a)
    if inverse is None:
        scale = diagonal.rsqrt()
        inverse, _ = _by_cholesky((a * scale[:, :, None]).mul_(scale[:, None, :]))
        if inverse is not None:
            inverse.mul_(scale[:, :, None]).mul_(scale[:, None, :])
            condition = float((_norm(a) * _norm(inverse)).max())
    return inverse, condition


def _by_cholesky(a: Tensor) -> tuple[Tensor | None, float]:
    """The inverse and its condition; none if that leaves no digit right."""
    factor, failed = torch.linalg.cholesky_ex(a)
    if failed.any():
        return None, 0.0
    inverse = torch.cholesky_inverse(factor)
    condition = float((_norm(a) * _norm(inverse.mT)).max())
    return (inverse, condition) if condition * a.shape[1] * EPS < 1 else (None, condition)


def _norm(a: Tensor) -> Tensor:
    """The largest sum of absolute values in a row, (k,), without a copy of them."""
    return torch.linalg.vector_norm(a, 1, dim=2).amax(1)


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
