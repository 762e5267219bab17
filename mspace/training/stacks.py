"""One training step of N networks at once: batched over members by vmap, or one member after another.

A stack keeps the parameters of all members in one flat tensor, so any elementwise optimiser moves them all in
one call and never mixes them. `gradient` fills ``flat.grad`` for a minibatch of each member.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from .._memory import examples_at_once
from ..checks import arguments, n_examples, take
from ..network.modules import batch_norms, copied
from ..threads import kept_stream

__all__ = ["SLOW", "BatchedStack", "LoopedStack", "Stack"]

SLOW = "There is a performance drop"  # what vmap says of an operation that it takes in a loop


class Stack:
    """The flat parameters, their views, and losses over many examples.

    The flat tensor is a row of blocks, each (N, ...): here one for every parameter.

    Args:
        parameters: by name, (N, ...), copied
        x, y: checked inputs and targets, from which minibatches are taken
        buffers: by name, (N, ...)
        seeds: one a member, for what the module itself draws
        hooks: functions of the gradient of a parameter, by name
    """

    def __init__(
        self,
        template: nn.Module,
        parameters: Mapping[str, Tensor],
        x,
        y,
        loss: Callable,
        buffers: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] | None = None,
        hooks: Mapping[str, list[Callable]] | None = None,
    ):
        self.template, self.x, self.y, self.loss, self.seeds, self.hooks = (
            template,
            x,
            y,
            loss,
            seeds or (),
            hooks or {},
        )
        own, moving = dict(template.named_buffers()), _moving_statistics(template)
        self.buffers = {  # a member's own buffers, (N, ...): those that differ from the template's, or will
            k: v.clone() for k, v in (buffers or {}).items() if k in moving or not torch.equal(v, own[k].expand_as(v))
        }
        first = next(iter(parameters.values()))
        self.size = len(first)
        self.at_once = examples_at_once(template, x, self.size)
        self.shapes = self._shapes(parameters)
        self.flat = first.new_empty(sum(s.numel() for s in self.shapes.values()))
        self.flat.grad = self.grad = torch.zeros_like(self.flat)
        for name, view in self.named(self.flat).items():
            view.copy_(parameters[name])

    def _shapes(self, parameters: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        """Return the shapes of the blocks, by name."""
        return {k: v.shape for k, v in parameters.items()}

    def blocks(self, flat: Tensor) -> dict[str, Tensor]:
        """Return a flat tensor as its blocks, by name."""
        pieces = flat.split([s.numel() for s in self.shapes.values()])
        return {k: piece.view(s) for (k, s), piece in zip(self.shapes.items(), pieces)}

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return a flat tensor as views (N, *shape), by the name of the parameter."""
        return self.blocks(flat)

    def parameters(self) -> dict[str, Tensor]:
        """Return copies by name, (N, *shape)."""
        return {k: v.clone(memory_format=torch.contiguous_format) for k, v in self.named(self.flat).items()}

    def copy_where(self, members: Tensor, source: Tensor) -> None:
        """Overwrite the parameters of some members by those in another flat tensor."""
        for view, other in zip(self.blocks(self.flat).values(), self.blocks(source).values()):
            view[members] = other[members]

    def outputs(self, x):
        """Return every member's outputs (N, B, ...) for the same inputs (B, ...), in evaluation mode."""
        raise NotImplementedError

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        raise NotImplementedError

    def call_hooks(self) -> None:
        """Hand the gradients of each member to the hooks of their parameters, as a pass back through the module does."""
        grads = self.named(self.grad) if self.hooks else {}
        for name, hooks in self.hooks.items():
            for hook in hooks:
                for grad in grads[name]:
                    changed = hook(grad.clone())
                    if changed is not None:
                        grad.copy_(changed)

    def losses(self, x, y) -> Tensor:
        """Return the mean loss of every member over the same examples, (N,)."""
        step, total, n = self.at_once, torch.zeros(()), n_examples(x)
        with torch.no_grad():
            for i in range(0, n, step):
                here = slice(i, i + step)
                out, target = self.outputs(take(x, here)), take(y, here)
                each = [self.loss(take(out, k), target) for k in range(self.size)]
                total = total + torch.stack(each).double() * n_examples(target)
        return total / n


class BatchedStack(Stack):
    """Any module that `torch.func` can batch: one vmap over members forward, one ordinary pass back."""

    def __init__(self, template, parameters, x, y, loss, buffers=None, seeds=None, hooks=None):
        super().__init__(template, parameters, x, y, loss, buffers, seeds, hooks)
        self.work: dict[tuple, Tensor] = {}
        self.evaluated = copied(template).eval()

    def _gather(self, table, index: Tensor):
        """Return some examples for each member, (N, B, ...), in memory that stays: fresh pages cost more than the copy."""
        if not isinstance(table, Tensor):
            return tree_map(lambda t: self._gather(t, index), table)
        key = id(table), index.shape[1]
        if key not in self.work:
            self.work[key] = table.new_empty(index.numel(), *table.shape[1:])
        torch.index_select(table, 0, index.reshape(-1), out=self.work[key])
        return self.work[key].unflatten(0, index.shape)

    def _member_loss(self, own, fixed, x, y, weight=None):
        return _weighted_loss(self.loss, functional_call(self.template, {**own, **fixed}, *arguments(x)), y, weight)

    def outputs(self, x):
        """Return every member's outputs (N, B, ...) for the same inputs (B, ...), in evaluation mode."""
        state = {**self.named(self.flat), **self.buffers}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=SLOW)
            return vmap(lambda own: functional_call(self.evaluated, own, *arguments(x)))(state)

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        x = self._gather(self.x, index)
        y = x if self.y is self.x else self._gather(self.y, index)
        own = {k: v.detach().requires_grad_() for k, v in self.named(self.flat).items()}
        with torch.enable_grad():
            losses = vmap(self._member_loss)(own, self.buffers, x, y, *(() if weight is None else (weight,)))
            slopes = torch.autograd.grad(losses.sum(), list(own.values()), materialize_grads=True)
        torch._foreach_copy_(list(self.named(self.grad).values()), list(slopes))
        self.call_hooks()


class LoopedStack(Stack):
    """Any other module, one member after another; dropout draws from each member's own stream."""

    steps = 0

    def outputs(self, x):
        """Return every member's outputs (N, B, ...) for the same inputs (B, ...), in evaluation mode."""
        model = copied(self.template).eval()
        state = {**self.named(self.flat), **self.buffers}
        own = ({k: v[i] for k, v in state.items()} for i in range(self.size))
        each = [functional_call(model, p, *arguments(x)) for p in own]
        return tree_map(lambda *t: torch.stack(t), *each)

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        self.steps += 1
        views, grads = self.named(self.flat), self.named(self.grad)
        with kept_stream(), torch.enable_grad():
            for i in range(self.size):
                torch.manual_seed((self.seeds[i] + self.steps) % 2**63)
                own = {k: v[i].detach().requires_grad_() for k, v in views.items()}
                fixed = {k: v[i] for k, v in self.buffers.items()}
                out = functional_call(self.template, {**own, **fixed}, *arguments(take(self.x, index[i])))
                value = _weighted_loss(self.loss, out, take(self.y, index[i]), None if weight is None else weight[i])
                for name, g in zip(own, torch.autograd.grad(value, list(own.values()), materialize_grads=True)):
                    grads[name][i].copy_(g)
        self.call_hooks()


def _weighted_loss(loss, out, y, weight: Tensor | None) -> Tensor:
    """Return the mean loss of a batch, each example counted `weight` times."""
    if weight is None:
        return loss(out, y)
    each = [loss(take(out, slice(i, i + 1)), take(y, slice(i, i + 1))) for i in range(n_examples(y))]
    return (weight * torch.stack(each)).mean()


def _moving_statistics(template: nn.Module) -> set[str]:
    """Return the names of buffers that training moves: the statistics of batch and instance normalisation."""
    norms = batch_norms(template, training=True, instance=True)
    return {f"{n}.{k}".lstrip(".") for n, m in norms.items() for k, _ in m.named_buffers(recurse=False)}
