"""Gradients of single examples, and sums of their outer products, also for examples that follow one another in time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from ..training.dense import dense_layers as stack_layers
from .problem import Problem

__all__ = ["SLOPES", "Dense", "Grams", "LongRun", "Traced", "between", "dense_layers", "rows_of", "runs_of"]

# activation -> gradient by the sum that enters, from the gradient d by the value h that leaves, in place
SLOPES: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    nn.Identity: lambda d, h: d,
    nn.ReLU: lambda d, h: d.mul_(h > 0),
    nn.Tanh: lambda d, h: d.mul_(1 - h * h),
    nn.Sigmoid: lambda d, h: d.mul_(h * (1 - h)),
}


def dense_layers(net: nn.Module) -> list[tuple[str, type]]:
    """The Linear layers of a Sequential, each with the activation after it; none if it holds anything else."""
    return [(layer.name, layer.activation) for layer in stack_layers(net) or ()]


class Grams:
    """Sums over rows r of r r.T, only between the columns that stand together in a block.

    Args:
        blocks: numbers of columns, each (k, b)
    """

    def __init__(self, blocks: Sequence[Tensor]):
        self.blocks = blocks
        self.sums = [torch.zeros(*b.shape, b.shape[1], dtype=torch.float64) for b in blocks]

    def add(self, rows: Tensor) -> None:
        """Take rows (c, p)."""
        for block, total in zip(self.blocks, self.sums):
            if len(block) == 1:
                _add_triangle(total[0], _columns(rows, block[0]))
            elif block.shape[1] == 1:
                total[:, 0, 0] += _columns(rows, block[:, 0]).square().sum(0)
            else:
                own = rows[:, block].transpose(0, 1)
                total.baddbmm_(own.mT, own)

    def finish(self) -> list[Tensor]:
        """The sums, (k, b, b) each."""
        for block, total in zip(self.blocks, self.sums):
            if len(block) == 1:
                _mirror(total[0])
        return self.sums


class LongRun:
    """The same with the products of rows up to `lags` apart, by the weights of Bartlett: Newey and West (1987).

    Weighted so, the products are those of sums of lags + 1 neighbours, of which all there are, the incomplete ones at
    both ends too, are taken. So a lag costs nothing, and the result has no negative eigenvalue.
    """

    def __init__(self, grams: Grams, lags: int):
        self.grams, self.lags, self.before = grams, lags, None

    def add(self, rows: Tensor, last: bool) -> None:
        """Take rows (c, p) that follow the ones before, and whether a recording ends with them."""
        if not self.lags:
            self.grams.add(rows)
            return
        if self.before is None:
            self.before = rows.new_zeros(self.lags, rows.shape[1])
        self._slide(rows)
        if last:
            self._slide(rows.new_zeros(self.lags, rows.shape[1]))  # and so the next recording begins after nothing

    def _slide(self, rows: Tensor) -> None:
        joined = torch.cat([self.before, rows])
        self.before = joined[len(rows) :].clone()
        reach = joined.cumsum(0)
        sums = reach[self.lags :].clone()
        sums[1:] -= reach[: len(rows) - 1]
        self.grams.add(sums)

    def finish(self) -> list[Tensor]:
        """The sums, (k, b, b) each."""
        return [total.div_(self.lags + 1) for total in self.grams.finish()]


def between(outer: Tensor, inner: Tensor) -> Tensor:
    """``outer @ inner @ outer`` of symmetric matrices (k, b, b), in place of the inner one."""
    if len(outer) > 1:
        width = max(1, NUMBERS // inner.shape[1] ** 2)
        for of, total in zip(outer.split(width), inner.split(width)):  # a few at a time, so that no others are held
            product = of @ total @ of
            total.copy_((product + product.mT) / 2)
        return inner
    half = outer @ inner
    step = _step(inner.shape[1])
    for i in range(0, inner.shape[1], step):
        inner[0, i : i + step, i:] = half[0, i : i + step] @ outer[0, :, i:]
    _mirror(inner[0])
    return inner


def runs_of(n: int, groups: Tensor | None) -> list[tuple[int, int]]:
    """Where recordings begin and end, by labels (n,) that change at their joints."""
    if groups is None:
        return [(0, n)]
    joints = ((groups[1:] != groups[:-1]).nonzero().flatten() + 1).tolist()
    return list(zip([0, *joints], [*joints, n]))


def _columns(rows: Tensor, columns: Tensor) -> Tensor:
    """Without a copy where they are neighbours."""
    first, last = int(columns[0]), int(columns[-1])
    if last - first + 1 == len(columns) and (columns.diff() == 1).all():
        return rows[:, first : last + 1]
    return rows[:, columns]


def _step(size: int) -> int:
    return max(128, -(-size // 8))


def _add_triangle(total: Tensor, rows: Tensor) -> None:
    """Only the blocks on and above the diagonal."""
    step = _step(len(total))
    for i in range(0, len(total), step):
        total[i : i + step, i:].addmm_(rows[:, i : i + step].T, rows[:, i:])


def _mirror(total: Tensor) -> None:
    step = _step(len(total))
    for i in range(0, len(total), step):
        corner = total[i : i + step, i : i + step]
        corner.copy_(corner.triu() + corner.triu(1).T)
        total[i + step :, i : i + step] = total[i : i + step, i + step :].T


HELD = 1 << 25  # bytes of rows at a time
NUMBERS = 1 << 22  # of matrices multiplied at a time: 32 MB


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
