"""Training an ensemble: members side by side, each on its own data, in its own order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..checks import check_int, check_progress, n_examples
from ..door import Checked
from ..network.facts import gradient_hooks, trainable
from ..network.loss import loss_kind
from ..network.modules import copied
from .convergence import finish as finish_members
from .dense import DenseStack, dense_layers
from .ensemble import Ensemble
from .options import Bounded, Data, Loss, Optimizer, TrainingOptions, make_optimizer, training_copy
from .stacks import BatchedStack, LoopedStack, Stack
from .starts import drawn_seed, member_seeds, seeds_from, spawn, start_of

__all__ = [
    "drawn_seed",
    "failures",
    "fit",
    "has_gradient_by_hand",
    "member_seeds",
    "seeds_from",
    "spawn",
    "stack_of",
    "train_ensemble",
    "train_members",
]


def train_ensemble(
    model: nn.Module,
    data: Data,
    loss: Loss,
    n_models: int,
    *,
    output: int | str | Callable | None = None,
    init: str | Callable[[nn.Module], object] = "shared",
    order: str = "own",
    resample: Tensor | None = None,
    weights: Tensor | None = None,
    epochs: int | None = None,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    seeds: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Ensemble:
    """Train `n_models` copies of a module side by side; the result is that of training them one after another.

    Stacks of Linear layers with ReLU, tanh or sigmoid under `F.mse_loss` or `F.cross_entropy` take a path
    without autograd; other modules are batched by `torch.func.vmap`, and what it cannot batch runs in a loop.
    Batch normalisation in training mode uses the statistics of the batch and each member gathers its own; in evaluation
    mode it keeps those of `model`. The parameters of a module with a method `keep_bounds`, as `Bounded` has it, are
    brought back to their bounds after each step.

    Args:
        data: inputs and targets, each a tensor or a tuple, list or dictionary of tensors, the example first. A tuple of
            inputs is handed on as ``model(*inputs)``, a dictionary as ``model(**inputs)``; the loss sees outputs and
            targets as they are. Strided views such as `windows` gives are never copied
        loss: (output, target) -> mean over the batch; class weights may make it a weighted mean, unless `weights` are given
        output: which output of the network the loss reads: an index, a key, an attribute or a function of all of them
        init: "shared" starts all members from the weights of `model`; "independent" draws new ones for each, by
            ``reset_parameters`` of its modules; a function of a module, such as one that you `apply`, draws them itself
        order: "own" shuffles the examples for each member by itself, "shared" in the same order for all
        resample: (n_models, k) indices of the examples that each member sees in place of the data
        weights: (n_models, n) how often each example counts; the mean of each member's must be one
        epochs: passes over the data, by default as many as give 3000 steps of the optimiser, and at least 20
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
    check_int(n_models, "n_models", 1)
    check_progress(progress)
    options = TrainingOptions(init, order, epochs, batch_size, optimizer, validation, patience)
    seen = None if resample is None else _check_resample(resample, n_models)
    given, options = options.checked(model, data, loss, seen=seen, output=output)
    n = n_examples(given.data[0])
    if resample is not None and weights is not None:
        raise ValueError("weights and resample each say how often an example counts, got both: give one of them")
    if resample is not None and (int(resample.min()) < 0 or int(resample.max()) >= n):
        raise ValueError(f"resample must hold indices of examples from 0 to {n - 1}, got {_range(resample)}")
    if weights is not None:
        _check_weights(weights, n_models, n)
    members = _seeds(n_models, seeds, generator)
    return train_members(model, given, members, options, resample, weights, progress)


def _seeds(n_models: int, seeds, generator: torch.Generator | None) -> list[int]:
    if seeds is None:
        return member_seeds(n_models, generator)
    if generator is not None:
        raise ValueError("seeds take the place of generator, got both: give one of them")
    given = seeds.tolist() if isinstance(seeds, Tensor) else seeds
    if not isinstance(given, Sequence):
        raise ValueError(f"seeds must be {n_models} whole numbers, one for each member, got {seeds!r:.80}")
    seeds = [check_int(s, "seeds", 0) for s in given]
    if len(seeds) != n_models:
        raise ValueError(f"seeds must be {n_models}, one for each member, got {len(seeds)}")
    return seeds


def _check_resample(resample, n_models: int) -> int:
    """Return how many examples a member sees."""
    whole = isinstance(resample, Tensor) and resample.dtype == torch.int64 and resample.ndim == 2
    if not whole or len(resample) != n_models or not resample.shape[1]:
        came = f"{resample.dtype} of shape {tuple(resample.shape)}" if isinstance(resample, Tensor) else repr(resample)
        raise ValueError(f"resample must be ({n_models}, k) indices of type int64, got {came:.80}")
    return resample.shape[1]


def _check_weights(weights, n_models: int, n: int) -> None:
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.shape != (n_models, n):
        came = f"{weights.dtype} of shape {tuple(weights.shape)}" if isinstance(weights, Tensor) else repr(weights)
        raise ValueError(f"weights must be ({n_models}, {n}) floating point numbers, got {came:.80}")
    if not (weights >= 0).all() or not torch.allclose(weights.mean(1), weights.new_ones(()), rtol=1e-3):
        raise ValueError(
            f"weights must not be negative and have the mean 1 for each member, got {_range(weights)} and means up to "
            f"{float(weights.mean(1).max()):.3g}: divide them by their mean"
        )


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"


def fit(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    output: int | str | Callable | None = None,
    init: str | Callable[[nn.Module], object] = "shared",
    weights: Tensor | None = None,
    epochs: int | None = None,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> nn.Module:
    """Train one network, an ensemble of one: a new module, `model` stays as it was.

    Args:
        weights: (n,) how often each example counts, of mean 1
        output, init, epochs, batch_size, optimizer, validation, patience, generator, progress: as in `train_ensemble`

    Raises:
        ValueError: when the training diverged
    """
    if isinstance(weights, Tensor):
        weights = weights[None]
    ensemble = train_ensemble(
        model, data, loss, 1, output=output, weights=weights, init=init, epochs=epochs,
        batch_size=batch_size, optimizer=optimizer, validation=validation, patience=patience, generator=generator,
        progress=progress,
    )  # fmt: skip
    if ensemble.report["failed"][0]:
        raise ValueError(f"training diverged to the loss {float(ensemble.report['loss'][0])}: lower the learning rate")
    return ensemble[0].train(model.training)


def train_members(
    model: nn.Module,
    given: Checked,
    seeds: Sequence[int],
    options: TrainingOptions,
    resample: Tensor | None = None,
    weights: Tensor | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
    *,
    finish: bool = False,
) -> Ensemble:
    """Train a member for each seed; everything was checked before.

    Args:
        model: the network that the user gave, whose copy the ensemble holds
        given: what passed the door
        finish: whether each member is then brought to the minimum on its own data, see `descend`
    """
    template, loss = training_copy(given.model), given.loss if weights is None else given.mean_loss()
    starts = [start_of(template, options.init, seed) for seed in seeds]
    parameters, buffers = ({k: torch.stack([s[i][k] for s in starts]) for k in starts[0][i]} for i in (0, 1))
    free = {k: parameters[k] for k in trainable(template)}
    stack = stack_of(template, free, *given.data, loss, seeds, buffers, gradient_hooks(model))
    n = n_examples(given.data[0])
    report = _descend(stack, Batches(n, seeds, options, resample, weights), options, progress)
    if finish:
        bounded = template if isinstance(template, Bounded) else None
        first, kept = ({k: v[:1] for k, v in kind.items()} for kind in (free, buffers))
        base = stack_of(template, first, *given.data, loss, seeds[:1], kept, gradient_hooks(model))
        report["gradient"] = finish_members(base, stack, resample, weights, bounded=bounded)
    report = {"loss": stack.losses(*given.data), **report}
    report["failed"] = ~torch.isfinite(report["loss"])
    return Ensemble(copied(model), parameters | stack.parameters(), buffers | stack.buffers, report)


def stack_of(template: nn.Module, parameters, x, y, loss, seeds, buffers=None, hooks=None) -> Stack:
    """Return the fastest stack that trains these parameters of a module on these data; `hooks` are `gradient_hooks`."""
    if not hooks and has_gradient_by_hand(template, parameters, x, y, loss):
        return DenseStack(template, parameters, x, y, loss)
    if not any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 and m.training for m in template.modules()):
        stack = BatchedStack(template, parameters, x, y, loss, buffers, hooks=hooks)
        before = {k: v.clone() for k, v in stack.buffers.items()}
        try:
            # two examples, as batch normalisation wants
            stack.gradient(torch.zeros(stack.size, min(2, n_examples(x)), dtype=torch.long))
            stack.outputs(tree_map(lambda t: t[:1], x))
            stack.buffers = before  # the trial has moved the statistics of batch normalisation
            return stack
        except (RuntimeError, ValueError, NotImplementedError):  # no batching rule, or a data-dependent branch
            pass
    return LoopedStack(template, parameters, x, y, loss, buffers, seeds, hooks)


def has_gradient_by_hand(template: nn.Module, parameters, x, y, loss) -> bool:
    """Return whether a network is dense layers, all of them free and without hooks, and the loss one that is known."""
    kind, dtype = loss_kind(loss), next(iter(parameters.values())).dtype
    if kind is None or not isinstance(x, Tensor) or not isinstance(y, Tensor) or not dense_layers(template):
        return False
    if len(parameters) < len(list(template.parameters())):
        return False
    fits = (y.ndim == 2 and y.dtype == dtype) if kind == "mse" else y.ndim == 1 and int(y.min()) >= 0
    return fits and x.ndim == 2 and x.dtype == dtype


def failures(loss: Tensor, least: float = 0.0) -> Tensor:
    """Return which members did not converge, (N,): a loss that is not finite, or above three times the median.

    A loss that can be negative, such as a negative logarithm of a density, has no such ratio: there the limit is ten
    times the distance between the quartiles above the median.

    Args:
        least: a loss that no member fails with, whatever the others have
    """
    finite = loss[torch.isfinite(loss)]
    if not len(finite):
        return torch.ones_like(loss, dtype=torch.bool)
    limit = 3 * finite.median() + torch.finfo(loss.dtype).tiny
    if finite.min() < 0:
        low, high = finite.quantile(finite.new_tensor([0.25, 0.75]))
        limit = finite.median() + 10 * (high - low) + 1e-6 * finite.abs().max()
    return ~torch.isfinite(loss) | (loss > limit.clamp(min=least))


class Batches:
    """The minibatches of an epoch, each member's in its own order, or all in one."""

    def __init__(self, n: int, seeds: Sequence[int], options: TrainingOptions, resample=None, weights=None):
        self.drawn = torch.arange(n).expand(len(seeds), n) if resample is None else resample
        self.weights, self.batch_size = weights, options.batch_size
        keys = seeds if options.order == "own" else [0]
        self.streams = [torch.Generator().manual_seed(spawn(s, 2)) for s in keys]

    def epoch(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the indices (N, B) of examples and how often they count, (N, B) or None."""
        shuffled = torch.stack([torch.randperm(self.drawn.shape[1], generator=g) for g in self.streams])
        chosen = self.drawn.gather(1, shuffled.expand(len(self.drawn), -1))
        for index in chosen.split(self.batch_size, dim=1):
            yield index, None if self.weights is None else self.weights.gather(1, index)


def _descend(stack: Stack, batches: Batches, options: TrainingOptions, progress) -> dict[str, Tensor]:
    optimizer = make_optimizer(options.optimizer, stack.flat)
    best = None if options.validation is None else Best(stack, options.validation, options.patience)
    bounded = stack.template if isinstance(stack.template, Bounded) else None
    for k in progress(range(options.epochs)):
        for index, weight in batches.epoch():
            stack.gradient(index, weight)
            optimizer.step()
            if bounded is not None:
                bounded.keep_bounds(stack.named(stack.flat))
        if best is not None and best.finished(k + 1):
            break
    return {} if best is None else best.restore()


class Best:
    """The best parameters that each member has had on held-out data."""

    def __init__(self, stack: Stack, validation: Data, patience: int | None):
        self.stack, self.validation, self.patience = stack, validation, patience
        self.loss = stack.losses(*validation)
        self.flat, self.epoch = stack.flat.detach().clone(), torch.zeros(stack.size, dtype=torch.long)
        self.fixed = {k: v.clone() for k, v in stack.buffers.items()}
        self.running = torch.ones(stack.size, dtype=torch.bool)

    def finished(self, epoch: int) -> bool:
        """Keep what has become better, and return whether no member runs any more."""
        loss = self.stack.losses(*self.validation)
        better = self.running & (loss < self.loss)
        current = self.stack.flat.detach().clone()
        self.stack.copy_where(~better, self.flat)  # the stack now holds the best of each member
        self.flat.copy_(self.stack.flat)
        self.stack.flat.copy_(current)
        for name, held in self.fixed.items():
            held[better] = self.stack.buffers[name][better]
        self.loss, self.epoch = torch.where(better, loss, self.loss), torch.where(better, epoch, self.epoch)
        if self.patience is not None:
            self.running &= epoch - self.epoch < self.patience
        return not self.running.any()

    def restore(self) -> dict[str, Tensor]:
        """Put the best back into the stack, and return its report."""
        self.stack.flat.copy_(self.flat)
        self.stack.buffers.update(self.fixed)
        return {"validation": self.loss, "epochs": self.epoch}
