"""The gradient of a dense stack at one size of batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .base import Stack
from .layers import ACTIVATIONS

__all__ = ["Plan"]

aten = torch.ops.aten
SUM = 2  # how torch codes the reduction of a loss


class Plan:
    """A list of calls, drawn up once: the views that they need cost as much as a small product.

    Args:
        batch: examples a member, each counted once if `plain`
    """

    def __init__(self, stack: Stack, batch: int, plain: bool):
        self.layers, self.kind, self.calls = stack.layers, stack.kind, []
        self.blocks, self.grads = stack.blocks(stack.flat), stack.blocks(stack.flat.grad)
        self.own = stack.named(stack.flat)
        first, last = stack.layers[0], stack.layers[-1]
        self.share = 1 / (batch * last.outputs if stack.kind == "mse" else batch)
        self.factor = stack.flat.new_full(() if plain else (stack.size, batch, 1), self.share)
        inputs = stack.flat.new_ones(stack.size, batch, first.inputs + first.ones)
        x = inputs[..., : first.inputs]
        y = x if stack.y is stack.x else stack.y.new_empty(stack.size, batch, *stack.y.shape[1:])
        self.gathered = [(stack.x, inputs.view(-1, inputs.shape[2])[:, : first.inputs])]
        if y is not x:
            self.gathered.append((stack.y, y.view(-1, *y.shape[2:])))
        self._backward(self._forward(inputs), y)

    def run(self, index: Tensor, weight: Tensor | None) -> None:
        rows = index.reshape(-1)
        for table, place in self.gathered:
            torch.index_select(table, 0, rows, out=place)
        if weight is not None:
            torch.mul(weight.unsqueeze(2), self.share, out=self.factor)
        for call in self.calls:
            call()

    def _add(self, call: Callable, *args, **options) -> None:
        self.calls.append(partial(call, *args, **options))

    def _product(self, a: Tensor, b: Tensor, out: Tensor, transposed: bool, bias: Tensor | None = None) -> None:
        """The product of a and b, plus a bias at each row of out, into out, which holds its transpose if so said."""
        a, b = (b.mT, a.mT) if transposed else (a, b)
        if bias is None:
            self._add(torch.bmm, a, b, out=out)
        else:
            self._add(torch.baddbmm, bias.unsqueeze(2), a, b, out=out)

    def _forward(self, h: Tensor) -> list[tuple]:
        """For each layer its inputs (N, B, in + ones), and as stored its answers and room for their gradient."""
        trace: list[tuple] = []
        size, batch, _ = h.shape
        for a, after in zip(self.layers, (*self.layers[1:], None)):
            ones = after is not None and after.ones
            shape = (a.outputs + ones, batch) if a.narrows else (batch, a.outputs + ones)
            whole = h.new_ones(size, *shape)
            answers = whole.narrow(1 if a.narrows else 2, 0, a.outputs)
            reused = after is None and a.activation is nn.Identity and self.kind == "mse"
            delta = answers if reused else torch.empty_like(answers, memory_format=torch.contiguous_format)
            sums = delta if ones else answers  # a product is slow into a part of some memory
            weight, bias = self.blocks[f"{a.name}.weight"], self.blocks.get(f"{a.name}.bias")
            self._product(h, weight.mT if a.narrows else weight, sums, a.narrows, bias)
            if a.activation is not nn.Identity or ones:
                self._add(ACTIVATIONS[a.activation][0], sums, out=answers)
            trace.append((h, answers, delta))
            h = whole.mT if a.narrows else whole
        return trace

    def _loss(self, answers: Tensor, delta: Tensor, y: Tensor) -> None:
        """The gradient of the loss at the last answers, into `delta`."""
        narrows = self.layers[-1].narrows
        out, d = (t.mT if narrows else t for t in (answers, delta))
        if self.kind == "mse":
            self._add(aten.mse_loss_backward.grad_input, self.factor, out, y, SUM, grad_input=d)
        else:
            # along the features as they are stored: over a transposed view it takes ten times as long
            self._add(torch.softmax, answers, 1 if narrows else 2, out=delta)
            hit = y.unsqueeze(2)
            self._add(d.scatter_add_, 2, hit, d.new_full((1, 1, 1), -1.0).expand(hit.shape))
            self._add(d.mul_, self.factor)

    def _backward(self, trace: list[tuple], y: Tensor) -> None:
        self._loss(*trace[-1][1:], y)
        for i in reversed(range(len(self.layers))):
            a, (h, answers, delta) = self.layers[i], trace[i]
            if a.activation is not nn.Identity:
                self._add(ACTIVATIONS[a.activation][1], delta, answers)
            d = delta.mT if a.narrows else delta
            self._product(h.mT, d, self.grads[f"{a.name}.weight"], a.narrows)
            if a.bias and a.narrows:
                self._add(torch.sum, delta, 2, out=self.grads[f"{a.name}.bias"])
            if i:
                self._product(d, self.own[f"{a.name}.weight"], trace[i - 1][2], self.layers[i - 1].narrows)
