"""Training an ensemble: members side by side, each on its own data, in its own order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..checks import check_int, n_examples
from ..network.loss import loss_kind
from .dense import DenseStack, dense_layers
from .ensemble import Ensemble
from .options import Bounded, Data, Loss, Optimizer, TrainingOptions, make_optimizer, training_copy
from .stacks import BatchedStack, LoopedStack, Stack

__all__ = ["failures", "fit", "member_seeds", "spawn", "stack_of", "train_ensemble", "train_members"]


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
    options = TrainingOptions(init, order, epochs, batch_size, optimizer, validation, patience)
    check_int(n_models, "n_models", 1)
    data, options = options.checked(model, data, loss, None if resample is None else resample.shape[-1])
    n = n_examples(data[0])
    if resample is not None and (resample.shape[0] != n_models or resample.min() < 0 or resample.max() >= n):
        raise ValueError(f"resample must be ({n_models}, k) indices below {n}, got shape {tuple(resample.shape)}")
    if weights is not None and (weights.shape != (n_models, n) or not (weights >= 0).all()):
        raise ValueError(f"weights must be ({n_models}, {n}) and not negative, got shape {tuple(weights.shape)}")
    seeds = member_seeds(n_models, generator) if seeds is None else list(seeds)
    if len(seeds) != n_models:
        raise ValueError(f"seeds must be {n_models}, one for each member, got {len(seeds)}")
    return train_members(model, data, loss, seeds, options, resample, weights, progress)


def fit(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    init: str = "shared",
    weights: Tensor | None = None,
    epochs: int = 20,
    batch_size: int = 16,
    optimizer: Optimizer | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> nn.Module:
    """Train one network, an ensemble of one: a new module, `model` stays as it was.

    Args:
        weights: (n,) how often each example counts
        init, epochs, batch_size, optimizer, validation, patience, generator, progress: as in `train_ensemble`

    Raises:
        ValueError: when the training diverged
    """
    ensemble = train_ensemble(
        model, data, loss, 1, weights=None if weights is None else weights[None], init=init, epochs=epochs,
        batch_size=batch_size, optimizer=optimizer, validation=validation, patience=patience, generator=generator,
        progress=progress,
    )  # fmt: skip
    if ensemble.report["failed"][0]:
        raise ValueError(f"training diverged to the loss {float(ensemble.report['loss'][0])}: lower the learning rate")
    return ensemble[0].train(model.training)


def train_members(
    model: nn.Module,
    data: Data,
    loss: Loss,
    seeds: Sequence[int],
    options: TrainingOptions,
    resample: Tensor | None = None,
    weights: Tensor | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Ensemble:
    """Train a member for each seed; everything was checked before."""
    template = training_copy(model)
    starts = [_start(template, options.init, seed) for seed in seeds]
    parameters, buffers = ({k: torch.stack([s[i][k] for s in starts]) for k in starts[0][i]} for i in (0, 1))
    stack = stack_of(template, parameters, *data, loss, seeds, buffers)
    best = _descend(stack, Batches(n_examples(data[0]), seeds, options, resample, weights), options, progress)
    report = {"loss": stack.losses(*data), **best}
    report["failed"] = ~torch.isfinite(report["loss"])
    return Ensemble(copy.deepcopy(model), stack.parameters(), buffers | stack.fixed, report)


def stack_of(template: nn.Module, parameters, x, y, loss, seeds, buffers=None) -> Stack:
    """Return the fastest stack that trains this module on these data."""
    if _has_gradient_by_hand(template, next(iter(parameters.values())).dtype, x, y, loss):
        return DenseStack(template, parameters, x, y, loss)
    if not any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in template.modules()):
        stack = BatchedStack(template, parameters, x, y, loss, buffers)
        before = {k: v.clone() for k, v in stack.fixed.items()}
        try:
            # two examples, as batch normalisation wants
            stack.gradient(torch.zeros(stack.size, min(2, n_examples(x)), dtype=torch.long))
            stack.outputs(tree_map(lambda t: t[:1], x))
            stack.fixed = before  # the trial has moved the statistics of batch normalisation
            return stack
        except (RuntimeError, ValueError):  # no batching rule, or a data-dependent branch
            pass
    return LoopedStack(template, parameters, x, y, loss, buffers, seeds)


def _has_gradient_by_hand(template: nn.Module, dtype: torch.dtype, x, y, loss) -> bool:
    kind = loss_kind(loss)
    if kind is None or not isinstance(x, Tensor) or not isinstance(y, Tensor) or not dense_layers(template):
        return False
    fits = (y.ndim == 2 and y.dtype == dtype) if kind == "mse" else y.ndim == 1
    return fits and x.ndim == 2 and x.dtype == dtype


def member_seeds(n_models: int, generator: torch.Generator | None = None) -> list[int]:
    """Return a seed for each member, (n_models,), so that member i is the same however many there are.

    Reads one number from the generator.
    """
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator, such as seeded(0), or None, got {generator!r}")
    base = int(torch.randint(2**62, (1,), generator=generator))
    return [spawn(base, i) for i in range(n_models)]


def spawn(*keys: int) -> int:
    """Return a seed that depends on all the keys: streams with different keys share nothing."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 2)


def failures(loss: Tensor) -> Tensor:
    """Return which members did not converge, (N,): a loss that is not finite, or above three times the median.

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


def _start(template: nn.Module, init: str, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return parameters and buffers; a parametrized weight may start from a buffer, as an orthonormal one does."""
    fresh = template
    if init == "independent":
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
    parameters, buffers = (
        {k: v.detach().clone() for k, v in named} for named in (fresh.named_parameters(), fresh.named_buffers())
    )
    return parameters, buffers


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
        self.fixed = {k: v.clone() for k, v in stack.fixed.items()}
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
            held[better] = self.stack.fixed[name][better]
        self.loss, self.epoch = torch.where(better, loss, self.loss), torch.where(better, epoch, self.epoch)
        if self.patience is not None:
            self.running &= epoch - self.epoch < self.patience
        return not self.running.any()

    def restore(self) -> dict[str, Tensor]:
        """Put the best back into the stack, and return its report."""
        self.stack.flat.copy_(self.flat)
        self.stack.fixed.update(self.fixed)
        return {"validation": self.loss, "epochs": self.epoch}
