"""What the three estimators of `online` keep of a path of descent; V is the covariance of one example's worth.

Each is told of a step before (where it is, the gradient there, the examples) and after (where it came to), and answers
with ``covariances(average)``, a sum over chains of V for each block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

from ..checks import check_int
from ..network.parameters import flatten, positions, unflatten
from .inverse import FLOOR

__all__ = ["BatchMeans", "OnlineBatchMeans", "PlugIn", "batch_ends", "gauss_newton_trace"]

HELD = 64  # steps whose outer products are taken in one go, twenty times cheaper than one by one
CURVATURES = ("gauss_newton", "hessian")


class _Grams:
    """Sums of outer products of vectors (..., p), for blocks of their coordinates, taken many at a time."""

    def __init__(self, index: Sequence[Tensor]):
        self.index, self.held = index, []
        self.sums = [torch.zeros(*i.shape, i.shape[1], dtype=torch.float64) for i in index]

    def add(self, vectors: Tensor) -> None:
        self.held.append(vectors)
        if len(self.held) == HELD:
            self.total()

    def total(self) -> list[Tensor]:
        if self.held:
            rows = torch.stack(self.held).flatten(0, -2)
            for total, index in zip(self.sums, self.index):
                part = rows[:, index].transpose(0, 1)  # (k, rows, b)
                total.baddbmm_(part.mT, part)
            self.held = []
        return self.sums


class PlugIn:
    """A^-1 B A^-1 of curvature and gradients met on the way (Chen, Lee, Tong and Zhang 2020, section 3)."""

    def __init__(self, net, data, loss, index: Sequence[Tensor], curvature: str):
        if curvature not in CURVATURES:
            raise ValueError(f"curvature must be one of {', '.join(CURVATURES)}, got {curvature!r}")
        size, self.free = len(flatten(net)), positions(net)
        self.net, self.data, self.loss, self.index, self.start = net, data, loss, index, flatten(net)
        self.mean = _hessians if curvature == "hessian" else _gauss_newton
        self.outer, self.curved = _Grams([torch.arange(size)[None]]), torch.zeros(size, size, dtype=torch.float64)
        self.pairs, self.count, self.batch, self.raised = [], 0, 1, 0

    def before(self, away: Tensor, gradient: Tensor, drawn: Tensor) -> None:
        self.outer.add(gradient)
        self.pairs.append((away.clone(), drawn))
        self.count, self.batch = self.count + 1, drawn.shape[1]
        if len(self.pairs) == HELD:
            self._bend()

    def after(self, i: int, away: Tensor) -> None:
        pass

    def _bend(self) -> None:
        if self.pairs:
            where = torch.cat([a.repeat_interleave(self.batch, 0) for a, _ in self.pairs]) + self.start
            drawn = torch.cat([d.reshape(-1) for _, d in self.pairs])
            self.curved += self.mean(self.net, where, self.data[0][drawn], self.data[1][drawn], self.loss)
            self.pairs = []

    def covariances(self, average: Tensor) -> list[Tensor]:
        self._bend()
        chains = len(average)
        curved, outer = (
            self.curved / (self.count * chains * self.batch),
            self.outer.total()[0][0] / (self.count * chains),
        )
        square = self.free[:, None], self.free
        eigenvalues, eigenvectors = torch.linalg.eigh(curved[square])
        if not (eigenvalues > 0).any():
            raise ValueError(
                "loss must have curvature along the path, got a Gauss-Newton matrix of zeros: see `sandwich`"
            )
        floor = FLOOR * eigenvalues[eigenvalues > 0].median()
        self.raised = int((eigenvalues < floor).sum())
        inverse = (eigenvectors / eigenvalues.clamp(min=floor)) @ eigenvectors.T
        product = inverse @ outer[square] @ inverse * chains
        full = torch.zeros_like(curved)
        full[square] = (product + product.T) / 2  # rounding at a condition of 1e4 leaves it asymmetric
        return [torch.stack([full[row[:, None], row] for row in i]) for i in self.index]

    def report(self) -> dict:
        return {"raised": self.raised}


class BatchMeans:
    """The scatter of the means of growing batches of iterates (Chen, Lee, Tong and Zhang 2020, section 4)."""

    def __init__(self, index: Sequence[Tensor], steps: int, alpha: float, batches: int | None):
        self.index, self.ends, self.means, self.sum = index, batch_ends(steps, alpha, batches), [], 0.0

    def before(self, away: Tensor, gradient: Tensor, drawn: Tensor) -> None:
        pass

    def after(self, i: int, away: Tensor) -> None:
        self.sum = self.sum + away
        if i == self.ends[len(self.means)]:
            self.means.append(self.sum)
            self.sum = 0.0

    def covariances(self, average: Tensor) -> list[Tensor]:
        """The first batch, which remembers the start, is left out."""
        sums, ends = torch.stack(self.means[1:]), torch.tensor(self.ends, dtype=torch.float64)
        sizes = ends.diff()[:, None, None]
        scatter = (sums / sizes - sums.sum(0) / sizes.sum()) * (sizes / len(sums)).sqrt()
        found = _Grams(self.index)
        found.add(scatter)
        return found.total()

    def report(self) -> dict:
        return {"batches": len(self.ends) - 1}


class OnlineBatchMeans:
    """Batches whose beginnings are fixed in advance, one estimate after every step (Zhu, Chen and Wu 2023).

    At step i the sum s of the iterates since the last beginning, l of them, stands for all of the batch so far:
    ``V = sum_i (s_i - l_i w) (s_i - l_i w).T / sum_i l_i`` with w the average of all.
    """

    def __init__(self, index: Sequence[Tensor], alpha: float):
        self.index, self.power = index, 2 / (1 - alpha)
        self.grams, self.batch, self.sum, self.length = _Grams(index), 0, 0.0, 0
        self.cross, self.squares, self.lengths = 0.0, 0, 0

    def before(self, away: Tensor, gradient: Tensor, drawn: Tensor) -> None:
        pass

    def after(self, i: int, away: Tensor) -> None:
        if i >= int((self.batch + 1) ** self.power):
            self.batch, self.sum, self.length = self.batch + 1, 0.0, 0
        self.sum, self.length = self.sum + away, self.length + 1
        self.grams.add(self.sum)
        self.cross = self.cross + self.length * self.sum
        self.squares, self.lengths = self.squares + self.length**2, self.lengths + self.length

    def covariances(self, average: Tensor) -> list[Tensor]:
        found = []
        for total, index in zip(self.grams.total(), self.index):
            mean, cross = (t[:, index].transpose(0, 1) for t in (average, self.cross))  # (k, chains, b)
            both = cross.mT @ mean
            found.append((total + self.squares * mean.mT @ mean - both - both.mT) / self.lengths)
        return found

    def report(self) -> dict:
        return {"batches": self.batch}


def batch_ends(steps: int, alpha: float, batches: int | None = None) -> list[int]:
    """Where the batches of `BatchMeans` end, the first of which is thrown away: (batches + 1,).

    Iterates remember ``i ** alpha`` steps, so batches grow: the k-th ends at ``((k + 1) N) ** (1 / (1 - alpha))``, with
    N such that the last ends at `steps`. By default there are ``steps ** ((1 - alpha) / 2)``.
    """
    batches = int(steps ** ((1 - alpha) / 2)) if batches is None else check_int(batches, "batches", 2)
    unit = steps ** (1 - alpha) / (batches + 1)
    ends = [int(((k + 1) * unit) ** (1 / (1 - alpha)) + 1e-9) for k in range(batches)] + [steps]
    if len(set(ends)) < len(ends) or ends[0] < 1:
        raise ValueError(f"batches must be fewer for {steps} steps, got {batches}: some would be empty")
    return ends


def gauss_newton_trace(net, data, loss, most: int = 256) -> float:
    """The mean over examples of the trace of the Gauss-Newton matrix: how large a step may be."""
    some = torch.linspace(0, len(data[0]) - 1, min(most, len(data[0]))).long()
    where = flatten(net).expand(len(some), -1)
    return float(_gauss_newton(net, where, data[0][some], data[1][some], loss).trace()) / len(some)


def _answer(net):
    """The network's answer to one example as a function of its parameters as one vector."""

    def answer(vector, x):
        return functional_call(net, unflatten(net, vector), (x[None],))

    return answer


def _hessian(function):
    # torch's own goes forward over reverse, through rules that need torch.jit, which is deprecated
    return jacrev(jacrev(function))


def _chunked(function, total, where: Tensor, x: Tensor, y: Tensor, numbers: int, one=None) -> Tensor:
    """Return the total over pairs of parameters and example, as many at a time as keep `numbers` in bounds.

    Args:
        function: of one pair, batched by vmap
        total: of what it gives for several
        one: the same function, for pairs that vmap cannot batch
    """
    many, result = max(1, (1 << 24) // max(1, numbers)), 0.0
    for part in zip(where.split(many), x.split(many), y.split(many)):
        try:
            values = vmap(function)(*part)
        except (RuntimeError, NotImplementedError):
            each = [(one or function)(*pair) for pair in zip(*part)]
            values = tuple(map(torch.stack, zip(*each))) if isinstance(each[0], tuple) else torch.stack(each)
        result = result + (total(*values) if isinstance(values, tuple) else total(values))
    return torch.as_tensor(result).detach()


def _hessians(net, where: Tensor, x: Tensor, y: Tensor, loss) -> Tensor:
    """The summed second derivatives of the loss of example i at the parameters i, (p, p)."""
    answer = _answer(net)
    return _chunked(_hessian(lambda w, a, b: loss(answer(w, a), b[None])), _summed, where, x, y, where.shape[1] ** 2)


def _gauss_newton(net, where: Tensor, x: Tensor, y: Tensor, loss) -> Tensor:
    """Likewise of the Gauss-Newton matrices J.T H J, with J that of the network and H that of the loss."""
    answer = _answer(net)

    def each(w, a, b):
        out = answer(w, a)
        bend = _hessian(lambda o: loss(o.view_as(out), b[None]))(out.reshape(-1))
        return jacrev(lambda v: answer(v, a).reshape(-1))(w), bend

    def one(w, a, b):  # a pass that torch.func cannot differentiate, such as that of a recurrent layer
        out = answer(w, a).detach()
        bend = _hessian(lambda o: loss(o.view_as(out), b[None]))(out.reshape(-1))
        return torch.autograd.functional.jacobian(lambda v: answer(v, a).reshape(-1), w), bend

    def product(slope, bend):
        return slope.flatten(0, 1).T @ (bend @ slope).flatten(0, 1)

    with torch.no_grad():
        outputs = answer(where[0], x[0]).numel()
    return _chunked(each, product, where, x, y, where.shape[1] * outputs, one)


def _summed(each: Tensor) -> Tensor:
    return each.sum(0)
