"""The descent of N posteriors side by side: their objective, examples and random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...checks import check_int, n_examples, take
from ...network.modules import copied
from ...network.parameters import unflatten
from ...training import Bounded, Data
from ...training.options import NOT_ELEMENTWISE, optimizer_of
from ...training.starts import spawn
from ..gaussian import Block, GaussianPosterior
from .families import Diagonal
from .networks import Group

__all__ = ["AT_ONCE", "Fit", "Rows"]

AT_ONCE = 1 << 20  # numbers held while the whole data are looked at
DRAWN_AT_ONCE = 1 << 16  # standard normals drawn ahead for a posterior


class Fit:
    """The objective of N posteriors, and its descent."""

    def __init__(self, groups: Sequence[Group], network, likelihood, prior, rows: Rows, streams, template: nn.Module):
        self.groups, self.network, self.rows, self.template = groups, network, rows, template
        self.random = [i for i, g in enumerate(groups) if g.family is not None]
        self.likelihood, self.prior, self.draws = likelihood, prior, network.draws
        self.normals = Normals(streams, groups[0].mean)

    @property
    def draws_outputs(self) -> bool:
        """Return whether anything is drawn at all."""
        return self.network.normals(1) > 0

    def roots(self) -> list:
        """Return square roots of the covariances of all groups, None where there is none."""
        return [None if g.family is None else g.family.root() for g in self.groups]

    def energy(self, x, y, roots, z: Tensor) -> Tensor:
        """Return the mean loss of a batch that the likelihood is made of, (N,)."""
        out, variance = self.network(x, roots, z)
        return self.likelihood.energy(out, variance, y if _batch(out) == _batch(y) else _repeat(y, self.draws))

    def kl(self, roots) -> Tensor:
        """Return the divergence from the prior, (N,)."""
        twice = self.prior.distance([self.groups[i].mean for i in self.random]) + (self.prior.logdet - self.prior.size)
        for k, i in enumerate(self.random):
            family = self.groups[i].family
            twice = twice + family.trace(roots[i], self.prior.weight(k)) - family.logdet(roots[i])
        return twice / 2

    def inputs(self, x) -> tuple[Any, Tensor]:
        """Return the batch, repeated where outputs are drawn for each example, and the normals for it."""
        x = _repeat(x, self.draws) if self.network.local and self.draws_outputs else x
        return x, self.normals.take(self.network.normals(_batch(x)))

    def train(self, epochs: int, make, kl_weight: float, progress) -> Tensor:
        """Descend, and return the objective in every epoch, (epochs, N)."""
        move = self._optimizer(make)
        rates, history = [g["lr"] for g in move.param_groups], []
        bends = type(move).__name__ == "LBFGS"
        for epoch in progress(range(epochs)):
            for group, rate in zip(move.param_groups, rates):
                group["lr"] = rate if bends else rate * min(1.0, 2 * (1 - epoch / epochs))
            total, energy = 0.0, 0.0
            for x, y in self.rows.epoch():
                objective, mean_loss = self._step(move, x, y, kl_weight)
                share = _batch(x) / self.rows.count
                total, energy = total + share * objective, energy + share * mean_loss
                if isinstance(self.template, Bounded):
                    self._keep_bounds(self.template)
            self.likelihood.update(energy)
            history.append(total)
            if bends and epoch and torch.equal(history[-1], history[-2]):
                break  # it stands, and would divide by the nothing it has moved
        return torch.stack(history) if history else torch.zeros(0, len(self.groups[0].mean))

    @torch.no_grad()
    def _keep_bounds(self, bounded: Bounded) -> None:
        """Bring the means of all posteriors back to where the parameters of the module may be."""
        first = self.groups[0].mean
        means = first.new_empty(len(first), sum(g.index.numel() for g in self.groups))
        for group in self.groups:
            means[:, group.index] = group.mean
        bounded.keep_bounds(unflatten(self.template, means))
        for group in self.groups:
            group.mean.copy_(means[:, group.index])

    def _step(self, move, x, y, kl_weight) -> tuple[Tensor, Tensor]:
        x, z = self.inputs(x)  # drawn once, so that a line search sees one function
        seen = []

        def closure():
            move.zero_grad()
            with torch.enable_grad():
                roots = self.roots()
                energy = self.energy(x, y, roots, z)
                fit = self.likelihood.nll(energy, self.rows.steps == 1)
                objective = torch.add(fit, self.kl(roots), alpha=kl_weight / self.rows.count)
                total = objective.sum()
            total.backward()
            seen.append((objective.detach(), energy.detach()))
            return total

        move.step(closure)
        return seen[0]

    def _optimizer(self, make):
        means = [g.mean for g in self.groups if g.mean.requires_grad]
        scales = [leaf for i in self.random for leaf in self.groups[i].family.leaves()]
        if make is None:
            return torch.optim.Adam(means + scales, lr=1e-3, fused=True)
        move = optimizer_of(make, means + scales)
        name = type(move).__name__
        if name == "LBFGS" and self.rows.steps > 1:
            raise ValueError("optimizer LBFGS needs the same examples in every step: give batch_size=None")
        if name in NOT_ELEMENTWISE and len(self.groups[0].mean) > 1:
            raise ValueError(f"optimizer {name} mixes parameters, and so the members: take Adam or SGD")
        return move

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Return the expected negative log-likelihood of an example and the divergence, each (N,); set the noise."""
        roots, energy = self.roots(), 0.0
        size, count = len(self.groups[0].mean), self.rows.count
        step = max(1, AT_ONCE // (size * self.network.memory))
        drawn = count if self.network.local else math.ceil(count / step)  # draws in a pass, each for itself
        repeats = math.ceil((4000 if self.network.local else 40) / (drawn * self.draws)) if self.draws_outputs else 1
        for x, y in self.rows.all(step):
            share = _batch(x) / count / repeats
            for _ in range(repeats):
                more, z = self.inputs(x)
                energy = energy + share * self.energy(more, y, roots, z)
        self.likelihood.update(energy)
        return self.likelihood.nll(energy), self.kl(roots)

    def posteriors(self, model: nn.Module, report: dict, history: Tensor) -> list[GaussianPosterior]:
        """Return the posteriors, with their reports."""
        nll, kl = self.evaluate()
        bad = (~torch.isfinite(nll + kl)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"training diverged for members {bad[:5]}: lower the learning rate of the optimizer")
        covs = {i: self.groups[i].family.cov() for i in self.random}
        posteriors = []
        for i in range(len(nll)):
            mean = torch.empty(sum(g.index.numel() for g in self.groups), dtype=torch.float64)
            for group in self.groups:
                mean[group.index] = group.mean[i].detach().double().cpu()
            parts = [b for j in self.random for b in _blocks(self.groups[j], covs[j][i])]
            own = {
                "nll": float(nll[i]),
                "kl": float(kl[i]),
                "elbo": -float(nll[i].double() * self.rows.count + kl[i]),
                "history": history[:, i],
            }
            own |= self.likelihood.report(i)
            posteriors.append(GaussianPosterior(copied(model), mean, tuple(parts), report | own))
        return posteriors


class Rows:
    """The examples that each member sees, and their minibatches."""

    def __init__(self, data: Data, n_models: int, resample: Tensor | None, batch_size: int | None, seeds):
        (self.x, self.y), self.n_models, self.resample = data, n_models, resample
        self.count = n_examples(self.x) if resample is None else resample.shape[1]
        self.batch = self.count if batch_size is None else min(check_int(batch_size, "batch_size", 1), self.count)
        self.steps = math.ceil(self.count / self.batch)
        self.streams = [torch.Generator().manual_seed(spawn(s, 2)) for s in seeds]
        self.held = None

    def take(self, index: Tensor) -> tuple[Any, Any]:
        """Return the examples index (N, B)."""

        def rows(t: Tensor) -> Tensor:
            return t.index_select(0, index.reshape(-1)).unflatten(0, index.shape)

        x = tree_map(rows, self.x)
        return x, x if self.y is self.x else tree_map(rows, self.y)

    def all(self, size: int) -> Iterator[tuple[Any, Any]]:
        """Yield all examples in order, `size` at a time."""
        for i in range(0, self.count, size):
            if self.resample is None:
                here = take((self.x, self.y), slice(i, i + size))
                yield tree_map(lambda t: t.expand(self.n_models, *t.shape), here)
            else:
                yield self.take(self.resample[:, i : i + size])

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """Yield minibatches in an order of each member's own; all at once need none."""
        if self.steps == 1:
            self.held = next(iter(self.all(self.count))) if self.held is None else self.held
            yield self.held
            return
        order = torch.stack([torch.randperm(self.count, generator=g) for g in self.streams])
        chosen = order if self.resample is None else self.resample.gather(1, order)
        yield from (self.take(index) for index in chosen.split(self.batch, dim=1))


class Normals:
    """Standard normals of each member's own stream, drawn ahead: a call for each member and step would cost more."""

    def __init__(self, streams: Sequence[torch.Generator], like: Tensor):
        self.streams, self.like, self.ahead = streams, like, like.new_empty(len(streams), 0)

    def take(self, width: int) -> Tensor:
        """Return the next (N, width)."""
        if width > self.ahead.shape[1]:
            size = max(width, DRAWN_AT_ONCE // width * width)
            drawn = torch.stack([torch.randn(size, generator=g, dtype=self.like.dtype) for g in self.streams])
            self.ahead = drawn.to(self.like.device)
        here, self.ahead = self.ahead[:, :width], self.ahead[:, width:]
        return here


def _blocks(group: Group, cov: Tensor) -> list[Block]:
    """Return the covariance (k, b, b) of a group, cut where it is zero by construction."""
    if type(group.family) is Diagonal:
        return [Block(group.index.reshape(-1, 1), cov.diagonal(dim1=1, dim2=2).reshape(-1, 1, 1))]
    linked = getattr(group.family, "mask", None)
    if linked is None:
        return [Block(group.index, cov)]
    linked = (linked + linked.mT).cpu() > 0
    linked.fill_diagonal_(True)
    parts = [row.nonzero().flatten() for row in linked.unique(dim=0)]
    return [Block(group.index[:, at], cov[:, at][:, :, at]) for at in parts]


def _batch(part) -> int:
    """Return B of inputs, targets or outputs (N, B, ...)."""
    return tree_leaves(part)[0].shape[1]


def _repeat(part, draws: int):
    """Return (N, B, ...) as (N, S B, ...), the batch again and again."""
    return part if draws == 1 else tree_map(lambda t: t.repeat(1, draws, *[1] * (t.ndim - 2)), part)
