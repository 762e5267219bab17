"""The compressor to reach for: several ways to begin, a refit, a refinement, and the best by inputs held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..checks import check_int
from .compression import compress
from .factors import harmonics, prune
from .passes import answers, finite, halves, leading, probe
from .refinement import discrepancy, refine
from .starts import choices, clusters
from .surgery import with_tail
from .wires import read, wire_of

__all__ = ["shrink"]


def shrink(
    model: nn.Module,
    layer: str | Sequence[str],
    k: int,
    feeds: str | Sequence[str] | None = None,
    *,
    calibration,
    divergence: Callable[[Tensor, Tensor], Tensor] | None = None,
    steps: int = 60,
    activation=None,
    norm: str | Sequence[str] | None = None,
    teacher: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The network with k units in a layer that answers most like the one given; no labels are needed.

    Units are chosen by forward selection, by backward elimination, and by merging clusters of alike ones; outgoing
    weights are refitted by least squares; then the kept neurons themselves are moved together with what goes out of
    them (`refine`), each choice a little, and the best of them further. What is best is judged on a fifth of the
    inputs that nothing was fitted to. Without `feeds` it is an output layer: shared rows against cosines (`harmonics`).

    Args:
        model: any trained module; it stays as it is
        layer, feeds, activation, norm, teacher: as in `compress`
        k: number of neurons, or of rows, from 1 to m
        calibration: inputs of the network, some hundreds at least, as in `compress`
        divergence: what "alike" means for the answers of the whole network, such as `kl_divergence` for classes; by
            default the answers of the layers in `feeds` are compared, in squares
        steps: of the refinement, 0 for none
        generator: for the starts of the clusters
    """
    wire = wire_of(model, layer, feeds, activation=activation, norm=norm)
    rows = read(model, wire.layers, wire.norms)
    k, steps = check_int(k, "k", 1, len(rows)), check_int(steps, "steps", 0)
    finite(calibration)
    teacher = model if teacher is None else teacher
    probe(model, wire, calibration)
    options = {"activation": activation, "norm": norm, "teacher": teacher}
    if k == len(rows):
        return compress(model, layer, prune(rows, torch.arange(k)), feeds, calibration=calibration, **options)
    if teacher is model and (at := leading(model, wire, calibration)):
        same = {"divergence": divergence, "steps": steps, "activation": activation, "norm": norm}
        read_there = answers(model[:at], calibration)
        tail = shrink(model[at:], layer, k, feeds, calibration=read_there, generator=generator, **same)
        return with_tail(model, tail)
    part, rest = halves(calibration)
    rest = part if rest is None else rest
    judge = {"feeds": wire.feeds, "divergence": divergence}
    if not wire.feeds:
        tried = [clusters(model, wire, rows, k, part, generator), harmonics(rows, k)]
    else:
        tried = choices(model, wire, rows, k, part, generator)
    small = [compress(model, layer, r, feeds, calibration=part, **options) for r in tried]
    error = [discrepancy(s, teacher, rest, **judge) for s in small]
    best = min(range(len(small)), key=error.__getitem__)
    plainly = compress(model, layer, tried[best], feeds, calibration=calibration, **options)
    if steps == 0 or not wire.feeds:
        return plainly
    names = wire.layers + wire.feeds
    begun = [refine(s, teacher, names, part, steps=steps // 6, **judge) for s in small]
    gone = [discrepancy(s, teacher, rest, **judge) for s in begun]
    first = min(range(len(begun)), key=gone.__getitem__)
    moved = refine(begun[first], teacher, names, part, steps=steps, **judge)
    return moved if discrepancy(moved, teacher, rest, **judge) < error[best] else plainly
