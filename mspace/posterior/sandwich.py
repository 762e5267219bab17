"""The sandwich of Huber and White: the covariance of the weights of a network fitted to these examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from ..checks import check_int, check_labels
from ..network.parameters import flatten
from ..training import Data, Loss
from .gaussian import GaussianPosterior
from .gradients import Grams, LongRun, between, rows_of, runs_of
from .gram import Curvature
from .inverse import FLOOR, gauge, invert, negatives
from .problem import LARGEST, Plan, Problem, distance_of, likelihood_of_kind, warn_if_far
from .resampling import overlap

__all__ = ["sandwich"]

CURVATURES = ("auto", "hessian", "gauss_newton")


def sandwich(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
    layers: str | Sequence[str] | None = None,
    structure: str = "full",
    dependence: int = 0,
    groups: Tensor | None = None,
    curvature: str = "auto",
    damping: float | None = None,
    conditional: bool = False,
    largest: int = LARGEST,
) -> GaussianPosterior:
    """The covariance of a trained network's parameters, ``A^-1 B A^-1 / n`` (the paper's algorithm 2; White 1982).

    A is the mean second derivative of the loss and B the mean outer product of gradients of single examples, both at
    the weights of `model`, which should be a minimum; the network is taken in evaluation mode and double precision.
    The paper's algorithm leaves out the division by n, the number of examples, which count as independent unless
    `dependence` says how far they are not. Weight decay ``w / 2 |parameters|^2`` belongs into A: ``damping=w``.

    A network's A is rarely positive definite: units scale and turn into each other without a change, and training ends
    before a minimum. What is done then, in this order, is told in the report: the known symmetries of dense layers are
    held fixed ("gauge"; gradients vanish along them, and so does the variance); the Gauss-Newton matrix takes the place
    of an indefinite second derivative ("curvature"); if it is still singular, eigenvalues below 1e-4 of the median
    positive one are raised to that ("raised", "floor"; Chen et al. 2020). A matrix that is positive definite is inverted
    as it is, however flat; look at "condition".

    Args:
        data: inputs and targets; strided views such as `windows` gives are never copied as a whole
        loss: (output, target) -> mean over the batch
        layers: names of layers or parameters that are random; all others are known. For the covariance of a layer when
            all are estimated, take the whole and its `GaussianPosterior.marginal`.
        structure: which parameters the answer lets correlate: "full", "layer", "neuron" (the incoming weights of a unit
            and its bias), or "diagonal"
        dependence: how many examples before and after one are correlated with it, in order of time: B is then the
            long-run matrix of Newey and West (1987). Windows of width h that overlap need h, at least.
        groups: labels (n,) of recordings, which lie one after another; examples of two are not correlated
        curvature: "hessian", the exact second derivative; "gauss_newton"; "auto", the first if it can be had in seconds
            and is not truly indefinite. One hidden layer of ReLUs under `F.mse_loss` has it at next to no cost.
        damping: None, or a number that is added to the diagonal of A, and is then all that is done: what is singular
            still gets the pseudo-inverse
        conditional: whether a block of the answer is the covariance when all other parameters are known,
            ``A_ii^-1 B_ii A_ii^-1 / n``. If not, it is a block of the whole: of the model, while that has at most
            `largest` parameters, else of its layer, if they have; the report says which ("within").
        largest: parameters that a matrix may have, 5000 take two gigabytes

    Returns:
        a `GaussianPosterior` about the weights of `model`; its report holds "n", "curvature", "within", "dependence",
        "damping", "gauge", "null", "rank" (eigenvalues of A at zero, those held fixed among them, and above it),
        "negative" (those below it, of the exact one if it was given up), "raised", "floor", "condition" (of what was
        inverted, roughly), "middle_rank" (the most that B can have; fewer examples than parameters leave the covariance
        singular), and "gradient", the norm of the mean gradient, zero at a minimum

    Raises:
        ValueError: for matrices larger than `largest`; for damping that leaves A indefinite

    Warns:
        RuntimeWarning: when inputs are overlapping windows and `dependence` is zero, the covariance then is too small
    """
    problem = Problem.of(model, data, loss, layers, output=output, curved=curvature != "hessian")
    plan = Plan.of(model, structure, layers, conditional, largest)
    dependence = check_int(dependence, "dependence", 0, len(problem) - 1)
    runs = _check(problem, dependence, groups, curvature, damping)
    still = _still(problem, plan, damping)
    inverses, report = _bread(Curvature(problem, plan.scopes, largest), curvature, damping, still)
    sums, gradient, taken = _middle(problem, plan.scopes, dependence, runs)
    at = flatten(problem.net)[plan.wanted]
    slope, covs, distance = gradient + (damping or 0.0) * at, [], 0.0
    for scope in plan.scopes:
        inverse = inverses.pop(0)
        step = (inverse @ slope[scope].unsqueeze(2)).squeeze(2)
        covs.append(between(inverse, sums.pop(0)).div_(len(problem) ** 2))
        distance = max(distance, distance_of(step, covs[-1]))
    warn_if_far(distance, len(problem), problem.size, damping is not None)
    return GaussianPosterior.of(
        model,
        plan.carve(covs),
        method="sandwich",
        n=len(problem),
        within=plan.within,
        dependence=dependence,
        damping=damping,
        middle_rank=min(taken, problem.size),
        gradient=float(gradient.norm()),
        distance=distance,
        parameters=problem.size,
        **likelihood_of_kind(problem.outputs.kind),
        **report,
    )


def _check(problem: Problem, dependence, groups, curvature, damping) -> list[tuple[int, int]]:
    """What only the sandwich asks for; the recordings."""
    n = len(problem)
    if curvature not in CURVATURES:
        raise ValueError(f"curvature must be one of {', '.join(CURVATURES)}, got {curvature!r}")
    if damping is not None and not (isinstance(damping, Real) and 0 <= damping < float("inf")):
        raise ValueError(f"damping must be None or a number of at least 0, got {damping!r}")
    if groups is not None:
        groups = check_labels(groups, "groups", n)
        if not dependence:
            raise ValueError("groups are recordings whose joints no correlation crosses: they need dependence above 0")
    width = overlap(problem.x)
    if width > 1 and not dependence:
        warnings.warn(
            f"inputs are overlapping windows of {width}, which are not independent: the covariance will be too small; "
            f"take dependence={width} or more",
            RuntimeWarning,
            stacklevel=3,
        )
    return runs_of(n, groups)


def _still(problem: Problem, plan: Plan, damping: float | None) -> Tensor | None:
    """Directions (p, g) along which nothing changes, where they are known and A is not damped."""
    if plan.within != "model" or damping is not None:
        return None
    return gauge(problem)


def _bread(found: Curvature, curvature: str, damping: float | None, still: Tensor | None) -> tuple[list[Tensor], dict]:
    """The inverses of A, and what was done to have them."""
    exact = curvature == "hessian" or (curvature == "auto" and found.affordable())
    matrices, given_up = _held(found.hessian(), still) if exact else None, 0
    if exact and curvature == "auto":
        given_up = sum(negatives(a, _flat(a) if damping is None else damping) for a in matrices)
    if not exact or given_up:
        matrices, exact = None, False  # one of them in memory at a time
        matrices = _held(found.gauss_newton(), still)
    inverses, told = [], []
    while matrices:
        inverse, said = invert(matrices.pop(0), damping)
        inverses.append(inverse)
        told.append(said)
    total = {k: sum(t[k] for t in told) for k in ("negative", "rank", "null", "raised")}
    total |= {k: max(t[k] for t in told) for k in ("floor", "condition")}
    fixed = 0 if still is None else still.shape[1]
    total |= {"negative": total["negative"] + given_up, "rank": total["rank"] - fixed, "null": total["null"] + fixed}
    return inverses, {"curvature": "hessian" if exact else "gauss_newton", "gauge": fixed} | total


def _flat(a: Tensor) -> float:
    """What an eigenvalue may lie below zero and still belong to a direction without curvature, at a minimum not quite
    reached; it will be raised then. The floor with the diagonal in the place of eigenvalues, which cost too much here.
    """
    return FLOOR * float(a.diagonal(dim1=1, dim2=2).median().clamp(min=0))


def _held(matrices: list[Tensor], still: Tensor | None) -> list[Tensor]:
    """With some curvature along the directions that have none: gradients vanish there, so it never shows."""
    if still is not None and still.shape[1]:
        a = matrices[0][0]
        a.addmm_(still * a.diagonal().abs().mean(), still.T)
    return matrices


def _middle(problem: Problem, scopes, lags: int, runs) -> tuple[list[Tensor], Tensor, int]:
    """Sums over examples of B and of the gradient's mean, and how many terms B has."""
    net = rows_of(problem)
    sums, gradient = LongRun(Grams(scopes), lags), torch.zeros(problem.size, dtype=torch.float64)
    for x, y, last in problem.pieces(net.chunk if not lags else max(1, net.chunk // 2), runs):
        out = net.at(x)
        rows = net.rows(problem.outputs.slope(out, y))
        gradient += rows.sum(0)
        sums.add(rows, last)
    if not torch.isfinite(gradient).all():
        raise ValueError("loss has no finite gradient for some examples: cut them out")
    return sums.finish(), gradient / len(problem), len(problem) + len(runs) * lags
