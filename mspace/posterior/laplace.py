"""Laplace's approximation: a Gaussian as curved as the posterior is at its maximum (MacKay 1992)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from ..network.parameters import flatten, positions
from ..threads import small
from ..training import Data, Loss
from .gaussian import GaussianPosterior
from .gradients import rows_of
from .gram import Curvature
from .problem import LARGEST, Plan, Problem, distance_of, likelihood_of_kind, warn_if_far

__all__ = ["laplace"]


def laplace(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
    layers: str | Sequence[str] | None = None,
    structure: str = "full",
    prior_precision: float | Mapping[str, float] = 1.0,
    noise: float | None = None,
    conditional: bool = False,
    largest: int = LARGEST,
) -> GaussianPosterior:
    """The posterior of a trained network's parameters, ``(sum of J.T H J + prior precision)^-1`` about its weights.

    J is the derivative of the answer to an example and H that of its negative log-likelihood (Gauss and Newton's
    matrix). Which likelihood that is:

    * `F.mse_loss`: answers with O numbers have independent normal noise of variance `noise`, so n times the loss is
      ``2 noise / O`` times the negative log-likelihood, up to a constant that the evidence includes;
    * `F.cross_entropy`, and any other loss: n times the loss is the negative log-likelihood.

    The prior is normal about zero. The weights should be the maximum of the posterior: under the squared error the
    minimum of ``loss + noise / (n O) * prior_precision * |parameters|^2``, else of the loss with
    ``prior_precision / (2 n) * |parameters|^2``.

    Args:
        data: inputs and targets; strided views such as `windows` gives are never copied as a whole
        loss: (output, target) -> mean over the batch
        layers: names of layers or parameters that are random, such as the last one; all others are known
        structure: which parameters the answer lets correlate: "full", "layer", "neuron" or "diagonal"
        prior_precision: one over the prior variance; by name of layer or parameter, it has to name all that are random.
            Zero is allowed where the data alone determine the parameters.
        noise: variance of the noise under a squared error, by default the mean squared residual
        conditional: whether a block is inverted by itself, as if all other parameters were known; if not, it is a block
            of the inverse of the whole, as far as `sandwich` says
        largest: parameters that a matrix may have

    Returns:
        a `GaussianPosterior` about the weights of `model`; its report holds "n", "within", "noise" under a squared
        error, "log_likelihood", "log_evidence" (the log marginal likelihood, of blocks as if they were independent;
        minus infinity under a prior of zero precision), and "gradient", the norm of the gradient of the log-posterior,
        zero at its maximum
    """
    problem = Problem.of(model, data, loss, layers, output=output)
    plan = Plan.of(model, structure, layers, conditional, largest)
    prior = _prior(problem, plan, prior_precision)
    if noise is not None and not (isinstance(noise, Real) and 0 < noise < math.inf):
        raise ValueError(f"noise must be None or a positive variance, got {noise!r}")
    kind, count = problem.outputs.kind, problem.outputs.count
    if kind != "mse" and noise is not None:
        raise ValueError(f"noise is the variance of a squared error, got {noise!r} with another loss: leave it out")
    total, gradient = _totals(problem)
    scale, constant = 1.0, 0.0
    if kind == "mse":
        noise = total / len(problem) if noise is None else float(noise)
        if not noise > 0:
            raise ValueError("noise cannot be told from residuals that are all zero: name its variance")
        scale, constant = count / (2 * noise), len(problem) * count / 2 * math.log(2 * math.pi * noise)
    at = flatten(problem.net)[plan.wanted]
    covs, logdet = [], 0.0
    for scope, matrix in zip(plan.scopes, Curvature(problem, plan.scopes, largest).gauss_newton()):
        matrix.mul_(scale * len(problem)).diagonal(dim1=1, dim2=2).add_(prior[scope])
        with small(matrix.shape[1]):
            factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed.any():
            raise ValueError("prior_precision must be larger, the data leave some parameters undetermined: try 1e-3")
        logdet += 2 * float(factor.diagonal(dim1=1, dim2=2).log().sum())
        with small(matrix.shape[1]):
            covs.append(torch.cholesky_inverse(factor))
    slope = scale * gradient + prior * at
    steps = [(cov @ slope[scope].unsqueeze(2)).squeeze(2) for scope, cov in zip(plan.scopes, covs)]
    distance = max(map(distance_of, steps, covs))
    warn_if_far(distance, len(problem), problem.size, True)
    likelihood = -scale * total - constant
    evidence = likelihood + float(prior.log().sum() - prior @ at.square() - logdet) / 2
    report = {"noise": noise} if kind == "mse" else {}
    return GaussianPosterior.of(
        model,
        plan.carve(covs),
        method="laplace",
        n=len(problem),
        within=plan.within,
        log_likelihood=likelihood,
        log_evidence=evidence,
        gradient=float(slope.norm()),
        distance=distance,
        parameters=problem.size,
        **likelihood_of_kind(kind),
        **report,
    )


def _prior(problem: Problem, plan: Plan, given) -> Tensor:
    """The precision of each random parameter, (p,)."""
    named = given if isinstance(given, Mapping) else {"": given}
    found = torch.full((sum(p.numel() for p in problem.net.parameters()),), torch.nan, dtype=torch.float64)
    for name, value in named.items():
        if not isinstance(value, Real) or not 0 <= value < math.inf:
            where = f"prior_precision[{name!r}]" if name else "prior_precision"
            raise ValueError(f"{where} must be a number of at least 0, got {value!r}")
        at = positions(problem.net, name)
        if not found[at].isnan().all():
            raise ValueError(f"prior_precision names some parameters of {name!r} twice")
        found[at] = float(value)
    found = found[plan.wanted]
    if found.isnan().any():
        raise ValueError(f"prior_precision must name all that is random, got {sorted(named)} for {list(problem.free)}")
    return found


def _totals(problem: Problem) -> tuple[float, Tensor]:
    """The losses of all examples, summed, and the gradient of that (p,)."""
    net, total = rows_of(problem), 0.0
    gradient = torch.zeros(problem.size, dtype=torch.float64)
    for x, y, _ in problem.pieces(net.chunk):
        out = net.at(x)
        total += float(problem.loss(out, y)) * len(x)
        gradient += net.rows(problem.outputs.slope(out, y)).sum(0)
    if not (math.isfinite(total) and torch.isfinite(gradient).all()):
        raise ValueError("loss or its gradient is not finite for some examples: cut them out")
    return total, gradient
