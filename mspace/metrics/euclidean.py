"""The distance between means, and distances between what neurons compute rather than what they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import as_tensor
from ..neurons import NeuronDistribution
from .metric import Metric
from .wasserstein import wasserstein2

__all__ = ["euclidean", "functional"]


def _distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
    return torch.cdist(p.mean, q.mean, compute_mode="donot_use_mm_for_euclid_dist")


def _center(p: NeuronDistribution, weights: Tensor, start=None) -> NeuronDistribution:
    """Means of the means; the distance does not see covariances, which are averaged too."""
    return NeuronDistribution(weights @ p.mean, torch.einsum("km,mij->kij", weights, p.cov))


euclidean = Metric(_distance, _center, name="euclidean")


def functional(moment, metric: Metric = wasserstein2) -> Metric:
    """A metric between what linear neurons compute on data, instead of between their weights.

    Neurons are taken to C^1/2 w, where C = E x x^T; then the squared Euclidean distance is the mean of
    (w_1^T x - w_2^T x)^2, and the scale of the inputs no longer matters. Directions in which the data never go
    count nothing. Barycenters come back as weights, the shortest that compute the same.

    Args:
        moment: C (n, n), ``x.T @ x / len(x)`` of the inputs of the layer, with a column of ones if neurons carry
            their bias; not centred
        metric: what to measure with after the change
    """
    factor = _factor(moment)
    back = torch.linalg.pinv(factor)

    def seen(p: NeuronDistribution, by: Tensor = factor) -> NeuronDistribution:
        if p.dim != len(by):
            raise ValueError(f"moment is {(len(by),) * 2}, and neurons lie in R^{p.dim}: is the bias in one only?")
        return NeuronDistribution(p.mean @ by, by.T @ p.cov @ by)

    def distance(p: NeuronDistribution, q: NeuronDistribution) -> Tensor:
        return metric(seen(p), None if q is p else seen(q))

    def center(p: NeuronDistribution, weights: Tensor, start) -> NeuronDistribution:
        found = metric.barycenter(seen(p), weights=weights, start=None if start is None else seen(start))
        return NeuronDistribution(found.mean @ back, back.T @ found.cov @ back)

    return Metric(distance, center if metric.center else None, metric.power, f"functional {metric.name}")


def _factor(moment) -> Tensor:
    """F (n, r) with F F^T the moment."""
    c = as_tensor(moment, "moment").detach().to("cpu", torch.float64)
    if c.ndim != 2 or c.shape[0] != c.shape[1] or not len(c) or not torch.isfinite(c).all():
        raise ValueError(f"moment must be finite and (n, n), got {tuple(c.shape)}: x.T @ x / len(x) of the inputs x")
    try:
        c = NeuronDistribution(c.new_zeros(1, len(c)), c[None]).cov[0]
    except ValueError as why:
        raise ValueError("moment must be symmetric and positive semidefinite: x.T @ x / len(x) is") from why
    power, axes = torch.linalg.eigh(c)
    kept = power > len(c) * torch.finfo(c.dtype).eps * power[-1]
    if not kept.any():
        raise ValueError("moment must not be zero: no data, no distance")
    return axes[:, kept] * power[kept].sqrt()
