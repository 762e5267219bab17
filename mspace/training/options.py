"""How members are trained, and what is refused before a long training begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from ..checks import arguments, check_choice, check_data, check_int, n_examples, take
from ..door import Checked, checked
from ..network.modules import batch_norms, copied
from ..threads import kept_stream

__all__ = [
    "Bounded",
    "Data",
    "Loss",
    "Optimizer",
    "TrainingOptions",
    "enough_epochs",
    "make_optimizer",
    "optimizer_of",
    "training_copy",
]

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

    init: str | Callable[[nn.Module], object] = "shared"
    order: str = "own"
    epochs: int | None = None
    batch_size: int = 16
    optimizer: Optimizer | None = None
    validation: Data | None = None
    patience: int | None = None

    def checked(
        self, model: nn.Module, data: Data, loss: Loss, *, seen: int | None = None, output=None
    ) -> tuple[Checked, TrainingOptions]:
        """Return what passed the door, and options without defaults, or refuse what would stop a long training late.

        Args:
            seen: number of examples that each member sees, by default all
        """
        check_int(self.batch_size, "batch_size", 1)
        if self.epochs is not None:
            check_int(self.epochs, "epochs", 0)
        if not callable(self.init):
            check_choice(self.init, "init", ("shared", "independent"))
        check_choice(self.order, "order", ("own", "shared"))
        make_optimizer(self.optimizer, torch.zeros(1))
        given = checked(model, data, loss, output=output, mean=False, one_tensor=False)
        held = self._held(given)
        seen = seen or n_examples(given.data[0])
        epochs = enough_epochs(seen, self.batch_size) if self.epochs is None else self.epochs
        if epochs and 1 in (self.batch_size, seen % self.batch_size):
            check_alone(model, given.data[0], self.batch_size)
        return given, replace(self, validation=held, epochs=epochs)

    def _held(self, given: Checked) -> Data | None:
        """Return held-out data that the network takes, or refuse them, and a patience without them."""
        if self.patience is not None:
            check_int(self.patience, "patience", 1)
        if self.validation is None:
            if self.patience is not None:
                raise ValueError("patience needs validation=(inputs, targets), held-out data to stop by")
            return None
        check_data(self.validation, "validation")
        return checked(given.model, self.validation, given.loss, mean=False, one_tensor=False).data


def enough_epochs(n: int, batch_size: int) -> int:
    """Return the epochs that give 3000 steps of an optimiser, and at least 20."""
    return max(20, -(-3000 // -(-n // batch_size)))


def make_optimizer(make: Optimizer | None, flat: Tensor):
    """Return the optimiser of a flat tensor, or refuse one that mixes its numbers."""
    if make is None:
        return FusedAdam(flat)
    optimizer = optimizer_of(make, [flat])
    if type(optimizer).__name__ in NOT_ELEMENTWISE:
        raise ValueError(f"optimizer {type(optimizer).__name__} mixes parameters, and so the members: take Adam or SGD")
    return optimizer


def optimizer_of(make: Optimizer, tensors: list[Tensor]) -> torch.optim.Optimizer:
    """Return what `make` makes of a list of tensors, or refuse what is no optimiser."""
    if not callable(make):
        raise ValueError(
            "optimizer must be a function of a list of tensors, such as partial(torch.optim.SGD, lr=0.1), got "
            f"{type(make).__name__}"
        )
    try:
        optimizer = make(tensors)
        found = callable(getattr(optimizer, "step", None))
    except (TypeError, ValueError, RuntimeError, AttributeError) as why:
        raise ValueError(f"optimizer must make an optimiser of a list of tensors, and says: {why}") from why
    if not found:
        raise ValueError(f"optimizer must make an optimiser of a list of tensors, got {type(optimizer).__name__}")
    return optimizer


class FusedAdam:
    """`torch.optim.Adam` at its defaults, bit for bit, without the bookkeeping that costs half a small step."""

    def __init__(self, flat: Tensor):
        self.flat, self.mean, self.square = flat, torch.zeros_like(flat), torch.zeros_like(flat)
        self.count = torch.zeros((), dtype=torch.float32)

    def step(self) -> None:
        """Move ``flat`` by its gradient."""
        state = [self.mean], [self.square], [], [self.count]
        assert self.flat.grad is not None
        adam(
            [self.flat], [self.flat.grad], *state, fused=True, amsgrad=False, maximize=False, lr=1e-3, beta1=0.9,
            beta2=0.999, eps=1e-8, weight_decay=0.0,
        )  # fmt: skip


def training_copy(model: nn.Module) -> nn.Module:
    """Return a copy in training mode; modules that are in evaluation mode stay so, of a model that is not as a whole.

    Of a model in evaluation mode that concerns normalisations alone, which keep the statistics they have.
    """
    template = copied(model)
    for module in template.modules():
        module.training |= not (model.training or isinstance(module, nn.modules.batchnorm._NormBase))
    return template


def check_alone(model: nn.Module, inputs, batch_size: int) -> None:
    """Refuse batch normalisation over one number, as the last batch, or every one, would have."""
    alone = training_copy(model)
    if not batch_norms(alone, training=True):
        return
    args, kwargs = arguments(take(inputs, slice(1)))
    try:
        with torch.no_grad(), kept_stream():
            alone(*args, **kwargs)
    except ValueError as why:
        raise ValueError(
            f"batch_size {batch_size} makes a batch of one example, which batch normalisation cannot take ({why}): take "
            "another size, or model.eval() to keep the statistics it has"
        ) from why
