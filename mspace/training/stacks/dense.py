"""Linear layers and simple activations under a squared error or a cross-entropy, without autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Stack
from .layers import ACTIVATIONS, dense_layers, loss_kind
from .plan import Plan

__all__ = ["DenseStack"]


class DenseStack(Stack):
    """A plan of products into memory that stays, drawn up once for each size of batch.

    A batched product is several times faster when its long side is contiguous. So a layer that narrows keeps its
    weight as (N, out, in) and its answers as (N, out, B), one that widens (N, in, out) and (N, B, out). A bias
    is cheap to add and to sum where the answers are few; where they are many, at a layer that widens, it is
    the last row of the weight instead, for an input that is always one. `benchmarks/ensemble.py` measures it.
    Everything below speaks of (N, B, features) and takes views.
    """

    def __init__(self, template: nn.Sequential, parameters, x, y, loss):
        self.layers = dense_layers(template)
        super().__init__(template, parameters, x, y, loss)
        self.kind, self.plans = loss_kind(loss), {}

    def _shapes(self, parameters):
        shapes = {}
        for a in self.layers:
            shape = (a.outputs, a.inputs) if a.narrows else (a.inputs + a.ones, a.outputs)
            shapes[f"{a.name}.weight"] = torch.Size((self.size, *shape))
            if a.bias and a.narrows:
                shapes[f"{a.name}.bias"] = torch.Size((self.size, a.outputs))
        return shapes

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat tensor as views (N, *shape), by the name of the parameter."""
        found = self.blocks(flat)
        for a in self.layers:
            block = found[f"{a.name}.weight"]
            if not a.narrows:
                found[f"{a.name}.weight"] = block[:, : a.inputs].mT
            if a.ones:
                found[f"{a.name}.bias"] = block[:, a.inputs]
        return found

    def answers(self, x: Tensor) -> Tensor:
        """(B, in) -> (N, B, out)."""
        own, h = self.named(self.flat), x
        for a in self.layers:
            h = torch.matmul(h, own[f"{a.name}.weight"].mT)
            if a.bias:
                h.add_(own[f"{a.name}.bias"].unsqueeze(1))
            h = ACTIVATIONS[a.activation][0](h, out=h)
        return h

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        key = index.shape[1], weight is None
        if key not in self.plans:
            self.plans[key] = Plan(self, *key)
        self.plans[key].run(index, weight)
