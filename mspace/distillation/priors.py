"""Priors made of a teacher's posterior that say less than it does, or in which two layers are multiplied into one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._linalg import eigh_psd
from ..checks import check_real
from ..network.connections import modules_between
from ..network.hooks import evaluation_mode, seen
from ..network.modules import copied
from ..network.parameters import flatten, unflatten
from ..network.surgery import exchange, units_of
from ..posterior.gaussian import Block, GaussianPosterior, merged
from .carry import must_be_posterior

__all__ = ["compose_layers", "mean_only", "temper"]


def temper(posterior: GaussianPosterior, rho: float, *, prior_precision: float = 1.0) -> GaussianPosterior:
    """Return the teacher's posterior to the power `rho` times the broad prior to the power ``1 - rho``, normalised.

    If the posterior is that of n examples under N(0, 1 / prior_precision), this is the one where each counts `rho` times
    (a power prior, Ibrahim and Chen 2000): precisions are ``rho P + (1 - rho) prior_precision``. A student that sees the
    teacher's own examples again, with the whole posterior for a prior, counts them twice.

    Args:
        posterior: a teacher's, in the student's shape or before
        rho: from 0, the broad prior, to 1, the posterior; choose it on held-out data, and report it
        prior_precision: of the broad prior, that of the teacher's training
    """
    must_be_posterior(posterior)
    rho, precision = check_real(rho, "rho", 0, 1, "[]"), check_real(prior_precision, "prior_precision")
    mean, blocks = posterior.mean.clone(), []
    for block in posterior.blocks:
        eigenvalues, eigenvectors = eigh_psd(block.cov)
        pull = rho / (rho + (1 - rho) * precision * eigenvalues) if rho else torch.zeros_like(eigenvalues)
        values = eigenvalues * pull / rho if rho else torch.full_like(eigenvalues, 1 / precision)
        turned = eigenvectors.mT @ mean[block.index][..., None]
        mean[block.index] = (eigenvectors @ (pull[..., None] * turned)).squeeze(-1)
        cov = eigenvectors @ (values[..., None] * eigenvectors.mT)
        blocks.append(Block(block.index, (cov + cov.mT) / 2))
    report = dict(posterior.report) | {"rho": rho, "prior_precision": precision}
    return GaussianPosterior(posterior.template, mean, tuple(blocks), report)


def mean_only(posterior: GaussianPosterior, *, prior_precision: float = 1.0) -> GaussianPosterior:
    """Return the teacher's mean with a variance of ``1 / prior_precision`` for every random parameter, independently."""
    must_be_posterior(posterior)
    variance = 1 / check_real(prior_precision, "prior_precision")
    index = posterior.index[:, None]
    blocks = (Block(index, torch.full((len(index), 1, 1), variance, dtype=torch.float64)),) if len(index) else ()
    return GaussianPosterior(posterior.template, posterior.mean, blocks, dict(posterior.report))


def compose_layers(posterior: GaussianPosterior, layer: str, feeds: str, inputs: Tensor) -> GaussianPosterior:
    """Return the posterior of a network without a layer, which is multiplied into the one that reads it.

    The activation between is replaced, unit by unit, by the line ``d a + o`` nearest to it on the inputs, so the product
    is ``B D C``. Its mean and covariance are exact if rows of `layer` are independent of each other and of `feeds`
    (covariances between them are left out); then all else is independent of it.

    Args:
        posterior: of the large network, whose two Linear layers stand in an `nn.Sequential`
        layer, feeds: names of the layer that goes, and of the one behind it
        inputs: of the network, (N, ...), where the activation is measured
    """
    must_be_posterior(posterior)
    model = posterior.template
    units_of(model, layer, feeds, through=())
    made, read = model.get_submodule(layer), model.get_submodule(feeds)
    between = modules_between(model, layer, feeds)
    linear = isinstance(made, nn.Linear) and isinstance(read, nn.Linear) and read.in_features == made.out_features
    if between is None or not linear:
        raise ValueError(
            f"layer and feeds must be Linear in one nn.Sequential to be composed, got {layer!r}, {feeds!r}"
        )
    if any(p.numel() > 1 for _, module in between for p in module.parameters()):
        raise ValueError(f"layer {layer!r} must be read by {feeds!r} directly: fold what stands between in first")
    mean, cov = _product(posterior, layer, feeds, _lines(posterior.model(), layer, feeds, inputs))
    student = copied(model)
    for name in [layer, *(name for name, _ in between)]:
        exchange(student, name, nn.Identity())
    both = nn.utils.skip_init(nn.Linear, made.in_features, read.out_features, dtype=read.weight.dtype)
    exchange(student, feeds, both)
    return _replaced(posterior, student, _rows(student, feeds), mean, cov)


def _product(
    posterior: GaussianPosterior, layer: str, feeds: str, lines: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return mean (o, n + 1) and covariance (o, n + 1, o, n + 1) of the rows of B D C, the bias last."""
    slope, offset = lines
    c_mean, c_cov = _row_moments(posterior, layer)  # (K, n + 1), (K, n + 1, n + 1)
    b_mean, b_cov = _moments(posterior, feeds)  # (o, K + 1), (o, K + 1, o, K + 1)
    c = torch.zeros(len(slope) + 1, c_mean.shape[1], dtype=torch.float64)
    c[:-1], c[-1, -1] = slope[:, None] * c_mean, 1.0
    c[:-1, -1] += offset
    both = b_mean[:, None, :-1] * b_mean[None, :, :-1] + torch.einsum("ikjk->ijk", b_cov[:, :-1, :, :-1])
    cov = torch.einsum("ka,ikjl,lb->iajb", c, b_cov, c) + torch.einsum("ijk,k,kab->iajb", both, slope**2, c_cov)
    return b_mean @ c, cov


def _row_moments(posterior: GaussianPosterior, layer: str) -> tuple[Tensor, Tensor]:
    """Return mean (m, n + 1) and covariance (m, n + 1, n + 1) of each row of a layer, zero for a bias not there."""
    rows, missing = _rows(posterior.template, layer), int(posterior.template.get_submodule(layer).bias is None)
    cov = torch.stack([posterior.cov(row) for row in rows])
    return F.pad(posterior.mean[rows], (0, missing)), F.pad(cov, (0, missing, 0, missing))


def _moments(posterior: GaussianPosterior, layer: str) -> tuple[Tensor, Tensor]:
    """Return the same with the covariance of all rows together, (m, n + 1, m, n + 1)."""
    rows, missing = _rows(posterior.template, layer), int(posterior.template.get_submodule(layer).bias is None)
    cov = posterior.cov(rows.reshape(-1)).reshape(*rows.shape, *rows.shape)
    return F.pad(posterior.mean[rows], (0, missing)), F.pad(cov, (0, missing, 0, 0, 0, missing))


def _rows(model: nn.Module, layer: str) -> Tensor:
    """Return indices of the weights of each unit and its bias, if there is one, (m, n + 1)."""
    parts = [v for k, v in _indices(model).items() if k.rpartition(".")[0] == layer]
    return torch.cat([p.reshape(len(p), -1) for p in parts], 1)


def _indices(model: nn.Module) -> dict[str, Tensor]:
    return unflatten(model, torch.arange(len(flatten(model))))


@torch.no_grad()
def _lines(model: nn.Module, layer: str, feeds: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return slope and offset of what stands between, by least squares over the inputs, each (K,)."""
    model = model.double()
    with evaluation_mode(model):
        passes = seen(model, [layer, feeds], inputs.double())
    a, h = (v.reshape(-1, v.shape[-1]) for v in (passes[layer].output, passes[feeds].input))
    away = a - a.mean(0)
    spread = away.square().mean(0)
    slope = torch.where(spread > 0, (away * h).mean(0) / torch.where(spread > 0, spread, 1.0), 0.0)
    return slope, h.mean(0) - slope * a.mean(0)


def _replaced(
    posterior: GaussianPosterior, student: nn.Module, rows: Tensor, mean: Tensor, cov: Tensor
) -> GaussianPosterior:
    """Return the posterior of the student: these rows anew, independent of all other parameters, which keep theirs."""
    to, old = torch.full_like(posterior.mean, -1, dtype=torch.long), _indices(posterior.template)
    for name, at in _indices(student).items():
        if not torch.isin(at, rows).any():
            to[old[name].reshape(-1)] = at.reshape(-1)
    kept, values = to >= 0, torch.zeros(len(flatten(student)), dtype=torch.float64)
    values[to[kept]], values[rows] = posterior.mean[kept], mean
    blocks = [Block(to[b.index], b.cov) for b in posterior.marginal(kept.nonzero().flatten()).blocks]
    blocks.append(Block(rows.reshape(1, -1), cov.reshape(1, rows.numel(), rows.numel())))
    with torch.no_grad():
        for name, value in unflatten(student, values).items():
            student.get_parameter(name).copy_(value)
    return GaussianPosterior(student, values, merged(blocks), dict(posterior.report))
