"""How the neurons of a layer depend on the parameters of its network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..neurons import live_weight_of
from .layout import flatten, unflatten

__all__ = ["Reader"]


class Reader(nn.Module):
    """A layer's neurons as the answer of a module, so that parameters can be swapped in."""

    def __init__(self, model: nn.Module, layer: str | Sequence[str], axis: int, bias: bool = False):
        super().__init__()
        self.model, self.axis, self.bias = copy.deepcopy(model).double(), axis, bias
        self.layer = [layer] if isinstance(layer, str) else list(layer)

    def forward(self) -> Tensor:
        return live_weight_of(self.model, self.layer, self.axis, self.bias)

    def at(self, vector: Tensor) -> Tensor:
        """The neurons (m, n) when the parameters are a vector (p,)."""
        return functional_call(self, {f"model.{k}": v for k, v in unflatten(self.model, vector).items()}, ())

    def places(self) -> Tensor | None:
        """Which parameter each number of the layer is, (m, n), or None where some are made from parameters.

        Numbers that are parameters repeat whatever stands in their places, so places are put there.
        """
        count = torch.arange(1.0, len(flatten(self.model)) + 1, dtype=torch.float64)
        with torch.no_grad():
            found, opposite = self.at(count), self.at(-count)
        same = torch.equal(found, found.round()) and torch.equal(found, -opposite)
        inside = found.min() >= 1 and found.max() <= len(count) and len(found.unique()) == found.numel()
        return found.long() - 1 if same and inside else None
