"""What a posterior predicts, and whether its uncertainty is honest."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import torch
from scipy.special import ndtri
from torch import Tensor

from ..checks import as_tensor, check_fraction, check_int
from ..training import Ensemble
from .gaussian import GaussianPosterior

__all__ = ["Prediction", "calibration", "predict"]

AT_ONCE = 1 << 22  # numbers that the answers of all draws may hold
KINDS = ("gaussian", "categorical")


class Prediction(NamedTuple):
    """Of a regression, both of the shape of the answers: the variance is that of a new target."""

    mean: Tensor
    variance: Tensor


def predict(
    posterior: GaussianPosterior | Ensemble,
    x: Tensor,
    *,
    size: int = 100,
    likelihood: str | None = None,
    noise: float | None = None,
    generator: torch.Generator | None = None,
) -> Prediction | Tensor:
    """Answers averaged over draws of the parameters, never those of the network at the mean.

    Args:
        posterior: drawn from `size` times; of an `Ensemble` every member is asked
        x: inputs (B, ...)
        likelihood: "gaussian" or "categorical", where the report of the posterior does not say it
        noise: variance of targets about the network's answers, by default the one in the report; 0 asks for
            the uncertainty of the answers alone

    Returns:
        for "gaussian" the mean over draws and the noise plus the variance over draws, each (B, ...); for
        "categorical" the mean of the classes' probabilities, (B, C, ...)
    """
    if not isinstance(posterior, (GaussianPosterior, Ensemble)):
        raise ValueError(
            f"posterior must be a GaussianPosterior or an Ensemble, got {type(posterior).__name__}: see bootstrap, laplace"
        )
    report = posterior.report
    likelihood = report.get("likelihood") if likelihood is None else likelihood
    if likelihood not in KINDS:
        raise ValueError(f"likelihood must be one of {', '.join(KINDS)}, got {likelihood!r}: name it")
    if likelihood == "categorical" and noise is not None:
        raise ValueError("noise belongs to a regression: leave it out for classes")
    if likelihood == "gaussian":
        noise = report.get("noise") if noise is None else noise
        if not isinstance(noise, Real) or not 0 <= noise < math.inf:
            raise ValueError(f"noise must be the variance of targets about the answers, 0 for none, got {noise!r}")
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) == 0 or not torch.isfinite(x).all():
        raise ValueError("x must be a tensor of inputs (B, ...), finite and not empty")
    members = posterior
    if isinstance(posterior, GaussianPosterior):
        members = posterior.sample(check_int(size, "size", 2), generator)
    elif len(posterior) < 2:
        raise ValueError("posterior must have at least two members to differ")
    try:
        first = members(x[:1])
    except RuntimeError as why:
        raise ValueError(f"x must be inputs of the network, got shape {tuple(x.shape)}: {why}") from why
    step = max(1, AT_ONCE // first.numel())
    parts = [_summary(members(part), likelihood, noise) for part in x.split(step)]
    return Prediction(*map(torch.cat, zip(*parts))) if likelihood == "gaussian" else torch.cat(parts)


def _summary(out: Tensor, likelihood: str, noise) -> Prediction | Tensor:
    if likelihood == "categorical":
        if out.ndim < 3 or out.shape[2] < 2:
            raise ValueError(f"classes need answers (B, C, ...) with C of at least 2, got {tuple(out.shape[1:])}")
        return out.double().softmax(2).mean(0)
    return Prediction(out.double().mean(0), noise + out.double().var(0))


def calibration(prediction: Prediction | Tensor, targets, *, bins: int = 15, level: float = 0.95) -> dict[str, float]:
    """Whether what is predicted comes true as often as it says.

    Args:
        prediction: a mean and a variance, or probabilities of classes (B, C)
        targets: of the shape of the mean, or classes (B,)
        bins: of equal width, for the expected calibration error (Naeini, Cooper and Hauskrecht 2015)
        level: of the central intervals whose coverage is counted

    Returns:
        "nll" in nats, the mean negative logarithm of the predicted density or probability; for a regression
        "coverage", the share of targets inside their intervals, and "rmse"; for classes "accuracy" and "ece", the mean gap
        between confidence and accuracy over bins of confidence, weighted by how many examples fall in
    """
    if isinstance(prediction, (tuple, list)):
        if len(prediction) != 2:
            raise ValueError(f"prediction must be (mean, variance) or probabilities, got {len(prediction)} things")
        return _regression(*prediction, targets, check_fraction(level, "level"))
    if level != 0.95:
        raise ValueError(f"level belongs to the intervals of a regression, got {level} with classes: leave it out")
    return _classes(prediction, targets, check_int(bins, "bins", 1))


def _regression(mean, variance, targets, level: float) -> dict[str, float]:
    mean, variance, targets = (
        as_tensor(t, n).double() for t, n in ((mean, "mean"), (variance, "variance"), (targets, "targets"))
    )
    if not mean.shape == variance.shape == targets.shape or mean.numel() == 0:
        shapes = ", ".join(str(tuple(t.shape)) for t in (mean, variance, targets))
        raise ValueError(f"mean, variance and targets must have one shape and not be empty, got {shapes}")
    if not torch.isfinite(mean + variance + targets).all() or not (variance > 0).all():
        raise ValueError("mean, variance and targets must be finite, and variances positive: add the noise")
    away = targets - mean
    nll = (torch.log(2 * math.pi * variance) + away.square() / variance) / 2
    inside = away.abs() <= float(ndtri((1 + level) / 2)) * variance.sqrt()
    return {
        "nll": float(nll.mean()),
        "coverage": float(inside.double().mean()),
        "rmse": float(away.square().mean().sqrt()),
    }


def _classes(probabilities, targets, bins: int) -> dict[str, float]:
    p, targets = as_tensor(probabilities, "prediction").double(), torch.as_tensor(targets)
    good = p.ndim == 2 and p.numel() > 0 and bool(torch.isfinite(p).all()) and bool((p >= 0).all())
    if not good or (p.sum(1) - 1).abs().max() > 1e-4:
        raise ValueError(f"prediction must be probabilities (B, C) that sum to one, got shape {tuple(p.shape)}")
    if targets.shape != p.shape[:1] or targets.is_floating_point() or targets.min() < 0 or targets.max() >= p.shape[1]:
        found = f", from {targets.min()} to {targets.max()}" if targets.numel() else ""
        raise ValueError(
            f"targets must be {len(p)} classes from 0 to {p.shape[1] - 1}, got {targets.dtype} of shape "
            f"{tuple(targets.shape)}{found}"
        )
    confidence, chosen = p.max(1)
    hit = (chosen == targets).double()
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, place, hit - confidence)
    likely = p.gather(1, targets[:, None].long()).clamp(min=torch.finfo(torch.float64).tiny)
    return {"nll": float(-likely.log().mean()), "accuracy": float(hit.mean()), "ece": float(gap.abs().sum() / len(p))}
