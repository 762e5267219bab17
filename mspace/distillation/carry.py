"""The posterior of some parameters as that of another network's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network.modules import copied
from ..network.parameters import unflatten
from ..posterior.gaussian import Block, GaussianPosterior

__all__ = ["carried", "distance", "must_be_posterior"]


def must_be_posterior(posterior) -> None:
    """The one type that is transformed here."""
    if not isinstance(posterior, GaussianPosterior):
        raise ValueError(
            f"posterior must be a GaussianPosterior, got {type(posterior).__name__}: see laplace, sandwich and variational"
        )


def carried(posterior: GaussianPosterior, model: nn.Module, positions: Tensor, **report) -> GaussianPosterior:
    """The distribution of some parameters as that of the parameters of another network, in its order."""
    new = torch.full_like(posterior.mean, -1, dtype=torch.long)
    new[positions] = torch.arange(len(positions))
    kept = posterior.marginal(positions).blocks
    blocks = tuple(Block(new[b.index], b.cov) for b in kept)
    model, mean = copied(model), posterior.mean[positions]
    with torch.no_grad():
        for name, value in unflatten(model, mean).items():
            model.get_parameter(name).copy_(value)
    return GaussianPosterior(model, mean, blocks, dict(posterior.report) | report)


def distance(posterior: GaussianPosterior, at: Tensor, value: Tensor) -> tuple[float, int]:
    """Squared Mahalanobis distance of a value of some positions from their mean, and how many of them are random."""
    random = torch.isin(at, posterior.index)
    at, away = at[random], (value - posterior.mean[at])[random]
    if not len(at):
        return 0.0, 0
    return float(away @ torch.linalg.pinv(posterior.cov(at), hermitian=True) @ away), len(at)
