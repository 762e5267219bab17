"""Whole networks under one budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..checks import check_fraction, check_int
from .compression import compress
from .factors import prune
from .greedy import forward_selection
from .passes import finite, halves, probe
from .refinement import discrepancy
from .shrinking import shrink
from .starts import joint_moments
from .surgery import plain
from .wires import Wire, read, wire_of

__all__ = ["shrink_network"]


def shrink_network(
    model: nn.Module,
    wires: Mapping,
    share: float,
    *,
    calibration,
    divergence: Callable[[Tensor, Tensor], Tensor] | None = None,
    grid: int = 8,
    **options,
) -> nn.Module:
    """The whole network with a share of the numbers that its layers store, spread over them by expected loss.

    Each layer is first cut alone, to `grid` sizes, with a refit; the loss in the network's answers says how much the
    layer may give. Sizes are then lowered where a stored number costs least, until the budget is met, and the layers
    are shrunk to them in order (`shrink`), each fitted to the original network behind the layers already shrunk.

    Args:
        model: any trained module
        wires: layer (or layers of a gated block) to what it feeds, such as ``{"0": "2", "2": "4"}``, in the
            network's order
        share: of the numbers in these layers and those they feed that may stay, between 0 and 1
        calibration, divergence: as in `shrink`; the divergence is by default the squared error of the answers
        grid: sizes tried in each layer
        options: further ones of `shrink`

    Raises:
        ValueError: if the share cannot be met with one unit in each layer.
    """
    share, grid = check_fraction(share, "share"), check_int(grid, "grid", 1)
    if not isinstance(wires, Mapping) or not wires:
        raise ValueError(f"wires must be a dictionary from layers to what they feed, got {wires!r}")
    places = {layer: wire_of(model, layer, feeds) for layer, feeds in wires.items()}
    finite(calibration)
    for wire in places.values():
        probe(model, wire, calibration)
    losses = {
        layer: _losses(model, layer, wires[layer], w, calibration, divergence, grid) for layer, w in places.items()
    }
    sizes = _spread(model, places, losses, share)
    student = model
    for layer, feeds in wires.items():
        student = shrink(
            student,
            layer,
            sizes[layer],
            feeds,
            calibration=calibration,
            divergence=divergence,
            teacher=model,
            **options,
        )
    return student


def _losses(model, layer, feeds, wire: Wire, calibration, divergence, grid: int) -> dict[int, float]:
    """The network's loss with this layer alone cut to some sizes."""
    part, rest = halves(calibration)
    rest = part if rest is None else rest
    rows = read(model, wire.layers, wire.norms)
    moments, bias = joint_moments(plain(model, wire), wire, part)
    order, _ = forward_selection(moments, len(rows), len(rows), bias=bias)
    found = {len(rows): 0.0}
    for k in sorted({max(1, round(len(rows) * i / grid)) for i in range(grid)} - {len(rows)}):
        small = compress(model, layer, prune(rows, order[:k]), feeds, calibration=part)
        found[k] = discrepancy(small, model, rest, divergence=divergence)
    return found


def _spread(model, places: Mapping, losses: Mapping, share: float) -> dict:
    """Sizes that meet the budget, lowered one at a time where a stored number costs least."""
    sizes = {layer: max(found) for layer, found in losses.items()}
    whole_network = _stored(model, places, sizes)
    while (now := _stored(model, places, sizes)) > share * whole_network:
        steps = []
        for layer, found in losses.items():
            for k in (k for k in found if k < sizes[layer]):
                saved = now - _stored(model, places, {**sizes, layer: k})
                steps.append(((found[k] - found[sizes[layer]]) / saved, layer, k))
        if not steps:
            raise ValueError(
                f"share {share} cannot be met: with one unit in each layer {now / whole_network:.3f} stays"
            )
        _, layer, k = min(steps, key=lambda step: step[0])
        sizes[layer] = k
    return sizes


def _stored(model, places: Mapping, sizes: Mapping) -> int:
    """Numbers in the layers that change, if they had these sizes."""
    full = {layer: len(model.get_submodule(w.layers[0]).weight) for layer, w in places.items()}
    out = {name: sizes[layer] for layer, w in places.items() for name in w.layers}
    into = {name: (sizes[layer], full[layer]) for layer, w in places.items() for name in w.feeds}
    total = 0
    for name in {**out, **into}:
        module = model.get_submodule(name)
        units = out.get(name, len(module.weight))
        now, before = into.get(name, (1, 1))
        total += units * (module.weight[0].numel() * now // before + (module.bias is not None))
    return total
