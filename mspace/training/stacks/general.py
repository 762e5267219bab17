"""Any module: batched over members by vmap, or a member after the other."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from .base import Stack

__all__ = ["BatchedStack", "LoopedStack"]


class BatchedStack(Stack):
    """Any module that `torch.func` can batch: one vmap over members forward, one ordinary way back."""

    def __init__(self, template, parameters, x, y, loss, buffers=None):
        super().__init__(template, parameters, x, y, loss, buffers)
        self.work: dict[tuple, Tensor] = {}
        self.resting = copy.deepcopy(template).eval()

    def _gather(self, table: Tensor, index: Tensor) -> Tensor:
        """Some examples for each member, (N, B, ...), in memory that stays: fresh pages cost more than the copy."""
        key = id(table), index.shape[1]
        if key not in self.work:
            self.work[key] = table.new_empty(index.numel(), *table.shape[1:])
        torch.index_select(table, 0, index.reshape(-1), out=self.work[key])
        return self.work[key].unflatten(0, index.shape)

    def _member_loss(self, own, fixed, x, y, weight=None):
        return _weighted_loss(self.loss, functional_call(self.template, {**own, **fixed}, (x,)), y, weight)

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...), in evaluation mode."""
        return vmap(lambda own: functional_call(self.resting, own, (x,)))({**self.named(self.flat), **self.fixed})

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        x = self._gather(self.x, index)
        y = x if self.y is self.x else self._gather(self.y, index)
        own = {k: v.detach().requires_grad_() for k, v in self.named(self.flat).items()}
        with torch.enable_grad():
            losses = vmap(self._member_loss)(own, self.fixed, x, y, *(() if weight is None else (weight,)))
            found = torch.autograd.grad(losses.sum(), list(own.values()), materialize_grads=True)
        torch._foreach_copy_(list(self.named(self.flat.grad).values()), list(found))


class LoopedStack(Stack):
    """Any other module, a member after the other; dropout draws from each member's own stream."""

    def __init__(self, template, parameters, x, y, loss, seeds=None, buffers=None):
        super().__init__(template, parameters, x, y, loss, buffers)
        self.seeds, self.steps = seeds, 0

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...), in evaluation mode."""
        model = copy.deepcopy(self.template).eval()
        state = {**self.named(self.flat), **self.fixed}
        own = ({k: v[i] for k, v in state.items()} for i in range(self.size))
        return torch.stack([functional_call(model, p, (x,)) for p in own])

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        self.steps += 1
        views, grads = self.named(self.flat), self.named(self.flat.grad)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            for i in range(self.size):
                torch.manual_seed((self.seeds[i] + self.steps) % 2**63)
                own = {k: v[i].detach().requires_grad_() for k, v in views.items()}
                fixed = {k: v[i] for k, v in self.fixed.items()}
                out = functional_call(self.template, {**own, **fixed}, (self.x[index[i]],))
                value = _weighted_loss(self.loss, out, self.y[index[i]], None if weight is None else weight[i])
                for name, g in zip(own, torch.autograd.grad(value, list(own.values()), materialize_grads=True)):
                    grads[name][i].copy_(g)


def _weighted_loss(loss, out: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """The mean loss of a batch, each example counted `weight` times."""
    if weight is None:
        return loss(out, y)
    each = torch.stack([loss(o, t) for o, t in zip(out.split(1), y.split(1))])
    return (weight * each).mean()
