"""How members are trained, and what is refused before a long training begins."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.utils._pytree import tree_leaves

from ..checks import arguments, check_data, check_int, n_examples, take
from ..network.modules import batch_norms

__all__ = ["Bounded", "Data", "Loss", "Optimizer", "TrainingOptions", "check_model", "make_optimizer", "training_copy"]

Data = tuple[Any, Any]  # inputs and targets, each a tensor or a tuple, list or dictionary of tensors: see `check_data`
Loss = Callable[[Any, Any], Tensor]  # (output, target) -> mean over the batch
Optimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
NOT_ELEMENTWISE = ("LBFGS", "Muon", "Adafactor", "SparseAdam")


@runtime_checkable
class Bounded(Protocol):
    """A module whose parameters have bounds: training calls `keep_bounds` after each step of the optimiser."""

    def keep_bounds(self, parameters: Mapping[str, Tensor]) -> None:
        """Bring parameters (N, ...) of N members, by name, back to where they may be, in place."""


@dataclass(frozen=True)
class TrainingOptions:
    """How members are trained: the options of `train_ensemble` of these names."""

    init: str = "shared"
    order: str = "own"
    epochs: int = 20
    batch_size: int = 16
    optimizer: Optimizer | None = None
    validation: Data | None = None
    patience: int | None = None

    def checked(
        self, model: nn.Module, data: Data, loss: Loss, seen: int | None = None
    ) -> tuple[Data, TrainingOptions]:
        """Return data and options as tensors, or refuse what would stop a long training late.

        Args:
            seen: number of examples that each member sees, by default all
        """
        data = check_data(data)
        held = None if self.validation is None else check_data(self.validation, "validation")
        check_int(self.epochs, "epochs", 0), check_int(self.batch_size, "batch_size", 1)
        for name, value, known in (
            ("init", self.init, ("shared", "independent")),
            ("order", self.order, ("own", "shared")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.patience is not None and held is None:
            raise ValueError("patience needs validation=(inputs, targets), held-out data to stop by")
        check_model(model, data, loss, gathers=True)
        make_optimizer(self.optimizer, torch.zeros(1))
        if self.epochs and 1 in (self.batch_size, (seen or n_examples(data[0])) % self.batch_size):
            check_alone(model, data[0], self.batch_size)
        return data, replace(self, validation=held)


def make_optimizer(make: Optimizer | None, flat: Tensor):
    """Return the optimiser of a flat tensor, or refuse one that mixes its numbers."""
    if make is None:
        return FusedAdam(flat)
    if not callable(make):
        raise ValueError(
            "optimizer must be a function of a list of tensors, such as partial(torch.optim.SGD, lr=0.1), got "
            f"{type(make).__name__}"
        )
    optimizer = make([flat])
    if type(optimizer).__name__ in NOT_ELEMENTWISE:
        raise ValueError(f"optimizer {type(optimizer).__name__} mixes parameters, and so the members: take Adam or SGD")
    return optimizer


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


def training_copy(model: nn.Module) -> nn.Module:
    """Return a copy in training mode, but for normalisations that are in evaluation mode."""
    template = copy.deepcopy(model).train()
    for ours, theirs in zip(template.modules(), model.modules()):
        if isinstance(theirs, nn.modules.batchnorm._NormBase):
            ours.training = theirs.training
    return template


def check_model(model: nn.Module, data: Data, loss: Loss, *, gathers: bool = False, level: int = 5) -> None:
    """Refuse a model and a loss that do not fit each other or the data.

    Args:
        gathers: whether the training to come can gather statistics for batch normalisation
        level: how many calls lie between a warning and the user
    """
    found = batch_norms(model, training=True)
    norms = [name for name, norm in found.items() if not (gathers and norm.track_running_stats)]
    if norms:
        raise ValueError(
            f"model has batch normalisation ({norms[0]}), which makes an output depend on the rest of the batch: use "
            "GroupNorm or LayerNorm, or model.eval() to keep the statistics it has"
        )
    if not any(True for _ in model.parameters()):
        raise ValueError("model has no parameters to train")
    value = _loss_of_two(model, data, loss)
    if value.ndim:
        raise ValueError(f"loss must be the mean over the batch, a scalar, got shape {tuple(value.shape)}")
    if value.isnan():
        warnings.warn("the loss of the untrained model is not a number", RuntimeWarning, stacklevel=level)


def _loss_of_two(model: nn.Module, data: Data, loss: Loss) -> Tensor:
    """Return the loss on the first two examples, in evaluation mode."""
    inputs, targets = ([tuple(t.shape) for t in tree_leaves(part)] for part in data)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # torch goes on, each with every other
            args, kwargs = arguments(take(data[0], slice(2)))
            return loss(copy.deepcopy(model).eval()(*args, **kwargs), take(data[1], slice(2)))
    except UserWarning as why:
        raise ValueError(
            f"targets must have the shape of the outputs, got (N, ...) = {_listed(targets)}: {why}"
        ) from why
    except (RuntimeError, IndexError, TypeError, AttributeError) as why:
        shapes = f"{_listed(inputs)}, {_listed(targets)}"
        raise ValueError(f"model and loss do not fit the data {shapes}: {why}") from why


def _listed(shapes: list[tuple]) -> str:
    return ", ".join(map(str, shapes))


def check_alone(model: nn.Module, inputs, batch_size: int) -> None:
    """Refuse batch normalisation over one number, as the last batch, or every one, would have."""
    alone = training_copy(model)
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in alone.modules()):
        return
    args, kwargs = arguments(take(inputs, slice(1)))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            alone(*args, **kwargs)
    except ValueError as why:
        raise ValueError(
            f"batch_size {batch_size} makes a batch of one example, which batch normalisation cannot take ({why}): take "
            "another size, or model.eval() to keep the statistics it has"
        ) from why
