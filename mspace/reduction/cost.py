"""What a network stores and what an answer costs, counted exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .passes import answer, resting, take
from .shared import SharedRows

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """What a network stores and computes.

    Attributes:
        parameters: numbers stored, each tensor once: parameters, and statistics of normalisations
        indices: whole numbers stored beside them, which output reads which row
        operations: multiply-adds of dense layers and convolutions for one example, None if not asked
    """

    parameters: int
    indices: int
    operations: int | None = None


def cost(model: nn.Module, inputs=None) -> Cost:
    """Count a network; with inputs (N, ...) also the multiply-adds of one example.

    Counted are Linear, Conv1d, Conv2d and `SharedRows`; recurrent layers and the products inside an attention are not.
    """
    state = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, torch.Tensor)}
    floats = sum(t.numel() for t in state.values() if t.is_floating_point())
    shared = [m.index for m in model.modules() if isinstance(m, SharedRows) and m.index is not None]
    indices = sum(index.numel() for index in shared if index.any())  # all read the first row: nothing to look up
    return Cost(floats, indices, None if inputs is None else _operations(model, take(inputs, slice(0, 1))))


def _operations(model: nn.Module, one) -> int:
    total = 0

    def count(module, _given, output):
        nonlocal total
        if isinstance(module, SharedRows):
            if module.index is None:
                total += output.numel() * module.expand.shape[1]
            elif module.scale is not None:
                total += output.numel()
        else:
            total += output.numel() * module.weight[0].numel()

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, SharedRows)
    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    try:
        with resting(model), torch.no_grad():
            answer(model, one)
    finally:
        for handle in handles:
            handle.remove()
    return total
