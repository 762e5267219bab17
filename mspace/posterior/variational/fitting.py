"""Variational Bayes: the Gaussian that is nearest to the posterior of a network (the paper's section 4.2, corrected).

The paper's formula has no expectation over the posterior, and its authors trained without the divergence; then the
best covariance is zero. Here both stand, and the noise of a regression is learned, without which the divergence has
no scale.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from ...checks import check_data, check_int
from ...network.parameters import blocks_of, positions
from ...training import Data, Ensemble, Loss, member_seeds
from ...training.loop import spawn
from ...training.options import check_model
from ..gaussian import GaussianPosterior
from .descent import AT_ONCE, Fit, Rows
from .families import FAMILIES, Diagonal, Full, LowRank, columns_of
from .likelihoods import likelihood_of
from .networks import Group, network_of
from .priors import prior_of

__all__ = ["variational", "variational_ensemble"]

STRUCTURES = ("neuron", "layer", "full")


def variational(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    family: str = "full",
    layers: str | Sequence[str] | None = None,
    prior: GaussianPosterior | None = None,
    **options,
) -> GaussianPosterior:
    """The Gaussian q over a network's parameters with the largest evidence bound (ELBO).

    It minimises ``-sum_i E_q log p(y_i | x_i, w) + KL(q || prior)``, by minibatches as the mean of the first over the
    batch plus KL / n. The mean starts from the weights of `model`, best a trained one.

    `F.mse_loss` stands for targets N(output, noise I), whose noise is learned in closed form, the variance of the
    answers included; `F.cross_entropy` for classes; any other loss must itself be the negative log-likelihood of an
    example, averaged over the batch. A squared error under another name therefore has its noise fixed at one half.

    Linear layers in a row with independent neurons are trained by local reparametrisation, everything else by draws
    of the weights. The model runs at rest, without dropout.

    Args:
        model: a trained network; it stays as it is
        family: of each neuron, "full" covariance; "diagonal"; "low_rank", diagonal and `rank` directions;
            "block", groups of its parameters
        layers: names of layers or parameters that are random, by default all. Where some are named, the posterior
            is conditional on the others (semi-Bayesian), which report["conditional"] says.
        prior: another posterior of the same network, such as a teacher's; if None, N(0, 1 / prior_precision)
        options: as in `variational_ensemble`, such as prior_precision, noise, epochs, generator

    Returns:
        a `GaussianPosterior`; its report holds "elbo" (nats, all data), "kl", "nll" (of an example, expected),
        "noise" (a variance), "n", "likelihood", "family", "tempered", "conditional", and "history", the objective in
        every epoch
    """
    return variational_ensemble(model, data, loss, 1, family=family, layers=layers, prior=prior, **options)[0]


def variational_ensemble(
    model: nn.Module | Ensemble,
    data: Data,
    loss: Loss,
    n_models: int,
    *,
    family: str = "full",
    layers: str | Sequence[str] | None = None,
    prior: GaussianPosterior | None = None,
    prior_precision: float | None = None,
    noise: float | None = None,
    structure: str = "neuron",
    rank: int | None = None,
    blocks: int | Sequence[int] | None = None,
    train_rest: bool = True,
    init_scale: float = 0.02,
    kl_weight: float = 1.0,
    anneal: int = 0,
    draws: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = 64,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    resample: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[GaussianPosterior]:
    """Many posteriors trained side by side, each on its own data; member i does not depend on how many follow it.

    Args:
        model: where the means start, or an `Ensemble` with a start for each
        n_models: how many
        prior_precision: of every parameter, by default 1
        noise: the variance of the targets about the answers, by default learned
        structure: which parameters share a block, those of a "neuron" (a row and its bias), a "layer", or all, "full"
        rank: of "low_rank", by default 1
        blocks: of "block", consecutive numbers in a group, or the sizes of all groups of a neuron, its bias last; by
            default a neuron's part of each parameter is a group
        train_rest: whether parameters outside `layers` are trained too, without a prior
        init_scale: standard deviations at the start, as a share of the weights' root mean square
        kl_weight: of the divergence; anything but 1 is no posterior, and report["tempered"] says so
        anneal: epochs over which that weight rises from 0
        draws: of the noise, a step; by default 1, and 8 where weights are drawn, whose gradients are noisier. With one
            draw their covariances come out within a third, with 32 within 5 %.
        epochs: by default enough for 5000 steps and at least 20
        batch_size: examples a step, None for all of them
        optimizer: a function of a list of tensors, such as ``partial(torch.optim.Adam, lr=1e-2)``; by default Adam
            with rate 1e-3. The rate falls to zero over the second half. LBFGS needs ``batch_size=None``.
        resample: (n_models, k) indices of the examples that each member sees
        seeds: one for each member, in place of `generator`
        progress: wraps the loop over epochs

    Returns:
        posteriors as `variational` gives them
    """
    _check(model, data, loss, n_models, family, structure, kl_weight, init_scale, draws, resample)
    seeds = member_seeds(n_models, generator) if seeds is None else list(seeds)
    if len(seeds) != n_models:
        raise ValueError(f"seeds must be {n_models}, one for each member, got {len(seeds)}")
    streams = [torch.Generator().manual_seed(spawn(s, 4)) for s in seeds]
    template = copy.deepcopy(model.template if isinstance(model, Ensemble) else model).eval()
    start = _start(model, n_models)
    groups = _groups(template, start, family, structure, layers, rank, blocks, train_rest, init_scale, streams)
    random = [i for i, g in enumerate(groups) if g.family is not None]
    believed = prior_of(
        prior, prior_precision, template, [groups[i].index for i in random], family == "diagonal", start
    )
    rows = Rows(data, n_models, resample, batch_size, seeds)
    likelihood = likelihood_of(loss, noise, *_first_answers(template, groups, rows))
    network = network_of(template, groups, data[0], likelihood.name == "gaussian", draws)
    fit = Fit(groups, random, network, likelihood, believed, rows, streams)
    if epochs is None:
        epochs = max(20, math.ceil(5000 / rows.steps))
    history = fit.train(check_int(epochs, "epochs", 0), optimizer, kl_weight, check_int(anneal, "anneal", 0), progress)
    told = {
        "method": "variational",
        "family": family,
        "structure": structure,
        "likelihood": likelihood.name,
        "n": rows.count,
        "epochs": epochs,
        "kl_weight": float(kl_weight),
        "tempered": kl_weight != 1,
        "conditional": len(random) < len(groups),
    }
    return fit.posteriors(model.template if isinstance(model, Ensemble) else model, told, history)


def _groups(template, start, family, structure, layers, rank, blocks, train_rest, init_scale, streams) -> list[Group]:
    """Random groups first, then the known ones."""
    if rank is not None and family != "low_rank":
        raise ValueError(f'rank belongs to family="low_rank", got it with {family!r}')
    if blocks is not None and family != "block":
        raise ValueError(f'blocks belongs to family="block", got it with {family!r}')
    rank = check_int(1 if rank is None else rank, "rank", 1)
    for part in [] if blocks is None else [blocks] if isinstance(blocks, int) else blocks:
        check_int(part, "blocks", 1)
    names = [k for k, _ in template.named_parameters()]
    wanted = positions(template, layers)
    sizes = [p.numel() for p in template.parameters()]
    ends = torch.tensor(sizes).cumsum(0)
    rest = [k for k, end in zip(names, ends) if not torch.isin(end - 1, wanted)]
    groups = []
    for index in blocks_of(template, structure, layers):
        mean = start[:, index]
        spread = init_scale * mean.square().mean((1, 2), keepdim=True).sqrt()
        spread = torch.where(spread > 0, spread, init_scale).expand_as(mean)
        if family == "low_rank" and rank > index.shape[1]:
            raise ValueError(
                f"rank must be at most {index.shape[1]}, the parameters of a {structure} in {layers or 'the model'}, "
                f'got {rank}: take family="full"'
            )
        if family == "diagonal":
            made = Diagonal(spread)
        elif family == "low_rank":
            made = LowRank(spread, rank, streams)
        else:
            made = Full(spread, columns_of(index, sizes, blocks) if family == "block" else None)
        groups.append(Group(index, mean.clone().requires_grad_(), made))
    known = blocks_of(template, "neuron", rest) if rest else []
    return groups + [Group(index, start[:, index].clone().requires_grad_(train_rest), None) for index in known]


def _start(model, n_models: int) -> Tensor:
    """Means to begin with, (N, p), copies in the type of the model."""
    if isinstance(model, Ensemble):
        return torch.cat([v.detach().reshape(n_models, -1) for v in model.parameters.values()], 1)
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).repeat(n_models, 1)


@torch.no_grad()
def _first_answers(template, groups, rows: Rows) -> tuple[Tensor, Tensor]:
    """Answers of the start and the targets, on as many examples as fit, each (N, n, ...)."""
    fixed = [Group(g.index, g.mean, None) for g in groups]
    network = network_of(template, fixed, rows.x, False, 1)
    x, y = next(iter(rows.all(max(256, AT_ONCE // (rows.n_models * rows.x[0].numel())))))
    return network(x, [None] * len(fixed), x.new_empty(len(x), 0))[0], y


def _check(model, data, loss, n_models, family, structure, kl_weight, init_scale, draws, resample) -> None:
    """Everything that could stop a long training late, said before it begins."""
    check_int(n_models, "n_models", 1), check_int(1 if draws is None else draws, "draws", 1)
    for name, value, known in (("family", family, FAMILIES), ("structure", structure, STRUCTURES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    for name, value, least in (("kl_weight", kl_weight, "at least 0"), ("init_scale", init_scale, "above 0")):
        good = isinstance(value, Real) and 0 <= value < math.inf and (value > 0 or least == "at least 0")
        if not good:
            raise ValueError(f"{name} must be a number {least}, got {value!r}")
    if isinstance(model, Ensemble) and len(model) != n_models:
        raise ValueError(f"model must be one network or an ensemble of n_models = {n_models}, got {len(model)} members")
    data = check_data(data)
    n = len(data[0])
    if resample is not None and (
        resample.ndim != 2 or len(resample) != n_models or resample.min() < 0 or resample.max() >= n
    ):
        raise ValueError(f"resample must be ({n_models}, k) indices below {n}, got shape {tuple(resample.shape)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of shapes that broadcast, which are refused with the likelihood
        check_model(model[0].train() if isinstance(model, Ensemble) else model, data, loss)
