"""What QPFS asks of features and neurons: how similar they are to each other, and how relevant to what is predicted."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from .._linalg import check_psd, factor_psd
from ..checks import check_finite
from ..neurons import NeuronDistribution

__all__ = ["contribution", "correlation_similarity", "neuron_similarity"]

FLAT = 1e-12  # of its size: a column that varies less is constant


def correlation_similarity(features) -> Tensor:
    """Return squared correlations of columns, (m, m), which are positive semidefinite.

    A constant column is similar to itself alone.

    Args:
        features: (N, m), such as the activations of neurons on calibration inputs; or (S, N, m) for S draws of the network,
            over which similarities are averaged

    Warns:
        RuntimeWarning: of constant columns
    """
    columns = _standardized(features, "features")
    similarity = (columns.mT @ columns).square().mean(0)
    return ((similarity + similarity.T) / 2).clamp(max=1).fill_diagonal_(1.0)


def contribution(activations, outgoing) -> Tensor:
    """Return how well a neuron alone predicts what the layer sends on, from 0 to 1, (m,): zero if nothing goes out of it.

    The mean over outputs o of the squared correlation of ``h_i v_oi`` with the sum of these over neurons i.

    Args:
        activations: h (N, m)
        outgoing: v (o, m), the weight of the next layer
    """
    columns = check_finite(activations, "activations", "(N, m)")
    outgoing = check_finite(outgoing, "outgoing", "(o, m)")
    if columns.shape[1] != outgoing.shape[1]:
        raise ValueError(
            f"activations (N, m) and outgoing (o, m) must agree in m, got {columns.shape[1]} and {outgoing.shape[1]}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant activation or output is no mistake here
        correlation = _standardized(columns, "activations")[0].T @ _standardized(columns @ outgoing.T, "outgoing")[0]
    return torch.where(outgoing.T == 0, 0.0, correlation.square()).mean(1).clamp(max=1)


def neuron_similarity(neurons: NeuronDistribution, second_moment=None) -> Tensor:
    """Return the similarity of random vectors, (m, m), from 0 to 1, semidefinite, 1 on the diagonal: the RV coefficient.

    With M_i = S_i + m_i m_i.T and C the second moment of what enters the layer, ``tr(C M_i C M_j)`` is the mean square of
    ``w_i.T C w_j`` for independent neurons; divided by the roots of the same of i and of j (Robert and Escoufier 1976).
    For neurons that are known it is the squared correlation, uncentred, of their outputs.

    Args:
        second_moment: C (n, n), by default the identity

    Warns:
        RuntimeWarning: of neurons that are zero, similar to themselves alone
    """
    if not isinstance(neurons, NeuronDistribution):
        raise ValueError(f"neurons must be a NeuronDistribution, got {type(neurons).__name__}")
    moments = neurons.cov + neurons.mean[:, :, None] * neurons.mean[:, None, :]
    if second_moment is not None:
        c = check_psd(second_moment, "second_moment", "it should be inputs.T @ inputs / N")
        if len(c) != neurons.dim:
            raise ValueError(f"second_moment must be (n, n) with n = {neurons.dim}, got {tuple(c.shape)}")
        root = factor_psd(c)
        moments = root.T @ moments @ root
    flat = moments.flatten(1)
    size = flat.norm(dim=1, keepdim=True)
    if (size == 0).any():
        _warn(f"{int((size == 0).sum())} neurons are zero", "they are similar to themselves alone")
    flat = flat / torch.where(size > 0, size, 1.0)
    similarity = flat @ flat.T
    return ((similarity + similarity.T) / 2).clamp(0, 1).fill_diagonal_(1.0)


def _standardized(values, name: str) -> Tensor:
    """Return columns (S, N, m) with mean zero and length one; constant ones are zero."""
    three = np.ndim(values) == 3
    columns = check_finite(values, name, "(S, N, m)" if three else "(N, m)")
    columns = columns if three else columns[None]
    if columns.shape[1] < 2:
        raise ValueError(f"{name} must hold at least two examples, got {columns.shape[1]}")
    centred = columns - columns.mean(1, keepdim=True)
    size = centred.norm(dim=1, keepdim=True)
    flat = size <= FLAT * columns.norm(dim=1, keepdim=True)
    if flat.any():
        _warn(f"{name} have {int(flat.any(0).sum())} constant columns", "they correlate with nothing")
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, size))


def _warn(what: str, then: str) -> None:
    warnings.warn(f"{what}: {then}", RuntimeWarning, stacklevel=4)
