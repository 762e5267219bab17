"""Variational Bayes: the Gaussian that is nearest to the posterior of a network (the paper's section 4.2, corrected).

The paper's formula has no expectation over the posterior, and its authors trained without the divergence; then the
best covariance is zero. Here both stand, and the noise of a regression is learned, without which the divergence has
no scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...checks import check_bool, check_int, check_progress, check_real, n_examples
from ...door import Checked, checked
from ...network.facts import check_no_signs, gradient_hooks, trainable
from ...network.modules import copied
from ...network.parameters import blocks_of, positions
from ...training import Data, Ensemble, Loss, member_seeds
from ...training.options import Optimizer
from ...training.starts import spawn
from ..gaussian import GaussianPosterior
from .descent import AT_ONCE, Fit, Rows
from .families import FAMILIES, Diagonal, Full, LowRank, columns_of, prior_of
from .networks import Group, examples_width, likelihood_of, network_of

__all__ = ["variational", "variational_ensemble"]

STRUCTURES = ("neuron", "layer", "full")


@dataclass(frozen=True)
class Options:
    """What is fitted and how: the options of `variational` of these names."""

    family: str
    layers: str | Sequence[str] | None
    prior: GaussianPosterior | None
    prior_precision: float | None
    noise: float | None
    structure: str
    rank: int | None
    blocks: int | Sequence[int] | None
    train_rest: bool
    init_scale: float
    kl_weight: float
    draws: int | None
    epochs: int | None
    batch_size: int | None
    optimizer: Optimizer | None
    output: int | str | Callable | None

    def check(self) -> None:
        """Refuse what does not depend on the model."""
        for name, value, known in (("family", self.family, FAMILIES), ("structure", self.structure, STRUCTURES)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name, value, family in (("rank", self.rank, "low_rank"), ("blocks", self.blocks, "block")):
            if value is not None and self.family != family:
                raise ValueError(f'{name} belongs to family="{family}", got it with {self.family!r}')
        check_bool(self.train_rest, "train_rest")
        check_real(self.kl_weight, "kl_weight", ends="[)"), check_real(self.init_scale, "init_scale")
        for name, value, least in (("draws", self.draws, 1), ("rank", self.rank, 1), ("epochs", self.epochs, 0)):
            if value is not None:
                check_int(value, name, least)
        for part in () if self.blocks is None else [self.blocks] if isinstance(self.blocks, int) else self.blocks:
            check_int(part, "blocks", 1)


def variational(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
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
    draws: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = 64,
    optimizer: Optimizer | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> GaussianPosterior:
    """Fit the Gaussian q over a network's parameters with the largest evidence bound (ELBO).

    It minimises ``-sum_i E_q log p(y_i | x_i, w) + KL(q || prior)``, by minibatches as the mean of the first over the
    batch plus KL / n. The mean starts from the weights of `model`, best a trained one.

    `F.mse_loss` stands for targets N(output, noise I), whose noise is learned in closed form, the variance of the
    outputs included; `F.cross_entropy` for classes; any other loss must itself be the negative log-likelihood of an
    example, averaged over the batch. A squared error under another name therefore has its noise fixed at one half.

    Linear layers in a row with independent neurons are trained by local reparametrisation, everything else by draws
    of the weights. The model is in evaluation mode, without dropout.

    Args:
        model: a trained network; it stays as it was
        data: inputs and targets, tensors or tuples, lists and dictionaries of tensors, as in `train_ensemble`
        family: of each neuron, "full" covariance; "diagonal"; "low_rank", diagonal and `rank` directions;
            "block", groups of its parameters
        layers: names of layers or parameters that are random, by default all. Where some are named, the posterior
            is conditional on the others (semi-Bayesian), which report["conditional"] says.
        prior: another posterior of the same network, such as a teacher's; if None, N(0, 1 / prior_precision)
        prior_precision: of every parameter, by default 1
        noise: the variance of the targets about the outputs, by default learned
        structure: which parameters share a block, those of a "neuron" (a row and its bias), a "layer", or all, "full"
        rank: of "low_rank", by default 1
        blocks: of "block", consecutive numbers in a group, or the sizes of all groups of a neuron, its bias last; by
            default a neuron's part of each parameter is a group
        train_rest: whether parameters outside `layers` are trained too, without a prior
        init_scale: standard deviations at the start, as a share of the weights' root mean square
        kl_weight: of the divergence; anything but 1 gives no posterior, see report["kl_weight"]
        draws: of the noise, a step; by default 1, and 8 where weights are drawn, whose gradients are noisier. With one
            draw their covariances come out within a third, with 32 within 5 %.
        epochs: by default enough for 5000 steps and at least 20
        batch_size: examples a step, None for all of them
        optimizer: a function of a list of tensors, such as ``partial(torch.optim.Adam, lr=1e-2)``; by default Adam
            with rate 1e-3. The rate falls to zero over the second half. LBFGS needs ``batch_size=None``.
        progress: wraps the loop over epochs

    Returns:
        a `GaussianPosterior`; its report holds "elbo" (nats, all data), "kl", "nll" (of an example, expected),
        "noise" (a variance), "n", "likelihood", "family", "kl_weight", "conditional", and "history", the objective in
        every epoch
    """
    options = Options(
        family, layers, prior, prior_precision, noise, structure, rank, blocks,
        train_rest, init_scale, kl_weight, draws, epochs, batch_size, optimizer, output,
    )  # fmt: skip
    return _posteriors(model, data, loss, 1, options, None, None, generator, progress)[0]


def variational_ensemble(
    model: nn.Module | Ensemble,
    data: Data,
    loss: Loss,
    n_models: int,
    *,
    output: int | str | Callable | None = None,
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
    draws: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = 64,
    optimizer: Optimizer | None = None,
    resample: Tensor | None = None,
    seeds: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[GaussianPosterior]:
    """Fit many posteriors side by side, each on its own data; member i does not depend on how many follow it.

    Args:
        model: where the means start, or an `Ensemble` with a start for each
        n_models: how many
        resample: (n_models, k) indices of the examples that each member sees
        seeds: one for each member, in place of `generator`

    Further options as in `variational`, and so are the posteriors that are returned.
    """
    options = Options(
        family, layers, prior, prior_precision, noise, structure, rank, blocks,
        train_rest, init_scale, kl_weight, draws, epochs, batch_size, optimizer, output,
    )  # fmt: skip
    return _posteriors(model, data, loss, n_models, options, resample, seeds, generator, progress)


def _posteriors(
    model, data, loss, n_models, options: Options, resample, seeds, generator, progress
) -> list[GaussianPosterior]:
    options.check()
    check_progress(progress)
    given = _checked(model, data, loss, n_models, resample, options.output)
    data, loss = given.data, given.loss
    seeds = member_seeds(n_models, generator) if seeds is None else list(seeds)
    if len(seeds) != n_models:
        raise ValueError(f"seeds must be {n_models}, one for each member, got {len(seeds)}")
    streams = [torch.Generator().manual_seed(spawn(s, 4)) for s in seeds]
    network = model.template if isinstance(model, Ensemble) else model
    template = copied(given.model).eval()
    start = _start(model, n_models)
    groups = _groups(template, start, options, streams)
    random = [g for g in groups if g.family is not None]
    diagonal = options.family == "diagonal"
    prior = prior_of(options.prior, options.prior_precision, template, [g.index for g in random], diagonal, start)
    rows = Rows(data, n_models, resample, options.batch_size, seeds)
    likelihood = likelihood_of(loss, options.noise, *_first_outputs(template, groups, rows))
    outputs = network_of(template, groups, data[0], likelihood.name == "gaussian", options.draws)
    fit = Fit(groups, outputs, likelihood, prior, rows, streams, template)
    epochs = max(20, math.ceil(5000 / rows.steps)) if options.epochs is None else check_int(options.epochs, "epochs", 0)
    history = fit.train(epochs, options.optimizer, options.kl_weight, progress)
    report = {
        "method": "variational",
        "family": options.family,
        "structure": options.structure,
        "likelihood": likelihood.name,
        "n": rows.count,
        "epochs": epochs,
        "kl_weight": float(options.kl_weight),
        "conditional": len(random) < len(groups),
    }
    return fit.posteriors(network, report, history)


def _groups(template: nn.Module, start: Tensor, options: Options, streams) -> list[Group]:
    """Return the random groups first, then the known ones."""
    all_names, sizes = [k for k, _ in template.named_parameters()], [p.numel() for p in template.parameters()]
    wanted, ends = positions(template, options.layers), torch.tensor(sizes).cumsum(0)
    rest = [k for k, end in zip(all_names, ends) if not torch.isin(end - 1, wanted)]
    groups = []
    for index in blocks_of(template, options.structure, options.layers):
        mean = start[:, index]
        spread = options.init_scale * mean.square().mean((1, 2), keepdim=True).sqrt()
        spread = torch.where(spread > 0, spread, options.init_scale).expand_as(mean)
        family = _family(options, index, spread, sizes, streams)
        groups.append(Group(index, mean.clone().requires_grad_(), family))
    free = trainable(template)
    for names, moves in (
        ([k for k in rest if k in free], options.train_rest),
        ([k for k in rest if k not in free], False),
    ):
        for index in blocks_of(template, "neuron", names, frozen=True) if names else []:
            groups.append(Group(index, start[:, index].clone().requires_grad_(moves), None))
    return groups


def _family(options: Options, index: Tensor, spread: Tensor, sizes: list[int], streams) -> Diagonal:
    if options.family == "diagonal":
        return Diagonal(spread)
    if options.family == "low_rank":
        rank, most = options.rank or 1, index.shape[1]
        if rank > most:
            raise ValueError(
                f"rank must be at most {most}, the parameters of a {options.structure} in "
                f'{options.layers or "the model"}, got {rank}: take family="full"'
            )
        return LowRank(spread, rank, streams)
    return Full(spread, columns_of(index, sizes, options.blocks) if options.family == "block" else None)


def _start(model, n_models: int) -> Tensor:
    """Return the means to begin with, (N, p), copies in the type of the model."""
    if isinstance(model, Ensemble):
        return torch.cat([v.detach().reshape(n_models, -1) for v in model.parameters.values()], 1)
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).repeat(n_models, 1)


@torch.no_grad()
def _first_outputs(template, groups, rows: Rows):
    """Return outputs of the start and the targets, on as many examples as fit, each (N, n, ...)."""
    fixed = [Group(g.index, g.mean, None) for g in groups]
    network = network_of(template, fixed, rows.x, False, 1)
    x, y = next(iter(rows.all(max(256, AT_ONCE // (rows.n_models * examples_width(rows.x))))))
    return network(x, [None] * len(fixed), groups[0].mean.new_empty(rows.n_models, 0))[0], y


def _checked(model, data, loss, n_models: int, resample, output) -> Checked:
    """Return what passed the door, or refuse what could stop a long training late."""
    check_int(n_models, "n_models", 1)
    if isinstance(model, Ensemble) and len(model) != n_models:
        raise ValueError(f"model must be one network or an ensemble of n_models = {n_models}, got {len(model)} members")
    network = model[0] if isinstance(model, Ensemble) else model
    given = checked(network, data, loss, output=output, one_tensor=False)
    check_no_signs(network, "a prior")
    if hooks := gradient_hooks(network):
        raise ValueError(
            f"model has a hook on the gradient of {next(iter(hooks))!r}, which is not followed here: remove it"
        )
    n = n_examples(given.data[0])
    if resample is not None and (
        resample.ndim != 2 or len(resample) != n_models or resample.min() < 0 or resample.max() >= n
    ):
        raise ValueError(f"resample must be ({n_models}, k) indices below {n}, got shape {tuple(resample.shape)}")
    return given
