"""One training step of N networks at once: by hand for dense stacks, by vmap for other modules, else in a loop.

A stack keeps the parameters of all members in one flat tensor, so any elementwise optimiser moves them all in
one call and never mixes them. `gradient` fills ``flat.grad`` for a minibatch of each member.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

__all__ = ["BatchedStack", "DenseStack", "LoopedStack", "stack_of"]

aten = torch.ops.aten
# module -> (forward in place, gradient in place from the activated value)
ACTIVATIONS: dict[type, tuple[Callable, Callable]] = {
    nn.Identity: (lambda z: z, lambda d, h: d),
    nn.ReLU: (torch.relu_, lambda d, h: aten.threshold_backward.grad_input(d, h, 0, grad_input=d)),
    nn.Tanh: (torch.tanh_, lambda d, h: aten.tanh_backward.grad_input(d, h, grad_input=d)),
    nn.Sigmoid: (torch.sigmoid_, lambda d, h: aten.sigmoid_backward.grad_input(d, h, grad_input=d)),
}
EVALUATED_AT_ONCE = 1 << 22  # numbers an answer of the whole stack may hold


class _Stack:
    """What the three ways share: the flat parameters, their views by name, and losses over many examples."""

    def __init__(
        self,
        template: nn.Module,
        parameters: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        loss: Callable,
        buffers: Mapping[str, Tensor] | None = None,
    ):
        self.template, self.x, self.y, self.loss = template, x, y, loss
        own = dict(template.named_buffers())  # a member holds those that differ from the template's, by name (N, ...)
        self.fixed = {k: v for k, v in (buffers or {}).items() if not torch.equal(v, own[k].expand_as(v))}
        held = {k: self._stored(k, v) for k, v in parameters.items()}
        self.size = len(next(iter(held.values())))
        self.flat = torch.cat([v.reshape(-1) for v in held.values()])
        self.flat.grad = torch.zeros_like(self.flat)
        self.views, self.grads = (
            {k: s.view_as(v) for (k, v), s in zip(held.items(), flat.split([v.numel() for v in held.values()]))}
            for flat in (self.flat, self.flat.grad)
        )

    def _stored(self, name: str, value: Tensor) -> Tensor:
        return value

    def parameters(self) -> dict[str, Tensor]:
        """By name, (N, *shape), copies."""
        return {k: self._stored(k, v).clone() for k, v in self.views.items()}

    def copy_where(self, members: Tensor, source: Tensor) -> None:
        """Overwrite the parameters of some members by those in another flat tensor."""
        for view, other in zip(self.views.values(), source.split([v.numel() for v in self.views.values()])):
            view[members] = other.view_as(view)[members]

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of every member over the same examples, (N,)."""
        width = max(1, y[:1].numel())
        step = max(1, EVALUATED_AT_ONCE // (self.size * width))
        total = 0.0
        with torch.no_grad():
            for i in range(0, len(x), step):
                out, target = self.answers(x[i : i + step]), y[i : i + step]
                total = total + torch.stack([self.loss(o, target) for o in out]).double() * len(target)
        return total / len(x)


class DenseStack(_Stack):
    """Linear layers and simple activations under a squared error or a cross-entropy, without autograd.

    A batched product is several times faster when its long side is contiguous. So a layer that narrows keeps its
    weight as (N, out, in) and its answers as (N, out, B), one that widens (N, in, out) and (N, B, out);
    `benchmarks/ensemble.py` measures it. Everything below speaks of (N, B, features) and takes views.
    """

    def __init__(self, template: nn.Sequential, parameters, x, y, loss):
        self.layers = _dense_layers(template)
        self.narrows = {n: (w := parameters[f"{n}.weight"]).shape[1] < w.shape[2] for n, _ in self.layers}
        super().__init__(template, parameters, x, y, loss)
        self.kind, self.work = _kind(loss), {}

    def _stored(self, name: str, value: Tensor) -> Tensor:
        layer, _, kind = name.rpartition(".")
        return value if kind == "bias" or self.narrows[layer] else value.mT.contiguous()

    def _weight(self, layer: str) -> Tensor:
        """(N, in, out), as a view."""
        w = self.views[f"{layer}.weight"]
        return w.mT if self.narrows[layer] else w

    def answers(self, x: Tensor) -> Tensor:
        """(B, in) -> (N, B, out)."""
        h = x
        for layer, activation in self.layers:
            h = torch.matmul(h, self._weight(layer))
            bias = self.views.get(f"{layer}.bias")
            h = ACTIVATIONS[activation][0](h if bias is None else h.add_(bias.unsqueeze(1)))
        return h

    def _buffers(self, batch: int):
        """Inputs, answers of each layer as stored, their gradients likewise, and targets unless they are the inputs."""
        if batch not in self.work:
            shapes = []
            for layer, _ in self.layers:
                out = self._weight(layer).shape[2]
                shapes.append((self.size, out, batch) if self.narrows[layer] else (self.size, batch, out))
            first = self.flat.new_empty(self.size, batch, self.x.shape[1])
            target = None if self.y is self.x else self.y.new_empty(self.size, batch, *self.y.shape[1:])
            self.work[batch] = first, *([self.flat.new_empty(s) for s in shapes] for _ in range(2)), target
        return self.work[batch]

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        first, stored, deltas, target = self._buffers(index.shape[1])
        rows = index.reshape(-1)
        torch.index_select(self.x, 0, rows, out=first.view(len(rows), -1))
        if target is not None:
            torch.index_select(self.y, 0, rows, out=target.view(len(rows), *self.y.shape[1:]))
        inputs = [first]
        for (layer, activation), z in zip(self.layers, stored, strict=True):
            inputs.append(self._forward(layer, inputs[-1], z))
            ACTIVATIONS[activation][0](z)
        self._output_gradient(inputs[-1], first if target is None else target, weight, stored[-1], deltas[-1])
        self._backward(inputs, stored, deltas)

    def _forward(self, layer: str, h: Tensor, z: Tensor) -> Tensor:
        w, bias = self.views[f"{layer}.weight"], self.views.get(f"{layer}.bias")
        a, b = (w, h.mT) if self.narrows[layer] else (h, w)
        if bias is None:
            torch.bmm(a, b, out=z)
        else:
            torch.baddbmm(bias.unsqueeze(2 if self.narrows[layer] else 1), a, b, out=z)
        return z.mT if self.narrows[layer] else z

    def _output_gradient(self, out: Tensor, target: Tensor, weight, z: Tensor, delta: Tensor) -> None:
        """The gradient of the loss at the last layer's sums, into `delta`; `out` is a view of `z`."""
        layer, activation = self.layers[-1]
        d = delta.mT if self.narrows[layer] else delta
        if self.kind == "mse":
            torch.sub(out, target, out=d).mul_(2 / out[0].numel())
        else:
            # along the features as they are stored: over a transposed view it takes ten times as long
            torch.softmax(z, 1 if self.narrows[layer] else 2, out=delta)
            hit = target.unsqueeze(2)
            d.scatter_add_(2, hit, d.new_full((1, 1, 1), -1.0).expand(hit.shape)).div_(out.shape[1])
        if weight is not None:
            d.mul_(weight.unsqueeze(-1))
        ACTIVATIONS[activation][1](delta, z)

    def _backward(self, inputs, stored, deltas) -> None:
        for i in range(len(self.layers) - 1, -1, -1):
            layer, narrow = self.layers[i][0], self.narrows[self.layers[i][0]]
            a, b = (deltas[i], inputs[i]) if narrow else (inputs[i].mT, deltas[i])
            torch.bmm(a, b, out=self.grads[f"{layer}.weight"])
            if f"{layer}.bias" in self.grads:
                torch.sum(deltas[i], 2 if narrow else 1, out=self.grads[f"{layer}.bias"])
            if i:
                before, activation = self.layers[i - 1]
                d, w = deltas[i].mT if narrow else deltas[i], self._weight(layer)
                a, b = (w, d.mT) if self.narrows[before] else (d, w.mT)
                torch.bmm(a, b, out=deltas[i - 1])
                ACTIVATIONS[activation][1](deltas[i - 1], stored[i - 1])


class BatchedStack(_Stack):
    """Any module that `torch.func` can batch: one vmap over members of the gradient of one."""

    def __init__(self, template, parameters, x, y, loss, buffers=None):
        super().__init__(template, parameters, x, y, loss, buffers)
        self._gradients = vmap(grad(self._member_loss), in_dims=(0, 0, 0, 0, None))
        self._weighted = vmap(grad(self._member_loss), in_dims=(0, 0, 0, 0, 0))

    def _member_loss(self, own, fixed, x, y, weight):
        return _weighted_loss(self.loss, functional_call(self.template, {**own, **fixed}, (x,)), y, weight)

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...)."""
        return vmap(lambda own: functional_call(self.template, own, (x,)))({**self.views, **self.fixed})

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        run = self._gradients if weight is None else self._weighted
        for name, value in run(self.views, self.fixed, self.x[index], self.y[index], weight).items():
            self.grads[name].copy_(value)


class LoopedStack(_Stack):
    """Any other module, a member after the other; dropout draws from each member's own stream."""

    def __init__(self, template, parameters, x, y, loss, seeds=None, buffers=None):
        super().__init__(template, parameters, x, y, loss, buffers)
        self.seeds, self.steps = seeds, 0

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...), in evaluation mode."""
        model = copy.deepcopy(self.template).eval()
        own = ({k: v[i] for k, v in {**self.views, **self.fixed}.items()} for i in range(self.size))
        return torch.stack([functional_call(model, p, (x,)) for p in own])

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        self.steps += 1
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            for i in range(self.size):
                torch.manual_seed((self.seeds[i] + self.steps) % 2**63)
                own = {k: v[i].detach().requires_grad_() for k, v in self.views.items()}
                fixed = {k: v[i] for k, v in self.fixed.items()}
                out = functional_call(self.template, {**own, **fixed}, (self.x[index[i]],))
                value = _weighted_loss(self.loss, out, self.y[index[i]], None if weight is None else weight[i])
                for name, g in zip(own, torch.autograd.grad(value, own.values())):
                    self.grads[name][i].copy_(g)


def _weighted_loss(loss, out: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """The mean loss of a batch, each example counted `weight` times."""
    if weight is None:
        return loss(out, y)
    each = torch.stack([loss(o, t) for o, t in zip(out.split(1), y.split(1))])
    return (weight * each).mean()


def _dense_layers(template: nn.Module) -> list[tuple[str, type]] | None:
    """The Linear layers of a Sequential with the activation after each, or None if it is anything else."""
    if type(template) is not nn.Sequential:
        return None
    layers: list[tuple[str, type]] = []
    for name, module in template.named_children():
        if type(module) is nn.Linear:
            layers.append((name, nn.Identity))
        elif type(module) in ACTIVATIONS and layers and layers[-1][1] is nn.Identity:
            layers[-1] = (layers[-1][0], type(module))
        else:
            return None
    return layers or None


def _kind(loss) -> str | None:
    """Which of the two losses with a gradient by hand this is, with its default options."""
    if loss is F.mse_loss or (type(loss) is nn.MSELoss and loss.reduction == "mean"):
        return "mse"
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.reduction == "mean"
    if loss is F.cross_entropy or (plain and loss.label_smoothing == 0 and loss.ignore_index == -100):
        return "cross_entropy"
    return None


def stack_of(template: nn.Module, parameters, x: Tensor, y: Tensor, loss, seeds, buffers=None) -> _Stack:
    """The fastest stack that trains this module on these data."""
    dtype, kind = next(iter(parameters.values())).dtype, _kind(loss)
    fits = (
        x.ndim == 2
        and x.dtype == dtype
        and ((kind == "mse" and y.ndim == 2 and y.dtype == dtype) or (kind == "cross_entropy" and y.ndim == 1))
    )
    if _dense_layers(template) and fits:
        return DenseStack(template, parameters, x, y, loss)
    stack = BatchedStack(template, parameters, x, y, loss, buffers)
    random = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in template.modules())
    if not random:
        try:
            stack.gradient(torch.zeros(stack.size, 1, dtype=torch.long))
            stack.answers(x[:1])
            return stack
        except (RuntimeError, ValueError):  # no batching rule, or a data-dependent branch
            pass
    return LoopedStack(template, parameters, x, y, loss, seeds, buffers)
