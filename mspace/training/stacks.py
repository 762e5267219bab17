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

    def __init__(self, template: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, y: Tensor, loss: Callable):
        self.template, self.x, self.y, self.loss = template, x, y, loss
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

    Weights are kept as (N, in, out), the layout in which a batched product is fastest.
    """

    def __init__(self, template: nn.Sequential, parameters, x, y, loss):
        super().__init__(template, parameters, x, y, loss)
        self.layers = _dense_layers(template)
        self.kind, self.work = _kind(loss), {}

    def _stored(self, name, value):
        return value.mT.contiguous() if name.endswith("weight") else value

    def _affine(self, h: Tensor, name: str, out: Tensor | None = None) -> Tensor:
        z = torch.matmul(h, self.views[f"{name}.weight"]) if out is None else torch.bmm(h, self.views[f"{name}.weight"], out=out)
        bias = self.views.get(f"{name}.bias")
        return z if bias is None else z.add_(bias.unsqueeze(1))

    def answers(self, x: Tensor) -> Tensor:
        """(B, in) -> (N, B, out)."""
        h = x
        for name, activation in self.layers:
            h = ACTIVATIONS[activation][0](self._affine(h, name))
        return h

    def _buffers(self, batch: int):
        if batch not in self.work:
            sizes = [self.x.shape[1], *(self.views[f"{n}.weight"].shape[2] for n, _ in self.layers)]
            make = lambda: [self.flat.new_empty(self.size, batch, s) for s in sizes]  # noqa: E731
            target = None if self.y is self.x else self.y.new_empty(self.size, batch, *self.y.shape[1:])
            self.work[batch] = make(), make()[:-1], target
        return self.work[batch]

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        hidden, deltas, target = self._buffers(index.shape[1])
        rows = index.reshape(-1)
        torch.index_select(self.x, 0, rows, out=hidden[0].view(rows.numel(), -1))
        if target is not None:
            torch.index_select(self.y, 0, rows, out=target.view(rows.numel(), *self.y.shape[1:]))
        for i, (name, activation) in enumerate(self.layers):
            ACTIVATIONS[activation][0](self._affine(hidden[i], name, out=hidden[i + 1]))
        self._backward(hidden, deltas, hidden[0] if target is None else target, weight)

    def _backward(self, hidden, deltas, target, weight) -> None:
        name, activation = self.layers[-1]
        d = hidden[-1]
        after = d.clone() if activation is not nn.Identity else d
        d = self._loss_gradient(d, target)
        if weight is not None:
            d.mul_(weight.unsqueeze(-1))
        ACTIVATIONS[activation][1](d, after)
        for i in range(len(self.layers) - 1, -1, -1):
            name = self.layers[i][0]
            torch.bmm(hidden[i].mT, d, out=self.grads[f"{name}.weight"])
            if f"{name}.bias" in self.grads:
                torch.sum(d, 1, out=self.grads[f"{name}.bias"])
            if i:
                torch.bmm(d, self.views[f"{name}.weight"].mT, out=deltas[i])
                d = deltas[i]
                ACTIVATIONS[self.layers[i - 1][1]][1](d, hidden[i])

    def _loss_gradient(self, out: Tensor, target: Tensor) -> Tensor:
        if self.kind == "mse":
            return out.sub_(target).mul_(2 / out[0].numel())
        torch.softmax(out, 2, out=out)
        return out.scatter_add_(2, target.unsqueeze(2), out.new_full((1, 1, 1), -1.0).expand(*target.shape, 1)).div_(out.shape[1])


class BatchedStack(_Stack):
    """Any module that `torch.func` can batch: one vmap over members of the gradient of one."""

    def __init__(self, template, parameters, x, y, loss):
        super().__init__(template, parameters, x, y, loss)
        self._gradients = vmap(grad(self._member_loss), in_dims=(0, 0, 0, None))
        self._weighted = vmap(grad(self._member_loss), in_dims=(0, 0, 0, 0))

    def _member_loss(self, own, x, y, weight):
        return _weighted_loss(self.loss, functional_call(self.template, own, (x,)), y, weight)

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...)."""
        return vmap(lambda own: functional_call(self.template, own, (x,)))(self.views)

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        run = self._gradients if weight is None else self._weighted
        for name, value in run(self.views, self.x[index], self.y[index], weight).items():
            self.grads[name].copy_(value)


class LoopedStack(_Stack):
    """Any other module, a member after the other; dropout draws from each member's own stream."""

    def __init__(self, template, parameters, x, y, loss, seeds=None):
        super().__init__(template, parameters, x, y, loss)
        self.seeds, self.steps = seeds, 0

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...), in evaluation mode."""
        model = copy.deepcopy(self.template).eval()
        own = ({k: v[i] for k, v in self.views.items()} for i in range(self.size))
        return torch.stack([functional_call(model, p, (x,)) for p in own])

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        self.steps += 1
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            for i in range(self.size):
                torch.manual_seed((self.seeds[i] + self.steps) % 2**63)
                own = {k: v[i].detach().requires_grad_() for k, v in self.views.items()}
                out = functional_call(self.template, own, (self.x[index[i]],))
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


def stack_of(template: nn.Module, parameters, x: Tensor, y: Tensor, loss, seeds) -> _Stack:
    """The fastest stack that trains this module on these data."""
    dtype, kind = next(iter(parameters.values())).dtype, _kind(loss)
    fits = x.ndim == 2 and x.dtype == dtype and (
        (kind == "mse" and y.ndim == 2 and y.dtype == dtype) or (kind == "cross_entropy" and y.ndim == 1)
    )
    if _dense_layers(template) and fits:
        return DenseStack(template, parameters, x, y, loss)
    stack = BatchedStack(template, parameters, x, y, loss)
    random = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in template.modules())
    if not random:
        try:
            stack.gradient(torch.zeros(stack.size, 1, dtype=torch.long))
            stack.answers(x[:1])
            return stack
        except (RuntimeError, ValueError):  # no batching rule, or a data-dependent branch
            pass
    return LoopedStack(template, parameters, x, y, loss, seeds)
