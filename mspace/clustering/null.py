"""Populations without structure: what clusters and communities have to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics.metric import checked
from ..neurons import NeuronDistribution

__all__ = ["cloud", "structureless"]

EPS = torch.finfo(torch.float64).eps


def structureless(neurons: NeuronDistribution, generator: torch.Generator | None = None) -> NeuronDistribution:
    """A population of as many neurons, drawn as one Gaussian cloud of their means and roots of covariances.

    Means side by side with the symmetric roots of the covariances are vectors; the new ones have the same mean and
    covariance over the population as these, exactly, and are otherwise random.
    """
    checked(neurons, None, "neurons")
    m, n = neurons.mean.shape
    power, axes = torch.linalg.eigh(neurons.cov)
    root = (axes * power.clamp(min=0).sqrt()[:, None]) @ axes.mT
    vectors = torch.cat([neurons.mean, root.flatten(1)], 1)
    center = vectors.mean(0)
    _, size, directions = torch.linalg.svd(vectors - center, full_matrices=False)
    kept = size > max(m, n * n) * EPS * vectors.norm()
    mean, root = (center + cloud(m, size[kept], generator) @ directions[kept]).split([n, n * n], 1)
    root = root.reshape(m, n, n)
    return NeuronDistribution(mean, root @ root.mT)


def cloud(m: int, size: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Centred points (m, r) whose singular values are `size` (r,), in all other respects random.

    That is the law of a centred Gaussian cloud given its singular values: its left singular vectors have no
    preferred direction. So comparing data with such clouds is an exact test of "they are one Gaussian".
    """
    z = torch.randn(m, len(size), generator=generator, dtype=torch.float64)
    basis, upper = torch.linalg.qr(z - z.mean(0))
    return basis * (upper.diagonal().sign() * size)
