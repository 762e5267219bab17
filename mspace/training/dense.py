"""Linear layers and simple activations under a squared error or a cross-entropy: their gradient without autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..network.facts import has_hooks
from ..network.loss import loss_kind
from ..network.modules import in_order
from .stacks import Stack

__all__ = ["DenseStack", "Layer", "dense_layers"]

aten = torch.ops.aten
SUM = 2  # how torch codes the reduction of a loss
# module -> (forward, gradient in place from the activated value)
ACTIVATIONS: dict[type, tuple[Callable, Callable]] = {
    nn.Identity: (lambda z, out: out if out is z else out.copy_(z), lambda d, h: d),
    nn.ReLU: (
        lambda z, out: aten.clamp_min.out(z, 0, out=out),
        lambda d, h: aten.threshold_backward.grad_input(d, h, 0, grad_input=d),
    ),
    nn.Tanh: (torch.tanh, lambda d, h: aten.tanh_backward.grad_input(d, h, grad_input=d)),
    nn.Sigmoid: (torch.sigmoid, lambda d, h: aten.sigmoid_backward.grad_input(d, h, grad_input=d)),
}


class Layer(NamedTuple):
    """A Linear layer and the activation after it."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    activation: type = nn.Identity

    @property
    def narrows(self) -> bool:
        return self.outputs < self.inputs

    @property
    def ones(self) -> bool:
        """Return whether its inputs carry a constant one, for the bias."""
        return self.bias and not self.narrows


def dense_layers(template: nn.Module) -> list[Layer] | None:
    """Return the Linear layers of a Sequential with the activation after each, or None if it is anything else."""
    if type(template) is not nn.Sequential or has_hooks(template):
        return None
    layers: list[Layer] = []
    if len(list(template.named_parameters(remove_duplicate=False))) > len(list(template.parameters())):
        return None  # a layer or weight used twice gets two gradients
    for name, module in in_order(template).items():
        if type(module) is nn.Linear:
            layers.append(Layer(name, module.in_features, module.out_features, module.bias is not None))
        elif type(module) in ACTIVATIONS and layers and layers[-1].activation is nn.Identity:
            layers[-1] = layers[-1]._replace(activation=type(module))
        else:
            return None
    return layers or None


class DenseStack(Stack):
    """Matrix products into memory that stays, drawn up once for each size of batch.

    A batched product is several times faster when its long side is contiguous. So a layer that narrows keeps its
    weight as (N, out, in) and its outputs as (N, out, B), one that widens (N, in, out) and (N, B, out). A bias
    is cheap to add and to sum where the outputs are few; where they are many, at a layer that widens, it is
    the last row of the weight instead, for an input that is always one. `benchmarks/ensemble.py` measures it.
    Everything below has shapes (N, B, features) and takes views.
    """

    def __init__(self, template: nn.Module, parameters, x, y, loss):
        self.layers = dense_layers(template) or []
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
        """Return a flat tensor as views (N, *shape), by the name of the parameter."""
        views = self.blocks(flat)
        for a in self.layers:
            block = views[f"{a.name}.weight"]
            if not a.narrows:
                views[f"{a.name}.weight"] = block[:, : a.inputs].mT
            if a.ones:
                views[f"{a.name}.bias"] = block[:, a.inputs]
        return views

    def outputs(self, x: Tensor) -> Tensor:
        """Return outputs (N, B, out) for inputs (B, in)."""
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


class Plan:
    """The gradient at one size of batch as a list of calls: the views that they need cost as much as a small product.

    Args:
        batch: examples a member, each counted once if `plain`
    """

    def __init__(self, stack: DenseStack, batch: int, plain: bool):
        self.layers, self.kind, self.calls = stack.layers, stack.kind, []
        self.blocks, self.grads = stack.blocks(stack.flat), stack.blocks(stack.grad)
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
        """Fill the gradient for the examples index (N, B)."""
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
        """Add the product of a and b, plus a bias at each row, into `out`, which holds its transpose if `transposed`."""
        a, b = (b.mT, a.mT) if transposed else (a, b)
        if bias is None:
            self._add(torch.bmm, a, b, out=out)
        else:
            self._add(torch.baddbmm, bias.unsqueeze(2), a, b, out=out)

    def _forward(self, h: Tensor) -> list[tuple]:
        """Return for each layer its inputs (N, B, in + ones), and as stored its outputs and room for their gradient."""
        trace: list[tuple] = []
        size, batch, _ = h.shape
        for a, after in zip(self.layers, (*self.layers[1:], None)):
            ones = after is not None and after.ones
            shape = (a.outputs + ones, batch) if a.narrows else (batch, a.outputs + ones)
            whole = h.new_ones(size, *shape)
            out = whole.narrow(1 if a.narrows else 2, 0, a.outputs)
            reused = after is None and a.activation is nn.Identity and self.kind == "mse"
            delta = out if reused else torch.empty_like(out, memory_format=torch.contiguous_format)
            sums = delta if ones else out  # a product is slow into a part of some memory
            weight, bias = self.blocks[f"{a.name}.weight"], self.blocks.get(f"{a.name}.bias")
            self._product(h, weight.mT if a.narrows else weight, sums, a.narrows, bias)
            if a.activation is not nn.Identity or ones:
                self._add(ACTIVATIONS[a.activation][0], sums, out=out)
            trace.append((h, out, delta))
            h = whole.mT if a.narrows else whole
        return trace

    def _loss(self, outputs: Tensor, delta: Tensor, y: Tensor) -> None:
        """Add the gradient of the loss at the last outputs, into `delta`."""
        narrows = self.layers[-1].narrows
        out, d = (t.mT if narrows else t for t in (outputs, delta))
        if self.kind == "mse":
            self._add(aten.mse_loss_backward.grad_input, self.factor, out, y, SUM, grad_input=d)
        else:
            # along the features as they are stored: over a transposed view it takes ten times as long
            self._add(torch.softmax, outputs, 1 if narrows else 2, out=delta)
            hit = y.unsqueeze(2)
            self._add(d.scatter_add_, 2, hit, d.new_full((1, 1, 1), -1.0).expand(hit.shape))
            self._add(d.mul_, self.factor)

    def _backward(self, trace: list[tuple], y: Tensor) -> None:
        _, outputs, delta = trace[-1]
        self._loss(outputs, delta, y)
        for i in reversed(range(len(self.layers))):
            a, (h, outputs, delta) = self.layers[i], trace[i]
            if a.activation is not nn.Identity:
                self._add(ACTIVATIONS[a.activation][1], delta, outputs)
            d = delta.mT if a.narrows else delta
            self._product(h.mT, d, self.grads[f"{a.name}.weight"], a.narrows)
            if a.bias and a.narrows:
                self._add(torch.sum, delta, 2, out=self.grads[f"{a.name}.bias"])
            if i:
                self._product(d, self.own[f"{a.name}.weight"], trace[i - 1][2], self.layers[i - 1].narrows)
