"""Gradients of single examples: row i is J_i.T v_i, with J_i the derivative of an answer by the random parameters.

With v the slope of the loss these are the scores, with the roots of its second derivative the rows of which the
Gauss-Newton matrix is the Gram matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from .layers import SLOPES, dense_layers
from .problem import Problem

__all__ = ["Dense", "Traced", "rows_of"]

HELD = 1 << 25  # bytes of rows at a time


def rows_of(problem: Problem) -> Dense | Traced:
    """The fastest way to the rows of this network."""
    return Dense(problem) if dense_layers(problem.net) and problem.x.ndim == 2 else Traced(problem)


class _Rows:
    def __init__(self, problem: Problem):
        self.net, self.free = problem.net, problem.free
        self.named = {k: p.detach() for k, p in problem.net.named_parameters()}
        self.width = sum(self.named[k].numel() for k in self.free)


class Dense(_Rows):
    """Linear layers with simple activations: outer products of what enters and what comes back, without autograd."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.layers = dense_layers(problem.net)
        self.first = min(
            i for i, (name, _) in enumerate(self.layers) if any(k.startswith(f"{name}.") for k in self.free)
        )
        self.chunk = max(1, min(4096, HELD // (8 * self.width)))
        self.work = torch.empty(0, self.width, dtype=torch.float64)

    def at(self, x: Tensor) -> Tensor:
        """Go to some examples (c, in); their answers, (c, out)."""
        self.values = [x]
        for name, kind in self.layers:
            z = nn.functional.linear(self.values[-1], self.named[f"{name}.weight"], self.named.get(f"{name}.bias"))
            self.values.append(kind()(z))
        return self.values[-1]

    def rows(self, v: Tensor) -> Tensor:
        """Rows (c, p) for one v for each example, (c, out); they stay until the next call."""
        if len(self.work) < len(v):
            self.work = torch.empty(len(v), self.width, dtype=torch.float64)
        found = self.work[: len(v)]
        parts = dict(zip(self.free, found.split([self.named[k].numel() for k in self.free], 1)))
        for i, d in self.back(v):
            name, entered = self.layers[i][0], self.values[i]
            if f"{name}.weight" in parts:
                part = parts[f"{name}.weight"].unflatten(1, (d.shape[1], -1))
                torch.mul(d[:, :, None], entered[:, None, :], out=part)
            if f"{name}.bias" in parts:
                parts[f"{name}.bias"].copy_(d)
        return found

    def back(self, v: Tensor) -> Iterator[tuple[int, Tensor]]:
        """What comes back to the sums of each layer (c, units), from the last to the first that is random."""
        d = v.clone()
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            name, kind = self.layers[i]
            d = SLOPES[kind](d, self.values[i + 1])
            yield i, d
            d = d @ self.named[f"{name}.weight"]


class Traced(_Rows):
    """Any module, example by example in one `vmap`, or in a loop where it has no rule for that."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.held = {**self.named, **{k: b.detach() for k, b in problem.net.named_buffers()}}
        self.chunk = max(1, min(1024, HELD // (32 * self.width)))
        self.batched = True

    def at(self, x: Tensor) -> Tensor:
        """Go to some examples; their answers."""
        self.x = x
        with torch.no_grad():
            return self.net(x)

    def rows(self, v: Tensor) -> Tensor:
        """Rows (c, p) for one v for each example, shaped as its answer."""
        if self.batched:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    return self._flat(vmap(self._one)(self.x, v))
            except RuntimeError:
                self.batched = False
        found = [self._one(x, w) for x, w in zip(self.x, v)]
        return self._flat({k: torch.stack([f[k] for f in found]) for k in self.free})

    def _one(self, x: Tensor, v: Tensor) -> dict[str, Tensor]:
        def answer(own):
            return functional_call(self.net, {**self.held, **own}, (x[None],))

        return vjp(answer, {k: self.named[k] for k in self.free})[1](v[None])[0]

    def _flat(self, found: dict[str, Tensor]) -> Tensor:
        return torch.cat([found[k].detach().reshape(len(self.x), -1) for k in self.free], 1)
