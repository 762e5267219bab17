"""Which neurons a small network begins with: those the data tell apart, those that predict best, or those alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .._linalg import factor_psd
from ..checks import check_callable, check_finite, check_fraction, check_generator, check_int
from ..metrics.tests import merge_test
from ..network.surgery import plain
from ..network.symmetry import Symmetry, symmetry_of
from ..network.weights import dense_at, read_columns
from .compression import Site, free_like, site_of
from .greedy import backward_elimination, forward_selection
from .least_squares import Moments, moments_of
from .reductions import Reduction, merge, prune

__all__ = ["candidates", "clusters", "joint_moments", "merge_by_test", "select_units"]


def select_units(
    model: nn.Module,
    layer: str | Sequence[str],
    k: int,
    feeds: str | Sequence[str],
    *,
    calibration,
    search: Callable = forward_selection,
    norm: str | Sequence[str] | None = None,
) -> Reduction:
    """Keep the k units from which least squares predicts best what reads the layer; the fast half of `shrink`.

    Args:
        model, layer, feeds, calibration, norm: as in `compress`, which is to refit with the same inputs
        k: from 1 to m
        search: `forward_selection`, or `backward_elimination`, which is layer-wise OBS on whole units
    """
    check_callable(search, "search", "such as forward_selection")
    site = site_of(model, layer, feeds, calibration, norm=norm)
    k = check_int(k, "k", 1, len(site.rows))
    moments, bias = joint_moments(site, site.inputs)
    return prune(site.rows, search(moments, len(site.rows), k, bias=bias)[0])


def merge_by_test(samples, *, level: float = 0.05, activation=None) -> Tensor:
    """Cluster neurons so that no pair in a cluster is told apart by the data, labels (m,); their number comes out.

    Every pair is tested by its difference in each network (Hotelling's T^2), with the rate of false discoveries among
    pairs held at `level` (Benjamini and Hochberg 1995). Not being told apart is not transitive: clusters are grown by
    complete linkage, which keeps pairs that are told apart in different ones. More networks tell more apart, so with
    ever more of them only true duplicates stay together.

    Args:
        samples: (N, m, n+1), the neurons in N aligned networks, N > n + 1; such as
            ``torch.stack([rows_of(net, layer) for net in ensemble])``
        level: a higher one tells more pairs apart, and merges less
        activation: neurons are first put into the scale and sign that it leaves free
    """
    level = check_fraction(level, "level")
    x = check_finite(samples, "samples", "(N, m, n+1)")
    if activation is not None:
        free, size = symmetry_of(activation), x.mean(0).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        x = x / size[:, None] if free.scales else x
        x = torch.where(_turned(x.mean(0), free)[:, None], -x, x)
    if x.shape[1] == 1:
        return torch.zeros(1, dtype=torch.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    apart = 1 - merge_test(x).adjusted.numpy()
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), "complete")
    # told apart are pairs at or above 1 - level; fcluster joins what is at most its threshold
    labels = fcluster(tree, np.nextafter(1 - level, 0), "distance")
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1].astype(np.int64))


def candidates(site: Site, k: int, inputs, generator) -> list[Reduction]:
    """Return the same number of units chosen in three ways."""
    moments, bias = joint_moments(site, inputs)
    kept = [search(moments, len(site.rows), k, bias=bias)[0] for search in (forward_selection, backward_elimination)]
    return [*(prune(site.rows, c) for c in kept), clusters(site, k, inputs, generator)]


def joint_moments(site: Site, inputs) -> tuple[Moments, bool]:
    """Return moments of the units with the outputs of all that read them, each in the units of its own spread."""
    base, feeds = plain(site.tail, site.connection), site.connection.feeds
    parts = [moments_of(base, base, name, inputs) for name in feeds]
    bias = all(base.get_submodule(name).bias is not None for name in feeds)
    if len(parts) == 1:
        return parts[0], bias
    if len({p.size for p in parts}) > 1:
        raise ValueError(f"feeds must read the units alike to be chosen together, got {[p.size for p in parts]} inputs")
    # Only products within features and of features with targets are used, and the targets' own sum of squares.
    wide = 1 + parts[0].size
    scales = [p.parts()[2].clamp(min=1e-300).rsqrt() for p in parts]
    cross = torch.cat([p.square[:wide, wide:] * s for p, s in zip(parts, scales)], 1)
    own = torch.block_diag(*(p.square[wide:, wide:] * s**2 for p, s in zip(parts, scales)))
    top = torch.cat([parts[0].square[:wide, :wide], cross], 1)
    return Moments(torch.cat([top, torch.cat([cross.T, own], 1)]), parts[0].size), bias


def clusters(site: Site, k: int, inputs, generator) -> Reduction:
    """Return k-means of the neurons by their outputs, each weighted by what goes out of it."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    base = plain(site.tail, site.connection)
    outputs = site.rows @ torch.block_diag(*(_root(base, name, inputs) for name in site.connection.layers))
    weights, symmetry = None, site.connection.symmetry
    if site.connection.feeds:
        columns = [read_columns(dense_at(base, name), len(outputs)).flatten(1) for name in site.connection.feeds]
        weights = torch.cat(columns, 1).square().sum(1)
    counts = torch.ones(len(outputs), dtype=outputs.dtype) if weights is None else weights
    if symmetry.scales:
        size = outputs.norm(dim=1).clamp(min=1e-300)
        outputs, counts = outputs / size[:, None], counts * size**2
    outputs = torch.where(_turned(outputs, symmetry)[:, None], -outputs, outputs)
    counts = counts.clamp(min=1e-12 * float(counts.max()) + 1e-300)
    seed = int(torch.randint(2**31 - 1, (1,), generator=check_generator(generator) or torch.Generator().manual_seed(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different neurons than clusters: fewer clusters
        means = KMeans(k, n_init=4, random_state=seed).fit(outputs.numpy(), sample_weight=counts.numpy())
    labels = torch.from_numpy(means.labels_.astype(np.int64))
    return merge(site.rows, labels, activation=free_like(site.connection), weights=weights)


def _turned(rows: Tensor, free: Symmetry) -> Tensor:
    """Return which rows (m,) stand on the other side of the origin, where a sign is free."""
    if not free.signs:
        return torch.zeros(len(rows), dtype=torch.bool)
    return rows @ torch.linalg.svd(rows, full_matrices=False)[2][0] < 0


def _root(model: nn.Module, name: str, inputs) -> Tensor:
    """Return R with R R^T the second moment of the layer's inputs and a one."""
    moments = moments_of(model, model, name, inputs)
    wide = 1 + moments.size
    return factor_psd(moments.square[:wide, :wide].roll((-1, -1), (0, 1)) / moments.square[0, 0])
