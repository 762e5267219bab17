"""The covariance of a fitted network from the path of averaged stochastic gradient descent (the paper's algorithm 3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ..checks import check_callable, check_generator, check_int, check_progress, check_real
from ..door import checked
from ..network.facts import gradient_hooks, trainable
from ..network.modules import copied
from ..network.parameters import blocks_of, flatten, positions
from ..training import Bounded, Data, Loss
from ..training.loop import stack_of
from .gaussian import Block, GaussianPosterior
from .path import BatchMeans, OnlineBatchMeans, PlugIn, gauss_newton_trace
from .problem import LARGEST

__all__ = ["online"]

METHODS = ("plugin", "batch_means", "online_batch_means")


def online(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    layers: str | Sequence[str] | None = None,
    method: str = "plugin",
    structure: str = "full",
    steps: int | None = None,
    rate: float | None = None,
    alpha: float = 0.505,
    batch_size: int = 1,
    batches: int | None = None,
    curvature: str = "gauss_newton",
    chains: int = 1,
    output: int | str | Callable | None = None,
    largest: int = LARGEST,
    optimizer: Callable | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> GaussianPosterior:
    """The covariance of a trained network's parameters from a run of averaged SGD that starts at its weights.

    Examples are drawn with replacement and the rate falls as ``rate * i ** -alpha``. Nothing else has the limit law on
    which the estimators rest: not Adam, momentum, a constant rate, nor passes without replacement.

    Parameters of a `Bounded` module are held in their bounds; where one is reached, the limit law is only rough. All
    parameters move; what is handed out is the covariance of an estimate from the ``len(inputs)`` examples given,
    whatever the number of steps, so that it compares with the other methods. Examples count as independent: of
    overlapping windows the result is that of `sandwich` with ``dependence=0``, too small.

    Args:
        layers: names of layers or parameters whose covariance is wanted, by default all
        method: "plugin", the mean curvature and the mean outer product of gradients along the path; "batch_means",
            batches of iterates that grow (Chen, Lee, Tong and Zhang 2020); "online_batch_means", the same without
            knowing the number of steps (Zhu, Chen and Wu 2023). The last two need no curvature, converge slowly and
            are too small more often than too large.
        structure: which parameters correlate, "full", "layer", "neuron" or "diagonal"; for "plugin" blocks of the
            full matrix
        steps: of descent, by default as many as examples and at least 10,000
        rate: at the first step, by default one over the mean trace of the Gauss-Newton matrix
        alpha: how fast the rate falls, between 0.5 and 1
        batch_size: examples a step
        batches: of iterates, for "batch_means", by default ``steps ** ((1 - alpha) / 2)``
        curvature: for "plugin", "gauss_newton" or "hessian"; the second costs as many gradients as parameters
        chains: independent runs whose estimates are averaged
        output: which output of the network the loss reads, as in `train_ensemble`
        largest: parameters that a matrix may have
        optimizer: refused unless it makes a plain `torch.optim.SGD`, whose rate is then taken
        progress: wraps the loop over steps

    Returns:
        a `GaussianPosterior` about the mean of the averaged iterates; its report holds "method", "steps", "n", "rate",
        "batches" where there are some, and for "plugin" how many eigenvalues of the curvature were raised

    Raises:
        ValueError: if the descent runs away: name a smaller `rate`

    Warns:
        RuntimeWarning: when batches are fewer than the parameters of a block, whose covariance is then singular
    """
    check_generator(generator)
    check_progress(progress)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    check_real(alpha, "alpha (the average has no limit law elsewhere)", 0.5, 1)
    given = checked(
        model,
        data,
        loss,
        output=output,
        double=True,
        mean=False,
        curved=method == "plugin" and curvature == "gauss_newton",
    )
    if hooks := gradient_hooks(model):
        raise ValueError(
            f"model has a hook on the gradient of {next(iter(hooks))!r}, which online cannot follow: remove it"
        )
    net, data, loss = given.model, given.data, given.mean_loss()
    count = len(data[0])
    steps = max(10_000, count) if steps is None else check_int(steps, "steps", 1000)
    if batches is not None:
        check_int(batches, "batches", 2, steps)
        if method != "batch_means":
            raise ValueError(f'batches belong to method="batch_means", got {batches} with {method!r}: leave them out')
    chains, batch_size = check_int(chains, "chains", 1), check_int(batch_size, "batch_size", 1)
    x, y = (t.double() if t.is_floating_point() else t for t in data)
    index = blocks_of(net, structure, layers)
    size = len(positions(net))
    if method == "plugin" and size > largest:
        raise ValueError(
            f'method="plugin" needs matrices of {size} parameters, several of {8e-9 * size**2:.2g} GB each, and '
            f'largest={largest}: take method="online_batch_means" with structure="neuron" or "diagonal", or raise largest='
        )
    rate = _rate(net, (x, y), loss, rate, optimizer)
    if method == "plugin":
        found = PlugIn(net, (x, y), loss, index, curvature)
    elif method == "batch_means":
        found = BatchMeans(index, steps, alpha, batches)
    else:
        found = OnlineBatchMeans(index, alpha)
    average = _descend(net, (x, y), loss, found, steps, rate, alpha, batch_size, chains, generator, progress)
    covs = found.covariances(average)
    _warn_if_few(found, index, steps)
    blocks = [Block(i, cov * (batch_size / (count * chains))) for i, cov in zip(index, covs)]
    report = {"method": method, "n": count, "steps": steps, "rate": rate, "alpha": alpha, "chains": chains}
    mean = flatten(net) + average.mean(0)
    return GaussianPosterior(copied(model), mean, tuple(blocks), report | found.report())


def _descend(net, data, loss, found, steps, rate, alpha, batch_size, chains, generator, progress) -> Tensor:
    """Run all chains; the mean of each, measured from the start, (chains, p)."""
    shapes = {k: p.shape for k, p in net.named_parameters()}
    start = {k: p.detach().expand(chains, *p.shape).clone() for k, p in trainable(net).items()}
    stack = stack_of(net, start, *data, loss, [0] * chains)

    def together(flat):
        views = stack.named(flat)
        parts = [views[k] if k in views else flat.new_zeros(chains, *shape) for k, shape in shapes.items()]
        return torch.cat([part.reshape(chains, -1) for part in parts], 1)

    begin = together(stack.flat).clone()
    total = torch.zeros(chains, len(flatten(net)), dtype=torch.float64)
    away = total.clone()  # small numbers, whose squares lose nothing
    for i in progress(range(1, steps + 1)):
        drawn = torch.randint(len(data[0]), (chains, batch_size), generator=generator)
        stack.gradient(drawn)
        gradient = together(stack.grad)
        found.before(away, gradient, drawn)
        step = rate * i**-alpha
        away = away - step * gradient
        stack.flat.sub_(stack.grad, alpha=step)
        if isinstance(net, Bounded):
            net.keep_bounds(stack.named(stack.flat))
            away = together(stack.flat) - begin
        total += away
        found.after(i, away)
        if i % 1000 == 0 and not torch.isfinite(away).all():
            break
    if not torch.isfinite(away).all():
        raise ValueError(f"rate {rate:.3g} is too large, the descent ran away by step {i}: name a smaller one")
    return total / steps


def _rate(net, data, loss, rate, optimizer) -> float:
    if optimizer is not None:
        check_callable(optimizer, "optimizer", "of a list of tensors, such as partial(torch.optim.SGD, lr=0.1)")
        made = optimizer([nn.Parameter(torch.zeros(1))])
        plain = type(made) is torch.optim.SGD and not any(made.defaults[k] for k in ("momentum", "weight_decay"))
        if not plain or rate is not None:
            raise ValueError(
                f"optimizer must be plain SGD and name the rate alone, got {type(made).__name__}: the limit law of the "
                "averaged path holds for no other; leave it out and give rate="
            )
        rate = made.defaults["lr"]
    if rate is None:
        return 1 / max(gauss_newton_trace(net, data, loss), 1e-12)
    rate = check_real(rate, "rate")
    return float(rate)


def _warn_if_few(found, index: Sequence[Tensor], steps: int) -> None:
    widest, batches = max(i.shape[1] for i in index), found.report().get("batches")
    if batches is not None and batches < widest:
        warnings.warn(
            f"{batches} batches of {steps} steps cannot fill a covariance of {widest} parameters, which is singular: take "
            'method="plugin", more steps, or structure="neuron" or "diagonal"',
            RuntimeWarning,
            stacklevel=3,
        )
