"""What every way to train side by side shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Stack"]

EVALUATED_AT_ONCE = 1 << 22  # numbers an answer of the whole stack may hold


def gathered(template: nn.Module) -> set[str]:
    """Names of the buffers that training moves: the statistics of batch and instance normalisation."""
    norms = {n: m for n, m in template.named_modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training}
    return {f"{n}.{k}".lstrip(".") for n, m in norms.items() for k, _ in m.named_buffers(recurse=False)}


class Stack:
    """The flat parameters, their views, and losses over many examples.

    The flat tensor is a row of blocks, each (N, ...): here one for every parameter.
    """

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
        own, moving = dict(template.named_buffers()), gathered(template)
        self.fixed = {  # a member's own buffers, (N, ...): those that differ from the template's, or will
            k: v.clone() for k, v in (buffers or {}).items() if k in moving or not torch.equal(v, own[k].expand_as(v))
        }
        first = next(iter(parameters.values()))
        self.size = len(first)
        self.shapes = self._shapes(parameters)
        self.flat = first.new_empty(sum(s.numel() for s in self.shapes.values()))
        self.flat.grad = torch.zeros_like(self.flat)
        for name, view in self.named(self.flat).items():
            view.copy_(parameters[name])

    def _shapes(self, parameters: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        """Of the blocks, by name."""
        return {k: v.shape for k, v in parameters.items()}

    def blocks(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat tensor as its blocks, by name."""
        pieces = flat.split([s.numel() for s in self.shapes.values()])
        return {k: piece.view(s) for (k, s), piece in zip(self.shapes.items(), pieces)}

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat tensor as views (N, *shape), by the name of the parameter."""
        return self.blocks(flat)

    def parameters(self) -> dict[str, Tensor]:
        """By name, (N, *shape), copies."""
        return {k: v.clone(memory_format=torch.contiguous_format) for k, v in self.named(self.flat).items()}

    def copy_where(self, members: Tensor, source: Tensor) -> None:
        """Overwrite the parameters of some members by those in another flat tensor."""
        for view, other in zip(self.blocks(self.flat).values(), self.blocks(source).values()):
            view[members] = other[members]

    def answers(self, x: Tensor) -> Tensor:
        """(B, ...) -> (N, B, ...)."""
        raise NotImplementedError

    def gradient(self, index: Tensor, weight: Tensor | None = None) -> None:
        """Fill ``flat.grad`` for the examples index (N, B), each counted `weight` (N, B) times."""
        raise NotImplementedError

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
