"""Training an ensemble: members side by side, each on its own data, in its own order."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from ..checks import check_data, check_int
from .ensemble import Ensemble
from .stacks import stack_of

__all__ = ["Data", "Loss", "failures", "fit", "member_seeds", "spawn", "train_ensemble"]

Data = tuple[Tensor, Tensor]  # inputs, targets; the first axis is the example
Loss = Callable[[Tensor, Tensor], Tensor]  # (output, target) -> mean over the batch
NOT_ELEMENTWISE = ("LBFGS", "Muon", "Adafactor", "SparseAdam")


def member_seeds(n_models: int, generator: torch.Generator | None = None) -> list[int]:
    """A seed for each member, so that member i is the same however many there are: (n_models,).

    Reads one number from the generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator, such as seeded(0), or None, got {generator!r}")
    base = int(torch.randint(2**62, (1,), generator=generator))
    return [spawn(base, i) for i in range(n_models)]


def spawn(*keys: int) -> int:
    """A seed that depends on all the keys: streams with different keys share nothing."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 2)


def train_ensemble(
    model: nn.Module,
    data: Data,
    loss: Loss,
    n_models: int,
    *,
    init: str = "shared",
    order: str = "own",
    resample: Tensor | None = None,
    weights: Tensor | None = None,
    epochs: int = 20,
    batch_size: int = 16,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    seeds: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Ensemble:
    """Train `n_models` copies of a module side by side; the result is that of training them one after another.

    Stacks of Linear layers with ReLU, tanh or sigmoid under `F.mse_loss` or `F.cross_entropy` take a path
    without autograd; other modules are batched by `torch.func.vmap`, and what it cannot batch runs in a loop.
    Batch normalisation in training mode goes by the batch and each member gathers statistics of its own; in evaluation
    mode it keeps those of `model`. A module that has a method `keep_bounds` is asked after each step to bring the
    parameters it is given, (N, ...) by name, back to where they may be.

    Args:
        data: inputs and targets, the example first; strided views such as `windows` gives are never copied
        loss: (output, target) -> mean over the batch
        init: "shared" starts all members from the weights of `model`; "independent" draws new ones for each
        order: "own" shuffles the examples for each member by itself, "shared" in the same order for all
        resample: (n_models, k) indices of the examples that each member sees in place of the data
        weights: (n_models, n) how often each example counts; their mean should be one
        optimizer: a function of a list of tensors, such as ``partial(torch.optim.SGD, lr=0.1)``, that treats
            every number by itself; default Adam with rate 1e-3
        validation: held-out data; each member keeps its best parameters, and stops when `patience` epochs
            bring none better
        seeds: one for each member, in place of `generator`
        progress: wraps the loop over epochs, such as ``tqdm``

    Returns:
        an `Ensemble` whose report holds "loss", the mean over `data` in the end, and "failed", where it is not
        finite; with `validation` also "validation" and "epochs"
    """
    _check(model, data, loss, n_models, init, order, resample, weights, epochs, batch_size, validation, patience)
    seeds = member_seeds(n_models, generator) if seeds is None else list(seeds)
    if len(seeds) != n_models:
        raise ValueError(f"seeds must be {n_models}, one for each member, got {len(seeds)}")
    template = _awake(model)
    x, y = data
    starts = [_start(template, init, seed) for seed in seeds]
    parameters, buffers = ({k: torch.stack([s[i][k] for s in starts]) for k in starts[0][i]} for i in (0, 1))
    stack = stack_of(template, parameters, x, y, loss, seeds, buffers)
    epoch = _batches(len(x), seeds, order, resample, weights, batch_size)
    best = _train(stack, epoch, epochs, optimizer, validation, patience, progress)
    report = {"loss": stack.losses(x, y), **best}
    report["failed"] = ~torch.isfinite(report["loss"])
    return Ensemble(copy.deepcopy(model), stack.parameters(), buffers | stack.fixed, report)


def fit(model: nn.Module, data: Data, loss: Loss, **options) -> nn.Module:
    """Train one network, an ensemble of one: a new module, `model` stays as it was.

    Options as in `train_ensemble`. Raises ValueError when the training diverged.
    """
    ensemble = train_ensemble(model, data, loss, 1, **options)
    if ensemble.report["failed"][0]:
        raise ValueError(f"training diverged to the loss {float(ensemble.report['loss'][0])}: lower the learning rate")
    return ensemble[0].train(model.training)


def failures(loss: Tensor) -> Tensor:
    """Which members did not converge, (N,): a loss that is not finite, or above three times the median.

    A loss that can be negative, such as a negative logarithm of a density, has no such ratio: there the limit is ten
    times the distance between the quartiles above the median.
    """
    finite = loss[torch.isfinite(loss)]
    if not len(finite):
        return torch.ones_like(loss, dtype=torch.bool)
    limit = 3 * finite.median() + torch.finfo(loss.dtype).tiny
    if finite.min() < 0:
        low, high = finite.quantile(finite.new_tensor([0.25, 0.75]))
        limit = finite.median() + 10 * (high - low) + 1e-6 * finite.abs().max()
    return ~torch.isfinite(loss) | (loss > limit)


def _awake(model: nn.Module) -> nn.Module:
    """A copy in training mode, but for normalisations whose statistics were put to rest."""
    template = copy.deepcopy(model).train()
    for ours, theirs in zip(template.modules(), model.modules()):
        if isinstance(theirs, nn.modules.batchnorm._NormBase):
            ours.training = theirs.training
    return template


def _start(template: nn.Module, init: str, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers; a parametrized weight may start from a buffer, as an orthonormal one does."""
    if init == "shared":
        return tuple({k: v.detach().clone() for k, v in named} for named in _state(template))
    fresh = copy.deepcopy(template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spawn(seed, 1))
        for module in fresh.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        for ours, theirs in zip(fresh.modules(), template.modules()):
            if isinstance(theirs, nn.modules.batchnorm._NormBase):  # its statistics come from data
                for name, held in theirs.named_buffers(recurse=False):
                    getattr(ours, name).copy_(held)
    return tuple({k: v.detach() for k, v in named} for named in _state(fresh))


def _state(model: nn.Module):
    return model.named_parameters(), model.named_buffers()


def _batches(n: int, seeds, order: str, resample, weights, batch_size: int):
    """A function that gives the minibatches of the next epoch: (index (N, B), weight (N, B) or None)."""
    drawn = torch.arange(n).expand(len(seeds), n) if resample is None else resample
    streams = [torch.Generator().manual_seed(spawn(s, 2)) for s in (seeds if order == "own" else [0])]

    def epoch():
        shuffled = torch.stack([torch.randperm(drawn.shape[1], generator=g) for g in streams])
        chosen = drawn.gather(1, shuffled.expand(len(seeds), -1))
        for index in chosen.split(batch_size, dim=1):
            yield index, None if weights is None else weights.gather(1, index)

    return epoch


def _train(stack, epoch, epochs, optimizer, validation, patience, progress) -> dict[str, Tensor]:
    if optimizer is not None and not callable(optimizer):
        raise ValueError(
            "optimizer must be a function of a list of tensors, such as partial(torch.optim.SGD, lr=0.1), got "
            f"{type(optimizer).__name__}"
        )
    move = FusedAdam(stack.flat) if optimizer is None else optimizer([stack.flat])
    if type(move).__name__ in NOT_ELEMENTWISE:
        raise ValueError(f"optimizer {type(move).__name__} mixes parameters, and so the members: take Adam or SGD")
    watch = None if validation is None else _Best(stack, validation, patience)
    keep_bounds = getattr(stack.template, "keep_bounds", None)
    for k in progress(range(epochs)):
        for index, weight in epoch():
            stack.gradient(index, weight)
            move.step()
            if keep_bounds is not None:
                keep_bounds(stack.named(stack.flat))
        if watch is not None and watch.finished(k + 1):
            break
    return {} if watch is None else watch.restore()


class FusedAdam:
    """`torch.optim.Adam` at its defaults, bit for bit, without the bookkeeping that costs half a small step."""

    def __init__(self, flat: Tensor):
        self.flat, self.mean, self.square = flat, torch.zeros_like(flat), torch.zeros_like(flat)
        self.count = torch.zeros((), dtype=torch.float32)
        self.rule = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}

    def step(self) -> None:
        """Move ``flat`` by its gradient."""
        state = [self.mean], [self.square], [], [self.count]
        adam([self.flat], [self.flat.grad], *state, fused=True, amsgrad=False, maximize=False, **self.rule)


class _Best:
    """The best parameters that each member has had on held-out data."""

    def __init__(self, stack, validation: Data, patience: int | None):
        self.stack, self.validation, self.patience = stack, validation, patience
        self.loss = stack.losses(*validation)
        self.flat, self.epoch = stack.flat.detach().clone(), torch.zeros(stack.size, dtype=torch.long)
        self.fixed = {k: v.clone() for k, v in stack.fixed.items()}
        self.running = torch.ones(stack.size, dtype=torch.bool)

    def finished(self, epoch: int) -> bool:
        loss = self.stack.losses(*self.validation)
        better = self.running & (loss < self.loss)
        current = self.stack.flat.detach().clone()
        self.stack.copy_where(~better, self.flat)  # the stack now holds the best of each member
        self.flat.copy_(self.stack.flat)
        self.stack.flat.copy_(current)
        for name, held in self.fixed.items():
            held[better] = self.stack.fixed[name][better]
        self.loss, self.epoch = torch.where(better, loss, self.loss), torch.where(better, epoch, self.epoch)
        if self.patience is not None:
            self.running &= epoch - self.epoch < self.patience
        return not self.running.any()

    def restore(self) -> dict[str, Tensor]:
        self.stack.flat.copy_(self.flat)
        self.stack.fixed.update(self.fixed)
        return {"validation": self.loss, "epochs": self.epoch}


def _check(
    model, data, loss, n_models, init, order, resample, weights, epochs, batch_size, validation, patience
) -> None:
    """Everything that could stop a long training late, said before it begins."""
    for what, pair in (("data", data), ("validation", validation)):
        if pair is not None:
            check_data(pair, what)
    n = len(data[0])
    for name, value, least in (("n_models", n_models, 1), ("epochs", epochs, 0), ("batch_size", batch_size, 1)):
        check_int(value, name, least)
    for name, value, known in (("init", init, ("shared", "independent")), ("order", order, ("own", "shared"))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if resample is not None and (resample.shape[0] != n_models or resample.min() < 0 or resample.max() >= n):
        raise ValueError(f"resample must be ({n_models}, k) indices below {n}, got shape {tuple(resample.shape)}")
    if weights is not None and (weights.shape != (n_models, n) or not (weights >= 0).all()):
        raise ValueError(f"weights must be ({n_models}, {n}) and not negative, got shape {tuple(weights.shape)}")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation=(inputs, targets), held-out data to be patient about")
    _check_model(model, data, loss, gathers=True)
    seen = n if resample is None else resample.shape[1]
    if epochs and 1 in (batch_size, seen % batch_size):
        _check_alone(model, data[0][:1], batch_size)


def _check_alone(model: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuses batch normalisation over one number, as the last batch, or every one, would have."""
    alone = _awake(model)
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in alone.modules()):
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            alone(x)
    except ValueError as why:
        raise ValueError(
            f"batch_size {batch_size} makes a batch of one example, which batch normalisation cannot take ({why}): take "
            "another size, or model.eval() to keep the statistics it has"
        ) from why


def _check_model(model: nn.Module, data: Data, loss: Loss, *, gathers: bool = False) -> None:
    """`gathers`: whether the training to come can gather statistics for batch normalisation."""
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    if gathers:
        norms = [n for n in norms if not model.get_submodule(n).track_running_stats]
    if norms:
        raise ValueError(
            f"model has batch normalisation ({norms[0]}), which makes an answer depend on the rest of the batch: use "
            "GroupNorm or LayerNorm, or model.eval() to keep the statistics it has"
        )
    if not any(True for _ in model.parameters()):
        raise ValueError("model has no parameters to train")
    x, y = data
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch goes on, each with every other
            value = loss(copy.deepcopy(model).eval()(x[:2]), y[:2])
    except UserWarning as why:
        raise ValueError(f"targets must have the shape of the answers, got (N, ...) = {tuple(y.shape)}: {why}") from why
    except (RuntimeError, IndexError, TypeError) as why:
        raise ValueError(f"model and loss do not fit the data {tuple(x.shape)}, {tuple(y.shape)}: {why}") from why
    if value.ndim:
        raise ValueError(f"loss must be the mean over the batch, a scalar, got shape {tuple(value.shape)}")
    if value.isnan():
        warnings.warn("the loss of the untrained model is not a number", RuntimeWarning, stacklevel=4)
