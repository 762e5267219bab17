"""One training step of N networks at once: by hand for dense stacks, by vmap for other modules, else in a loop.

A stack keeps the parameters of all members in one flat tensor, so any elementwise optimiser moves them all in
one call and never mixes them. `gradient` fills ``flat.grad`` for a minibatch of each member.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Stack
from .dense import DenseStack
from .general import BatchedStack, LoopedStack
from .layers import dense_layers, loss_kind

__all__ = ["BatchedStack", "DenseStack", "LoopedStack", "stack_of"]


def stack_of(template: nn.Module, parameters, x: Tensor, y: Tensor, loss, seeds, buffers=None) -> Stack:
    """The fastest stack that trains this module on these data."""
    dtype, kind = next(iter(parameters.values())).dtype, loss_kind(loss)
    fits = (
        x.ndim == 2
        and x.dtype == dtype
        and ((kind == "mse" and y.ndim == 2 and y.dtype == dtype) or (kind == "cross_entropy" and y.ndim == 1))
    )
    if dense_layers(template) and fits:
        return DenseStack(template, parameters, x, y, loss)
    stack = BatchedStack(template, parameters, x, y, loss, buffers)
    random = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in template.modules())
    if not random:
        before = {k: v.clone() for k, v in stack.fixed.items()}
        try:
            # two examples, as batch normalisation wants
            stack.gradient(torch.zeros(stack.size, min(2, len(x)), dtype=torch.long))
            stack.answers(x[:1])
            stack.fixed = before  # the trial has moved the statistics of batch normalisation
            return stack
        except (RuntimeError, ValueError):  # no batching rule, or a data-dependent branch
            pass
    return LoopedStack(template, parameters, x, y, loss, seeds, buffers)
