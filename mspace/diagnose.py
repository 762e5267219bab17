"""What holds of a result and what does not: is it to be believed, and where several disagree, which of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .neurons import NeuronDistribution
from .posterior import GaussianPosterior
from .training import Ensemble

__all__ = ["Diagnosis", "Finding", "diagnose"]

Result = Ensemble | GaussianPosterior | NeuronDistribution
ONLINE = ("plugin", "batch_means", "online_batch_means")
NEAR = 0.3  # standard errors between a network and the minimum beside it that change nothing
FAR = 0.1  # of the step that new data bring about: members further from their minima have too small a spread
ROUNDING = 1e10  # a condition number at which float64 leaves six digits of a variance, and the floor begins to show


@dataclass(frozen=True)
class Finding:
    """Something that holds or does not hold of a result, and what to do if it does not."""

    holds: bool
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"  {'holds ' if self.holds else 'FAILS '} {self.what}" + ("" if self.holds else f". {self.advice}")


@dataclass(frozen=True)
class Diagnosis:
    """Findings about each of some results, and about how they agree; printed as a list."""

    titles: tuple[str, ...]
    findings: tuple[tuple[Finding, ...], ...]
    together: tuple[Finding, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return all(f.holds for part in (*self.findings, self.together) for f in part)

    def __repr__(self) -> str:
        lines = [line for title, part in zip(self.titles, self.findings) for line in (title, *map(str, part))]
        return "\n".join([*lines, *(["together", *map(str, self.together)] if self.together else [])])


def diagnose(*results: Result) -> Diagnosis:
    """Return what holds of results of `bootstrap`, `sandwich`, `laplace`, `online` and `variational`, or of neurons.

    Several results of one network are also compared: where variances of the same parameters differ by more than a factor of
    two, the one to believe is one of which everything else holds.

    Raises:
        ValueError: for a result of another kind, or none
    """
    if not results:
        raise ValueError("results must be at least one ensemble, posterior or population of neurons, got none")
    for result in results:
        if not isinstance(result, Result):
            raise ValueError(f"results must be ensembles, posteriors or neurons, got {type(result).__name__}")
    findings = tuple(tuple(_findings(result)) for result in results)
    titles = tuple(_title(result) for result in results)
    networks = [i for i, r in enumerate(results) if not isinstance(r, NeuronDistribution)]
    variances = [_variances(results[i]) for i in networks]
    named = [(titles[i], all(f.holds for f in findings[i])) for i in networks]
    return Diagnosis(titles, findings, tuple(_comparisons(named, variances)))


def _title(result: Result) -> str:
    if isinstance(result, GaussianPosterior):
        method = str(result.report.get("method", "posterior"))
        return "online" if method in ONLINE else method
    return "neurons" if isinstance(result, NeuronDistribution) else "ensemble"


def _findings(result: Result) -> Iterator[Finding]:
    if isinstance(result, NeuronDistribution):
        yield from _of_neurons(result)
    elif isinstance(result, Ensemble):
        yield from _of_ensemble(result)
    else:
        method = result.report.get("method")
        if method in ("sandwich", "laplace"):
            yield from _of_curvature(result)
        if method in ONLINE:
            yield from _of_online(result)
        if method == "variational":
            yield from _of_variational(result)
        spread = torch.cat([v.reshape(-1) for v in result.variance().values()])[result.index]
        yield Finding(bool((spread > 0).all()), f"{int((spread > 0).sum())} of {len(spread)} variances are above zero")


def _of_neurons(neurons: NeuronDistribution) -> Iterator[Finding]:
    eigenvalues = torch.linalg.eigvalsh(neurons.cov)
    rank = (eigenvalues > 1e-10 * eigenvalues[:, -1:].clamp(min=torch.finfo(eigenvalues.dtype).tiny)).sum(1)
    full = int((rank == neurons.dim).sum())
    yield Finding(
        full == len(neurons),
        f"{full} of {len(neurons)} covariances have full rank {neurons.dim}",
        "Jeffreys, Hellinger and Fisher-Rao need it: draw more members than dimensions, or take wasserstein2",
    )


def _of_ensemble(ensemble: Ensemble) -> Iterator[Finding]:
    n = len(ensemble)
    error = 1 / math.sqrt(2 * max(1, n - 1))
    yield Finding(n >= 30, f"{n} members know a standard deviation to {100 * error:.0f} per cent", "Take n_models=100")
    widest = max(p[0, 0].numel() for p in ensemble.parameters.values() if p.ndim > 2) if _has_rows(ensemble) else 1
    yield Finding(
        n > widest + 1,
        f"{n} members for rows of up to {widest} numbers",
        "Covariances are singular: distances between them and Wald's statistic mean little; take more members",
    )
    if "gradient" in ensemble.report:
        far = (ensemble.report["gradient"] > FAR).double().mean()
        median = float(ensemble.report["gradient"].median())
        yield Finding(
            float(far) <= 0.1,
            f"{100 * (1 - float(far)):.0f} per cent of the members are at a minimum, half within {median:.2g} of a "
            "sampling error",
            "Their spread is too small: the data do not determine all parameters; a weight decay in the loss, or "
            "fewer of them",
        )
    elif "member" in ensemble.report:
        yield Finding(
            False,
            "members were trained for a number of epochs that was given",
            "Nothing says that they have reached minima of their own: leave epochs= out, or compare with the sandwich",
        )


def _has_rows(ensemble: Ensemble) -> bool:
    return any(p.ndim > 2 for p in ensemble.parameters.values())


def _of_curvature(posterior: GaussianPosterior) -> Iterator[Finding]:
    report = posterior.report
    if "distance" in report:
        yield Finding(
            report["distance"] <= NEAR,
            f"a Newton step from the network is {report['distance']:.2g} standard errors long",
            "It is not at its minimum: ms.refine(model, data, loss), with the same weight decay or prior",
        )
    if report["method"] == "sandwich":
        n, p = report["n"], report.get("parameters", len(posterior.index))
        regular = report.get("damping") is not None
        yield Finding(n > p or regular, f"{n} examples for {p} parameters", "Name damping=, or fewer layers=")
        yield Finding(
            report.get("condition", 1.0) < ROUNDING,
            f"the curvature has a condition number of {report.get('condition', 1.0):.1e}",
            "Variances are rounding there: name damping=, or fewer layers=",
        )
        yield Finding(
            report.get("raised", 0) == 0,
            f"{report.get('raised', 0)} eigenvalues of the curvature were raised to a floor",
            "Their directions have the variance of the floor: name damping=, or take laplace with a prior",
        )


def _of_online(posterior: GaussianPosterior) -> Iterator[Finding]:
    raised, batches = posterior.report.get("raised", 0), posterior.report.get("batches")
    yield Finding(
        raised == 0,
        f"{raised} eigenvalues of the curvature were raised to a floor",
        "Their directions have the variance of the floor: fewer layers=, or take laplace with a prior",
    )
    if batches is not None:
        size = max(block.index.shape[1] for block in posterior.blocks)
        yield Finding(
            batches > size, f"{batches} batches for blocks of {size}", 'Take more steps, or structure="diagonal"'
        )


def _of_variational(posterior: GaussianPosterior) -> Iterator[Finding]:
    history = torch.as_tensor(posterior.report["history"], dtype=torch.float64)
    tenth = max(1, len(history) // 10)
    if len(history) < 20:
        yield Finding(
            False, f"{len(history)} epochs", "Too few to see whether the fit has converged: leave epochs= out"
        )
    else:
        middle = len(history) // 2  # the learning rate falls after it, which stops any descent
        before, after = history[middle - 2 * tenth : middle - tenth], history[middle - tenth : middle]
        fall, level = float(before.mean() - after.mean()), abs(float(after.mean()))
        noise = float(((before.var() + after.var()) / tenth).sqrt()) if tenth > 1 else 0.0
        steady = float((before - after).std()) if tenth > 1 else 0.0
        yield Finding(
            fall <= max(2 * min(noise, steady), 1e-3 * level),
            f"the objective fell by {fall:.2g} of {level:.2g} over a tenth of the epochs before the learning rate did",
            "It has not converged: more epochs=, or a higher learning rate",
        )
    weight = posterior.report.get("kl_weight", 1.0)
    yield Finding(weight == 1.0, f"the divergence has the weight {weight:g}", "Only kl_weight=1 gives a posterior")


def _variances(result: Ensemble | GaussianPosterior) -> dict[str, Tensor]:
    if isinstance(result, Ensemble):
        return {k: v.double().var(0) for k, v in result.parameters.items()}
    return result.variance()


def _comparisons(named: list[tuple[str, bool]], variances: list[dict[str, Tensor]]) -> Iterator[Finding]:
    """Yield for each pair of results whether their variances agree within a factor of two."""
    for i in range(len(named)):
        for j in range(i + 1, len(named)):
            common = [k for k in variances[i] if k in variances[j] and variances[i][k].shape == variances[j][k].shape]
            if not common:
                raise ValueError(
                    f"results must be of one network, got {named[i][0]} and {named[j][0]} without common parameters"
                )
            one, other = (torch.cat([v[k].reshape(-1).cpu() for k in common]) for v in (variances[i], variances[j]))
            both = (one > 0) & (other > 0)
            ratio = float((one[both] / other[both]).median()) if both.any() else math.nan
            yield Finding(
                0.5 <= ratio <= 2,
                f"the median variance of {named[i][0]} is {ratio:.2g} times that of {named[j][0]}",
                _whom_to_believe(named[i], named[j]),
            )


def _whom_to_believe(one: tuple[str, bool], other: tuple[str, bool]) -> str:
    if one[1] != other[1]:
        return f"Believe {one[0] if one[1] else other[0]}, of which all else holds"
    if one[1]:
        return "All else holds of both: they estimate different things where the model is wrong or a prior is strong"
    return "Believe neither before what fails above is mended"
