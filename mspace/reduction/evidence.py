"""How many neurons the data support: those are merged that their covariances cannot tell apart (section 5.6)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..alignment.symmetry import symmetry_of
from ..checks import as_tensor, check_fraction
from ..metrics.testing import merge_test

__all__ = ["indistinguishable"]


def indistinguishable(samples, *, level: float = 0.05, activation=None, single: bool = False) -> Tensor:
    """Clusters of neurons in which no pair is told apart, so that their number comes out of the data; labels (m,).

    Every pair is tested by its difference in each network (Hotelling's T^2), with the rate of false discoveries among
    pairs held at `level` (Benjamini and Hochberg 1995). Not being told apart is not transitive: clusters are grown by
    complete linkage, which keeps pairs that are told apart in different ones. More networks tell more apart, so with
    ever more of them only true duplicates stay together; ``single=True`` asks whether the difference is within what
    one network scatters, which does not change with their number.

    Args:
        samples: (N, m, n+1), the neurons in N aligned networks, N > n + 1; such as
            ``torch.stack([rows_of(net, layer) for net in ensemble])``
        level: a higher one tells more pairs apart, and merges less
        activation: neurons are first put into the scale and sign that it leaves free
        single: as in `mspace.metrics.merge_test`
    """
    level = check_fraction(level, "level")
    x = as_tensor(samples, "samples").detach().to("cpu", torch.float64)
    if x.ndim != 3 or 0 in x.shape or not torch.isfinite(x).all():
        raise ValueError(f"samples must be finite and (N, m, n+1), got shape {tuple(x.shape)}: see `rows_of`")
    if activation is not None:
        x = _canonical(x, activation)
    if x.shape[1] == 1:
        return torch.zeros(1, dtype=torch.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    found = merge_test(x, single=single)
    apart = 1 - found.adjusted.numpy()
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(apart, checks=False), "complete")
    # told apart are pairs at or above 1 - level; fcluster joins what is at most its threshold
    labels = fcluster(tree, np.nextafter(1 - level, 0), "distance")
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1].astype(np.int64))


def _canonical(x: Tensor, activation) -> Tensor:
    """Each neuron divided by the norm of its mean over the networks, and turned to one side, as far as is free."""
    free, mean = symmetry_of(activation), x.mean(0)
    if free.scales:
        size = mean.norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        x, mean = x / size[:, None], mean / size[:, None]
    if free.signs:
        first = torch.linalg.svd(mean, full_matrices=False)[2][0]
        x = torch.where((mean @ first < 0)[:, None], -x, x)
    return x
