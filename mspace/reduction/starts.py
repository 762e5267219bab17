"""Which neurons a small network begins with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check_int
from .calibration import Moments, moments_of
from .compression import stand_in
from .factors import Reduction, merge, prune
from .greedy import backward_elimination, forward_selection
from .layers import patches, read_columns
from .passes import batches, finite, probe, resting, seen
from .surgery import plain
from .wires import Wire, read, wire_of

__all__ = ["choices", "choose", "clusters", "joint_moments"]


def choose(
    model: nn.Module,
    layer: str | Sequence[str],
    k: int,
    feeds: str | Sequence[str],
    *,
    calibration,
    search: Callable = forward_selection,
    norm: str | Sequence[str] | None = None,
) -> Reduction:
    """The k units from which least squares tells best what reads the layer; the fast half of `shrink`.

    Args:
        model, layer, feeds, calibration, norm: as in `compress`, which is to refit with the same inputs
        k: from 1 to m
        search: `forward_selection`, or `backward_elimination`, which is layer-wise OBS on whole units
    """
    wire = wire_of(model, layer, feeds, norm=norm)
    rows = read(model, wire.layers, wire.norms)
    k = check_int(k, "k", 1, len(rows))
    finite(calibration)
    probe(model, wire, calibration)
    moments, bias = joint_moments(plain(model, wire), wire, calibration)
    return prune(rows, search(moments, len(rows), k, bias=bias)[0])


def choices(model, wire: Wire, rows: Tensor, k: int, inputs, generator) -> list[Reduction]:
    """The same number of units in three ways."""
    base = plain(model, wire)
    moments, bias = joint_moments(base, wire, inputs)
    kept = [search(moments, len(rows), k, bias=bias)[0] for search in (forward_selection, backward_elimination)]
    return [*(prune(rows, c) for c in kept), clusters(base, wire, rows, k, inputs, generator)]


def joint_moments(base: nn.Module, wire: Wire, inputs) -> tuple[Moments, bool]:
    """Moments of the units with the answers of everything that reads them, each in the units of its own spread."""
    parts = [moments_of(base, base, name, inputs) for name in wire.feeds]
    bias = all(base.get_submodule(name).bias is not None for name in wire.feeds)
    if len(parts) == 1:
        return parts[0], bias
    if len({p.size for p in parts}) > 1:
        raise ValueError(f"feeds must read the units alike to be chosen together, got {[p.size for p in parts]} inputs")
    # Only products within features and of features with targets are used, and the targets' own sum of squares.
    size = parts[0].size
    wide = 1 + size
    scales = [p.parts()[2].clamp(min=1e-300).rsqrt() for p in parts]
    cross = torch.cat([p.square[:wide, wide:] * s for p, s in zip(parts, scales)], 1)
    own = torch.block_diag(*(p.square[wide:, wide:] * s**2 for p, s in zip(parts, scales)))
    top = torch.cat([parts[0].square[:wide, :wide], cross], 1)
    return Moments(torch.cat([top, torch.cat([cross.T, own], 1)]), size), bias


def clusters(model, wire: Wire, rows: Tensor, k: int, inputs, generator) -> Reduction:
    """k-means of the neurons by what they answer, each weighted by what goes out of it."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    root = torch.block_diag(*(_root(model, name, inputs) for name in wire.layers))
    symmetry = wire.symmetry
    answers, weights = rows @ root, None
    if wire.feeds:
        columns = [read_columns(model.get_submodule(name), len(rows)).flatten(1) for name in wire.feeds]
        weights = torch.cat(columns, 1).square().sum(1)
    counts = torch.ones(len(rows), dtype=rows.dtype) if weights is None else weights
    if symmetry.scales:
        size = answers.norm(dim=1).clamp(min=1e-300)
        answers, counts = answers / size[:, None], counts * size**2
    if symmetry.signs:
        first = torch.linalg.svd(answers, full_matrices=False)[2][0]
        answers = torch.where((answers @ first < 0)[:, None], -answers, answers)
    counts = counts.clamp(min=1e-12 * float(counts.max()) + 1e-300)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator or torch.Generator().manual_seed(0)))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # fewer different neurons than clusters: fewer clusters then
        found = KMeans(k, n_init=4, random_state=seed).fit(answers.numpy(), sample_weight=counts.numpy())
    return merge(rows, torch.from_numpy(found.labels_.astype(np.int64)), activation=stand_in(wire), weights=weights)


def _root(model: nn.Module, name: str, inputs) -> Tensor:
    """R with R R^T the second moment of the layer's inputs and a one."""
    layer, total, count = model.get_submodule(name), 0.0, 0
    with resting(model), torch.no_grad():
        for part in batches(inputs):
            x = patches(layer, seen(model, [name], part)[name].input)
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            total, count = total + (x.T @ x).cpu(), count + len(x)
    power, axes = torch.linalg.eigh(total / count)
    return axes * power.clamp(min=0).sqrt()
