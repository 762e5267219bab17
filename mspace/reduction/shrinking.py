"""The compressor to reach for: several ways to begin, a refit, a refinement, and the best by inputs held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..checks import check_callable, check_fraction, check_generator, check_int
from ..network.hooks import hold_out
from .compression import Site, reduced, site_of
from .greedy import forward_selection
from .init import candidates, clusters, joint_moments
from .matching import Divergence, discrepancy, match
from .reductions import harmonics, prune

__all__ = ["shrink", "shrink_network"]


def shrink(
    model: nn.Module,
    layer: str | Sequence[str],
    k: int,
    feeds: str | Sequence[str] | None = None,
    *,
    calibration,
    divergence: Divergence | None = None,
    steps: int = 60,
    activation=None,
    norm: str | Sequence[str] | None = None,
    teacher: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return the network with k units in a layer whose outputs are nearest to those of before; no labels are needed.

    Units are chosen by forward selection, by backward elimination, and by merging clusters of alike ones; outgoing
    weights are refitted by least squares; then the kept neurons themselves are moved together with what goes out of
    them (L-BFGS), each choice a little, and the best of them further. What is best is judged on a fifth of the
    inputs that nothing was fitted to. Without `feeds` it is an output layer: shared rows against cosines (`harmonics`).

    Args:
        model: any trained module; it stays as it is
        layer, feeds, activation, norm, teacher: as in `compress`
        k: number of neurons, or of rows, from 1 to m
        calibration: inputs of the network, some hundreds at least, as in `compress`
        divergence: (output, teacher's output) -> scalar for the outputs of the whole network, such as `logits_kl` for
            classes; by default the outputs of the layers in `feeds` are compared, in squares
        steps: of the refinement, 0 for none
        generator: for the starts of the clusters
    """
    _check_options(divergence, generator)
    site = site_of(model, layer, feeds, calibration, activation=activation, norm=norm, teacher=teacher)
    k, steps = check_int(k, "k", 1, len(site.rows)), check_int(steps, "steps", 0)
    return site.joined(_shrunk(site, k, divergence, steps, generator))


def _check_options(divergence: Divergence | None, generator: torch.Generator | None) -> None:
    check_generator(generator)
    if divergence is not None:
        check_callable(divergence, "divergence", "(output, teacher's output) -> scalar, such as logits_kl, or None")


def _shrunk(site: Site, k: int, divergence: Divergence | None, steps: int, generator) -> nn.Module:
    connection, inputs = site.connection, site.inputs
    if k == len(site.rows):
        return reduced(site, prune(site.rows, torch.arange(k)), inputs)
    part, rest = hold_out(inputs)
    if connection.feeds:
        tried = candidates(site, k, part, generator)
    else:
        tried = [clusters(site, k, part, generator), harmonics(site.rows, k)]

    def error(student: nn.Module) -> float:
        held = part if rest is None else rest
        return discrepancy(student, site.teacher, held, feeds=connection.feeds, divergence=divergence)

    def matched(student: nn.Module, steps: int) -> nn.Module:
        names = connection.layers + connection.feeds
        return match(student, site.teacher, names, part, feeds=connection.feeds, divergence=divergence, steps=steps)

    small = [reduced(site, r, part) for r in tried]
    errors = [error(s) for s in small]
    best = min(range(len(small)), key=errors.__getitem__)
    fitted = reduced(site, tried[best], inputs)
    if steps == 0 or not connection.feeds:
        return fitted
    begun = min((matched(s, steps // 6) for s in small), key=error)
    moved = matched(begun, steps)
    return moved if error(moved) < errors[best] else fitted


def shrink_network(
    model: nn.Module,
    wires: Mapping,
    share: float,
    *,
    calibration,
    divergence: Divergence | None = None,
    grid: int = 8,
    steps: int = 60,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return the network with a share of the numbers that its layers store, spread over them by expected loss.

    Each layer is first cut alone, to `grid` sizes, with a refit; the loss in the network's outputs says how much the
    layer may give. Sizes are then lowered where a stored number costs least, until the budget is met, and the layers
    are shrunk to them in order (`shrink`), each fitted to the original network behind the layers already shrunk.

    Args:
        model: any trained module
        wires: layer (or layers of a gated block) to what it feeds, such as ``{"0": "2", "2": "4"}``, in the
            network's order
        share: of the numbers in these layers and those they feed that may stay, between 0 and 1
        calibration, steps, generator: as in `shrink`
        divergence: as in `shrink`, by default the squared error of the outputs
        grid: sizes tried in each layer

    Raises:
        ValueError: if the share cannot be met with one unit in each layer.
    """
    _check_options(divergence, generator)
    share, grid = check_fraction(share, "share"), check_int(grid, "grid", 1)
    if not isinstance(wires, Mapping) or not wires:
        raise ValueError(f"wires must be a dictionary from layers to what they feed, got {wires!r}")
    sites = {layer: site_of(model, layer, feeds, calibration) for layer, feeds in wires.items()}
    losses = {layer: _losses(site, divergence, calibration, grid) for layer, site in sites.items()}
    sizes, student = _spread(model, sites, losses, share), model
    options = {"calibration": calibration, "divergence": divergence, "steps": steps, "generator": generator}
    for layer, feeds in wires.items():
        student = shrink(student, layer, sizes[layer], feeds, teacher=model, **options)
    return student


def _losses(site: Site, divergence: Divergence | None, calibration, grid: int) -> dict[int, float]:
    """Return the network's loss with this layer alone cut to some sizes."""
    m, (part, _) = len(site.rows), hold_out(site.inputs)
    _, rest = hold_out(calibration)
    moments, bias = joint_moments(site, part)
    order, _ = forward_selection(moments, m, m, bias=bias)
    losses = {m: 0.0}
    for k in sorted({max(1, round(m * i / grid)) for i in range(grid)} - {m}):
        small = site.joined(reduced(site, prune(site.rows, order[:k]), part))
        losses[k] = discrepancy(small, site.model, calibration if rest is None else rest, divergence=divergence)
    return losses


def _spread(model: nn.Module, sites: Mapping, losses: Mapping, share: float) -> dict:
    """Return sizes that meet the budget, lowered one at a time where a stored number costs least."""
    sizes = {layer: max(found) for layer, found in losses.items()}
    whole_network = _stored(model, sites, sizes)
    while (now := _stored(model, sites, sizes)) > share * whole_network:
        steps = []
        for layer, found in losses.items():
            for k in (k for k in found if k < sizes[layer]):
                saved = now - _stored(model, sites, {**sizes, layer: k})
                steps.append(((found[k] - found[sizes[layer]]) / saved, layer, k))
        if not steps:
            raise ValueError(
                f"share {share} cannot be met: with one unit in each layer {now / whole_network:.3f} stays"
            )
        _, layer, k = min(steps, key=lambda step: step[0])
        sizes[layer] = k
    return sizes


def _stored(model: nn.Module, sites: Mapping, sizes: Mapping) -> int:
    """Return how many numbers the layers that change would hold, if they had these sizes."""
    made = {name: sizes[layer] for layer, site in sites.items() for name in site.connection.layers}
    read = {name: (sizes[layer], len(site.rows)) for layer, site in sites.items() for name in site.connection.feeds}
    total = 0
    for name in {**made, **read}:
        module = model.get_submodule(name)
        now, before = read.get(name, (1, 1))
        row = module.weight[0].numel() * now // before + (module.bias is not None)
        total += made.get(name, len(module.weight)) * row
    return total
