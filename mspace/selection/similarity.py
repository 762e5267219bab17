"""What QPFS asks of features and neurons: how similar they are to each other, and how relevant to what is predicted."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from ..neurons import NeuronDistribution
from .arrays import finite, semidefinite

__all__ = ["contribution", "correlation_relevance", "correlation_similarity", "neuron_similarity"]

FLAT = 1e-12  # of its size: a column that varies less is constant


def correlation_similarity(features, *, squared: bool = True) -> Tensor:
    """Squared correlations of columns, (m, m), which are positive semidefinite; absolute ones need not be.

    A constant column is similar to itself alone.

    Args:
        features: (N, m), such as the activations of neurons on calibration inputs; or (S, N, m) for S draws of the network,
            over which similarities are averaged
        squared: if not, absolute correlations, as in Rodriguez-Lujan et al. (2010)

    Warns:
        RuntimeWarning: of constant columns
    """
    columns = _standardised(features, "features")
    found = columns.mT @ columns
    found = (found.square() if squared else found.abs()).mean(0)
    return ((found + found.T) / 2).clamp(max=1).fill_diagonal_(1.0)


def correlation_relevance(features, targets, *, squared: bool = True) -> Tensor:
    """Squared correlations of features with targets, (m, r).

    Of parameters, correlations of the network's derivative with its residuals are zero at a minimum, whatever they are
    worth: relevance for pruning has to come from `relevance`, or from activations with targets.

    Args:
        features: (N, m), or (S, N, m) to average over draws
        targets: (N,) or (N, r); constant ones are left out
        squared: if not, absolute; the same as for `correlation_similarity`

    Warns:
        RuntimeWarning: of constant columns, whose relevance is zero, and targets
    """
    columns = _standardised(features, "features")
    single = np.ndim(targets) == 1
    targets = finite(targets, "targets", "(N,)")[:, None] if single else finite(targets, "targets", "(N, r)")
    if len(targets) != columns.shape[1]:
        raise ValueError(f"targets must be (N, r) for N = {columns.shape[1]} examples, got {tuple(targets.shape)}")
    wanted = _standardised(targets, "targets")[0]
    wanted = wanted[:, wanted.any(0)]
    if not wanted.shape[1]:
        raise ValueError("targets must vary, got none that does")
    found = columns.mT @ wanted
    return (found.square() if squared else found.abs()).mean(0).clamp(max=1)


def contribution(activations, outgoing) -> Tensor:
    """How well a neuron alone tells what the layer sends on, from 0 to 1, (m,): zero if nothing goes out of it.

    The mean over outputs o of the squared correlation of ``h_i v_oi`` with the sum of these over neurons i.

    Args:
        activations: h (N, m)
        outgoing: v (o, m), the weight of the next layer
    """
    columns, outgoing = finite(activations, "activations", "(N, m)"), finite(outgoing, "outgoing", "(o, m)")
    if columns.shape[1] != outgoing.shape[1]:
        raise ValueError(
            f"activations (N, m) and outgoing (o, m) must agree in m, got {columns.shape[1]} and {outgoing.shape[1]}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant activation or answer is no mistake here
        told = _standardised(columns, "activations")[0].T @ _standardised(columns @ outgoing.T, "outgoing")[0]
    return torch.where(outgoing.T == 0, 0.0, told.square()).mean(1).clamp(max=1)


def neuron_similarity(neurons: NeuronDistribution, second_moment=None) -> Tensor:
    """Similarity of random vectors, (m, m), from 0 to 1, semidefinite, ones on the diagonal: the RV coefficient.

    With M_i = S_i + m_i m_i.T and C the second moment of what enters the layer, ``tr(C M_i C M_j)`` is the mean square of
    ``w_i.T C w_j`` for independent neurons; divided by the roots of the same of i and of j (Robert and Escoufier 1976).
    For neurons that are known it is the squared correlation, uncentred, of what they answer.

    Args:
        second_moment: C (n, n), by default the identity

    Warns:
        RuntimeWarning: of neurons that are zero, similar to themselves alone
    """
    if not isinstance(neurons, NeuronDistribution):
        raise ValueError(f"neurons must be a NeuronDistribution, got {type(neurons).__name__}")
    moments = neurons.cov + neurons.mean[:, :, None] * neurons.mean[:, None, :]
    if second_moment is not None:
        c = semidefinite(second_moment, "second_moment", "it should be inputs.T @ inputs / N")
        if len(c) != neurons.dim:
            raise ValueError(f"second_moment must be (n, n) with n = {neurons.dim}, got {tuple(c.shape)}")
        power, axes = torch.linalg.eigh(c)
        root = axes * power.clamp(min=0).sqrt()
        moments = root.T @ moments @ root
    flat = moments.flatten(1)
    size = flat.norm(dim=1, keepdim=True)
    if (size == 0).any():
        _warn(f"{int((size == 0).sum())} neurons are zero", "they are similar to themselves alone")
    flat = flat / torch.where(size > 0, size, 1.0)
    found = flat @ flat.T
    return ((found + found.T) / 2).clamp(0, 1).fill_diagonal_(1.0)


def _standardised(values, name: str) -> Tensor:
    """Columns (S, N, m) with mean zero and length one; constant ones are zero."""
    three = np.ndim(values) == 3
    found = finite(values, name, "(S, N, m)" if three else "(N, m)")
    found = found if three else found[None]
    if found.shape[1] < 2:
        raise ValueError(f"{name} must hold at least two examples, got {found.shape[1]}")
    centred = found - found.mean(1, keepdim=True)
    size = centred.norm(dim=1, keepdim=True)
    flat = size <= FLAT * found.norm(dim=1, keepdim=True)
    if flat.any():
        _warn(f"{name} have {int(flat.any(0).sum())} constant columns", "they correlate with nothing")
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, size))


def _warn(what: str, then: str) -> None:
    warnings.warn(f"{what}: {then}", RuntimeWarning, stacklevel=4)
